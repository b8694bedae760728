"""`initscope compare`, against a real collector that real trainings have reported to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks import watch
from tests.support import networks as n
from tests.support import seeds
from tests.support.collector import Collector, running_collector

CODE = "from initscope.service.cli import main; raise SystemExit(main())"


def train(collector: Collector, name: str, start, *, width: int = 64, seed: int = 1, optimizer=None) -> None:
    """Seven steps of a small network, watched."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = n.mlp(5, width=width)
    with torch.no_grad():
        n.draw(start)(model)
    tuner = optimizer(model, width) if optimizer else torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, tuner, run=name, url=collector.url, token=collector.token, config={"lr": 0.01}) as monitor:
        for _, (x, y) in zip(range(7), n.vectors(seed=seed), strict=False):
            loss = F.cross_entropy(model(x), y)
            tuner.zero_grad()
            loss.backward()
            tuner.step()
            monitor.log(loss=loss)


def adam(model: nn.Module, _width: int) -> torch.optim.Optimizer:
    """One learning rate for all widths."""
    return torch.optim.Adam(model.parameters(), lr=0.02)


def mu_p(model: nn.Module, width: int) -> torch.optim.Optimizer:
    """Tensor Programs V, table 3: the rate of hidden matrices and of the head ∝ 1/width, the head drawn ∝ 1/width."""
    layers = [module for module in model if isinstance(module, nn.Linear)]  # type: ignore[attr-defined]
    with torch.no_grad():
        layers[-1].weight.normal_(0.0, 1.0 / width)
    wide = [layer.weight for layer in layers[1:]]
    rest = [p for p in model.parameters() if not any(p is w for w in wide)]
    return torch.optim.Adam([{"params": wide, "lr": 0.02 * 32 / width}, {"params": rest}], lr=0.02)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    home = tmp_path_factory.mktemp("home")
    with running_collector(home) as collector:
        train(collector, "he", n.he)
        train(collector, "he again", n.he, seed=2)
        train(collector, "small", n.normal(0.02))
        for width in (32, 64, 128):
            train(collector, f"adam {width}", n.he, width=width, optimizer=adam)
            train(collector, f"mup {width}", n.he, width=width, optimizer=mu_p)
        collector.home = home  # type: ignore[attr-defined]
        yield collector


