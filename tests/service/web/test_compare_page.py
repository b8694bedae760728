"""The page of two runs side by side, as it is served and in Chromium."""

from __future__ import annotations

import re

import pytest

from initscope.hooks.moments import TensorStats
from tests.support import seeds
from tests.support.browser import Window, open_window
from tests.support.collector import Collector, stats

HTML = {"Accept": "text/html"}
DRAWN = "document.querySelectorAll('#depth canvas').length === 2 && document.querySelector('#scalars canvas')"


def seed_pair(collector: Collector) -> tuple[seeds.Seeded, seeds.Seeded]:
    """A net that fades beside one that does not."""
    with collector.database.write() as conn:
        fading = seeds.add_mlp(conn, "default init", layers=12, steps=[0, 1, 2, 10], gain=0.6, status="finished")
        seeds.add_finding(conn, fading.run_no, "forward-drift", "critical", module_path="layers.3", kind="activation")
        steady = seeds.add_mlp(conn, "he init", layers=12, steps=[0, 1, 2, 5], gain=1.0, status="finished")
    return fading, steady


def address(*runs: seeds.Seeded) -> str:
    return "/compare?" + "&".join(f"run={run.id}" for run in runs)


def show(window: Window, path: str) -> None:
    window.show(path)
    window.wait(DRAWN)


def test_a_page_names_both_runs_and_their_findings_without_javascript(embedded):
    fading, steady = seed_pair(embedded)
    page = embedded.http.get(address(fading, steady), headers=HTML)
    assert page.status_code == 200
    for words in (
        "default init",
        "he init",
        "The signal grows or fades with depth",
        "Nothing stands against this start",
    ):
        assert words in page.text
    assert f"?run={steady.id}&amp;run={fading.id}" in page.text


@pytest.mark.parametrize(
    ("count", "status", "words"), [(0, 200, "Mark two runs"), (1, 200, "Mark two runs"), (3, 422, "3 runs were chosen")]
)
def test_another_number_of_runs_leads_to_the_list(embedded, count: int, status: int, words: str):
    fading, _ = seed_pair(embedded)
    page = embedded.http.get(address(*[fading] * count), headers=HTML)
    assert page.status_code == status
    assert words in page.text


def test_a_run_that_is_not_there_is_a_page_that_leads_back(embedded):
    fading, _ = seed_pair(embedded)
    page = embedded.http.get(f"/compare?run={fading.id}&run=gone", headers=HTML)
    assert page.status_code == 404
    assert "No such run" in page.text


@pytest.mark.browser
def test_two_marked_runs_of_the_list_are_compared(embedded):
    fading, steady = seed_pair(embedded)
    with open_window(embedded) as window:
        window.wait("document.getElementById('compare-go').disabled")
        window.page.check(f"input[value='{steady.id}']")
        assert "Mark one more" in window.text("#compare-hint")
        window.page.check(f"input[value='{fading.id}']")
        # The list renews itself when something arrives; the marks stay.
        with embedded.database.write() as conn:
            seeds.add_run(conn, "newcomer")
        window.wait("document.querySelectorAll('tbody tr').length === 3")
        window.page.click("#compare-go")
        window.wait(DRAWN)
        assert window.page.url == embedded.url + address(steady, fading)
        assert window.problems == []


@pytest.mark.browser
def test_the_page_says_where_the_runs_part_and_by_how_much(embedded):
    with open_window(embedded) as window:
        show(window, address(*seed_pair(embedded)))
        assert re.fullmatch(r"They part: .*output from layers\.\d.*\.", window.text("#conclusion"))
        kinds = [row.split("\t") for row in window.text("#kinds").splitlines()]
        assert kinds[0][0] == "Weight"
        assert [row[1] for row in kinds if row[0] == "Weight"] == ["0 of 12"]
        octaves = window.page.locator("#differences td.octaves").all_inner_texts()
        sizes = [abs(float(text.replace("−", "-"))) for text in octaves]
        assert len(sizes) == 30
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] == pytest.approx(8.11, abs=0.01)  # eleven layers · log2(1 ÷ 0.6)
        window.page.click("#more")
        assert window.page.locator("#differences tr").count() == 60
        assert "no matrix differs" in window.text("#schemes-said")
        assert "newest: A 2.24 at step 10 · B 2.27 at step 5" in window.text("#scalars")
        assert window.problems == []


@pytest.mark.browser
def test_the_band_of_tolerance_and_luck_is_drawn_behind_the_octaves(embedded):
    share = """() => {
      const canvas = document.querySelectorAll("#depth canvas")[1];
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value, i) => i % 4 === 3 && value === 0x38).length / (canvas.width * canvas.height);
    }"""
    with open_window(embedded) as window:
        show(window, address(*seed_pair(embedded)))
        assert window.page.evaluate(share) > 0.05


@pytest.mark.browser
def test_a_link_shows_somebody_else_the_same_kind_and_step(embedded):
    pair = seed_pair(embedded)
    with open_window(embedded) as window:
        show(window, address(*pair) + "&kind=activation_gradient&step=7")
        assert window.page.input_value("#kind") == "activation_gradient"
        assert window.text("#step-now") == "2 and 5"
        window.page.click("#step-first")
        window.wait("document.getElementById('step-now').textContent === '0'")
        window.page.select_option("#kind", "weight")
        assert window.page.url == f"{embedded.url}{address(*pair)}&kind=weight"


