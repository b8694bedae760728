"""Autoencoders with noise, adversaries, denoisers, contrast; and what begins from a trained network."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.starts import data
from tests.benchmarks.starts.case import Case, Group, Loop
from tests.benchmarks.starts.faults import constant, drawn, fill, freeze, he, normal, scale, times
from tests.benchmarks.starts.loops import adam, adamw, energy_distance, gan_optimizers, gan_step, of_vae, sgd
from tests.benchmarks.starts.nets_vector import Denoiser, FineTune, Gan, Mlp, Siamese, Vae, adapted

flat = data.digits(image=False)

vae = Group("vae", "vae", Vae, data.reconstruction(image=False), of_vae, adam(1e-2), steps=250)
_VAE = (
    vae.case("default", reference=True),
    vae.case("he", start=he()),
    vae.case("log_variance_zero", constant("log_variance", 0.0), harmless=True),
    vae.case("decoder_div30", scale("decoder.0 decoder.2 decoder.4", 1 / 30), cause="too_small_vanish"),
    vae.case("x10", times(10), cause="too_large_explode"),
    vae.case(
        "variance_bias",
        constant("log_variance", 30.0, "bias"),
        cause="bad_bias",
        also="too_large_explode",
        layers="log_variance",
    ),
    vae.case("zero", fill(0.0), cause="zero_symmetric"),
)

gan = Group(
    "gan",
    "gan",
    Gan,
    data.rings(),
    energy_distance,
    adam(2e-3),
    steps=300,
    start=he(),
    loop=Loop(step=gan_step, optimizers=gan_optimizers(2e-3)),
)
_GAN = (
    gan.case("he", reference=True),
    gan.case("default", start=None),
    gan.case("generator_zero", constant("generator.0 generator.2 generator.4", 0.0), cause="zero_symmetric"),
    gan.case("generator_x100", scale("generator.0 generator.2 generator.4", 100), cause="too_large_explode"),
    gan.case(
        "generator_dead",
        constant("generator.2", -30.0, "bias"),
        cause="dead_relu",
        also="bad_bias",
        layers="generator.2",
    ),
    gan.case("lr_high", loop=Loop(step=gan_step, optimizers=gan_optimizers(1.0)), cause="lr_too_high"),
)

denoiser = Group("denoiser", "diffusion", Denoiser, data.noisy_digits(), F.mse_loss, adamw(2e-3), steps=250)
_GATES = " ".join(f"blocks.{i}.modulation.1" for i in range(3))
_DENOISER = (
    denoiser.case("default", reference=True),
    denoiser.case("ada_zero", constant(_GATES, 0.0), constant(_GATES, 0.0, "bias"), harmless=True, reference=True),
    denoiser.case(
        "ada_zero_out", constant(f"{_GATES} out", 0.0), constant(f"{_GATES} out", 0.0, "bias"), harmless=True
    ),
    denoiser.case("x10", times(10), cause="too_large_explode"),
    denoiser.case("out_x30", scale("out", 30), cause="bad_output_head", layers="out"),
    denoiser.case("stem_zero", constant("stem", 0.0), cause="zero_symmetric", layers="stem", harmless=True),
    denoiser.case("lr_high", optimizer=adamw(1.0), cause="lr_too_high"),
)

siamese = Group("siamese", "contrastive", Siamese, data.pairs(), F.cross_entropy, adam(1e-3), steps=150, start=he())
_SIAMESE = (
    siamese.case("he", reference=True),
    siamese.case("default", start=None),
    siamese.case("all_x100", times(100), harmless=True, cause="too_large_explode"),
    siamese.case("constant", fill(0.05), cause="constant_symmetric"),
    siamese.case("hot", constant("temperature", 8.0), cause="bad_output_head", also="too_large_explode"),
    siamese.case(
        "dead", constant("encoder.body.2", -30.0, "bias"), cause="dead_relu", also="bad_bias", layers="encoder.body.2"
    ),
)


@cache
def _trained() -> Mlp:
    """A perceptron that knows the digits: 200 steps, the same in every process, and chance is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(77)
        return _train()


def _train() -> Mlp:
    model = Mlp(depth=4)
    with torch.no_grad():
        he()(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _, (x, y) in zip(range(200), flat.batches(55), strict=False):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x), y))
        optimizer.step()
    return model


def _copy() -> Mlp:
    model = Mlp(depth=4)
    model.load_state_dict(_trained().state_dict())
    return model


def _lora() -> nn.Module:
    return adapted(_copy(), (2, 4, 6))


def _with_head() -> FineTune:
    return FineTune(_copy().body, 48, 2)


odd = data.Data(
    lambda seed: ((x, y % 2) for x, y in flat.batches(seed)), data.entropy(next(flat.batches(0))[1].new_tensor([0, 1]))
)


def fresh_head(model: nn.Module) -> None:
    """The head that belongs to the trained body is drawn anew."""
    nn.init.normal_(model.head.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    nn.init.zeros_(model.head.bias)  # type: ignore[union-attr, arg-type]


lora = Group("lora", "fine_tune", _lora, flat, F.cross_entropy, adamw(3e-3), steps=150, start=fresh_head)
_LORA = (
    lora.case("b_zero", reference=True),
    lora.case("b_drawn", drawn(" ".join(f"body.{i}.lora_B" for i in (2, 4, 6)), 0.02), harmless=True),
    lora.case(
        "both_zero",
        constant(" ".join(f"body.{i}.lora_A" for i in (2, 4, 6)), 0.0),
        harmless=True,
        cause="zero_symmetric",
    ),
    lora.case("b_x", drawn(" ".join(f"body.{i}.lora_B" for i in (2, 4, 6)), 10.0), cause="too_large_explode"),
)
tune = Group("fresh_head", "fine_tune", _with_head, odd, F.cross_entropy, adam(1e-3), steps=150)
_TUNE = (
    tune.case("default", reference=True),
    tune.case("frozen", freeze("backbone"), harmless=True),
    tune.case("head_zero", constant("head", 0.0), harmless=True),
    tune.case("head_n10", drawn("head", 10.0), cause="bad_output_head", layers="head"),
    tune.case(
        "random_frozen",
        normal(0.05),
        freeze("backbone"),
        cause="frozen_or_disconnected_layer",
        layers="backbone",
        also="too_small_vanish",
    ),
    tune.case("lr_high", optimizer=sgd(5.0), cause="lr_too_high", also="dead_relu"),
)

CASES: tuple[Case, ...] = (*_VAE, *_GAN, *_DENOISER, *_SIAMESE, *_LORA, *_TUNE)
