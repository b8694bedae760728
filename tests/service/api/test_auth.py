from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi.routing import APIRoute, APIRouter
from starlette.routing import Mount

from initscope.service.api.auth import COOKIE, COOKIE_SECONDS, Logins
from initscope.service.app import create_app
from initscope.service.server import RunningServer
from initscope.service.settings import Settings
from initscope.service.store import tokens
from tests.support.collector import Collector, batch, running_collector

PUBLIC = frozenset[str]()
INGEST, READ, ADMIN = frozenset({"ingest", "admin"}), frozenset({"read", "admin"}), frozenset({"admin"})
ANY = frozenset({"ingest", "read", "admin"})
# Which scopes open a route. A route that is not here fails the test below.
MATRIX = {
    "GET /livez": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /login": PUBLIC,
    "POST /login": PUBLIC,
    "GET /static": PUBLIC,
    "GET /metrics": READ,
    "GET /": READ,
    "GET /runs/{run}": READ,
    "GET /rules": READ,
    "GET /compare": READ,
    "POST /api/v1/batches": INGEST,
    "POST /api/v1/heartbeats": INGEST,
    "GET /api/v1/capabilities": ANY,
    "GET /api/v1/openapi.json": READ,
    "GET /api/v1/rules": READ,
    "GET /api/v1/runs": READ,
    "GET /api/v1/runs/{run}": READ,
    "PATCH /api/v1/runs/{run}": ADMIN,
    "DELETE /api/v1/runs/{run}": ADMIN,
    "GET /api/v1/compare": READ,
    "GET /api/v1/coordinate-check": READ,
    "GET /api/v1/runs/{run}/tensors": READ,
    "GET /api/v1/runs/{run}/stats/series": READ,
    "GET /api/v1/runs/{run}/stats/profile": READ,
    "GET /api/v1/runs/{run}/stats/grid": READ,
    "GET /api/v1/runs/{run}/scalars": READ,
    "GET /api/v1/runs/{run}/findings": READ,
    "GET /api/v1/runs/{run}/findings/{finding}": READ,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with running_collector(tmp_path_factory.mktemp("home")) as running:
        running.send(batch(0))
        yield running


def add_token(collector: Collector, *scopes: tokens.Scope) -> str:
    token = tokens.generate()
    with collector.database.write() as connection:
        tokens.add(connection, token, scopes, "test")
    return token


def ask(collector: Collector, route: str, token: str | None = None, **headers: str) -> httpx.Response:
    method, path = route.split()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    url = collector.url + re.sub(r"{\w+}", "00000000-0000-0000-0000-000000000000", path)
    return httpx.request(method, url, headers=headers, timeout=30)


def test_every_route_is_in_the_matrix(tmp_path) -> None:
    assert set(routes_of(create_app(Settings(home=tmp_path)).router)) == MATRIX.keys()


def routes_of(router: APIRouter) -> Iterator[str]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield from (f"{method} {route.path}" for method in route.methods)
        elif isinstance(route, Mount):
            yield f"GET {route.path}"
        else:
            # FastAPI keeps included routers whole.
            yield from routes_of(route.original_router)


@pytest.mark.parametrize("route", MATRIX)
def test_a_route_opens_to_its_scopes_only(shared: Collector, route: str) -> None:
    allowed = MATRIX[route]
    if not allowed:
        answer = ask(shared, route)
        assert answer.status_code != 403
        assert "WWW-Authenticate" not in answer.headers
        return
    revoked = add_token(shared, "admin")
    with shared.database.write() as connection:
        assert tokens.revoke(connection, tokens.token_id(revoked))
    other_end = shared.token[:-1] + ("1" if shared.token.endswith("0") else "0")
    for token in (None, "x", tokens.generate(), revoked, other_end, shared.token.upper()):
        answer = ask(shared, route, token)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "unauthorized"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for scope in tokens.SCOPES:
        answer = ask(shared, route, add_token(shared, scope))
        if scope in allowed:
            assert answer.status_code not in (401, 403), scope
        else:
            assert answer.status_code == 403, scope
            assert answer.json()["error"]["code"] == "forbidden"


def test_a_token_counts_in_the_header_only(shared: Collector) -> None:
    for url in (f"/api/v1/runs?token={shared.token}", f"/api/v1/runs?access_token={shared.token}"):
        assert httpx.get(shared.url + url).status_code == 401
    with httpx.Client(base_url=shared.url, cookies={COOKIE: shared.token}) as http:
        assert http.get("/api/v1/runs").status_code == 401
    assert ask(shared, "GET /api/v1/runs", Authorization=f"Basic {shared.token}").status_code == 401


def test_a_login_link_works_once_and_its_code_is_not_the_token(tmp_path) -> None:
    with RunningServer(Settings(home=tmp_path, port=0)) as server, httpx.Client(base_url=server.url) as http:
        link = server.login_link
        assert server.token not in link
        answer = http.get(link)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
        for part in (f"{COOKIE}=", "HttpOnly", "SameSite=strict", f"Max-Age={COOKIE_SECONDS}", "Path=/"):
            assert part in cookie
        assert http.get("/api/v1/runs").status_code == 200
        again = httpx.get(link)
        assert again.status_code == 401
        assert "used already" in again.text
        assert "Set-Cookie" not in again.headers


def login(collector: Collector, **form: str) -> httpx.Response:
    return httpx.post(f"{collector.url}/login", data=form)


def test_a_pasted_token_logs_in_and_leads_back(shared: Collector) -> None:
    answer = login(shared, token=f" {shared.token}\n", next="/runs/x?attempt=1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/runs/x?attempt=1")
    refused = login(shared, token="wrong")
    assert refused.status_code == 401
    assert "unknown or revoked" in refused.text
    assert "Set-Cookie" not in refused.headers


@pytest.mark.parametrize("page", ["//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a\nb", ""])
def test_a_login_never_leads_to_another_host(shared: Collector, page: str) -> None:
    assert login(shared, token=shared.token, next=page).headers["Location"] == "/"


def test_the_login_page_shows_nothing_of_the_request_unescaped(shared: Collector) -> None:
    page = httpx.get(f"{shared.url}/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in page.text


def test_a_browser_without_a_login_is_led_to_it(shared: Collector) -> None:
    answer = httpx.get(f"{shared.url}/runs/abc", headers={"Accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/runs/abc")
    assert httpx.get(f"{shared.url}/api/v1/runs", headers={"Accept": "text/html"}).status_code == 401


@pytest.fixture
def browser(shared: Collector) -> Iterator[httpx.Client]:
    """Logged in by cookie."""
    with httpx.Client(base_url=shared.url) as http:
        assert http.post("/login", data={"token": shared.token}).status_code == 303
        yield http


def test_a_cookie_reads_and_changes_but_never_ingests(browser: httpx.Client) -> None:
    run = browser.get("/api/v1/runs").json()["runs"][0]["id"]
    same = {"Sec-Fetch-Site": "same-origin"}
    assert browser.patch(f"/api/v1/runs/{run}", json={"note": "mine"}, headers=same).status_code == 200
    for path in ("/api/v1/batches", "/api/v1/heartbeats"):
        assert browser.post(path, headers=same).json()["error"]["code"] == "forbidden"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{url}"},
    ],
)
def test_a_change_by_cookie_that_another_site_asked_for_is_refused(
    shared: Collector, browser: httpx.Client, headers: dict[str, str]
) -> None:
    run = browser.get("/api/v1/runs").json()["runs"][0]["id"]
    given = {name: value.format(url=shared.url) for name, value in headers.items()}
    answer = browser.delete(f"/api/v1/runs/{run}", headers=given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")
    assert browser.patch(f"/api/v1/runs/{run}", json={"note": "x"}, headers={"Origin": shared.url}).status_code == 200


def test_revoking_a_token_ends_its_cookies(shared: Collector) -> None:
    token = add_token(shared, "read")
    with httpx.Client(base_url=shared.url) as http:
        http.post("/login", data={"token": token})
        assert http.get("/api/v1/runs").status_code == 200
        with shared.database.write() as connection:
            tokens.revoke(connection, tokens.token_id(token))
        assert http.get("/api/v1/runs").status_code == 401


def test_a_cookie_that_was_changed_or_is_old_is_worth_nothing() -> None:
    now = [1000.0]
    logins = Logins(b"key", clock=lambda: now[0])
    cookie = logins.make_cookie("a" * 16)
    assert logins.read_cookie(cookie) == "a" * 16
    token_id, expires, signature = cookie.split(".")
    for forged in (
        f"{'b' * 16}.{expires}.{signature}", f"{token_id}.{int(expires) + 1}.{signature}", f"{token_id}.{expires}.",
        f"{token_id}.{expires}", "", ".", "..", "ä.ö.ü",
    ):  # fmt: skip
        assert logins.read_cookie(forged) is None
    assert Logins(b"other key", clock=lambda: now[0]).read_cookie(cookie) is None
    now[0] += COOKIE_SECONDS
    assert logins.read_cookie(cookie) is None


def test_no_secret_is_stored(shared: Collector) -> None:
    secret = shared.token.rpartition("_")[2].encode()
    login(shared, token=shared.token)
    folder = shared.database.path.parent
    for file in folder.iterdir():
        found = secret in file.read_bytes()
        assert found == (file.name == "token"), file
    assert secret.decode() not in repr(Settings(home=folder, token=shared.token))
