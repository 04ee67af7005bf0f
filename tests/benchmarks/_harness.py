"""What every benchmark shares: arguments, a table, and a JSON file.

A benchmark is a function ``measure(settings)`` that returns figures: a mapping whose lists of rows (mappings
of column to value) become tables and whose other values become lines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

Settings = Mapping[str, Any]
Figures = dict[str, Any]


def run_benchmark(
    name: str,
    measure: Callable[[Settings], Figures],
    *,
    settings: Settings,
    quick: Settings | None = None,
    options: Mapping[str, str] | None = None,
) -> None:
    """Parse ``--quick`` and ``--json FILE``, measure, print, and write ``{"name", "settings", "figures"}``.

    Args:
        name: Name of the benchmark.
        measure: Takes the settings and returns figures.
        settings: The settings of a full run.
        quick: What ``--quick`` changes in them.
        options: Settings, all of them texts, that the command line can change, and what they are.
    """
    parser = argparse.ArgumentParser(prog=f"bench_{name}.py")
    parser.add_argument("--quick", action="store_true", help="a small version, to see that it runs")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write settings and figures there")
    for option, text in (options or {}).items():
        parser.add_argument(f"--{option}", metavar="TEXT", default=settings[option], help=text)
    arguments = parser.parse_args()

    chosen = {**settings, **(quick or {})} if arguments.quick else dict(settings)
    chosen |= {option: getattr(arguments, option) for option in options or {}}
    started = time.perf_counter()
    figures = measure(chosen)
    figures["seconds"] = round(time.perf_counter() - started, 1)
    document = {"name": name, "settings": {**chosen, **_surroundings()}, "figures": figures}
    _print(document)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of a call, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2]


def _surroundings() -> dict[str, Any]:
    packages = {package: version(package) for package in ("torch", "brevitas", "optuna", "numpy")}
    return {
        "versions": {"python": platform.python_version(), **packages},
        "torch_threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
    }


def _print(document: Mapping[str, Any]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=180)
    console.rule(document["name"])
    for name, value in document["figures"].items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            console.print(_table(name, value))
        else:
            console.print(f"{name}: {_text(value)}", highlight=False)


def _table(name: str, rows: list[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table(title=name)
    for column in columns:
        is_text = any(isinstance(row.get(column), str) for row in rows)
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    return table


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
