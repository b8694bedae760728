"""What the demo reports of each run: the collector's verdict beside what the loss did."""

from __future__ import annotations

import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from initscope.hooks.demo import judge
from initscope.hooks.demo.catalogue import DemoRun
from initscope.hooks.encoding import number_to_json
from initscope.hooks.vocabulary import RunStatus, Severity, Verdict
from initscope.service.cli.demo_trainings import Training

DEADLINE_STEP: Final = 20
"""A broken start must be named by this step."""
_PATIENCE_SECONDS: Final = 30.0


@dataclass(kw_only=True)
class Outcome:
    """A row of the table."""

    run: DemoRun
    verdict: Verdict
    rule: str | None
    cause: str | None
    module_path: str | None
    finding_step: int | None
    loss_step: int | None
    final_loss: float
    problems: list[str] = field(default_factory=list)

    @property
    def is_as_expected(self) -> bool:
        """Whether the diagnosis and the label both hold."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The row for `--json`."""
        return {
            "run": self.run.name,
            "expected": "broken" if self.run.is_broken else "healthy",
            "verdict": self.verdict.value,
            "rule": self.rule,
            "cause": self.cause,
            "module_path": self.module_path,
            "finding_step": self.finding_step,
            "loss_step": self.loss_step,
            "final_loss": number_to_json(self.final_loss),
        }


def outcomes(url: str, token: str, trainings: Sequence[Training]) -> list[Outcome]:
    """One row a training, in their order; waits until the collector has judged every row."""
    twins = _twins(trainings)
    return [_outcome(_Api(url, token), training, twins.get(training.run.group)) for training in trainings]


def _twins(trainings: Sequence[Training]) -> dict[str, judge.Twin]:
    healthy: dict[str, list[Training]] = {}
    for training in trainings:
        if not training.run.is_broken and training.losses:
            healthy.setdefault(training.run.group, []).append(training)
    return {g: judge.twin_of([t.losses for t in ts], ts[0].trivial_loss) for g, ts in healthy.items()}


def _outcome(api: _Api, training: Training, twin: judge.Twin | None) -> Outcome:
    run = api.finished_run(training.run_id) if training.exit_status == 0 else None
    findings = api.opened_findings(run["id"]) if run is not None else []
    first = findings[0] if findings else {}
    outcome = Outcome(
        run=training.run,
        verdict=_verdict(findings),
        rule=first.get("rule"),
        cause=first.get("cause"),
        module_path=first.get("module_path"),
        finding_step=first.get("opened_step"),
        loss_step=judge.loss_step(training.losses, training.trivial_loss, twin) if twin else None,
        final_loss=training.losses[-1] if _ended_nonfinite(training) else judge.final_loss(training.losses),
    )
    outcome.problems = [
        *_process_problems(training, run),
        *_diagnosis_problems(outcome),
        *_label_problems(training, twin),
    ]
    return outcome


def _ended_nonfinite(training: Training) -> bool:
    return bool(training.losses) and not math.isfinite(training.losses[-1])


def _verdict(findings: Sequence[dict[str, Any]]) -> Verdict:
    worst = max((Severity(f["severity"]).rank for f in findings), default=0)
    return (Verdict.OK, Verdict.WARNING, Verdict.CRITICAL)[worst]


def _process_problems(training: Training, run: dict[str, Any] | None) -> list[str]:
    problems = []
    if training.exit_status != 0:
        problems.append(f"its process ended with {training.exit_status}: {training.errors.strip()}")
    elif run is None:
        problems.append("the collector never saw it end")
    return problems


def _diagnosis_problems(outcome: Outcome) -> list[str]:
    if not outcome.run.is_broken:
        allowed = (Verdict.OK, Verdict.WARNING) if outcome.run.may_warn else (Verdict.OK,)
        return [] if outcome.verdict in allowed else [f"healthy, but the verdict is {outcome.verdict.value}"]
    if outcome.verdict is not Verdict.CRITICAL:
        return [f"broken, but the verdict is {outcome.verdict.value}"]
    problems = []
    if outcome.cause != outcome.run.cause:
        problems.append(f"the cause is {outcome.run.cause.value}, the diagnosis says {outcome.cause}")
    if outcome.finding_step is None or outcome.finding_step > DEADLINE_STEP:
        problems.append(f"named at step {outcome.finding_step}, later than {DEADLINE_STEP}")
    return problems


def _label_problems(training: Training, twin: judge.Twin | None) -> list[str]:
    """The label itself must be true: a broken run fails against its twin, a healthy one does not."""
    if twin is None or not training.losses:
        return [] if training.losses else ["it trained no step"]
    failed = judge.has_failed(training.losses, training.trivial_loss, twin)
    if failed == training.run.is_broken:
        return []
    return ["made to fail, but it learned" if training.run.is_broken else "made to learn, but it failed"]


class _Api:
    """The collector's read API, as any client sees it."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/v1"
        self._headers = {"Authorization": f"Bearer {token}"}

    def _get(self, path: str, **query: str) -> Any:
        address = f"{self._url}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(address, headers=self._headers)  # noqa: S310 - the collector started here
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return json.load(response)

    def finished_run(self, run_id: str) -> dict[str, Any] | None:
        """The run once it has ended and the rules have seen all of it; None if that takes too long."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for listed in self._get("/runs", project="demo", limit="200")["runs"]:
                if listed["run_id"] == run_id and listed["status"] == RunStatus.FINISHED:
                    run: dict[str, Any] = self._get(f"/runs/{listed['id']}")
                    if run["steps"] and (run["attempts"][-1]["evaluated_step"] or -1) >= run["steps"][-1]:
                        return run
            time.sleep(0.2)
        return None

    def opened_findings(self, identity: str) -> list[dict[str, Any]]:
        """Root findings that ever opened, the worst first, then the earliest; infos left out."""
        found = self._get(f"/runs/{identity}/findings", state="all")["findings"]
        opened = [f for f in found if f["opened_step"] is not None and f["severity"] != Severity.INFO]
        return sorted(opened, key=lambda f: (-Severity(f["severity"]).rank, f["opened_step"]))
