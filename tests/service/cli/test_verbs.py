from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from initscope.service.cli import main
from initscope.service.store import schema
from initscope.service.store.engine import Database
from tests.support.collector import ServeProcess, running_collector


@dataclass(frozen=True)
class Result:
    status: int
    output: str
    errors: str


class Command:
    """`initscope` in this process, to its end."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.capsys = home, capsys
        for name in [name for name in os.environ if name.startswith("INITSCOPE_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("INITSCOPE_HOME", str(home))

    def run(self, *arguments: str) -> Result:
        try:
            status = main(arguments)
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        return Result(status, *self.capsys.readouterr())

    def complaint(self, *arguments: str) -> str:
        """The one line of a command that could not begin."""
        result = self.run(*arguments)
        assert result.status == 2, result
        assert result.output == ""
        (line,) = result.errors.splitlines()
        assert line.startswith("initscope: ")
        return line


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, capsys, monkeypatch)


@pytest.fixture
def serving(tmp_path: Path):
    process = ServeProcess(tmp_path, "--port", "0")
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)


def test_a_first_start_needs_no_configuration_and_keeps_its_secrets(serving: ServeProcess, tmp_path: Path) -> None:
    assert serving.url.startswith("http://127.0.0.1:")
    assert re.search(r"/login\?code=\S{20,}", serving.said)
    assert serving.token not in serving.said
    for secret in ("token", "cookie.key"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600
    for path in ("/", "/metrics", "/api/v1/runs", "/api/v1/capabilities"):
        assert httpx.get(serving.url + path).status_code == 401
    assert httpx.get(f"{serving.url}/readyz").status_code == 200
    assert httpx.get(f"{serving.url}/metrics", headers={"Authorization": f"Bearer {serving.token}"}).status_code == 200


def test_a_home_that_is_made_is_closed_to_others(command: Command, tmp_path: Path) -> None:
    assert command.run("migrate", "--home", str(tmp_path / "new")).status == 0
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_with_open_connections(serving: ServeProcess, number: signal.Signals) -> None:
    with httpx.Client(base_url=serving.url) as http, socket.create_connection(_address(serving)) as idle:
        http.get("/livez")
        idle.sendall(b"POST /api/v1/batches HTTP/1.1\r\nHost: localhost\r\n")
        assert serving.end(number) == (0, "")


def _address(serving: ServeProcess) -> tuple[str, int]:
    return "127.0.0.1", int(serving.url.rpartition(":")[2])


def test_the_same_token_and_login_last_over_a_restart(serving: ServeProcess, tmp_path: Path) -> None:
    with httpx.Client() as http:
        link = re.search(r"http://\S+/login\S+", serving.said)[0]
        assert http.get(link).status_code == 303
        serving.end(signal.SIGKILL)
        again = ServeProcess(tmp_path, "--port", "0")
        try:
            assert again.token == serving.token
            assert http.get(f"{again.url}/api/v1/runs").status_code == 200
        finally:
            again.end()


def test_a_second_start_on_the_same_database_says_so_in_one_line(serving: ServeProcess, command: Command) -> None:
    for verb in (["serve", "--port", "0"], ["migrate"]):
        line = command.complaint(*verb)
        assert "another initscope serves the database" in line
        assert str(serving.process.pid) in line


def test_a_killed_collector_leaves_no_lock_behind(serving: ServeProcess, tmp_path: Path) -> None:
    serving.end(signal.SIGKILL)
    again = ServeProcess(tmp_path, "--port", "0")
    assert again.end() == (0, "")


def test_an_occupied_port_says_so_in_one_line(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = command.complaint("serve", "--port", str(port))
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (["--host", "0.0.0.0"], {}, "--behind-proxy"),  # noqa: S104 - refused
        (["--host", "no.such.host.invalid", "--insecure"], {}, "cannot listen on no.such.host.invalid"),
        (["--port", "lots"], {}, "--port: "),
        (["--port", "70000"], {}, "--port: "),
        ([], {"INITSCOPE_PORT": "lots"}, "INITSCOPE_PORT: "),
        ([], {"INITSCOPE_TOKEN": "small"}, "INITSCOPE_TOKEN: needs at least 16"),
        (["--rules", "/nowhere/rules.toml"], {}, "--rules: /nowhere/rules.toml: cannot be read: No such file"),
        ([], {"INITSCOPE_RULES": "/nowhere/rules.toml"}, "/nowhere/rules.toml: cannot be read: No such file"),
        (["--database-url", "mysql://x/y"], {}, "mysql is not supported"),
        (["--database-url", "nonsense"], {}, "the database url is not a url"),
        (["--database-url", "sqlite://"], {}, "SQLite needs a file"),
        (["--database-url", "sqlite:////nowhere/at/all.db"], {}, "cannot open the database"),
        (["--database-url", "postgresql://u:geheim@127.0.0.1:1/x"], {}, "cannot open the database"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(options, environment, expected, command: Command, monkeypatch) -> None:
    monkeypatch.setenv("INITSCOPE_PORT", "0")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = command.complaint("serve", *options)
    assert expected in line
    assert "geheim" not in line
    assert "small" not in line


def test_a_file_of_rules_that_is_wrong_is_refused_in_one_line_before_anything_is_made(command: Command) -> None:
    file = command.home / "rules.toml"
    for text, expected in (
        ("[forward-drift]\nwarnig = 4", "forward-drift: the rule has no limit 'warnig'; did you mean 'warning'?"),
        ("[forward-drift", "is no TOML"),
        ("plugins = ['not.there']", "plugins: 'not.there' cannot be imported: ModuleNotFoundError"),
    ):
        file.write_text(text)
        assert f"--rules: {file}: {expected}" in command.complaint("serve", "--port", "0", "--rules", str(file))
    assert list(command.home.iterdir()) == [file]


def test_a_file_of_rules_holds_in_a_served_collector(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text("[forward-drift]\nwarning = 4.5\n")
    process = ServeProcess(tmp_path, "--port", "0", "--rules", str(file))
    try:
        headers = {"Authorization": f"Bearer {process.token}"}
        rules = httpx.get(f"{process.url}/api/v1/rules", headers=headers).json()["rules"]
        assert next(rule for rule in rules if rule["id"] == "forward-drift")["limits"]["warning"] == 4.5
    finally:
        process.end()


def test_a_database_of_another_version_is_refused_at_the_start(command: Command) -> None:
    assert command.run("migrate").status == 0
    database = Database(f"sqlite:///{command.home / 'initscope.db'}")
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    for verb in (["serve", "--port", "0"], ["migrate"], ["token", "list"]):
        assert "has schema 9999, newer than this version" in command.complaint(*verb)


def test_migrate_makes_and_keeps_the_newest_schema(command: Command) -> None:
    for _ in range(2):
        assert command.run("migrate").output == f"the database has schema {schema.head()}\n"


def test_a_token_that_an_operator_chose_is_the_first_one(tmp_path: Path) -> None:
    chosen = "correct-horse-battery-staple"
    with running_collector(tmp_path, token=chosen) as collector:
        assert collector.token == chosen
        assert collector.http.get("/api/v1/runs").status_code == 200
    assert not (tmp_path / "token").exists()


def test_tokens_are_created_shown_once_listed_and_revoked(tmp_path: Path, command: Command) -> None:
    with running_collector(tmp_path) as collector:
        token = command.run("token", "create", "--scope", "read", "--name", "grafana").output.strip()

        def status() -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return httpx.get(f"{collector.url}/api/v1/runs", headers=headers).status_code

        assert status() == 200
        listed = command.run("token", "list", "--json").output
        assert token not in listed
        mine = next(t for t in json.loads(listed) if t["name"] == "grafana")
        assert mine["scopes"] == ["read"]
        assert mine["token_id"] in command.run("token", "list").output
        assert command.run("token", "revoke", mine["token_id"]).status == 0
        assert command.run("token", "revoke", mine["token_id"]).status == 1
        assert status() == 401


def test_tokens_need_a_database(command: Command) -> None:
    assert "`initscope serve` makes it" in command.complaint("token", "list")
    assert list(command.home.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["serve", "--nonsense"], ["token"], ["token", "create"]])
def test_wrong_usage_is_answered_with_the_usage(arguments: list[str], command: Command) -> None:
    result = command.run(*arguments)
    assert result.status == 2
    assert result.errors.startswith("usage: initscope")


def test_help_names_every_verb_and_every_setting_its_variable(command: Command) -> None:
    verbs = re.findall(r"^    (\w+) ", command.run("--help").output, re.MULTILINE)
    assert {"demo", "serve", "migrate", "token"} <= set(verbs)
    shown = command.run("serve", "--help").output
    for name in ("HOST", "PORT", "DATABASE_URL", "HOME", "ALLOWED_HOSTS", "RULES", "BEHIND_PROXY", "INSECURE"):
        assert f"INITSCOPE_{name}" in shown
