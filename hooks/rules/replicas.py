"""The rule on replicas of a model that do not start with the same parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.remedy import listed
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity

_REMEDY: Final = """\
model = torch.nn.parallel.DistributedDataParallel(model)  # sends rank 0's parameters to all
# or: for t in (*model.parameters(), *model.buffers()): torch.distributed.broadcast(t.data, 0)
# or: the same torch.manual_seed on every rank before the model is made"""


def check_replicas(window: Window, _limits: Limits) -> Iterable[Finding]:
    """Ranks whose parameters are not those of most ranks."""
    told = {rank: window.replicas[rank] for rank in sorted(window.replicas) if window.replicas[rank]}
    # Stages of a pipeline have other parameters, by name.
    if len(told) < 2 or len({frozenset(x) for x in told.values()}) > 1:
        return
    contents = {rank: tuple(x[name] for name in sorted(x)) for rank, x in told.items()}
    (usual, _), *others = Counter(contents.values()).most_common()
    if not others:
        return
    reference = next(rank for rank, content in contents.items() if content == usual)
    odd = [rank for rank, content in contents.items() if content != usual]
    yield _finding(window, reference, odd, _different(told, reference, odd))


def _different(told: Mapping[int, Mapping[str, str]], reference: int, odd: Sequence[int]) -> list[str]:
    """Full names of the parameters that differ, in the model's order."""
    own = told[reference]
    return [name for name in own if name and any(told[rank][name] != own[name] for rank in odd)]


def _finding(window: Window, reference: int, odd: Sequence[int], names: Sequence[str]) -> Finding:
    path, _, name = names[0].rpartition(".") if names else ("", "", "")
    ranks = listed([str(rank) for rank in odd])
    what = listed(names) if names else "parameters that are not told one by one"
    return Finding(
        rule=REPLICAS_DIFFER.id,
        severity=Severity.CRITICAL,
        cause=Cause.REPLICAS_DIFFER,
        step=window.step,
        subject="run",
        module_path=path if names else None,
        tensor_name=name or None,
        kind=Kind.WEIGHT,
        diagnosis=f"Rank{'s' if len(odd) > 1 else ''} {ranks} of {window.expected_ranks} started with other parameters "
        f"than rank {reference}: {what}. Averaged gradients then belong to no model that exists.",
        remedy=_REMEDY,
        evidence={
            "different_ranks": float(len(odd)),
            "ranks": ranks,
            "reference_rank": float(reference),
            "different_parameters": float(len(names)),
            "parameters": listed(names),
        },
    )


REPLICAS_DIFFER: Final = Rule(
    id="replicas-differ",
    family="copies",
    check=check_replicas,
    baseline_only=True,
    title="Replicas that start different",
    statistic="Digests (of at most 4,096 elements each) of the parameters of all ranks, read before the first forward, "
    "are not equal. At most 511 parameters are named one by one, the rest is in a digest over all.",
    harmless="Shards (FSDP, DTensor, DeepSpeed ZeRO-3), layers of tensor parallelism and experts of a rank's own are "
    "not compared, nor are stages of a pipeline. Off without a collector: a process sees itself only.",
    remedy="Wrap the model in DistributedDataParallel, or broadcast rank 0's parameters, before the first forward.",
    source="Data parallel training keeps replicas equal only if they start equal; the loss may fall all the same.",
)
RULES: Final = (REPLICAS_DIFFER,)
