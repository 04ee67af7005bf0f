"""Folders of runs, made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.integrations.recorded_runs import KINDS


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of a kind; nobody may change what is in it."""

    @cache
    def made(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / kind
        KINDS[kind](folder)
        return folder

    return made
