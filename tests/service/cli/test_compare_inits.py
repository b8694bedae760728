"""`initscope compare --inits`: models of the user's own code, without a collector."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

CODE = "from initscope.service.cli import main; raise SystemExit(main())"
OWN = """
import torch
from torch import nn

def make(start, width=64):
    model = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(width, width), nn.ReLU())], nn.Linear(width, 10))
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                start(layer)
    return model

def default():
    return make(lambda layer: None)

def he():
    return make(lambda layer: (nn.init.kaiming_normal_(layer.weight, nonlinearity="relu"), nn.init.zeros_(layer.bias)))

def he_with_batch():
    print("my own words")
    return he(), (torch.randn(32, 64), torch.randint(0, 10, (32,))), nn.functional.cross_entropy

def default_with_batch():
    return {"model": default(), "batch": torch.randn(32, 64)}

def another_seed():
    torch.manual_seed(7)
    return he()

def wrong():
    raise RuntimeError("no such file")

def unfit():
    return he(), torch.randn(32, 63)
"""


def compare(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "own.py").write_text(OWN)
    return subprocess.run(
        [sys.executable, "-c", CODE, "compare", "--inits", *words],
        cwd=folder,
        env={"OMP_NUM_THREADS": "1", "PATH": "", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def loss_of_he_with_batch() -> float:
    """The same model and batch, made here."""
    own: dict[str, Any] = {}
    exec(OWN, own)  # noqa: S102 - the text above
    torch.manual_seed(0)
    model, (x, y), loss_fn = own["he_with_batch"]()
    return float(loss_fn(model(x), y).detach())


def test_weights_of_two_callables_lie_side_by_side_with_their_schemes(tmp_path: Path) -> None:
    result = compare(tmp_path, "own:default", "own:he")
    assert (result.returncode, result.stderr) == (1, "")
    assert "pytorch_default  1/√(3·fan_in)  he_normal  √(2/fan_in)" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if " → " in line]
    matrices = {words[0]: float(words[4]) for words in rows if words[0].isdigit() and words[1] != "bias"}
    assert list(matrices) == [str(2 * i) for i in range(13)]
    assert all(octaves == pytest.approx(1.29, abs=0.1) for octaves in matrices.values())  # ½·log2(2 ÷ ⅓)


def test_with_a_batch_outputs_and_gradients_are_compared_too(tmp_path: Path) -> None:
    result = compare(tmp_path, "own.py:he_with_batch", "own.py:default_with_batch", "--json")
    assert (result.returncode, result.stderr) == (1, "my own words\n")
    (found,) = json.loads(result.stdout)
    assert {kind["kind"] for kind in found["kinds"]} == {"weight", "gradient", "activation", "activation_gradient"}
    outputs = {d["module_path"]: d["octaves"] for d in found["differences"] if d["kind"] == "activation"}
    assert outputs["22"] < -3.0
    assert found["runs"][0]["scalars"]["loss"] == pytest.approx(loss_of_he_with_batch(), rel=1e-4)
    assert [run["scheme"] for run in found["runs"]] == ["he_normal", "pytorch_default"]


@pytest.mark.parametrize("other", ["own:he", "own:another_seed"])
def test_one_scheme_is_equal_to_itself_whatever_its_seed(tmp_path: Path, other: str) -> None:
    result = compare(tmp_path, "own:he", other)
    assert (result.returncode, result.stderr) == (0, "")
    assert "equal within 0.25 octaves" in result.stdout


def test_what_is_called_under_one_seed_draws_the_same_numbers(tmp_path: Path) -> None:
    (found,) = json.loads(compare(tmp_path, "own:he", "own:he", "--json", "--tolerance", "0").stdout)
    assert found["is_equal"]
    assert {d["octaves"] for d in found["differences"]} == {0.0}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("own:he",), "two runs or more"),
        (("own:he", "own:nothing"), "own has no 'nothing'; it has"),
        (("own:he", "own:wrong"), "own:wrong raised RuntimeError: no such file"),
        (("own:he", "own:unfit"), "own:unfit: check: the forward pass"),
        (("own:he", "own:he", "--step", "3"), "before training"),
        (("own:he", "own:he", "own:he", "--coordinate-check"), "before training"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    result = compare(tmp_path, *words)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("initscope: ")
    assert expected in line
