"""The catalogue of rules, with the thresholds that hold here, or for one run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from initscope.hooks.rules.selection import Selection
from initscope.hooks.vocabulary import MAX_NAME
from initscope.service.alerting import thresholds
from initscope.service.api import schemas
from initscope.service.api.auth import require
from initscope.service.api.lookup import reading, the_run
from initscope.service.api.responses import Answer

router = APIRouter(prefix="/api/v1", tags=["rules"], dependencies=[Depends(require("read"))])


@router.get("/rules")
def list_rules(request: Request, run: Annotated[str | None, Query(max_length=MAX_NAME)] = None) -> Answer:
    """Every rule of this collector: what it says, its thresholds, and whether it judges.

    With `run`, the thresholds of that run; `ignored` are those that it asks for and this collector has no rule for.
    """
    selection: Selection = request.app.state.selection
    ignored: list[str] = []
    if run is not None:
        with reading(request) as conn:
            description = the_run(conn, run).description
        ignored = thresholds.ignored(selection, description)
        selection = thresholds.of_run(selection, description)
    return Answer(
        {"run": run, "rules": [schemas.rule(rule, selection) for rule in selection.rules], "ignored": ignored}
    )
