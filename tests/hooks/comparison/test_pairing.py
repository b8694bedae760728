from __future__ import annotations

from torch import nn

from initscope.hooks.comparison import pair_modules
from initscope.hooks.vocabulary import Kind
from initscope.hooks.wire import TensorInfo
from tests.support import networks as n
from tests.support.collector import info


def tensors_of(model: nn.Module) -> dict[int, TensorInfo]:
    return dict(n.watched(model, steps=1)[0].model.tensors)


def renamed(tensors: dict[int, TensorInfo], rename) -> dict[int, TensorInfo]:
    from dataclasses import replace

    return {key: replace(t, module_path=rename(t.module_path)) for key, t in tensors.items()}


def pairs(a: dict[int, TensorInfo], b: dict[int, TensorInfo]) -> list[tuple[str, str]]:
    return [(pair.a, pair.b) for pair in pair_modules(a, b).modules]


def test_the_same_model_pairs_every_tensor_with_itself_in_forward_order() -> None:
    tensors = tensors_of(n.mlp(4))
    pairing = pair_modules(tensors, tensors)
    assert [(p.a, p.b) for p in pairing.modules if p.a] == [(str(i), str(i)) for i in range(9)]
    assert (pairing.only_a, pairing.only_b) == ((), ())
    assert {t.key for p in pairing.modules for t, _ in p.tensors} == set(tensors)
    assert all(t is other for p in pairing.modules for t, other in p.tensors)


def test_layers_of_other_widths_are_paired_by_path() -> None:
    assert pairs(tensors_of(n.mlp(4, width=32)), tensors_of(n.mlp(4, width=64)))[-1] == ("8", "8")


def test_renamed_layers_are_paired_by_order_and_shape() -> None:
    tensors = tensors_of(n.mlp(4))
    other = renamed(tensors, lambda path: f"module.net.{path}" if path else "module")
    assert pairs(tensors, other) == [(p, f"module.net.{p}" if p else "module") for p, _ in pairs(tensors, tensors)]


def test_inserted_norms_shift_the_numbers_and_not_the_pairs() -> None:
    plain, normed = tensors_of(n.mlp(6)), tensors_of(n.mlp(6, norm=nn.BatchNorm1d))
    pairing = pair_modules(plain, normed)
    linear = [(p.a, p.b) for p in pairing.modules if any(t.kind is Kind.WEIGHT for t, _ in p.tensors)]
    assert linear == [(str(2 * i), str(3 * i)) for i in range(7)]
    assert set(pairing.only_b) == {str(3 * i + 1) for i in range(6)}
    assert pairing.only_a == ()


def test_an_inserted_block_leaves_the_named_ones_together() -> None:
    short, long = tensors_of(n.mlp(4)), tensors_of(n.mlp(6))
    pairing = pair_modules(short, long)
    hidden = [p for p in pairing.modules if p.a in ("0", "2", "4", "6")]
    assert [(p.a, p.b) for p in hidden] == [(p, p) for p in ("0", "2", "4", "6")]
    assert ("8", "12") in [(p.a, p.b) for p in pairing.modules]  # the head, by its shape
    assert pairing.only_a == ()
    assert set(pairing.only_b) >= {"8", "10"}


def test_an_activation_that_was_exchanged_stays_in_its_place() -> None:
    assert ("1", "1") in pairs(tensors_of(n.mlp(3)), tensors_of(n.mlp(3, nn.Tanh)))


def test_a_matrix_is_no_norm_even_at_the_same_path() -> None:
    a = {1: info("x", shape=[8, 8], module_type="Linear")}
    b = {1: info("x", shape=[8], module_type="LayerNorm")}
    pairing = pair_modules(a, b)
    assert (pairing.modules, pairing.only_a, pairing.only_b) == ((), ("x",), ("x",))


def test_a_layer_whose_weight_was_not_watched_stays_in_its_place() -> None:
    both = [info("x", shape=[8, 8], module_type="Linear"), info("x", "output", Kind.ACTIVATION, module_type="Linear")]
    pairing = pair_modules(dict(enumerate(both)), {1: both[1]})
    assert [(p.a, len(p.tensors)) for p in pairing.modules] == [("x", 1)]


def test_the_only_output_of_a_module_has_a_counterpart_whatever_its_name() -> None:
    a = {1: info("x", "output", Kind.ACTIVATION)}
    b = {1: info("x", "output.logits", Kind.ACTIVATION)}
    ((pair,),) = [p.tensors for p in pair_modules(a, b).modules]
    assert [t.name for t in pair] == ["output", "output.logits"]


def test_models_that_have_nothing_in_common_or_nothing_at_all() -> None:
    mlp, cnn = tensors_of(nn.Sequential(nn.Linear(16, 4))), {}
    pairing = pair_modules(mlp, cnn)
    assert pairing.modules == ()
    assert "0" in pairing.only_a
    assert pair_modules({}, {}).modules == ()


def test_layers_without_a_depth_are_in_the_order_of_their_numbers() -> None:
    tensors = {i: info(f"layers.{i}", shape=[8, 8]) for i in (10, 2, 1)}
    assert [a for a, _ in pairs(tensors, tensors)] == ["layers.1", "layers.2", "layers.10"]
