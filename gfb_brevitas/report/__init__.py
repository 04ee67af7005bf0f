"""What people see: progress in the terminal and tables of results."""

from gfb_brevitas.report.comparison import Contender, comparison_table
from gfb_brevitas.report.progress import TerminalProgress
from gfb_brevitas.report.quantizers import profile_table
from gfb_brevitas.report.summary import summary_tables

__all__ = ["Contender", "TerminalProgress", "comparison_table", "profile_table", "summary_tables"]
