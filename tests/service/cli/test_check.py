"""`initscope check`: what it prints, and the exit status that CI acts on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from initscope.service.cli import main

NETS = """
import math
import sys
import torch
import torch.nn.functional as F
from torch import nn
import beside

print("this module talks", flush=True)


def net(gain=math.sqrt(2), depth=8, width=64):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for m in model:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=gain / math.sqrt(m.in_features))
            nn.init.zeros_(m.bias)
    return model


def data(n=64):
    return torch.randn(n, 64), torch.randint(10, (n,))


def healthy():
    print("this callable talks, too")
    return net(), data(), F.cross_entropy


def warned():
    return {"model": net(gain=math.sqrt(2) * 1.55), "batch": data(), "loss_fn": F.cross_entropy}


def broken():
    return net(gain=0.2, depth=12), data(), F.cross_entropy


def adam():
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    return {"model": model, "batch": data(), "loss_fn": F.cross_entropy, "optimizer": optimizer}


def not_finite():
    model = net()
    model[2].weight.data[:] = math.nan
    return model, data(), F.cross_entropy


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        raise LookupError("no such row")


class Builders:
    build = staticmethod(healthy)


made = net()


def falls():
    return Net(), torch.randn(3, 4)


def raises():
    raise KeyError("no")


def leaves():
    sys.exit("enough")


def four():
    return 1, 2, 3, 4


def misspelt():
    return {"modell": net()}


def nothing():
    return None


def needs(an_argument):
    return net()
