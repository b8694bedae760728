"""The page of the rules: every text of the catalogue, the thresholds that hold, and the way to it from a finding."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from initscope.hooks.rules import RULES
from tests.support import seeds
from tests.support.browser import open_window
from tests.support.collector import Collector, running_collector

LIMITED = next(rule for rule in RULES if {"warning", "critical"} <= rule.limits.keys())
OTHER = next(rule for rule in RULES if rule is not LIMITED)


def plain(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def section(page: str, rule: str) -> str:
    return re.search(rf'<article class="rule[^"]*" id="{rule}">.*?</article>', page, re.DOTALL)[0]


def test_every_rule_has_its_texts_there(embedded: Collector) -> None:
    page = embedded.http.get("/rules").text
    for rule in RULES:
        words = plain(section(page, rule.id))
        for text in (rule.title, rule.statistic, rule.harmless, rule.remedy, rule.source):
            # Names in code stand apart from the punctuation behind them, once the marks are gone.
            assert re.sub(r"\W", "", text) in re.sub(r"\W", "", words), rule.id
        for name in rule.limits:
            assert f"<dt>{name}</dt>" in section(page, rule.id)
    assert "&lt;code&gt;" not in page
    assert re.search(r"<code>warning</code>", section(page, LIMITED.id))


def test_links_inside_the_page_lead_somewhere(embedded: Collector) -> None:
    page = embedded.http.get("/rules").text
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert {rule.id for rule in RULES} <= links <= set(ids)


def test_what_the_file_and_the_run_changed_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(f"[{LIMITED.id}]\nwarning = 77.5\n")
    with running_collector(tmp_path, rules=file) as collector:
        with collector.database.write() as conn:
            asked = {"limits": {LIMITED.id: {"critical": 99.5}}, "disabled_rules": [OTHER.id, "<b>mine</b>"]}
            _, run = seeds.add_run(conn, "wide <stem>", description=asked)
        general = collector.http.get("/rules").text
        assert "77.5 default" in plain(section(general, LIMITED.id))
        assert "switched off" not in general
        page = collector.http.get(f"/rules?run={run}").text
        assert "Rules for wide <stem>" in plain(page)
        assert "77.5 default" in plain(section(page, LIMITED.id))
        assert "99.5 default" in plain(section(page, LIMITED.id))
        assert "switched off" in section(page, OTHER.id)
        assert "<code>&lt;b&gt;mine&lt;/b&gt;</code>" in page
        assert collector.http.get("/rules?run=nothing").status_code == 404


def test_the_headline_counts_the_rules_that_judged_this_run(embedded: Collector) -> None:
    with embedded.database.write() as conn:
        for name, off in (("all", []), ("fewer", [LIMITED.id, OTHER.id])):
            run = seeds.add_mlp(conn, name, layers=2, steps=[0, 1])
            conn.exec_driver_sql(
                f"UPDATE runs SET description = '{{\"disabled_rules\": {str(off).replace(chr(39), chr(34))}}}'"  # noqa: S608
                f" WHERE run_no = {run.run_no}"
            )
    counts = {}
    for head in embedded.http.get("/api/v1/runs").json()["runs"]:
        page = embedded.http.get(f"/runs/{head['id']}").text
        counts[head["name"]] = int(re.search(r"(\d+) rules looked at 2 sampled steps", page)[1])
    assert counts["fewer"] == counts["all"] - 2


@pytest.mark.browser
def test_a_finding_leads_to_its_rule_and_the_bar_to_all_of_them(embedded: Collector) -> None:
    with embedded.database.write() as conn:
        run = seeds.add_mlp(conn, "deep relu", layers=3, steps=[0])
        seeds.add_finding(conn, run.run_no, LIMITED.id, "critical", module_path="layers.1", kind="activation")
        seeds.add_finding(conn, run.run_no, "of-another-version", "warning")
    with open_window(embedded) as window:
        window.show(f"/runs/{run.id}")
        assert window.page.locator("a.about-rule").count() == 1, "a rule that nobody knows has no page"
        window.page.click("a.about-rule")
        assert window.page.url == f"{embedded.url}/rules?run={run.id}#{LIMITED.id}"
        assert window.text("h1") == "Rules for deep relu"
        box = window.page.locator(f"#{LIMITED.id}").bounding_box()
        assert box
        assert -1 <= box["y"] <= 60, "the rule is what one sees"
        window.page.click("nav.places >> text=Rules")
        assert window.page.url == f"{embedded.url}/rules"
        assert window.text("h1") == "Rules"
        assert window.problems == []


@pytest.mark.browser
def test_nothing_stands_out_of_a_telephone(embedded: Collector) -> None:
    with open_window(embedded, viewport={"width": 360, "height": 740}) as window:
        window.show("/rules")
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert window.problems == []
