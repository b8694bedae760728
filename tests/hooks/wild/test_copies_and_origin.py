"""Real bugs of random states and of checkpoints, in miniature: copies that should be draws, draws that were trained.

The numbers in the docstrings are those of the public issues and pull requests where the bugs were reported.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from initscope.hooks.probe.replicas import read_digests
from initscope.hooks.probe.walk import walk
from initscope.hooks.rules import Finding, Model, Window, diagnose
from initscope.hooks.rules.provenance import MIXED_PROVENANCE
from initscope.hooks.rules.replicas import REPLICAS_DIFFER
from initscope.hooks.vocabulary import Cause, Severity
from initscope.hooks.wire import RunDescription
from tests.support import networks as n
from tests.support.architectures import Experts
from tests.support.decoder import Decoder
from tests.support.models import loss_of, tokens
from tests.support.recognition import describe
from tests.support.starts import vectors
from tests.support.wild import learns, look, mended, told_apart

BATCH = tokens()
VECTORS = next(vectors())


def decoder(seed_of: str | None) -> Decoder:
    """A decoder of 48; the random state is set back for each block, for each matrix, or (None) never."""
    torch.manual_seed(1)
    model = Decoder(3, width=48)
    for block in model.blocks if seed_of else ():
        torch.manual_seed(0)
        for part in block.children():
            if isinstance(part, nn.Linear):
                if seed_of == "matrix":
                    torch.manual_seed(0)
                nn.init.normal_(part.weight, std=0.02)
    return model


def test_every_matrix_was_drawn_from_the_same_random_state() -> None:
    """torchtitan 3106, pytorch 196562: a generator that is set back for each tensor."""
    model = decoder("matrix")
    found = told_apart(look(model, BATCH, loss_of), look(decoder(None), BATCH, loss_of), "copied-tensors")
    assert (found.severity, found.cause) == (Severity.WARNING, Cause.DUPLICATED_TENSORS)
    assert found.module_path == "blocks.0.q"
    assert "same random state" in found.diagnosis
    mended(model, found, BATCH, loss_of)


def test_every_block_was_drawn_from_the_same_random_state() -> None:
    """The same, set back for each block: blocks in a row part by themselves, so that it is only told."""
    found = told_apart(look(decoder("block"), BATCH, loss_of), look(decoder(None), BATCH, loss_of), "copied-tensors")
    assert (found.severity, found.module_path) == (Severity.INFO, "blocks.0.q")


def sharded(*, equal: bool) -> nn.Sequential:
    """A matrix of 64 units that four processes drew 16 rows each of."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    with torch.no_grad():
        for at in (0, 2):
            for i in range(4):
                generator = torch.Generator().manual_seed(at + (0 if equal else i + 10))
                model[at].weight[16 * i : 16 * (i + 1)].normal_(0.0, 0.2, generator=generator)
                model[at].bias.zero_()
    return model


def test_every_shard_of_a_matrix_was_drawn_from_the_same_random_state() -> None:
    """torchtitan 3106: each rank seeds alike and draws its own rows."""
    model = sharded(equal=True)
    found = told_apart(look(model, VECTORS), look(sharded(equal=False), VECTORS), "duplicate-units")
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.CONSTANT_SYMMETRIC, "0")
    mended(model, found, VECTORS)
    learns(model, vectors())


def experts(*, copied: bool) -> Experts:
    torch.manual_seed(4)
    model = Experts()
    for expert in model.experts if copied else ():
        expert.load_state_dict(model.experts[0].state_dict())
    return model


def test_all_experts_are_the_same() -> None:
    """fastmoe 4: one expert is made and copied."""
    model = experts(copied=True)
    found = told_apart(look(model, VECTORS), look(experts(copied=False), VECTORS), "copied-tensors")
    assert (found.severity, found.cause, found.module_path) == (
        Severity.WARNING,
        Cause.DUPLICATED_TENSORS,
        "experts.0.0",
    )
    mended(model, found, VECTORS)
    learns(model, vectors())


class Towers(nn.Module):
    """Two equal branches of one input whose outputs are added: they never part when they start equal."""

    def __init__(self, *, copied: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.left, self.right = (nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(2))
        self.head = nn.Linear(32, 4)
        if copied:
            self.right.load_state_dict(self.left.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.relu(self.left(x) + self.right(x)))
        return out


def test_two_branches_of_one_input_are_the_same() -> None:
    """A module that was copied after it was drawn: both do the work of one."""
    model = Towers(copied=True)
    found = told_apart(look(model, VECTORS), look(Towers(copied=False), VECTORS), "copied-tensors")
    assert (found.severity, found.cause) == (Severity.CRITICAL, Cause.DUPLICATED_TENSORS)
    mended(model, found, VECTORS)
    learns(model, vectors())


def replicas(*models: nn.Module) -> list[Finding]:
    """What the digests of all ranks say."""
    told = {rank: read_digests(walk(model)) for rank, model in enumerate(models)}
    return diagnose(Window(Model({}), {0: {}}, expected_ranks=len(models), replicas=told), [REPLICAS_DIFFER])


def test_replicas_start_different_and_the_loss_falls_all_the_same() -> None:
    """torchtitan 166, OLMo-core 307, 319: each rank seeds by its number, and nobody broadcasts."""

    def net(rank: int) -> nn.Sequential:
        torch.manual_seed(rank)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))

    (found,) = replicas(net(0), net(1))
    assert (found.severity, found.cause, found.module_path) == (Severity.CRITICAL, Cause.REPLICAS_DIFFER, "0")
    assert replicas(net(0), net(0)) == []
    other = net(1)
    other.load_state_dict(net(0).state_dict())  # what the remedy's broadcast does
    assert replicas(net(0), other) == []


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """Weights of six layers of 64 that have learned for long."""
    torch.set_num_threads(1)
    model = n.mlp(6)
    n.train(model, start=n.draw(n.he), optimizer=n.adam(1e-2), steps=500)
    return model.state_dict()


def loaded(state: dict[str, Tensor], lost: str = "nothing") -> nn.Sequential:
    """A model with a checkpoint's weights, but for names that begin with `lost`, which stay as drawn."""
    torch.manual_seed(9)
    model = n.mlp(6)
    n.draw(n.he)(model)
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith(lost)}, strict=False)
    return model


def test_some_layers_of_a_checkpoint_were_not_loaded(trained: dict[str, Tensor]) -> None:
    """transformers 46620: names that do not match are drawn anew, and the loading report is clean."""
    batch = next(n.vectors())
    found = told_apart(look(loaded(trained, "6."), batch), look(loaded(trained), batch), "mixed-provenance")
    assert (found.severity, found.cause, found.module_path) == (Severity.WARNING, Cause.MIXED_PROVENANCE, "6")


def test_a_checkpoint_was_loaded_and_then_drawn_over(trained: dict[str, Tensor]) -> None:
    """transformers 46620: the run says that it starts from trained weights, and every matrix is fresh."""

    def judged(model: nn.Module) -> list[Finding]:
        tensors, stats, _ = describe(model)
        said = Model(tensors, RunDescription(pretrained=True))
        return diagnose(Window(said, {0: stats}, stats), [MIXED_PROVENANCE])

    (found,) = judged(loaded(trained, ""))
    assert (found.severity, found.cause) == (Severity.CRITICAL, Cause.MIXED_PROVENANCE)
    assert judged(loaded(trained)) == []
