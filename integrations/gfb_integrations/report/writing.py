"""Writing the report of a run."""

from __future__ import annotations

import os
from pathlib import Path

from gfb_brevitas.files import write_text_atomically
from gfb_brevitas.search import RecordedRun, RecordedSeeds
from gfb_brevitas.search.saving import saving
from gfb_brevitas.search.seeds import seed_folders
from gfb_integrations._optional import require

FILE_NAME = "report.html"


def write_report(run_folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write a run's report: one self-contained HTML file with interactive charts.

    The file needs no network and opens from a disk, a mail or a web server. It holds what was asked, what
    came out, and a chart, a table and a text for each thing that the folder recorded. A run that is under way
    or was stopped gets a report of what there is so far.

    Example:
        >>> write_report("runs/digits")  # doctest: +SKIP
        PosixPath('runs/digits/report.html')

    Args:
        run_folder: The folder of a run. Nothing in it changes but the report. Of runs of several seeds all
            are told, and the one with the middle metric is drawn.
        path: The file; by default ``report.html`` in the folder.

    Returns:
        The file that was written.

    Raises:
        CheckpointError: If the folder holds no run, a file of it is damaged, or the report cannot be written.
        MissingExtraError: If plotly or Jinja is not installed.
    """
    require_report()
    from gfb_integrations.report.page import rendered

    seeds = RecordedSeeds.load(run_folder) if seed_folders(Path(run_folder)) else None
    run = RecordedRun.load(run_folder) if seeds is None else seeds.middle
    target = Path(run_folder) / FILE_NAME if path is None else Path(path)
    text = rendered(run, folder_of_page=target.parent, seeds=seeds)
    with saving(target):
        write_text_atomically(target, text)
    return target


def require_report() -> None:
    """Check that what a report needs is installed.

    Raises:
        MissingExtraError: Naming what is missing, and the install command.
    """
    require("jinja2", "plotly", extra="report", purpose="Writing a report")