def ask(*words: str, collector: Collector | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """`initscope compare …` as a process of its own; the token comes from the collector's home."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INITSCOPE_")}
    if collector is not None:
        environment = {"INITSCOPE_URL": collector.url, "INITSCOPE_HOME": str(collector.home), **environment}  # type: ignore[attr-defined]
    return subprocess.run(
        [sys.executable, "-c", CODE, "compare", *words],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_two_trainings_that_differ_are_told_apart_by_layer(trained: Collector) -> None:
    result = ask("he", "small", collector=trained)
    assert (result.returncode, result.stderr) == (1, "")
    assert "they differ: weight from 0" in result.stdout
    assert "loss " in result.stdout
    assert "critical" in result.stdout
    page = re.search(r"page: (http\S+/compare\?run=\S+&run=\S+)\n", result.stdout)
    assert page
    assert trained.http.get(page[1]).status_code == 200
    rows = [line.split() for line in result.stdout.splitlines() if " → " in line]
    outputs = [words[0] for words in rows if words[0].isdigit() and words[1] != "bias"]
    assert outputs == [str(i) for i in range(11)]


def test_two_seeds_of_one_scheme_are_equal(trained: Collector) -> None:
    result = ask("he", "he again", collector=trained)
    assert (result.returncode, result.stderr) == (0, "")
    assert "equal within 0.25 octaves" in result.stdout


def test_scripts_read_json(trained: Collector) -> None:
    result = ask("he", "small", "--json", "--step", "3", "--kind", "weight", collector=trained)
    assert result.returncode == 1
    (found,) = json.loads(result.stdout)
    assert [side["step"] for side in found["runs"]] == [3, 3]
    matrices = {d["module_path"]: d for d in found["differences"] if d["name"] == "weight"}
    assert list(matrices) == ["0", "2", "4", "6", "8", "10"]
    assert matrices["2"]["octaves"] == pytest.approx(-3.14, abs=0.1)  # log2(0.02 ÷ √(2/64))


def test_more_runs_are_each_compared_with_the_first(trained: Collector) -> None:
    result = ask("he", "he again", "small", "--json", collector=trained)
    assert result.returncode == 1
    assert [found["is_equal"] for found in json.loads(result.stdout)] == [True, False]


def test_a_tolerance_and_an_option_for_the_url_count(trained: Collector) -> None:
    assert ask("he", "small", "--tolerance", "60", collector=trained).returncode == 0
    home = str(trained.home)  # type: ignore[attr-defined]
    assert ask("he", "he", "--url", trained.url, "--home", home).returncode == 0
    assert ask("he", "he", INITSCOPE_URL=trained.url, INITSCOPE_TOKEN=trained.token).returncode == 0
    assert ask("he", "he", collector=trained, INITSCOPE_DISABLED="1").returncode == 0


def test_equal_layers_are_shown_when_asked_for(trained: Collector) -> None:
    short, long = (ask("he", "he again", *words, collector=trained).stdout for words in ((), ("--all",)))
    assert " → " not in short
    assert long.count(" → ") > 20


def test_the_coordinate_check_tells_a_fixed_learning_rate_from_mu_p(trained: Collector) -> None:
    grown = ask("adam 32", "adam 64", "adam 128", "--coordinate-check", collector=trained)
    assert (grown.returncode, grown.stderr) == (1, "")
    assert "widths: adam 32 (32), adam 64 (64), adam 128 (128)" in grown.stdout
    assert "The updates do:" in grown.stdout
    flat = ask("mup 32", "mup 64", "mup 128", "--coordinate-check", "--json", collector=trained)
    assert flat.returncode == 0, flat.stdout
    assert json.loads(flat.stdout)["is_stable"]
    assert json.loads(flat.stdout)["growing"] == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("he",), "two runs or more"),
        (("he", "nobody"), "there is no run 'nobody'"),
        (("he", "small", "--coordinate-check"), "3 to 16 runs, not 2"),
        (
            ("he", "small", "he again", "--coordinate-check"),
            "3 different widths are needed; these runs have 64, 64, 64",
        ),
        (("he", "small", "he again", "--coordinate-check", "--steps", "x"), "as in 0,1,2"),
        (("he", "empty"), "run 'empty' has no records"),
        (("he", "small", "--url", "ftp://x"), "url (INITSCOPE_URL) must begin with http"),
        (("he", "small", "--url", "http://127.0.0.1:9"), "http://127.0.0.1:9 does not answer"),
        (("he", "small", "--home", "nowhere"), "set INITSCOPE_TOKEN, or --home"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(trained: Collector, words: tuple[str, ...], expected: str) -> None:
    if "empty" in words:
        with trained.database.write() as conn:
            seeds.add_run(conn, "empty")
    result = ask(*words, collector=trained)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("initscope: ")
    assert expected in line
    assert "Traceback" not in line


@pytest.mark.parametrize(
    "words", [(), ("a", "b", "--step", "-1"), ("a", "b", "--tolerance", "nan"), ("a", "b", "--kind", "x")]
)
def test_wrong_usage_is_answered_with_the_usage(words: tuple[str, ...]) -> None:
    result = ask(*words)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: initscope compare")


def test_what_is_no_collector_is_not_taken_for_one_and_a_redirect_does_not_get_the_token(tmp_path: Path) -> None:
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(302 if "one" in self.path else 200)
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for name in ("one", "two"):
            result = ask(name, "b", "--home", str(tmp_path), INITSCOPE_URL=url, INITSCOPE_TOKEN="geheim")
            assert result.returncode == 2
            assert result.stderr.startswith(f"initscope: what answers at {url} is no collector")
        server.shutdown()
    assert seen == ["Bearer geheim"] * 2
