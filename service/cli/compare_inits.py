"""Two initializations side by side, without a collector: models that the user's own callables make."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from initscope.hooks.comparison import Snapshot, compare
from initscope.hooks.vocabulary import Kind
from initscope.service.api import compared
from initscope.service.api.responses import portable
from initscope.service.cli.target import line_of, load, origin_of
from initscope.service.complaint import Complaint

if TYPE_CHECKING:
    from initscope.hooks.rules import Window

Json = dict[str, Any]
_MOST_ROWS = 5_000


def compare_inits(targets: Sequence[str], tolerance: float, kinds: Sequence[str]) -> list[Json]:
    """Each model after the first compared with it, in the words of the read API.

    Weights alone, or all that one forward and backward show where a callable gives a batch as well. Every callable is
    called under the same seed: what draws alike is equal.
    """
    if importlib.util.find_spec("torch") is None:
        raise Complaint("--inits needs PyTorch: pip install 'initscope[torch]'")
    # Whatever the user's code prints must not get between the lines of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        starts = [_start(target) for target in targets]
    wanted = [Kind(kind) for kind in kinds] or list(Kind)
    found = []
    for target, start in zip(targets[1:], starts[1:], strict=True):
        comparison = compare(_snapshot(starts[0]), _snapshot(start), threshold=tolerance, kinds=wanted)
        sides = [_side(targets[0], starts[0]), _side(target, start)]
        found.append(portable({"runs": sides, **compared.comparison(comparison, _MOST_ROWS)}))
    return found


def _start(target: str) -> Window:
    from initscope.hooks.probe.check import CheckError, draw_alike, start_of

    draw_alike()
    given = load(target)
    try:
        return start_of(given.model, given.batch, given.loss_fn, optimizer=given.optimizer)
    except (CheckError, TypeError, ValueError) as error:
        raise Complaint(f"{target}: {line_of(error)}{origin_of(error.__cause__)}") from error


def _snapshot(window: Window) -> Snapshot:
    return Snapshot(window.model.tensors, window.now, window.recognition)


def _side(target: str, window: Window) -> Json:
    scalars = {name: points[-1][1] for name, points in window.scalars.items()}
    return {
        "id": None,
        "name": target,
        "step": window.step,
        **compared.recognised(_snapshot(window)),
        "verdict": None,
        "findings": [],
        "scalars": scalars,
    }
