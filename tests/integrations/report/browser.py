"""A page in a browser, and what it did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page


@dataclass
class Visit:
    """A page that is open, and what it did.

    Attributes:
        page: The page.
        messages: What it wrote to the console, and its uncaught errors.
        requests: Addresses that it asked for.
    """

    page: Page
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        """What an expression is in the page."""
        return self.page.evaluate(expression)


@contextmanager
def visited(browser: Browser, file: Path, *, phone: bool = False, scripts: bool = True) -> Iterator[Visit]:
    """Open a file and wait until its charts are drawn.

    Args:
        browser: The browser.
        file: The page.
        phone: Whether the screen is that of a phone.
        scripts: Whether JavaScript is allowed.
    """
    screen = {"width": 360, "height": 740} if phone else {"width": 1280, "height": 900}
    context = browser.new_context(
        viewport=screen, is_mobile=phone, has_touch=phone, java_script_enabled=scripts, offline=True
    )
    try:
        visit = Visit(page=context.new_page())
        visit.page.on("console", lambda message: visit.messages.append(message.text))
        visit.page.on("pageerror", lambda error: visit.messages.append(str(error)))
        visit.page.on("request", lambda request: visit.requests.append(request.url))
        visit.page.goto(file.as_uri())
        if scripts:
            visit.page.wait_for_selector("html[data-drawn]", timeout=60_000)
        yield visit
    finally:
        context.close()
