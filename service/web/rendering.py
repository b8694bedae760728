"""Templates, and what every page needs to fill one."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import Request, Response
from fastapi.templating import Jinja2Templates

from initscope.service.store.engine import Database
from initscope.service.web import words

_templates = Jinja2Templates(directory=str(files("initscope.service.web") / "templates"))
_templates.env.globals["words"] = words
_templates.env.trim_blocks = _templates.env.lstrip_blocks = True


def database_of(request: Request) -> Database:
    """The application's database."""
    database: Database = request.app.state.database
    return database


def render(request: Request, template: str, *, status_code: int = 200, **values: Any) -> Response:
    """A page; every value that is text is escaped."""
    values["version"] = request.app.version
    return _templates.TemplateResponse(request, template, values, status_code=status_code)
