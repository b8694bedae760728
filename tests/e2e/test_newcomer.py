"""A person starts `initscope serve`, puts one line into a script of ten, and opens the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.browser import open_window
from tests.support.collector import ServeProcess

SCRIPT = """\
import torch
from initscope.hooks import watch

model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
watch(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(30):
    loss = model(torch.randn(32, 8)).square().mean()
    loss.backward()
    optimizer.step(), optimizer.zero_grad()
"""


@pytest.mark.browser
def test_a_script_of_ten_lines_shows_its_run_on_the_page(tmp_path):
    assert len(SCRIPT.strip().splitlines()) <= 10
    script = tmp_path / "my_first_training.py"
    script.write_text(SCRIPT)
    serve = ServeProcess(tmp_path / "home", "--port", "0")
    try:
        # The token is found in the home of the collector on this host; nothing but the address is said.
        environment = {**os.environ, "INITSCOPE_URL": serve.url, "INITSCOPE_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        (page,) = re.findall(r"page (http\S+)", done.stderr)
        with open_window(serve) as window:
            row = window.page.locator("tr", has_text="my_first_training")
            assert row.count() == 1
            row.locator("a").first.click()
            window.wait("document.querySelector('.verdict') !== null")
            window.wait_for_charts()
            assert "my_first_training" in window.text("h1")
            assert window.page.url == page  # the terminal said where to look
            assert window.problems == []
    finally:
        assert serve.end()[0] == 0
