"""What stops a training that is expected to fail, if its user asked for that."""

from __future__ import annotations

from initscope.hooks.rules.finding import Finding


class BadStart(RuntimeError):
    """Raised on the training thread by `watch(…, on_finding="raise")` once a critical finding has opened.

    It comes at the next step boundary, when the monitor is closed and the run has ended as failed. `finding` is what
    was found.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(_words(finding))
        self.finding = finding

    def __reduce__(self) -> tuple[type[BadStart], tuple[Finding]]:
        return BadStart, (self.finding,)


def _words(finding: Finding) -> str:
    where = f" in {finding.module_path}" if finding.module_path else ""
    head = f"{finding.severity.value}{where} at step {finding.step} ({finding.rule}): {finding.diagnosis}"
    margins = ("  change: ", *[" " * 10] * len(finding.remedy.splitlines()))
    return "\n".join([head, *(m + line for m, line in zip(margins, finding.remedy.splitlines(), strict=False))])
