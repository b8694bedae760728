"""The rule on residual streams: what branches without a norm add up to, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from initscope.hooks.layers import Layer
from initscope.hooks.rules.engine import Limits, Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.rules.loss import loss_excess
from initscope.hooks.rules.remedy import code_path, number
from initscope.hooks.rules.signals import is_trained, norm, octaves, rms
from initscope.hooks.rules.window import Window
from initscope.hooks.vocabulary import Cause, Kind, Severity
from initscope.hooks.wire import TensorInfo


@dataclass(frozen=True, slots=True)
class Stream:
    """A residual stream: the outputs of consecutive blocks of one container, and the last matrices of their branches.

    `forward` is log2 rms of the last output ÷ the first one, `backward` log2 norm of the gradient at the first output ÷
    at the last one (None if it was not measured), `share` the median rms of a branch ÷ the stream it is added to.
    """

    blocks: tuple[TensorInfo, ...]
    branches: tuple[Layer, ...]
    forward: float
    backward: float | None
    share: float | None
    is_normalized: bool
    """Whether a norm stands inside the branches, so that they do not grow with the stream."""

    @property
    def slope(self) -> float:
        """Octaves a block."""
        return self.forward / (len(self.blocks) - 1)


def streams(window: Window) -> list[Stream]:
    """Every stream of at least three blocks with residual branches that the step under judgement shows."""
    containers: dict[tuple[str, str], list[TensorInfo]] = {}
    for tensor, _ in window.each(Kind.ACTIVATION):
        if tensor.block is not None and tensor.module_path == tensor.block and tensor.depth is not None:
            containers.setdefault((tensor.block.rpartition(".")[0], tensor.module_type), []).append(tensor)
    found = (_stream(window, _one_output_each(blocks)) for blocks in containers.values())
    return [stream for stream in found if stream is not None]


def _one_output_each(outputs: Iterable[TensorInfo]) -> list[TensorInfo]:
    """A block that returns several tensors hands on the first of them."""
    return list({t.module_path: t for t in reversed(list(outputs))}.values())[::-1]


def _stream(window: Window, blocks: Sequence[TensorInfo]) -> Stream | None:
    paths = {t.module_path for t in blocks}
    inside = [x for x in window.model.layers if x.weight.block in paths]
    branches = tuple(x for x in inside if x.is_residual)
    sizes = [octaves(rms(window.stats(t))) for t in blocks]
    known = [s for s in sizes if s is not None]
    if len(blocks) < 3 or len(known) < len(blocks) or len({x.weight.block for x in branches}) < len(blocks):
        return None
    return Stream(
        tuple(blocks),
        branches,
        known[-1] - known[0],
        _backward(window, blocks),
        _share(window, blocks, branches),
        any(x.norm_before or x.norm_after for x in inside),
    )


def _backward(window: Window, blocks: Sequence[TensorInfo]) -> float | None:
    ends = [window.model.find(t.module_path, t.name, Kind.ACTIVATION_GRADIENT) for t in (blocks[0], blocks[-1])]
    first, last = (octaves(norm(window.stats(t))) for t in ends)
    return None if first is None or last is None else first - last


def _share(window: Window, blocks: Sequence[TensorInfo], branches: Sequence[Layer]) -> float | None:
    """Median over blocks of rms(branch) ÷ rms(the stream before it, the output of the block before)."""
    before = {b.module_path: rms(window.stats(a)) for a, b in pairwise(blocks)}
    shares = sorted(
        made / stream
        for x in branches
        if (made := rms(window.stats(x.output))) is not None and (stream := before.get(x.weight.block or ""))
    )
    return shares[len(shares) // 2] if shares else None


def check_stream(window: Window, limits: Limits) -> Iterable[Finding]:
    """Streams that multiply from block to block: each branch is as large as all that came before it."""
    if is_trained(window) or window.step - window.baseline_step > limits["early"]:
        return
    for stream in streams(window):
        if stream.forward >= limits["info"] and stream.slope >= limits["slope"] and not stream.is_normalized:
            yield _finding(window, stream, _severity(window, stream, limits))


def _severity(window: Window, stream: Stream, limits: Limits) -> Severity:
    """Growth alone is a warning; with a gradient that grows alike and a first loss far above a guess it is critical."""
    if stream.forward < limits["warning"]:
        return Severity.INFO
    excess = loss_excess(window)
    loud = excess is not None and excess[0] > limits["loss_share"] * excess[1]
    grows_back = stream.backward is not None and stream.backward >= limits["warning"]
    return Severity.CRITICAL if stream.forward >= limits["critical"] and grows_back and loud else Severity.WARNING


def _finding(window: Window, stream: Stream, severity: Severity) -> Finding:
    first, last = stream.blocks[0], stream.blocks[-1]
    a, b = rms(window.stats(first)) or 0.0, rms(window.stats(last)) or 0.0
    branch = stream.branches[0]
    back = "" if stream.backward is None else f", its gradient by {stream.backward:+.1f} on the way back"
    share = "" if stream.share is None else f"; a branch has {number(stream.share)} times the size of its stream"
    return Finding(
        rule=RESIDUAL_STREAM.id,
        severity=severity,
        cause=Cause.MISSING_RESIDUAL_SCALING,
        step=window.step,
        subject=first.module_path.rpartition(".")[0] or "run",
        module_path=branch.path,
        tensor_name=branch.output.name if branch.output else None,
        kind=Kind.ACTIVATION,
        diagnosis=f"The residual stream grows from rms {number(a)} after {first.module_path} to {number(b)} after "
        f"{last.module_path}: {stream.forward:.1f} octaves over {len(stream.blocks)} blocks without a norm{back}"
        f"{share}.",
        remedy=_remedy(stream),
        evidence={
            "octaves": stream.forward,
            "octaves_a_block": stream.slope,
            "octaves_backward": math.nan if stream.backward is None else stream.backward,
            "branch_share": math.nan if stream.share is None else stream.share,
            "blocks": float(len(stream.blocks)),
        },
    )


def _remedy(stream: Stream) -> str:
    """A loop over the blocks that divides the last matrix of each branch by the root of their number."""
    count = len(stream.branches)
    factor = 1.0 / math.sqrt(count)
    container = code_path(stream.blocks[0].module_path.rpartition(".")[0])
    inner = list(
        dict.fromkeys(
            code_path(x.path.removeprefix(f"{x.weight.block}."), x.weight.name).removeprefix("model")
            for x in stream.branches
        )
    )
    names = [t.module_path.rpartition(".")[2] for t in stream.blocks]
    indices = f"range({names[0]}, {int(names[-1]) + 1})"
    lines = [f"for i in {indices}: {container}[i]{code}.data.mul_({number(factor)})" for code in inner]
    return "\n".join([f"{lines[0]}  # 1/√{count}, one factor a branch; or a norm in each", *lines[1:]])


RESIDUAL_STREAM: Final = Rule(
    id="residual-stream",
    family="residual",
    check=check_stream,
    limits={"info": 3.0, "warning": 4.0, "critical": 5.0, "slope": 0.4, "loss_share": 5.0, "early": 5},
    needs=(Kind.ACTIVATION,),
    explained_by=("zero-weights", "constant-weights", "uninitialized-weights", "unscaled-input"),
    title="A residual stream that multiplies from block to block",
    statistic="Octaves between the outputs of the first and the last of at least three blocks whose branches have no "
    "norm, in the first `early` steps. Info from `info` and `slope` octaves a block, warning from `warning`; critical "
    "from `critical` where the gradient grows by `warning` on its way back and the first loss is more than "
    "`loss_share`·ln C above ln C.",
    harmless="Branches behind a norm add up like √blocks, not like powers. The first block after a small embedding "
    "makes the stream many times larger: it is not counted, the first block's output is the reference.",
    remedy="Multiply the last matrix of each branch by 1/√(number of branches), or start it at zero (Fixup, ReZero).",
    source="He draws in a branch without a norm: √3 a block, 0.79 octaves (measured); Zhang et al. 2019 (Fixup).",
)
RULES: Final = (RESIDUAL_STREAM,)
