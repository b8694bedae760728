from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from initscope.hooks.rules import Episode, Finding, Limits, Rule, Transition, Window, advance, close
from initscope.hooks.vocabulary import Cause, EpisodeState, Severity

INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL
PENDING, OPEN, RESOLVED, CLOSED = EpisodeState
KEY = "r|a||"
Seen = Severity | None


def rules(patience: int = 1, clear_after: int = 2) -> dict[str, Rule]:
    def check(_window: Window, _limits: Limits) -> tuple[Finding, ...]:
        return ()

    texts = {"title": "t", "statistic": "s", "harmless": "h", "remedy": "r", "source": "x"}
    return {"r": Rule(id="r", family="f", check=check, patience=patience, clear_after=clear_after, **texts)}


def sighting(severity: Severity, step: int = 0, path: str = "a") -> Finding:
    return Finding(
        rule="r", severity=severity, cause=Cause.NONE, step=step, diagnosis=severity, remedy="", module_path=path
    )


def live(
    seen: Sequence[Seen], patience: int = 1, clear_after: int = 2
) -> tuple[list[dict[str, Episode]], list[Transition]]:
    """The episodes after each step at which that severity, or nothing, was seen; and all transitions."""
    episodes: dict[str, Episode] = {}
    history, transitions = [], []
    for step, severity in enumerate(seen):
        found = [] if severity is None else [sighting(severity, step)]
        episodes, changes = advance(episodes, found, step, rules(patience, clear_after))
        history.append(episodes)
        transitions += changes
    return history, transitions


def states(history: list[dict[str, Episode]]) -> list[EpisodeState | None]:
    return [e[KEY].state if KEY in e else None for e in history]


def test_patience_one_opens_at_once() -> None:
    history, changes = live([WARNING])
    assert states(history) == [OPEN]
    assert [(c.from_state, c.to_state, c.step, c.severity, c.episode) for c in changes] == [(None, OPEN, 0, WARNING, 0)]
    assert history[0][KEY].opened_step == 0


def test_more_patience_waits_as_pending() -> None:
    history, changes = live([WARNING, WARNING, WARNING], patience=3)
    assert states(history) == [PENDING, PENDING, OPEN]
    assert [(c.from_state, c.to_state) for c in changes] == [(None, PENDING), (PENDING, OPEN)]
    assert (history[-1][KEY].first_step, history[-1][KEY].opened_step, history[-1][KEY].seen_count) == (0, 2, 3)


def test_a_pending_finding_that_goes_is_dropped() -> None:
    history, changes = live([WARNING, None, WARNING], patience=2)
    assert states(history) == [PENDING, None, PENDING]
    assert (changes[1].from_state, changes[1].to_state) == (PENDING, None)


def test_it_resolves_after_clean_steps_in_a_row() -> None:
    history, _ = live([WARNING, None, WARNING, None, None])
    assert states(history) == [OPEN, OPEN, OPEN, OPEN, RESOLVED]
    assert history[-1][KEY].resolved_step == 4


def test_a_severity_rises_at_once_and_falls_late() -> None:
    history, changes = live([WARNING, CRITICAL, WARNING, CRITICAL, WARNING, WARNING])
    assert [e[KEY].severity for e in history] == [WARNING, CRITICAL, CRITICAL, CRITICAL, CRITICAL, WARNING]
    assert [(c.from_state, c.to_state, c.severity, c.step) for c in changes[1:]] == [
        (OPEN, OPEN, CRITICAL, 1),
        (OPEN, OPEN, WARNING, 5),
    ]
    assert [e[KEY].finding.diagnosis for e in history] == [e[KEY].severity for e in history]


def test_a_finding_that_comes_back_is_a_new_episode() -> None:
    history, changes = live([WARNING, None, None, CRITICAL])
    assert (history[-1][KEY].episode, history[-1][KEY].state, history[-1][KEY].first_step) == (1, OPEN, 3)
    assert changes[-1].episode == 1


def test_silence_of_a_rule_that_was_not_judged_resolves_nothing() -> None:
    episodes, _ = advance({}, [sighting(CRITICAL)], 0, rules())
    for step in range(1, 30):
        episodes, changes = advance(episodes, [], step, rules(), judged=frozenset())
        assert changes == []
    assert episodes[KEY].state is OPEN
    closed, _ = close(episodes, 30)
    assert closed[KEY].state is CLOSED


def test_late_rows_judge_a_step_again_without_counting_it_twice() -> None:
    episodes, _ = advance({}, [sighting(WARNING)], 0, rules(patience=2))
    episodes, _ = advance(episodes, [sighting(WARNING)], 0, rules(patience=2))
    assert episodes[KEY].state is PENDING
    episodes, _ = advance(episodes, [sighting(WARNING)], 1, rules(patience=2))
    for _ in range(5):
        episodes, _ = advance(episodes, [], 2, rules())
    assert episodes[KEY].state is OPEN
    episodes, _ = advance(episodes, [sighting(CRITICAL)], 2, rules())
    assert episodes[KEY].severity is CRITICAL


def test_consequences_have_episodes_of_their_own_with_their_parent() -> None:
    root = replace(sighting(CRITICAL), consequences=(sighting(WARNING, path="b"), sighting(WARNING, path="c")))
    episodes, changes = advance({}, [root], 0, rules())
    assert {k: e.parent for k, e in episodes.items()} == {KEY: None, "r|b||": KEY, "r|c||": KEY}
    assert len(changes) == 3


def test_the_end_closes_what_is_open_and_drops_what_is_pending() -> None:
    resolved, _ = live([WARNING, None, None])
    opened, _ = live([WARNING])
    pending, _ = live([WARNING], patience=2)
    assert close(resolved[-1], 9) == (resolved[-1], [])
    after, (change,) = close(opened[-1], 9)
    assert (after[KEY].state, change.from_state, change.to_state, change.step) == (CLOSED, OPEN, CLOSED, 9)
    after, (change,) = close(pending[-1], 9)
    assert (after, change.to_state) == ({}, None)


