"""A person watches the page of a run while its job sends batches: everything arrives without a reload."""

from __future__ import annotations

import math
from typing import Any

import pytest

from initscope.hooks import wire
from initscope.hooks.vocabulary import Kind, RunStatus
from tests.support.browser import Window, open_window
from tests.support.collector import Collector, info, stats

pytestmark = pytest.mark.browser

LAYERS = 8


def send_step(collector: Collector, step: int, *, gain: float, nan_from: int | None = None, **header: Any) -> None:
    """A step of a deep net whose signal changes by `gain` a layer; from `nan_from` on its outputs are NaN."""
    rows = wire.Records.empty()
    described = []
    for depth in range(LAYERS):
        rms = {
            Kind.WEIGHT: 0.125,
            Kind.ACTIVATION: gain**depth,
            Kind.ACTIVATION_GRADIENT: 1e-3 * gain ** (LAYERS - depth),
        }
        for kind, size in rms.items():
            name = "weight" if kind is Kind.WEIGHT else "output"
            tensor = info(
                f"layers.{depth}",
                name,
                kind,
                depth=depth,
                fan_in=64.0,
                fan_out=64.0,
                shape=[64, 64],
                module_type="Linear",
            )
            described.append(tensor)
            if nan_from is not None and depth >= nan_from and kind is Kind.ACTIVATION:
                nothing = dict.fromkeys(("mean", "std", "skewness", "kurtosis", "min", "max"), math.nan)
                rows.append(tensor.key, step, stats(nan_count=1000, **nothing))
            else:
                rows.append(tensor.key, step, stats(std=size, min=-3 * size, max=3 * size, signal_fraction=0.5))
    head = wire.Header(
        run=wire.RunKey(run_id="live", name="a live run"),
        session=wire.SessionKey(session_id="1" * 32),
        sequence=step,
        last_step=step,
        tensors=described if step == 0 else [],
        scalars=[wire.Scalar(step=step, name="loss", value=2.3 - 0.1 * step)],
        **header,
    )
    collector.send(wire.Batch(head, rows))


def mark(window: Window) -> None:
    """A reload would forget it."""
    window.page.evaluate("window.initscopeTest = 'the same page'")


def is_same_page(window: Window) -> bool:
    return window.page.evaluate("window.initscopeTest") == "the same page"


def test_a_live_run_appears_grows_fails_and_ends_before_the_readers_eyes(collector):
    with open_window(collector) as window:
        assert "No runs yet" in window.text("main")
        mark(window)
        send_step(collector, 0, gain=1.0, description=wire.RunDescription(model_class="DeepNet"))
        window.wait("document.querySelector('td.c-run a')?.textContent === 'a live run'")
        assert is_same_page(window)

        window.page.click("td.c-run a")
        window.wait_for_charts()
        mark(window)
        window.wait("document.querySelector('.verdict h2').textContent.includes('looks healthy')")
        assert window.text(".head .status") == "live"

        for step in range(1, 4):
            send_step(collector, step, gain=1.0)
        window.wait("document.getElementById('step-now').textContent === '3'")
        window.wait("document.querySelectorAll('.map-steps span').length === 4")
        window.wait("document.querySelector('#scalars .note').textContent.includes('step 3 · 2')")

        send_step(collector, 4, gain=1.0, nan_from=5)
        window.wait("document.querySelector('.verdict h2').textContent.includes('expected to fail')")
        window.wait("document.querySelector('.finding.critical [data-layer]')?.textContent === 'layers.5'")
        window.wait("document.querySelector('#profile .note').textContent.includes('NaN or Inf in 3 layers')")

        send_step(collector, 5, gain=1.0, nan_from=5, status=RunStatus.FAILED)
        window.wait("document.querySelector('.head .status').textContent === 'failed'")
        assert "expected to fail" in window.text(".verdict h2")
        assert is_same_page(window)
        assert window.problems == []


def test_a_page_that_was_open_before_the_first_row_fills_itself(embedded):
    head = wire.Header(
        run=wire.RunKey(run_id="live", name="early"), session=wire.SessionKey(session_id="1" * 32), sequence=10**6
    )
    embedded.send(wire.Batch(head))
    (run,) = embedded.http.get("/api/v1/runs").json()["runs"]
    with open_window(embedded) as window:
        window.show(f"/runs/{run['id']}")
        assert "No rows yet" in window.text(".verdict h2")
        assert not window.page.locator("#charts").is_visible()
        mark(window)
        send_step(embedded, 0, gain=0.9)
        window.wait_for_charts()
        assert is_same_page(window)
        assert window.problems == []


def test_what_a_reader_has_chosen_and_opened_stays_when_rows_arrive(embedded):
    send_step(embedded, 0, gain=0.2)
    send_step(embedded, 1, gain=0.2)
    (run,) = embedded.http.get("/api/v1/runs").json()["runs"]
    with open_window(embedded) as window:
        window.show(f"/runs/{run['id']}?step=0&kind=weight")
        window.wait_for_charts()
        window.page.click("summary >> text=Run details")
        window.page.locator("#map-kind").focus()
        send_step(embedded, 2, gain=0.2)
        window.wait("document.querySelectorAll('.map-steps span').length === 3")
        assert window.text("#step-now") == "0"
        assert window.page.input_value("#map-kind") == "weight"
        assert window.page.locator("details.about").get_attribute("open") is not None
        assert window.page.evaluate("document.activeElement.id") == "map-kind"
        assert window.problems == []