@pytest.mark.browser
def test_everything_can_be_reached_and_read_by_keyboard(embedded):
    with open_window(embedded) as window:
        show(window, address(*seed_pair(embedded)))
        reached = []
        for _ in range(24):
            window.page.keyboard.press("Tab")
            reached.append(window.page.evaluate("document.activeElement.id || document.activeElement.className"))
        for stop in ("kind", "step", "step-first", "uplot", "layer"):
            assert any(stop in name for name in reached), reached
        window.page.locator("#depth .uplot").first.focus()
        window.page.keyboard.press("End")
        assert "12. layers.11 · A 0.00363 · B 1 · +8.11 octaves, beyond tolerance and luck" in window.text(
            "#depth-readout"
        )
        window.page.locator("#differences button.layer").first.focus()
        window.page.keyboard.press("Enter")
        window.wait("location.search.includes('kind=')")


@pytest.mark.browser
def test_a_run_without_records_is_waited_for(embedded):
    fading, _ = seed_pair(embedded)
    with embedded.database.write() as conn:
        run_no, run = seeds.add_run(conn, "young")
    with open_window(embedded) as window:
        window.show(f"/compare?run={fading.id}&run={run}")
        assert "B has recorded no step yet" in window.text("main")
        assert window.page.locator("#charts").is_hidden()
        with embedded.database.write() as conn:
            tensor = seeds.add_tensor(conn, run_no, "layers.0", "output", "activation", depth=0)
            seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, seeds.normal(4.0))])
        window.wait("document.querySelectorAll('#depth canvas').length === 2")
        assert "+2.00" in window.text("#differences")
        assert window.problems == []


@pytest.mark.browser
def test_numbers_that_are_not_finite_and_zeros_are_named(embedded):
    runs = []
    with embedded.database.write() as conn:
        for rms, broken in ((0.0, 0), (1.0, 4096)):
            run_no, run = seeds.add_run(conn, last_step=0)
            for depth, record in enumerate((seeds.normal(rms), seeds.normal(1.0, nan_count=broken))):
                tensor = seeds.add_tensor(conn, run_no, f"l{depth}", "output", "activation", depth=depth)
                seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, record)])
            seeds.add_scalars(conn, run_no, "loss", [(0, float("nan") if broken else 1.0)])
            runs.append(run)
    with open_window(embedded) as window:
        show(window, f"/compare?run={runs[0]}&run={runs[1]}")
        text = window.text("#charts")
        for words in (
            "from zero",
            "not finite in one",
            "× NaN or Inf in 1 layer",
            "○ exactly zero in 1",
            "B NaN at step 0",
        ):
            assert words in text, words
        assert window.problems == []


def drawn(std: float) -> TensorStats:
    """The record of 4,096 numbers drawn from N(0, std²)."""
    return stats(count=4096, std=std, min=-3.9 * std, max=3.9 * std)


@pytest.mark.browser
def test_the_schemes_of_both_are_named(embedded):
    runs = []
    with embedded.database.write() as conn:
        for std in (0.125, 2**0.5 / 8):
            run_no, run = seeds.add_run(conn, last_step=0)
            for depth in range(3):
                tensor = seeds.add_tensor(conn, run_no, f"l{depth}", "weight", "weight", depth=depth)
                seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, drawn(std))])
            runs.append(run)
    with open_window(embedded) as window:
        window.show(f"/compare?run={runs[0]}&run={runs[1]}")
        window.wait("document.querySelectorAll('#schemes-rows tr').length === 3")
        assert "3 of 3 matrices differ" in window.text("#schemes-said")
        assert "he normal √(2/fan_in) · std 0.177" in window.text("#schemes-rows")
        assert window.problems == []


@pytest.mark.browser
def test_hostile_names_are_shown_and_never_run(embedded):
    evil = "<img src=x onerror=alert(1)>"
    runs = []
    with embedded.database.write() as conn:
        for rms in (1.0, 8.0):
            run_no, run = seeds.add_run(conn, evil, project=evil, last_step=0)
            tensor = seeds.add_tensor(conn, run_no, evil, evil, "activation", depth=0)
            seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, seeds.normal(rms))])
            seeds.add_scalars(conn, run_no, evil, [(0, 1.0), (1, 2.0)])
            seeds.add_finding(conn, run_no, evil, "critical", module_path=evil, diagnosis=evil, remedy=evil)
            runs.append(run)
    with open_window(embedded) as window:
        show(window, f"/compare?run={runs[0]}&run={runs[1]}")
        for selector in (".sides", "#conclusion", "#kinds", "#differences", "#scalars", ".side-findings"):
            assert evil in window.text(selector), selector
        assert window.page.locator("img[src='x']").count() == 0
        assert window.problems == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_light_and_dark(embedded, scheme):
    fading, steady = seed_pair(embedded)
    with embedded.database.write() as conn:
        long, long_id = seeds.add_run(conn, "a-name-without-any-space-" * 5, project="p" * 100)
        tensor = seeds.add_tensor(conn, long, "encoder." * 40, "output", "activation", depth=0)
        seeds.add_records(conn, [seeds.record_row(long, tensor, 0, seeds.normal(1.0))])
    with open_window(embedded, viewport={"width": 400, "height": 800}, color_scheme=scheme) as window:
        for path in ("/", address(fading, steady), f"/compare?run={long_id}&run={long_id}", "/compare"):
            window.show(path)
            if "run=" in path:
                window.wait("document.querySelectorAll('#depth canvas').length === 2")
            assert window.page.evaluate("document.documentElement.scrollWidth") <= 400, path
        assert window.problems == []
