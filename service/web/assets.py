"""Style sheets, scripts and the plotting library: files of this package, served as they are."""

from __future__ import annotations

import os
from importlib.resources import files

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope


class Assets(StaticFiles):
    """Revalidated at each use: a module must never be older than the page that loads it."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, with a Cache-Control that keeps it but asks."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def make_assets() -> Assets:
    """The application to mount at /static."""
    return Assets(directory=str(files("initscope.service.web") / "static"))
