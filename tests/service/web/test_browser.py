from __future__ import annotations

import re

import pytest

from tests.support import seeds
from tests.support.browser import open_window
from tests.support.collector import Collector

pytestmark = pytest.mark.browser


def seed_bad_run(collector: Collector) -> seeds.Seeded:
    with collector.database.write() as conn:
        run = seeds.add_mlp(conn, "deep relu", layers=12, steps=[*range(21), 30, 40], gain=0.5)
        seeds.add_finding(conn, run.run_no, "forward-drift", "critical", module_path="layers.3", kind="activation")
        seeds.add_finding(conn, run.run_no, "update-ratio", "warning", module_path="layers.5", at_step=20)
    return run


def test_the_page_of_a_run_draws_every_chart_without_a_complaint(embedded):
    run = seed_bad_run(embedded)
    with open_window(embedded) as window:
        window.page.click("text=deep relu")
        window.wait_for_charts()
        assert "expected to fail" in window.text(".verdict h2")
        assert window.page.locator("#scalars canvas").count() == 1
        assert "12 layers" in window.text("#profile-readout")
        assert window.text("#step-now") == "40"
        assert window.page.url == f"{embedded.url}/runs/{run.id}"
        assert window.problems == []


def test_a_cell_of_the_map_tells_its_numbers_and_selects_its_tensor(embedded):
    run = seed_bad_run(embedded)
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}")
        window.wait_for_charts()
        box = window.page.locator("#map canvas").first.bounding_box()
        assert box
        window.page.locator("#map canvas").first.click(position={"x": 3, "y": box["height"] - 3})
        assert re.search(r"layers\.11 .* step 0 .* rms 4\.88e−4 \(2⁻¹¹\)", window.text("#map-readout"))
        last = run.tensors["layers.11", "output", "activation"]
        window.wait("n => document.querySelector('#series-tensor').value === String(n)", last)
        assert f"tensor={last}" in window.page.url
        assert window.problems == []


def test_everything_can_be_reached_by_keyboard(embedded):
    run = seed_bad_run(embedded)
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}")
        window.wait_for_charts()
        reached = []
        for _ in range(40):
            window.page.keyboard.press("Tab")
            reached.append(
                window.page.evaluate(
                    "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
                )
            )
        for stop in ("skip", "layer", "step", "step-latest", "uplot", "map-kind", "series-tensor", "CANVAS", "SUMMARY"):
            assert any(stop in name for name in reached), reached
        window.page.locator("#map canvas").first.focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
            window.page.keyboard.press(key)
        assert "layers.2 · Output · step 1 ·" in window.text("#map-readout")
        window.page.keyboard.press("Enter")
        assert f"tensor={run.tensors['layers.2', 'output', 'activation']}" in window.page.url
        window.page.locator("#profile .uplot").first.focus()
        window.page.keyboard.press("End")
        assert "12. layers.11 · forward" in window.text("#profile-readout")


def test_a_link_shows_somebody_else_the_same(embedded):
    run = seed_bad_run(embedded)
    tensor = run.tensors["layers.7", "weight", "gradient"]
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}?step=12&kind=weight&statistic=std&tensor={tensor}&of=kurtosis")
        window.wait_for_charts()
        chosen = {
            name: window.page.input_value(f"#{name}")
            for name in ("map-kind", "map-statistic", "series-tensor", "series-statistic")
        }
        assert chosen == {
            "map-kind": "weight",
            "map-statistic": "std",
            "series-tensor": str(tensor),
            "series-statistic": "kurtosis",
        }
        assert window.text("#step-now") == "12"
        window.page.click("#step-latest")
        window.wait("document.getElementById('step-now').textContent === '40'")
        window.page.select_option("#map-kind", "update")
        assert "step=newest" in window.page.url
        assert "kind=update" in window.page.url


def test_an_ended_run_opens_at_the_step_where_its_worst_finding_began(embedded):
    with embedded.database.write() as conn:
        bad = seeds.add_mlp(conn, "ended badly", layers=4, steps=range(9), status="finished")
        seeds.add_finding(conn, bad.run_no, "forward-drift", "critical", module_path="layers.2", at_step=3)
        good = seeds.add_mlp(conn, "ended well", layers=4, steps=range(9), status="finished")
    with open_window(embedded) as window:
        for run, step in ((bad, "3"), (good, "0")):
            window.show(f"/runs/{run.id}")
            window.wait_for_charts()
            assert window.text("#step-now") == step
            assert window.page.get_attribute("#step-latest", "aria-pressed") == "false"
        window.page.click("#step-latest")
        window.wait("document.getElementById('step-now').textContent === '8'")


def test_a_layer_of_a_finding_leads_to_its_curve(embedded):
    run = seed_bad_run(embedded)
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}")
        window.wait_for_charts()
        window.page.click("button.layer >> text=layers.5")
        assert f"tensor={run.tensors['layers.5', 'weight', 'weight']}" in window.page.url


