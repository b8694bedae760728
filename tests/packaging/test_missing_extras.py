"""Parts of an installation: what is asked for without its extra is answered by one sentence, never by a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Named packages cannot be imported, as if they were not installed.
RUN = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
sys.argv = ["initscope", *{arguments!r}]
from initscope.service.cli import main
raise SystemExit(main())
"""


@pytest.mark.parametrize(
    ("absent", "arguments", "extra"),
    [
        (["psycopg"], ["serve", "--port", "0", "--database-url", "postgresql://nobody@127.0.0.1:1/none"], "postgres"),
        (["torch"], ["demo", "--exit", "--port", "0"], "demo"),
        (["torch"], ["check", "train:build"], "torch"),
        (["sklearn"], ["demo", "--exit", "--port", "0"], "demo"),
        (["uvicorn"], ["serve", "--port", "0"], "service"),
        (["jinja2"], ["serve", "--port", "0"], "service"),
        (["prometheus_client"], ["serve", "--port", "0"], "service"),
    ],
)
def test_a_missing_part_is_named_with_its_extra(
    absent: list[str], arguments: list[str], extra: str, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", RUN.format(absent=absent, arguments=arguments)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = (result.stdout + result.stderr).strip()
    assert result.returncode == (3 if arguments[0] == "check" else 2), said
    assert f"pip install 'initscope[{extra}]'" in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
