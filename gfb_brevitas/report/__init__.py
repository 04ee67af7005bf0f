"""What people see: progress in the terminal and tables of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gfb_brevitas.on_demand import names_on_demand
from gfb_brevitas.report.verdict import verdict  # at once: a function of its module's name

if TYPE_CHECKING:
    from gfb_brevitas.report.comparison import Contender, comparison_table
    from gfb_brevitas.report.progress import TerminalProgress
    from gfb_brevitas.report.quantizers import profile_table
    from gfb_brevitas.report.runs import run_rows, runs_tables
    from gfb_brevitas.report.summary import summary_tables
    from gfb_brevitas.report.uniform_runs import add_comparison
    from gfb_brevitas.report.uniform_widths import UniformCost, uniform_costs, uniform_costs_table
else:
    __getattr__, __dir__ = names_on_demand(__name__)

__all__ = [
    "Contender",
    "TerminalProgress",
    "UniformCost",
    "add_comparison",
    "comparison_table",
    "profile_table",
    "run_rows",
    "runs_tables",
    "summary_tables",
    "uniform_costs",
    "uniform_costs_table",
    "verdict",
]