def test_values_that_are_not_finite_are_marked_and_named(embedded):
    with embedded.database.write() as conn:
        run_no, run = seeds.add_run(conn, last_step=0)
        for depth, record in enumerate((seeds.normal(1.0), seeds.normal(1.0, nan_count=4096), seeds.normal(0.0))):
            tensor = seeds.add_tensor(conn, run_no, f"l{depth}", "output", "activation", depth=depth)
            seeds.add_records(conn, [seeds.record_row(run_no, tensor, 0, record)])
        seeds.add_scalars(conn, run_no, "loss", [(0, float("nan"))])
    with open_window(embedded) as window:
        window.show(f"/runs/{run}")
        window.wait("document.querySelectorAll('#map-readout').length && document.querySelector('.map-legend .key')")
        legend = window.text(".map-legend")
        assert "NaN or Inf" in legend
        assert "exactly zero" in legend
        assert "× NaN or Inf in 1 layer" in window.text("#profile")
        assert "NaN" in window.text("#scalars")
        window.page.locator("#map canvas").first.focus()
        window.page.keyboard.press("ArrowDown")
        assert "4,096 elements NaN or Inf" in window.text("#map-readout")
        assert window.problems == []


def test_hostile_names_are_shown_and_never_run(embedded):
    evil = "<img src=x onerror=alert(1)>"
    with embedded.database.write() as conn:
        run_no, _ = seeds.add_run(
            conn, evil, project=evil, last_step=1, description={"config": {evil: evil}, "notes": [evil]}
        )
        for kind, name in (("activation", "output"), ("activation_gradient", "output"), ("weight", evil)):
            tensor = seeds.add_tensor(conn, run_no, evil, name, kind, depth=0)
            seeds.add_records(conn, [seeds.record_row(run_no, tensor, s, seeds.normal(1.0)) for s in (0, 1)])
        seeds.add_scalars(conn, run_no, evil, [(0, 1.0), (1, 2.0)])
        seeds.add_finding(
            conn, run_no, evil, "critical", module_path=evil, diagnosis=evil, remedy=evil, evidence={evil: evil}
        )
    with open_window(embedded) as window:
        window.page.click("td.c-run a")
        window.wait_for_charts()
        window.page.locator("#map canvas").first.focus()
        window.page.click("summary >> text=Run details")
        for selector in ("h1", ".finding", "#map-readout", "#scalars", "#series-readout", ".pairs"):
            assert evil in window.text(selector), selector
        assert window.page.locator("img[src='x']").count() == 0
        window.show(f"/?project={evil}")
        assert evil in window.text("td.c-run")
        assert window.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_in_light_and_dark(embedded, scheme):
    run = seed_bad_run(embedded)
    with embedded.database.write() as conn:
        seeds.add_run(conn, "a-name-without-any-space-" * 5, project="p" * 100)
    with open_window(embedded, viewport={"width": 400, "height": 800}, color_scheme=scheme) as window:
        for path in ("/", f"/runs/{run.id}", "/login"):
            window.show(path)
            if "runs" in path:
                window.wait_for_charts()
                window.page.click("summary >> text=Run details")
            assert window.page.evaluate("document.documentElement.scrollWidth") <= 400, path
        background = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (brightness > 128) == (scheme == "light")
        assert window.problems == []


def test_a_collector_that_is_away_is_said_and_forgotten_when_it_is_back(embedded):
    run = seed_bad_run(embedded)
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}")
        window.wait_for_charts()
        window.page.route("**/*", lambda route: route.abort())
        window.wait("!document.getElementById('away').hidden")
        assert "retrying" in window.text("#away")
        window.page.unroute_all()
        window.wait("document.getElementById('away').hidden")
        assert not [p for p in window.problems if p.startswith("exception")]


def test_a_login_that_ended_leads_to_the_login_and_back(embedded):
    run = seed_bad_run(embedded)
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}?kind=weight")
        window.wait_for_charts()
        window.page.context.clear_cookies()
        window.page.wait_for_url("**/login?next=**")
        window.page.fill("#token", embedded.token)
        window.page.click("button.primary")
        window.page.wait_for_url(f"**/runs/{run.id}?kind=weight")


def test_a_remedy_can_be_copied(embedded):
    run = seed_bad_run(embedded)
    with open_window(embedded, permissions=["clipboard-read", "clipboard-write"]) as window:
        window.show(f"/runs/{run.id}")
        window.page.locator("[data-copy]").first.click()
        window.wait("document.querySelector('[data-copy]').textContent === 'Copied'")
        assert "kaiming_normal_" in window.page.evaluate("navigator.clipboard.readText()")


def test_a_loss_that_explodes_at_once_does_not_stop_the_page(embedded):
    with embedded.database.write() as conn:
        run = seeds.add_mlp(conn, layers=2, steps=[0])
        seeds.add_scalars(conn, run.run_no, "first loss only", [(0, 5.5e16), (1, float("nan"))])
        seeds.add_scalars(conn, run.run_no, "constant", [(0, 1e-30), (1, 1e-30)])
        seeds.add_scalars(conn, run.run_no, "wide", [(0, -1e38), (1, 1e38)])
        seeds.add_scalars(conn, run.run_no, "zero", [(0, 0.0), (10**12, 0.0)])
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}")
        window.wait("document.querySelectorAll('#scalars canvas').length === 5")
        assert window.problems == []
