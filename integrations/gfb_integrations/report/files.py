"""Links to the files of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gfb_brevitas.search import RecordedRun

_ABOUT = {
    "allocation.json": "the bit widths; read it with BitAllocation.load",
    "summary.json": "the result in numbers",
    "clipping.json": "learned clipping values",
    "layer_costs.json": "what each layer takes of the budgets",
    "finn_estimate.json": "FINN's estimate; read it with FinnEstimate.load",
    "finn_verification.json": "every stage of FINN's flow compared with the model",
    "folding.json": "parallelism of every hardware layer, for FINN's builds",
    "config.json": "everything that makes the run what it is",
    "profile.json": "quantizers, budgets, costs at uniform widths",
    "history.jsonl": "everything that happened, one record a line",
    "checkpoints/best.pt": "weights of the best state within the budgets",
    "generations": "every candidate with its loss and costs",
    "run.log": "the log",
}
_PATTERNS = {"*.onnx": "exported model", "plots/*": "figure", "*.png": "picture"}
_MOST_FOUND = 24


@dataclass(frozen=True, kw_only=True)
class LinkedFile:
    """A file of the run.

    Attributes:
        name: Its place in the folder.
        link: A relative URL from the page.
        about: What it holds.
        size: Its size for people; empty for a folder.
    """

    name: str
    link: str
    about: str
    size: str


def linked_files(run: RecordedRun, folder_of_page: Path) -> Iterator[LinkedFile]:
    """The files that are there.

    Args:
        run: The run.
        folder_of_page: The folder that links start from.
    """
    for name, about in _ABOUT.items():
        if (run.path / name).exists():
            yield _linked(run.path / name, name, about, folder_of_page)
    for pattern, about in _PATTERNS.items():
        for path in sorted(run.path.glob(pattern))[:_MOST_FOUND]:
            yield _linked(path, path.relative_to(run.path).as_posix(), about, folder_of_page)


def _linked(path: Path, name: str, about: str, folder_of_page: Path) -> LinkedFile:
    relative = Path(os.path.relpath(path.resolve(), folder_of_page.resolve())).as_posix()
    size = "" if path.is_dir() else _size(path.stat().st_size)
    link = quote(relative, errors="surrogateescape")
    return LinkedFile(name=name, link=link if "/" in link else f"./{link}", about=about, size=size)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 1e6 else f"{max(size_bytes, 100) / 1e3:,.1f} kB"
