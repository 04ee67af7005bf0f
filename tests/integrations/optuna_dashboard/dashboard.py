"""A real optuna-dashboard, and a real browser to look at it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_STARTS_WITHIN_S = 60.0


class Dashboard:
    """A server that runs.

    Args:
        address: Its address.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str) -> Any:
        """What its interface answers."""
        with closing(urllib.request.urlopen(self.address + path, timeout=30)) as answer:
            return json.load(answer)

    def ids(self) -> dict[str, int]:
        """Ids of the studies by name, in the order in which it lists them."""
        return {s["study_name"]: s["study_id"] for s in self.get("/api/studies")["study_summaries"]}

    def study(self, name: str) -> dict[str, Any]:
        """All that it says of a study."""
        answer: dict[str, Any] = self.get(f"/api/studies/{self.ids()[name]}")
        return answer

    def delete(self, path: str) -> None:
        """Ask it to delete something."""
        request = urllib.request.Request(self.address + path, method="DELETE")
        with closing(urllib.request.urlopen(request, timeout=30)) as answer:
            assert answer.status == 204


@contextmanager
def dashboard(storage: str, artifacts: Path) -> Iterator[Dashboard]:
    """The unmodified ``optuna-dashboard`` on a storage, on a free port of this machine."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--artifact-dir", str(artifacts)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*program, storage, *options], **quiet) as process:  # type: ignore[call-overload]
        server = Dashboard(f"http://127.0.0.1:{port}")
        try:
            deadline = time.monotonic() + _STARTS_WITHIN_S
            while True:
                try:
                    server.get("/api/meta")
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < deadline, "it does not start"
                    time.sleep(0.1)
            yield server
        finally:
            process.terminate()


def why_no_browser() -> str | None:
    """Why pages cannot be looked at; ``None`` if they can."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return None if shutil.which(CHROMIUM) else f"there is no {CHROMIUM}"


@contextmanager
def browser_page() -> Iterator[tuple[Any, list[str]]]:
    """A page in a real browser, and the list of all errors that it meets."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 1800})
        errors: list[str] = []
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda r: errors.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        try:
            yield page, errors
        finally:
            browser.close()
