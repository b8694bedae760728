from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib.resources import files

import httpx
import pytest

from initscope.hooks.rules import RULES
from initscope.service.web import words
from tests.support import seeds

STATIC = files("initscope.service.web") / "static"
HTML = {"Accept": "text/html"}


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_without_a_login_a_page_leads_to_the_login_and_back(embedded):
    with httpx.Client(base_url=embedded.url, headers=HTML) as browser:
        away = browser.get("/runs/some-run?step=3&kind=weight")
        assert (away.status_code, away.headers["location"]) == (
            303, "/login?next=/runs/some-run%3Fstep%3D3%26kind%3Dweight",
        )  # fmt: skip
        assert "initscope" in browser.get(away.headers["location"]).text
        form = {"token": embedded.token, "next": "/runs/some-run?step=3&kind=weight"}
        back = browser.post("/login", data=form)
        assert back.headers["location"] == "/runs/some-run?step=3&kind=weight"
        assert browser.get("/").status_code == 200


def test_an_empty_collector_says_how_to_begin(embedded):
    page = embedded.http.get("/", headers=HTML).text
    assert "No runs yet" in page
    assert "watch(model)" in page


def test_an_unknown_run_is_a_page_that_leads_back(embedded):
    response = embedded.http.get("/runs/nothing", headers=HTML)
    assert response.status_code == 404
    assert "No such run" in response.text


def test_a_filter_that_matches_nothing_says_so(embedded):
    with embedded.database.write() as conn:
        seeds.add_run(conn, "a")
    assert "No run matches" in embedded.http.get("/?name=b").text
    assert "No run matches" not in embedded.http.get("/?name=a").text


@pytest.mark.parametrize(
    ("severities", "headline"),
    [(["critical", "warning"], "expected to fail"), (["warning"], "deserves a look"), ([], "looks healthy")],
)
def test_the_headline_says_the_verdict_in_plain_words(embedded, severities, headline):
    with embedded.database.write() as conn:
        run = seeds.add_mlp(conn, layers=2, steps=[0, 1])
        for severity in severities:
            seeds.add_finding(conn, run.run_no, f"weight-scale-{severity}", severity)
    page = embedded.http.get(f"/runs/{run.id}").text
    assert headline in re.search(r"<h2>(.*?)</h2>", page, re.DOTALL)[1]


def test_a_finding_shows_layer_evidence_and_remedy(embedded):
    with embedded.database.write() as conn:
        run = seeds.add_mlp(conn, layers=2, steps=[0])
        seeds.add_finding(
            conn, run.run_no, "weight-scale", "warning", evidence={"expected_std": 0.088388, "loss": "NaN"}
        )
    page = embedded.http.get(f"/runs/{run.id}").text
    for words_shown in ("Weights of the wrong scale", "layers.3", "expected std", "0.08839", "NaN", "kaiming_normal_"):
        assert words_shown in page


def test_names_from_a_job_stay_text(embedded):
    evil = "<img src=x onerror=alert(1)>\"'&"
    with embedded.database.write() as conn:
        run_no, run = seeds.add_run(
            conn, evil, project=evil, tags=[evil], note=evil, last_step=0,
            description={
                "model_class": evil, "config": {evil: evil, "nested": {"a": [evil]}}, "notes": [evil],
                "versions": {evil: evil},
            },
        )  # fmt: skip
        seeds.add_finding(
            conn, run_no, evil, "critical", module_path=evil, tensor_name=evil, diagnosis=evil, remedy=evil,
            evidence={evil: evil}, cause=evil,
        )  # fmt: skip
        seeds.add_session(conn, run_no, host=evil, books={"dropped": {evil: 1}})
    for path in ("/", f"/runs/{run}"):
        page = embedded.http.get(path).text
        assert not [tag for tag, attributes in Tags(page).found if tag == "img" and attributes.get("src") == "x"]
        assert not [name for _, attributes in Tags(page).found for name in attributes if name.startswith("on")]
        assert "&lt;img" in page


def test_pages_need_no_inline_script_or_style_and_their_policy_allows_none(embedded):
    with embedded.database.write() as conn:
        run = seeds.add_mlp(conn, layers=2, steps=[0])
        seeds.add_finding(conn, run.run_no, "weight-scale", "warning")
    for path in ("/", f"/runs/{run.id}", "/login", "/runs/nothing"):
        response = embedded.http.get(path, headers=HTML)
        policy = response.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
        for tag, attributes in Tags(response.text).found:
            assert "style" not in attributes, tag
            assert tag != "style"
            assert tag != "script" or attributes.get("src", "").startswith("/static/")


def test_static_files_are_served_to_anybody_and_always_asked_for_again(embedded):
    for name in ("page.css", "run.js", "vendor/uPlot.iife.min.js", "vendor/uPlot.LICENSE"):
        response = httpx.get(f"{embedded.url}/static/{name}")
        assert (response.status_code, response.headers["cache-control"]) == (200, "no-cache")
        again = httpx.get(f"{embedded.url}/static/{name}", headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304
    assert httpx.get(f"{embedded.url}/static/../pages.py").status_code == 404


def test_scripts_never_build_markup_out_of_text():
    scripts = [path for path in STATIC.iterdir() if path.name.endswith(".js")]
    assert len(scripts) > 5
    for path in scripts:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, path.name
        for danger in ("innerHTML", "outerHTML =", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert danger not in text, f"{path.name}: {danger}"


def test_the_plotting_library_carries_its_licence():
    assert "(v1.6.32)" in (STATIC / "vendor" / "uPlot.iife.min.js").read_text()[:100]
    assert "MIT" in (STATIC / "vendor" / "uPlot.LICENSE").read_text()


def test_every_rule_has_a_name_for_people():
    for rule in RULES:
        assert words.rule_title(rule.id) != rule.id
    assert words.rule_title("rule-of-a-newer-version") == "rule-of-a-newer-version"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (1234567, "1,234,567"),
        (0.0883883, "0.08839"),
        (1e-12, "1e-12"),
        (float("nan"), "NaN"),
        (float("-inf"), "−Inf"),
        ("NaN", "NaN"),
        (2.0, "2"),
    ],
)
def test_numbers_are_written_for_reading(value, text):
    assert words.number(value) == text


def test_a_loss_curve_of_a_run_is_drawn_in_the_list(embedded):
    with embedded.database.write() as conn:
        seeds.add_mlp(conn, layers=1, steps=range(5))
    points = re.search(r'<polyline points="([^"]+)"', embedded.http.get("/").text)
    assert points
    heights = [float(pair.split(",")[1]) for pair in points[1].split()]
    assert heights == sorted(heights)
