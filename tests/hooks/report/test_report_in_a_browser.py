"""The page of a check as a person sees it: in a browser, by day and by night, from a file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from initscope.hooks import Report, check
from tests.support.browser import open_browser

pytestmark = pytest.mark.browser


class Net(nn.Module):
    """Twelve layers that fade, one of them with a name that would like to be a script."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({f"layer {i}": nn.Linear(64, 64) for i in range(11)})
        self.body["<script>alert(1)</script>"] = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)
        for p in self.parameters():
            nn.init.normal_(p, std=0.3 / 8) if p.dim() > 1 else nn.init.zeros_(p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.body.values():
            x = F.relu(layer(x))
        return self.head(x)


@pytest.fixture(scope="module")
def report() -> Report:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return check(Net(), (torch.randn(64, 64), torch.randint(10, (64,))), F.cross_entropy)


def luminance(color: str) -> float:
    """Of `rgb(r, g, b)`, from 0 to 1 (WCAG)."""
    parts = [int(p) / 255 for p in color.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_and_asks_for_nothing(report: Report, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "report.html").write_text(report.to_html(), encoding="utf-8")
    with open_browser(tmp_path.as_uri(), color_scheme=scheme) as window:
        window.show("/report.html")
        assert window.text("h1").startswith("initscope check: critical")
        assert "<script>alert(1)</script>" in window.text("table")
        assert window.page.locator("tbody tr").count() == 13
        assert window.page.locator("svg").count() == 2
        assert window.page.locator("svg").first.locator("circle").count() == 13
        assert window.text("article pre") == report.findings[0].remedy
        for selector in ("h1", "h1 span", ".soft", "article h3", "article p", "pre", "td", "th"):
            ink, paper = (
                luminance(window.page.locator(selector).first.evaluate(f"e => getComputedStyle({of}).{what}"))
                for of, what in (("e", "color"), ("document.querySelector('.initscope')", "backgroundColor"))
            )
            contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
            assert contrast >= 4.5, (selector, contrast)
            assert (paper > 0.5) == (scheme == "light")
        assert window.problems == []


def test_one_click_marks_the_whole_remedy(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(report.to_html(), encoding="utf-8")
    with open_browser(tmp_path.as_uri()) as window:
        window.show("/report.html")
        window.page.click("article pre")
        assert window.page.evaluate("getSelection().toString().trim()") == report.findings[0].remedy.strip()


def test_on_a_telephone_only_the_table_and_code_scroll(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(report.to_html(), encoding="utf-8")
    with open_browser(tmp_path.as_uri(), viewport={"width": 380, "height": 800}) as window:
        window.show("/report.html")
        assert window.page.evaluate("document.documentElement.scrollWidth") == 380


def test_the_drawing_falls_with_the_signal(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(report.to_html(), encoding="utf-8")
    with open_browser(tmp_path.as_uri()) as window:
        window.show("/report.html")
        heights = window.page.evaluate(
            "[...document.querySelectorAll('svg')[0].querySelectorAll('circle')].map(c => c.cy.baseVal.value)"
        )
    rms = [math.log2(row.output_rms) for row in report.layers if row.output_rms]
    slopes = [(b - a) / (y - x) for a, b, x, y in zip(heights, heights[1:], rms, rms[1:], strict=False)]
    assert min(slopes) == pytest.approx(max(slopes), rel=0.05)
    assert max(slopes) < 0  # up is more
