"""Chromium, driven by Playwright, as a person who is logged in would use it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import ConsoleMessage, Error, Page, sync_playwright

from tests.support.collector import Collector
from tests.support.requires import missing

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Window:
    """A page and everything that went wrong in it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    """Errors and warnings of the console, exceptions, dialogs, requests to other hosts."""

    def show(self, path: str) -> None:
        """Opens a page of the collector."""
        self.page.goto(self.url + path)

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return self.page.locator(selector).first.inner_text()

    def wait(self, condition: str, argument: Any = None) -> None:
        """Waits until a JavaScript condition is true; asked from outside, since the page's policy forbids `eval`."""
        deadline = time.monotonic() + 30
        while not self._holds(condition, argument):
            assert time.monotonic() < deadline, f"never true: {condition}; {self.problems}"
            self.page.wait_for_timeout(50)

    def _holds(self, condition: str, argument: Any) -> bool:
        try:
            return bool(self.page.evaluate(condition, argument))
        except Error:  # the page is on its way to another one, or has not drawn what the condition looks at
            return False

    def wait_for_charts(self) -> None:
        """Waits until each kind of chart has drawn something."""
        self.wait("document.querySelectorAll('#profile canvas').length === 2")
        self.wait("document.querySelector('#map canvas').height > 10 && document.querySelector('#series canvas')")


@contextmanager
def open_window(collector: Collector, *, log_in: bool = True, **context: Any) -> Iterator[Window]:
    """A fresh browser on a collector."""
    with open_browser(collector.url, **context) as window:
        if log_in:
            window.show("/login")
            window.page.fill("#token", collector.token)
            window.page.click("button.primary")
            window.page.wait_for_url(collector.url + "/")
        yield window


@contextmanager
def open_browser(url: str, **context: Any) -> Iterator[Window]:
    """A fresh browser for what begins with `url`. Without Chromium the test is skipped, which CI does not allow."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    path = path or missing("Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            window = Window(browser.new_page(**context), url)
            _watch(window)
            yield window
        finally:
            browser.close()


def _watch(window: Window) -> None:
    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            window.problems.append(f"{message.type}: {message.text}")

    def refuse(dialog: Any) -> None:
        window.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def ask(request: Any) -> None:
        if not request.url.startswith((window.url, "data:", "blob:")):
            window.problems.append(f"foreign request: {request.url}")

    window.page.on("console", note)
    window.page.on("pageerror", lambda error: window.problems.append(f"exception: {error}"))
    window.page.on("dialog", refuse)
    window.page.on("request", ask)
