from __future__ import annotations

from datetime import UTC, datetime
from itertools import count

from initscope.hooks.vocabulary import Severity, Verdict
from initscope.service.store.read_findings import FindingHead, nest, summarize

_numbers = count()


def finding(name: str, severity: str = "warning", parent: str | None = None, first_step: int = 0) -> FindingHead:
    return FindingHead(
        finding_no=next(_numbers), run_no=1, id=name, attempt=0, fingerprint=name, episode=0, rule=name,
        severity=Severity(severity), cause="none", state="open", module_path=None, tensor_name=None, kind=None,
        parent=parent, first_step=first_step, opened_step=first_step, last_step=first_step, resolved_step=None,
        diagnosis="", remedy="", evidence={}, opened_at=None, updated_at=datetime.now(UTC),
    )  # fmt: skip


def shape(findings: list[FindingHead]) -> list[tuple[str, list[str]]]:
    return [(f.id, [child.id for child in f.consequences]) for f in findings]


def test_consequences_lie_under_their_root_however_deep():
    found = [finding("c", parent="b"), finding("b", parent="a"), finding("a", "critical"), finding("d")]
    assert shape(nest(found)) == [("a", ["c", "b"]), ("d", [])]


def test_a_finding_whose_explanation_is_gone_stands_for_itself():
    assert shape(nest([finding("b", "critical", parent="a")])) == [("b", [])]


def test_findings_that_explain_each_other_do_not_vanish():
    assert shape(nest([finding("a", parent="b"), finding("b", parent="a")])) == [("a", []), ("b", [])]


def test_roots_come_worst_first_then_by_step():
    found = [finding("late", first_step=9), finding("early"), finding("worst", "critical", first_step=20)]
    assert [f.id for f in nest(found)] == ["worst", "early", "late"]


def test_infos_do_not_darken_the_verdict():
    assert summarize([]).verdict is Verdict.OK
    assert summarize([finding("a", "info")]).verdict is Verdict.OK
    assert summarize([finding("a", "info"), finding("b")]).verdict is Verdict.WARNING
    assert summarize(nest([finding("b"), finding("c", "critical")])).verdict is Verdict.CRITICAL


def test_a_consequence_counts_apart_from_roots():
    summary = summarize(nest([finding("a", "critical"), finding("b", "critical", parent="a"), finding("c", "info")]))
    assert (summary.critical, summary.warning, summary.info, summary.consequences) == (1, 0, 1, 1)
    assert summary.first is not None
    assert summary.first.id == "a"
