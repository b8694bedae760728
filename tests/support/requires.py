"""Parts of the machine that tests need. A person without one may skip; CI may not: there every skip is a failure.

A fixture says `missing("Chromium", "apt-get install chromium")`. Loaded as a plug-in (`.ci/run` does), it also fails
tests that were skipped in any other way, so that nothing can be green by not having run.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import NoReturn, TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
STRICT = os.environ.get("INITSCOPE_CI") == "1"


def missing(part: str, how_to_get_it: str) -> NoReturn:
    """Skips the test, or fails it in CI."""
    sentence = f"{part} is missing here: {how_to_get_it}"
    if STRICT:
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip into a failure in CI; expected failures stay what they are."""
    return _strict((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a whole module that skips itself."""
    return _strict((yield))


def _strict(report: Report) -> Report:
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