"""


@dataclass(frozen=True)
class Result:
    status: int
    output: str
    errors: str


class Shell:
    """`initscope check` in a folder of nets: in this process, or as the installed command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def check(self, *arguments: str) -> Result:
        self._capsys.readouterr()
        try:
            status = main(["check", *arguments])
        except SystemExit as end:  # argparse
            status = int(end.code or 0)
        return Result(status, *self._capsys.readouterr())

    def command(self, *arguments: str) -> Result:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INITSCOPE_")}
        done = subprocess.run(
            [Path(sys.executable).with_name("initscope"), "check", *arguments], cwd=self.folder,
            env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.py").write_text("import near\nfrom nets import healthy\n")
    (tmp_path / "sub" / "near.py").write_text("")
    (tmp_path / "syntax.py").write_text("def build(:\n")
    (tmp_path / "lacks.py").write_text("import a_module_that_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield Shell(tmp_path, capsys)
    for name in ("nets", "beside", "near", "deep", "sub", "sub.deep", "syntax", "lacks"):
        assert name not in before
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("target", "status", "word"),
    [("nets:healthy", 0, "OK"), ("nets:warned", 1, "WARNING"), ("nets.py:broken", 2, "CRITICAL")],
)
def test_the_exit_status_is_the_verdict(shell: Shell, target: str, status: int, word: str) -> None:
    result = shell.command(target)
    assert result.status == status, result
    assert result.output.startswith(f"initscope check: {word}")
    assert max(map(len, result.output.partition("\n  change")[0].splitlines())) <= 110
    assert "talks" in result.errors
    assert "talks" not in result.output


def test_json_is_one_object_and_nothing_else_even_where_weights_are_nan(shell: Shell) -> None:
    result = shell.check("nets:not_finite", "--json")
    assert result.status == 2

    def refuse(word: str) -> None:
        raise AssertionError(word)

    data = json.loads(result.output, parse_constant=refuse)
    assert data["verdict"] == "critical"
    assert data["loss"] == "NaN"
    broken = next(layer for layer in data["layers"] if layer["path"] == "2")
    assert (broken["std"], broken["nonfinite_count"]) == (None, 64 * 64)
    assert any(f["cause"] == "nonfinite" for f in data["findings"])


def test_a_page_is_written_beside_what_is_printed(shell: Shell) -> None:
    result = shell.check("nets:broken", "--html", "report.html", "--json")
    assert json.loads(result.output)["exit_code"] == result.status == 2
    page = (shell.folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "too_small_vanish" in page
    assert "wrote report.html" in result.errors


def test_weights_only_does_not_run_the_model(shell: Shell) -> None:
    result = shell.check("nets:falls", "--weights-only", "--json")
    assert result.status == 0, result
    assert json.loads(result.output)["has_forward"] is False


def test_thresholds_come_from_a_file(shell: Shell) -> None:
    (shell.folder / "rules.toml").write_text("[signal-collapse]\nenabled = false\n[weight-scale]\ndrift = 2.5\n")
    assert shell.check("nets:healthy", "--rules", "rules.toml").status == 0
    (shell.folder / "rules.toml").write_text("[weight-scales]\ndrift = 2.5\n")
    result = shell.check("nets:healthy", "--rules", "rules.toml")
    assert (result.status, result.output) == (3, "")
    assert "did you mean 'weight-scale'" in result.errors


def test_an_optimizer_is_described(shell: Shell) -> None:
    data = json.loads(shell.check("nets:adam", "--json").output)
    assert data["optimizers"][0]["name"] == "Adam"


@pytest.mark.parametrize("target", ["sub/deep.py:healthy", "nets:Builders.build", "nets:made", "sub.deep:healthy"])
def test_what_can_be_named_can_be_checked(shell: Shell, target: str) -> None:
    if target == "sub.deep:healthy":  # as a package it does not find what lies beside it, as in Python
        (shell.folder / "sub" / "deep.py").write_text("from nets import healthy\n")
    assert shell.check(target).status == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nets", "'nets' is no MODULE:CALLABLE"),
        ("nets:", "is no MODULE:CALLABLE"),
        ("nowhere:build", "there is no module nowhere"),
        ("nowhere.py:build", "there is no file nowhere.py"),
        ("nets:biuld", "nets has no 'biuld'; it has net, data, healthy"),
        ("nets:raises", "nets:raises raised KeyError: 'no' ("),
        ("nets:leaves", "nets:leaves raised SystemExit: enough"),
        ("nets:falls", "check: the forward pass, model(float32[3, 4]), raised LookupError: no such row ("),
        ("nets:four", "returned 4 things"),
        ("nets:misspelt", "a dict with unknown modell; the names are model, batch, loss_fn, optimizer"),
        ("nets:nothing", "model must be a torch.nn.Module, got NoneType"),
        ("nets:needs", "missing 1 required positional argument"),
        ("syntax:build", "importing syntax raised SyntaxError"),
        ("lacks:build", "importing lacks raised ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
    ],
)
def test_what_cannot_be_checked_is_one_message_and_status_3(shell: Shell, target: str, words: str) -> None:
    result = shell.check(target)
    assert result.status == 3, result
    assert result.output == ""
    (line,) = [line for line in result.errors.splitlines() if "talks" not in line]
    assert line.startswith("initscope: ")
    assert words in line
    if "LookupError" in words or "KeyError" in words:
        assert "nets.py:" in line.rpartition("(")[2]  # the user's own line


@pytest.mark.parametrize("arguments", [[], ["nets:healthy", "--nonsense"], ["nets:healthy", "more"]])
def test_wrong_usage_is_status_3_so_that_2_is_critical_alone(shell: Shell, arguments: list[str]) -> None:
    result = shell.check(*arguments)
    assert result.status == 3
    assert result.errors.startswith("usage: initscope")


def test_a_page_that_cannot_be_written_is_said(shell: Shell) -> None:
    result = shell.check("nets:healthy", "--html", "no/such/folder.html")
    assert result.status == 3
    assert "cannot write no/such/folder.html" in result.errors


def test_help_says_what_the_exit_status_means(shell: Shell) -> None:
    result = shell.check("--help")
    assert result.status == 0
    assert "exit status: 0 ok, 1 a warning, 2 critical" in result.output


def test_it_needs_torch_alone(shell: Shell) -> None:
    heavy = ["fastapi", "sqlalchemy", "pydantic", "pydantic_settings", "rich", "jinja2", "uvicorn", "alembic"]
    code = (
        f"import sys\nfor name in {heavy!r}: sys.modules[name] = None\n"
        "from initscope.service.cli import main\nraise SystemExit(main(['check', 'nets:healthy', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=shell.folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "ok"