LIVES = st.lists(st.sampled_from([None, None, INFO, WARNING, CRITICAL]), max_size=60)
COUNTS = st.integers(1, 4)


@given(LIVES, COUNTS, COUNTS)
def test_nothing_ever_resolves_before_it_opened(seen: list[Seen], patience: int, clear_after: int) -> None:
    history, changes = live(seen, patience, clear_after)
    is_open = False
    for change in changes:
        assert change.from_state is not OPEN or is_open
        assert change.to_state is not RESOLVED or is_open
        is_open = change.to_state is OPEN
    for episodes in history:
        for episode in episodes.values():
            if episode.state is RESOLVED:
                assert episode.opened_step is not None
                assert episode.resolved_step is not None
                assert episode.first_step <= episode.opened_step < episode.resolved_step


@given(LIVES, COUNTS, COUNTS)
def test_inside_the_band_nothing_flaps(seen: list[Seen], patience: int, clear_after: int) -> None:
    """A change of state is paid for with as many steps in a row as the rule asks."""
    _, changes = live(seen, patience, clear_after)
    for change in changes:
        if change.to_state is RESOLVED:
            assert seen[change.step - clear_after + 1 : change.step + 1] == [None] * clear_after
        if change.to_state is OPEN and change.from_state in (None, PENDING):
            assert None not in seen[change.step - patience + 1 : change.step + 1]


@given(LIVES, COUNTS)
def test_a_finding_seen_often_enough_stays_open_for_good(seen: list[Seen], clear_after: int) -> None:
    gaps = [WARNING, *seen]
    for at in range(0, len(gaps), clear_after):
        gaps[at] = gaps[at] or WARNING
    history, changes = live(gaps, 1, clear_after)
    assert set(states(history)) == {OPEN}
    assert sum(c.from_state is None for c in changes) == 1


@given(LIVES, COUNTS, COUNTS)
def test_severity_never_understates_the_newest_sighting(seen: list[Seen], patience: int, clear_after: int) -> None:
    history, _ = live(seen, patience, clear_after)
    for severity, episodes in zip(seen, history, strict=True):
        if severity is not None:
            assert episodes[KEY].severity.rank >= severity.rank
            assert episodes[KEY].finding.severity is episodes[KEY].severity


@given(LIVES, COUNTS, COUNTS)
def test_the_same_life_gives_the_same_transitions(seen: list[Seen], patience: int, clear_after: int) -> None:
    assert live(seen, patience, clear_after)[1] == live(seen, patience, clear_after)[1]


def of_rule(rule: str, severity: Severity, step: int, parent: Sequence[Finding] = ()) -> Finding:
    return replace(sighting(severity, step), rule=rule, consequences=tuple(parent))


def chain(*links: tuple[str, tuple[str, ...]]) -> dict[str, Rule]:
    return {name: replace(rules()["r"], id=name, explained_by=causes) for name, causes in links}


def test_what_an_earlier_finding_explains_goes_under_it() -> None:
    known = chain(("growth", ()), ("nan", ("growth",)))
    episodes, _ = advance({}, [of_rule("growth", CRITICAL, 0)], 0, known)
    episodes, _ = advance(episodes, [of_rule("nan", CRITICAL, 1)], 1, known, judged={"nan"})
    assert episodes["nan|a||"].parent == "growth|a||"
    assert episodes["growth|a||"].parent is None


def test_a_milder_a_later_or_a_resolved_finding_explains_nothing() -> None:
    known = chain(("growth", ()), ("nan", ("growth",)))
    milder, _ = advance({}, [of_rule("growth", WARNING, 0)], 0, known)
    milder, _ = advance(milder, [of_rule("nan", CRITICAL, 1)], 1, known)
    later, _ = advance({}, [of_rule("nan", CRITICAL, 0)], 0, known)
    later, _ = advance(later, [of_rule("nan", CRITICAL, 1), of_rule("growth", CRITICAL, 1)], 1, known)
    resolved, _ = advance({}, [of_rule("growth", CRITICAL, 0)], 0, known)
    for step in (1, 2):
        resolved, _ = advance(resolved, [], step, known)
    resolved, _ = advance(resolved, [of_rule("nan", CRITICAL, 3)], 3, known)
    assert [e["nan|a||"].parent for e in (milder, later, resolved)] == [None, None, None]


def test_findings_that_explain_each_other_make_no_circle() -> None:
    known = chain(("a", ("b",)), ("b", ("a",)), ("c", ("b",)))
    episodes, _ = advance({}, [of_rule("a", CRITICAL, 0)], 0, known)
    for step in (1, 2, 3):
        found = [of_rule(name, CRITICAL, step) for name in ("a", "b", "c")[: step + 1]]
        episodes, _ = advance(episodes, found, step, known)
    assert {f[0]: e.parent for f, e in episodes.items()} == {"a": None, "b": "a|a||", "c": "b|a||"}


def test_a_parent_that_never_opened_hides_nothing() -> None:
    known = chain(("jump", ()), ("spike", ("jump",)))
    known["jump"] = replace(known["jump"], patience=2)
    spike = of_rule("spike", WARNING, 0)
    episodes, _ = advance({}, [of_rule("jump", CRITICAL, 0, [spike])], 0, known)
    assert episodes["spike|a||"].parent == "jump|a||"
    episodes, _ = advance(episodes, [], 1, known)
    assert "jump|a||" not in episodes
    assert (episodes["spike|a||"].state, episodes["spike|a||"].parent) == (OPEN, None)
