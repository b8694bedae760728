from __future__ import annotations

from pathlib import Path

import pytest

from initscope.hooks.client.config import Config, ConfigError, is_loopback, resolve

URL = "http://127.0.0.1:8642"


def home_with_token(folder: Path, text: str = "is_1_secretsecretsecret\n") -> dict[str, str]:
    (folder / "token").write_text(text)
    return {"INITSCOPE_HOME": str(folder)}


def test_a_keyword_wins_over_the_environment() -> None:
    environ = {
        "INITSCOPE_URL": "http://elsewhere:1",
        "INITSCOPE_PROJECT": "p",
        "INITSCOPE_RUN_ID": "r",
        "INITSCOPE_TOKEN": "t",
    }
    config = resolve(url="https://collector.example/base/", project="mine", environ=environ)
    assert (config.url, config.project, config.run_id, config.token) == (
        "https://collector.example/base",
        "mine",
        "r",
        "t",
    )
    assert config.token_file is None


def test_without_a_url_there_is_nothing_to_send_to() -> None:
    assert not resolve(environ={}).active
    assert resolve(url=URL, environ={}).active


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8642", "collector", "ftp://collector", "http://", "http:///path", "http://h:99999", "http://h:0",
     "http://h:port", "http://[::1", "http://user:pw@h", "http://h/?a=1", "http://h/#x", "http://h/a b"],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match="INITSCOPE_URL"):
        resolve(environ={"INITSCOPE_URL": url})


def test_a_password_in_the_url_is_not_shown() -> None:
    for url in ("htp://user:hunter2@host", "http://user:hunter2@host"):
        with pytest.raises(ConfigError) as caught:
            resolve(url=url, environ={})
        assert "hunter2" not in str(caught.value)


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="'tokn'; did you mean 'token'"):
        resolve(environ={}, tokn="x")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf", "1e9"])
def test_a_flush_timeout_must_be_positive_and_finite(seconds: str) -> None:
    with pytest.raises(ConfigError, match="INITSCOPE_FLUSH_TIMEOUT"):
        resolve(environ={"INITSCOPE_FLUSH_TIMEOUT": seconds})


def test_a_flush_timeout_can_be_set() -> None:
    assert resolve(environ={"INITSCOPE_FLUSH_TIMEOUT": "2.5"}).flush_timeout == 2.5


@pytest.mark.parametrize(
    ("keyword", "value"), [("project", "a\nb"), ("run", "x" * 129), ("run_id", "\ud800"), ("run", 3)]
)
def test_names_that_the_wire_does_not_take_are_refused(keyword: str, value: object) -> None:
    with pytest.raises(ConfigError, match=keyword):
        resolve(environ={}, **{keyword: value})


@pytest.mark.parametrize("token", ["with space", "line\nbreak", "ümlaut", "x" * 513])
def test_a_token_that_cannot_stand_in_a_header_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match="INITSCOPE_TOKEN") as caught:
        resolve(url=URL, token=token, environ={})
    assert token not in str(caught.value)


def test_the_token_is_not_in_the_repr() -> None:
    config = resolve(url=URL, token="very-secret", environ={})
    assert config.token == "very-secret"
    assert "very-secret" not in repr(config)
    assert "very-secret" not in str(config)


def test_the_token_file_of_this_user_is_for_loopback_only(tmp_path: Path) -> None:
    environ = home_with_token(tmp_path)
    assert resolve(url=URL, environ=environ).token == "is_1_secretsecretsecret"
    assert resolve(url="http://collector.example", environ=environ).token is None
    assert resolve(url=URL, token="given", environ=environ).current_token() == "given"


def test_a_token_that_comes_later_is_found(tmp_path: Path) -> None:
    config = resolve(url=URL, environ={"INITSCOPE_HOME": str(tmp_path)})
    assert config.current_token() is None
    home_with_token(tmp_path, "is_2_made-by-the-collector\n")
    assert config.current_token() == "is_2_made-by-the-collector"


def test_a_broken_token_file_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe no token")
    assert resolve(url=URL, environ={"INITSCOPE_HOME": str(tmp_path)}).token is None


@pytest.mark.parametrize("text", ["1", "true", "Yes", "on"])
def test_disabled_looks_at_nothing_else(text: str) -> None:
    config = resolve(url="nonsense", environ={"INITSCOPE_DISABLED": text, "INITSCOPE_FLUSH_TIMEOUT": "-1"})
    assert config.disabled
    assert not config.active


def test_disabled_must_be_a_switch() -> None:
    assert not resolve(environ={"INITSCOPE_DISABLED": "0"}).disabled
    with pytest.raises(ConfigError, match="INITSCOPE_DISABLED"):
        resolve(environ={"INITSCOPE_DISABLED": "maybe"})


def test_the_display_name_is_the_script_and_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/train gpt.py"])
    assert resolve(environ={}).run_name.startswith("train-gpt 2")
    monkeypatch.setattr("sys.argv", ["/somewhere/trainer/__main__.py"])
    assert resolve(environ={}).run_name.startswith("trainer 2")
    assert resolve(environ={"INITSCOPE_RUN": "wide stem"}).run_name == "wide stem"


@pytest.mark.parametrize(
    ("url", "loopback"),
    [(URL, True), ("http://localhost", True), ("http://a.localhost:1", True), ("https://[::1]:2", True),
     ("http://127.9.9.9", True), ("http://10.0.0.1", False), ("http://localhost.example.com", False)],
)  # fmt: skip
def test_loopback_is_told_by_spelling(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


def test_defaults_are_the_documented_ones() -> None:
    config = Config(url=None)
    assert (config.flush_timeout, config.connect_timeout, config.request_timeout, config.heartbeat) == (5, 3, 10, 5)
