"""A real optuna-dashboard, and a real browser to look at it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.integrations.chromium import chromium

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


@contextmanager
def browser_page() -> Iterator[tuple[Any, list[str]]]:
    """A page in a real browser, and the list of all errors that it meets."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1800})
        errors: list[str] = []
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("response", lambda r: errors.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        yield page, errors
