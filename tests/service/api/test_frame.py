"""What holds for every answer: Host, headers, the shape of errors, numbers that JSON has no word for."""

from __future__ import annotations

import asyncio
import json
import math
import re
import shutil

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from initscope.hooks.encoding import to_json
from initscope.service.api.errors import ApiError
from initscope.service.api.responses import Answer
from initscope.service.app import create_app
from initscope.service.settings import Settings
from initscope.service.store import schema
from tests.support.collector import Collector, batch, running_collector


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("home")
    with running_collector(home, allowed_hosts="metrics.example, Other.Example") as running:
        yield running


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/livez", "/api/v1/runs", "/static/page.css", "/nowhere"])
def test_a_foreign_host_is_refused_whatever_is_asked(shared: Collector, method: str, path: str) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8642", "x" * 500):
        answer = shared.http.request(method, path, headers={"Host": host})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "foreign_host"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1:8642", "[::1]:8642", "[::1]", "10.1.2.3:99", "metrics.example:443",
     "other.example"],
)  # fmt: skip
def test_own_names_and_addresses_are_known_with_any_port(shared: Collector, host: str) -> None:
    assert shared.http.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/api/v1/runs/%00", "/api/v1/runs/a%00b/findings", "/api/v1/runs?name=%00", "/?project=%00", "/runs/%00"],
)
def test_a_nul_in_an_address_is_refused_by_any_database(collector: Collector, path: str) -> None:
    answer = collector.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize("path", ["/livez", "/login", "/api/v1/runs", "/nowhere", "/api/v1/runs/../../etc", "/static/"])
def test_every_answer_carries_safe_headers(shared: Collector, path: str) -> None:
    headers = shared.http.get(path).headers
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert re.fullmatch("[0-9a-f]{16}", headers["X-Request-Id"])
    assert "Server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
        ("PUT", "/api/v1/batches", 405, "method_not_allowed"),
        ("GET", "/api/v1/runs/x", 404, "not_found"),
        ("GET", "/api/v1/runs?limit=NaN", 422, "invalid_field"),
        ("GET", "/api/v1/runs?limit=" + "9" * 5000, 422, "invalid_field"),
    ],
)
def test_every_error_has_one_shape(shared: Collector, method: str, path: str, status: int, code: str) -> None:
    answer = shared.http.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "field", "hint"}
    assert error["code"] == code
    assert "99999" not in answer.text


def test_the_openapi_document_can_be_read_with_a_token(shared: Collector) -> None:
    document = shared.http.get("/api/v1/openapi.json").json()
    assert "/api/v1/batches" in document["paths"]


def ask(app, path: str) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.get(path)

    return asyncio.run(go())


@pytest.fixture
def app(tmp_path):
    app = create_app(Settings(home=tmp_path))
    schema.ensure(app.state.database)
    yield app
    app.state.database.close()


def test_a_bug_of_ours_is_a_500_that_tells_its_request_and_nothing_else(app, caplog) -> None:
    @app.get("/bug")
    def bug() -> None:
        raise RuntimeError("secret detail")

    answer = ask(app, "/bug")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    request_id = answer.headers["X-Request-Id"]
    assert request_id in answer.json()["error"]["message"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert f"request {request_id} failed" in caplog.text
    assert "secret detail" in caplog.text


def test_a_database_that_does_not_answer_is_a_503_to_come_back_after(app, caplog) -> None:
    @app.get("/away")
    def away() -> None:
        raise OperationalError("SELECT secret", {"password": "x"}, Exception("connection lost"))

    answer = ask(app, "/away")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["error"]["code"] == "unavailable"
    assert "SELECT" not in answer.text + caplog.text


def test_numbers_that_json_has_no_word_for_travel_as_text(app) -> None:
    @app.get("/numbers")
    def numbers() -> Answer:
        return Answer({"a": [math.nan, math.inf, -math.inf, -0.0, None, 1.5], "b": {"c": (math.nan,)}, "s": "ö\ud800"})

    body = ask(app, "/numbers").content
    found = json.loads(body)
    assert found["a"] == ["NaN", "Infinity", "-Infinity", -0.0, None, 1.5]
    assert math.copysign(1, found["a"][3]) == -1
    assert found["b"] == {"c": ["NaN"]}
    assert found["s"] == "ö\ud800"


def test_an_error_can_carry_any_text(app) -> None:
    @app.get("/refusal")
    def refusal() -> None:
        raise ApiError(422, "invalid_field", "no \ud800 here", field="a\x00b", hint="ö")

    answer = ask(app, "/refusal")
    assert answer.status_code == 422
    assert json.loads(answer.content)["error"]["field"] == "a\x00b"


def test_ready_means_that_the_database_answers_at_the_right_schema(app) -> None:
    assert ask(app, "/readyz").status_code == 200
    with app.state.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    answer = ask(app, "/readyz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert ask(app, "/livez").status_code == 200


@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_is_acknowledged_once_the_database_file_is_gone(embedded: Collector, is_replaced: bool) -> None:
    assert embedded.post(to_json(batch(0))).status_code == 200
    path = embedded.database.path
    assert path is not None
    if is_replaced:
        shutil.copy(path, other := path.with_name("copy.db"))
        other.replace(path)
    else:
        path.unlink()
    refused = embedded.post(to_json(batch(1)))
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert embedded.http.get("/readyz").status_code == 503
    assert "initscope_database_up 0" in embedded.http.get("/metrics").text
    assert embedded.http.get("/livez").status_code == 200
