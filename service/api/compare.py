"""Runs beside each other: two by depth, or several over their widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection

from initscope.hooks.comparison import (
    GROWTH,
    THRESHOLD,
    Subject,
    check_coordinates,
    compare,
    widths_of,
)
from initscope.hooks.comparison.coordinates import LEAST_WIDTHS
from initscope.hooks.vocabulary import MAX_NAME, MAX_STEP, Kind
from initscope.hooks.wire import TensorInfo
from initscope.service.api import compared
from initscope.service.api.auth import require
from initscope.service.api.errors import ApiError
from initscope.service.api.lookup import StepQuery, reading
from initscope.service.api.responses import Answer
from initscope.service.store import read_comparison, read_findings
from initscope.service.store.read_runs import RunHead, refer_to_runs
from initscope.service.store.read_tensors import forward_order, load_tensors

router = APIRouter(prefix="/api/v1", tags=["compare"], dependencies=[Depends(require("read"))])

RunsQuery = Annotated[list[Annotated[str, Query(min_length=1, max_length=MAX_NAME)]], Query(max_length=64)]
WidthsQuery = Annotated[list[Annotated[float, Query(gt=0, le=1e9)]], Query(max_length=64)]
_MOST_RUNS: Final = 16
_MOST_STEPS: Final = 16
_MOST_ACTIVATIONS: Final = 512


@router.get("/compare")
def compare_runs(
    request: Request,
    run: RunsQuery = [],  # noqa: B006 - FastAPI copies defaults
    step: StepQuery = None,
    kind: Annotated[tuple[Kind, ...], Query(max_length=8)] = (),
    tolerance: Annotated[float, Query(ge=0, le=64)] = THRESHOLD,
    limit: Annotated[int, Query(ge=1, le=5_000)] = 1_000,
    schemes: bool = True,
) -> Answer:
    """Two runs side by side by depth, at a step or at the first that each recorded, and the schemes of their weights.

    `run` is an id, its unique beginning, or a name. `tolerance` is in octaves of rms. Differences are those of the
    second to the first.
    """
    if len(run) != 2:
        raise ApiError(
            422, "invalid_field", f"two runs are compared, not {len(run)}", field="run", hint="…/compare?run=A&run=B"
        )
    with reading(request) as conn:
        heads = [the_reference(conn, reference) for reference in run]
        findings = [read_findings.list_findings(conn, head.run_no, head.attempt) for head in heads]
        a, b = (read_comparison.load_moment(conn, head, step, kind, with_schemes=schemes) for head in heads)
    found = compare(a.snapshot, b.snapshot, threshold=tolerance, kinds=kind or tuple(Kind))
    sides = [compared.side(h, m, f) for h, m, f in zip(heads, (a, b), findings, strict=True)]
    return Answer({"runs": sides, **compared.comparison(found, limit)})


@router.get("/coordinate-check")
def check_widths(
    request: Request,
    run: RunsQuery = [],  # noqa: B006 - FastAPI copies defaults
    steps: Annotated[str, Query(max_length=400)] = "0,1,2,3,4,5",
    width: WidthsQuery = [],  # noqa: B006 - as above
    threshold: Annotated[float, Query(ge=0, le=16)] = GROWTH,
) -> Answer:
    """Slopes of log2 rms of every activation against log2 width, over runs of one model at three widths or more.

    Widths are taken from the runs' config (`width`, `hidden_size`, `d_model`, `n_embd`) or shapes, unless given.
    """
    if not LEAST_WIDTHS <= len(run) <= _MOST_RUNS:
        message = f"a coordinate check takes {LEAST_WIDTHS} to {_MOST_RUNS} runs, not {len(run)}"
        raise ApiError(422, "invalid_field", message, field="run")
    wanted = _steps(steps)
    with reading(request) as conn:
        heads = [the_reference(conn, reference) for reference in run]
        tensors = [load_tensors(conn, head.run_no) for head in heads]
        widths = _widths(heads, tensors, width)
        chosen, left_out = _common_activations(tensors)
        subjects = [
            Subject(w, mine, read_comparison.records_at(conn, head.run_no, head.attempt, picked, wanted))
            for head, mine, picked, w in zip(heads, tensors, chosen, widths, strict=True)
        ]
    found = check_coordinates(subjects, threshold=threshold)
    sides = [{"id": h.id, "name": h.name, "attempt": h.attempt, "width": w} for h, w in zip(heads, widths, strict=True)]
    answer = compared.coordinate_check(found, _MOST_ACTIVATIONS)
    return Answer({"runs": sides, "threshold": threshold, "left_out": left_out, **answer})


def the_reference(conn: Connection, reference: str) -> RunHead:
    """The run that is meant by an id, its beginning or a name; 404 if there is none, 409 if there are several."""
    found = refer_to_runs(conn, reference)
    if not found:
        raise ApiError(
            404, "not_found", f"there is no run {reference!r}", field="run", hint="GET /api/v1/runs lists them"
        )
    if len(found) > 1:
        several = ", ".join(f"{head.id} ({head.project}, {head.created_at:%Y-%m-%d %H:%M:%S})" for head in found)
        raise ApiError(
            409, "ambiguous", f"{reference!r} means more than one run", field="run", hint=f"one of {several}"
        )
    return found[0]


def _steps(text: str) -> frozenset[int]:
    parts = [part.strip() for part in text.split(",")]
    good = all(part.isascii() and part.isdigit() and len(part) <= 13 and int(part) <= MAX_STEP for part in parts)
    if not good or len(parts) > _MOST_STEPS:
        message = f"at most {_MOST_STEPS} steps, as in 0,1,2"
        raise ApiError(422, "invalid_field", message, field="steps")
    return frozenset(map(int, parts))


def _widths(
    heads: Sequence[RunHead], tensors: Sequence[Mapping[int, TensorInfo]], given: Sequence[float]
) -> list[float]:
    if given and len(given) != len(heads):
        message = f"{len(given)} widths for {len(heads)} runs"
        raise ApiError(422, "invalid_field", message, field="width", hint="one for each run, in their order")
    configs = [head.description.get("config") for head in heads]
    models: list[tuple[Mapping[int, TensorInfo], Mapping[str, Any]]] = [
        (mine, config if isinstance(config, dict) else {}) for mine, config in zip(tensors, configs, strict=True)
    ]
    found = list(given) or widths_of(models)
    known = [w for w in found if w is not None]
    if len(known) < len(found) or len(set(known)) < LEAST_WIDTHS:
        said = ", ".join("unknown" if w is None else f"{w:g}" for w in found)
        message = f"{LEAST_WIDTHS} different widths are needed; these runs have {said}"
        raise ApiError(422, "too_few_widths", message, field="width", hint="width=… once for each run, in their order")
    return known


def _common_activations(tensors: Sequence[Mapping[int, TensorInfo]]) -> tuple[list[list[TensorInfo]], int]:
    """Activations of each run that three runs or more have; of very many some, evenly through the depth."""
    sides = [{(t.module_path, t.name): t for t in mine.values() if t.kind is Kind.ACTIVATION} for mine in tensors]
    first = {key: t for side in reversed(sides) for key, t in side.items()}
    common = [key for key in first if sum(key in side for side in sides) >= LEAST_WIDTHS]
    common.sort(key=lambda key: forward_order(first[key]))
    kept = min(len(common), _MOST_ACTIVATIONS)
    picked = [common[i * len(common) // kept] for i in range(kept)]
    return [[side[key] for key in picked if key in side] for side in sides], len(common) - kept
