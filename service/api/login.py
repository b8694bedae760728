"""GET and POST /login: swaps a single-use code or a pasted token for a cookie, so that pages need no token."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, Template

from initscope.service.api.auth import COOKIE, COOKIE_SECONDS, Logins, check_same_origin
from initscope.service.api.body import read_body
from initscope.service.store import tokens
from initscope.service.store.engine import Database

router = APIRouter(tags=["login"])

_MAX_FORM_BYTES: Final = 4 * 2**10
_BARE_PAGE: Final = """<!doctype html><meta charset="utf-8"><title>initscope: log in</title>
<h1>initscope</h1><p>{{ message }}</p>
<form method="post" action="/login"><input type="hidden" name="next" value="{{ next }}">
<label>Token <input type="password" name="token" autocomplete="current-password" autofocus></label>
<button>Log in</button></form>"""


@router.get("/login")
def get_login(request: Request, code: str = "", next: str = "/") -> Response:
    """With a valid code: the cookie, and on to the page. Otherwise a form that takes a token."""
    if not code:
        return _form("", next)
    logins: Logins = request.app.state.logins
    token_id = logins.redeem(code)
    if token_id is None:
        return _form("This link was used already, or is from an earlier start.", next, status=401)
    return _welcome(request, token_id, next)


@router.post("/login")
async def post_login(request: Request) -> Response:
    """The cookie for a valid token; the form again for any other."""
    if "origin" in request.headers or "sec-fetch-site" in request.headers:
        check_same_origin(request)
    form = parse_qs((await read_body(request, _MAX_FORM_BYTES)).decode("utf-8", "replace"))
    token, page = form.get("token", [""])[0].strip(), form.get("next", ["/"])[0]
    token_id = await run_in_threadpool(_check, request, token)
    if token_id is None:
        return _form("This token is unknown or revoked.", page, status=401)
    return _welcome(request, token_id, page)


def _check(request: Request, token: str) -> str | None:
    database: Database = request.app.state.database
    with database.read() as connection:
        grant = tokens.find(connection, token)
    return grant.token_id if grant else None


def _welcome(request: Request, token_id: str, page: str) -> Response:
    logins: Logins = request.app.state.logins
    response = RedirectResponse(_own_page(page), status_code=303)
    response.set_cookie(
        COOKIE,
        logins.make_cookie(token_id),
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _own_page(page: str) -> str:
    """A path of this service: anything that a browser could take for another host becomes the first page."""
    is_path = page.startswith("/") and not page.startswith(("//", "/\\")) and page.isascii() and page.isprintable()
    return page if is_path else "/"


def _form(message: str, page: str, status: int = 200) -> Response:
    return HTMLResponse(_template().render(message=message, next=_own_page(page)), status_code=status)


@lru_cache(maxsize=1)
def _template() -> Template:
    own = files("initscope.service.web") / "templates" / "login.html"
    return Environment(autoescape=True).from_string(own.read_text() if own.is_file() else _BARE_PAGE)
