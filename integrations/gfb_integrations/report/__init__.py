"""The report of a run: one HTML file that explains it, without network.

Example:
    >>> from gfb_integrations.report import write_report
    >>> write_report("runs/digits")  # doctest: +SKIP
    PosixPath('runs/digits/report.html')
"""

from gfb_integrations.report.writing import require_report, write_report

__all__ = ["require_report", "write_report"]
