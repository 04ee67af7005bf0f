"""What people see: progress in the terminal and tables of results."""

from gfb_brevitas.report.comparison import Contender, comparison_table
from gfb_brevitas.report.progress import TerminalProgress
from gfb_brevitas.report.quantizers import profile_table
from gfb_brevitas.report.runs import run_rows, runs_tables
from gfb_brevitas.report.summary import summary_tables
from gfb_brevitas.report.uniform_costs import UniformCost, uniform_costs, uniform_costs_table
from gfb_brevitas.report.uniform_runs import add_comparison
from gfb_brevitas.report.verdict import verdict

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
