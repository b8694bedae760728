"""The life of findings: a pure state machine for each fingerprint of one attempt of a run.

    (absent) → pending → open → resolved        a finding that comes back is a new episode
                  ↓         ↘ closed            the run ended while it was open; open again if the run goes on
               dropped

Hysteresis is in steps: `Rule.patience` sightings in a row open a finding, `Rule.clear_after` clean steps in a row
resolve it, and as many milder steps in a row lower its severity. A severity rises at once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from initscope.hooks.rules.engine import Rule
from initscope.hooks.rules.finding import Finding
from initscope.hooks.vocabulary import EpisodeState, Severity


@dataclass(frozen=True)
class Episode:
    """One stretch of a finding's life.

    `finding` is its newest sighting of that severity; `parent` the fingerprint of what explains it.

    `severity` is the episode's own, which falls later than the finding's. `clean_count` and `milder_count` are judged
    steps in a row without the finding, and with a milder one. `judged_step` is the last step that counted.
    """

    state: EpisodeState
    severity: Severity
    first_step: int
    last_step: int
    finding: Finding
    opened_step: int | None = None
    resolved_step: int | None = None
    seen_count: int = 1
    clean_count: int = 0
    episode: int = 0
    parent: str | None = None
    milder_count: int = 0
    judged_step: int = -1

    @property
    def is_alive(self) -> bool:
        """Pending or open."""
        return self.state in (EpisodeState.PENDING, EpisodeState.OPEN)


@dataclass(frozen=True)
class Transition:
    """A change that somebody may want to hear of. `to_state` None: a pending finding was dropped, it never opened."""

    fingerprint: str
    from_state: EpisodeState | None
    to_state: EpisodeState | None
    step: int
    severity: Severity
    episode: int


Step = tuple[Episode | None, list[Transition]]


def advance(
    episodes: Mapping[str, Episode],
    findings: Sequence[Finding],
    step: int,
    rules: Mapping[str, Rule],
    judged: Container[str] | None = None,
) -> tuple[dict[str, Episode], list[Transition]]:
    """Episodes by fingerprint after one more evaluated step, and what changed.

    `findings` are the roots of `diagnose`; their consequences have episodes of their own, with the root as parent, and
    so have those that an open episode of an earlier step explains.
    `judged` holds the ids of the rules that this step could judge (`engine.judged`): for others silence is no
    all-clear; None means all. A step that was judged before (late rows) may add and worsen, but does not count again.
    """
    seen = _by_fingerprint(findings)
    after: dict[str, Episode] = {}
    changes: list[Transition] = []
    for fingerprint in [*episodes, *(f for f in seen if f not in episodes)]:
        old = episodes.get(fingerprint)
        if fingerprint in seen:
            new, changed = _sighted(fingerprint, old, *seen[fingerprint], step, rules)
        elif old is not None and old.is_alive and _was_judged(old, judged):
            new, changed = _missed(fingerprint, old, step, rules)
        else:
            new, changed = old, []
        changes += changed
        if new is not None:
            after[fingerprint] = new
    return _traced(after, rules), changes


def _traced(episodes: Mapping[str, Episode], rules: Mapping[str, Rule]) -> dict[str, Episode]:
    """The episodes, with what an earlier one led to under it.

    `engine.fold` sees one step. What follows later (NaN some steps after a signal that grows) is no second root: a root
    goes under an open episode that began before it, is at least as severe, and is named in its rule's `explained_by`.
    """
    traced = dict(episodes)
    for fingerprint, episode in episodes.items():
        # A parent that never opened explains nothing.
        if episode.is_alive and (episode.parent is None or episode.parent not in episodes):
            traced[fingerprint] = replace(episode, parent=_origin_of(fingerprint, episode, traced, rules))
    return traced


def _origin_of(
    fingerprint: str, episode: Episode, episodes: Mapping[str, Episode], rules: Mapping[str, Rule]
) -> str | None:
    """The fingerprint of the earliest open episode that explains this one; None where there is none."""
    rule = rules.get(episode.finding.rule)
    causes = [
        (other.first_step, name)
        for name, other in episodes.items()
        if rule is not None
        and other.finding.rule in rule.explained_by
        and other.state is EpisodeState.OPEN
        and other.first_step < episode.first_step
        and other.severity.rank >= episode.severity.rank
        and not _is_below(name, fingerprint, episodes)
    ]
    return min(causes)[1] if causes else None


def _is_below(fingerprint: str, root: str, episodes: Mapping[str, Episode]) -> bool:
    seen: set[str] = set()
    up: str | None = fingerprint
    while up is not None and up in episodes and up not in seen:
        if up == root:
            return True
        seen.add(up)
        up = episodes[up].parent
    return False


def close(episodes: Mapping[str, Episode], step: int) -> tuple[dict[str, Episode], list[Transition]]:
    """The run ended: open episodes close, pending ones are dropped, the rest stays."""
    after: dict[str, Episode] = {}
    changes: list[Transition] = []
    for fingerprint, episode in episodes.items():
        if episode.state is EpisodeState.PENDING:
            changes.append(_transition(fingerprint, episode, None, step))
            continue
        if episode.state is EpisodeState.OPEN:
            changes.append(_transition(fingerprint, episode, EpisodeState.CLOSED, step))
            episode = replace(episode, state=EpisodeState.CLOSED)
        after[fingerprint] = episode
    return after, changes


def reopen(episodes: Mapping[str, Episode], step: int) -> tuple[dict[str, Episode], list[Transition]]:
    """The run went on after its end: what the end had closed is open again, the same episode as before."""
    closed = {f: episode for f, episode in episodes.items() if episode.state is EpisodeState.CLOSED}
    changes = [_transition(fingerprint, episode, EpisodeState.OPEN, step) for fingerprint, episode in closed.items()]
    return {**episodes, **{f: replace(episode, state=EpisodeState.OPEN) for f, episode in closed.items()}}, changes


def _by_fingerprint(findings: Iterable[Finding]) -> dict[str, tuple[Finding, str | None]]:
    """Each finding once, the worst of those with one fingerprint, with its parent."""
    seen: dict[str, tuple[Finding, str | None]] = {}
    for finding, parent in (pair for root in findings for pair in root.flattened()):
        known = seen.get(finding.fingerprint)
        if known is None or finding.severity.rank > known[0].severity.rank:
            seen[finding.fingerprint] = (finding, parent)
    return seen


def _was_judged(episode: Episode, judged: Container[str] | None) -> bool:
    return judged is None or episode.finding.rule in judged


def _sighted(
    fingerprint: str, old: Episode | None, finding: Finding, parent: str | None, step: int, rules: Mapping[str, Rule]
) -> Step:
    patience = rules[finding.rule].patience if finding.rule in rules else 1
    if old is not None and old.resolved_step is not None and step <= old.resolved_step:
        return old, []  # late rows of a step that is history: the episode that they belong to is told already
    if old is None or not old.is_alive:
        number = 0 if old is None else old.episode + 1
        fresh = Episode(
            EpisodeState.PENDING, finding.severity, step, step, finding,
            episode=number, parent=parent, judged_step=step,
        )  # fmt: skip
        return _opened(fingerprint, fresh, None, patience, step)
    again = step <= old.judged_step
    known = replace(
        old,
        finding=finding,
        parent=parent,
        last_step=max(old.last_step, step),
        seen_count=old.seen_count + (not again),
        clean_count=0,
        judged_step=max(old.judged_step, step),
    )
    if old.state is EpisodeState.PENDING:
        worst = max(finding, old.finding, key=lambda f: f.severity.rank)
        return _opened(fingerprint, replace(known, severity=worst.severity, finding=worst), old.state, patience, step)
    return _weighed(fingerprint, old, known, again, rules, step)


def _opened(fingerprint: str, episode: Episode, before: EpisodeState | None, patience: int, step: int) -> Step:
    if episode.seen_count >= patience:
        opened = replace(episode, state=EpisodeState.OPEN, opened_step=step)
        return opened, [Transition(fingerprint, before, EpisodeState.OPEN, step, opened.severity, opened.episode)]
    if before is None:
        change = Transition(fingerprint, None, EpisodeState.PENDING, step, episode.severity, episode.episode)
        return episode, [change]
    return episode, []


def _weighed(fingerprint: str, old: Episode, new: Episode, again: bool, rules: Mapping[str, Rule], step: int) -> Step:
    """An open episode's severity: up at once, down after as many milder steps as would resolve it."""
    now = new.finding.severity
    milder = new.milder_count + (not again) if now.rank < old.severity.rank else 0
    if now.rank == old.severity.rank or (milder and milder < _patience(new, rules)):
        # The words stay those of the step that set the severity: a start is explained, and mended, by its own numbers,
        # not by what a diverging run made of them since.
        return replace(new, milder_count=milder, finding=old.finding), []
    changed = replace(new, severity=now, milder_count=0)
    return changed, [_transition(fingerprint, changed, EpisodeState.OPEN, step)]


def _missed(fingerprint: str, old: Episode, step: int, rules: Mapping[str, Rule]) -> Step:
    if step <= old.judged_step:
        return old, []
    episode = replace(old, clean_count=old.clean_count + 1, milder_count=0, judged_step=step)
    if old.state is EpisodeState.PENDING:
        return None, [_transition(fingerprint, old, None, step)]
    if episode.clean_count < _patience(episode, rules):
        return episode, []
    resolved = replace(episode, state=EpisodeState.RESOLVED, resolved_step=step)
    return resolved, [Transition(fingerprint, old.state, EpisodeState.RESOLVED, step, old.severity, old.episode)]


def _patience(episode: Episode, rules: Mapping[str, Rule]) -> int:
    rule = rules.get(episode.finding.rule)
    return rule.clear_after if rule is not None else 2


def _transition(fingerprint: str, episode: Episode, to_state: EpisodeState | None, step: int) -> Transition:
    return Transition(fingerprint, episode.state, to_state, step, episode.severity, episode.episode)
