"""What a command takes before it does anything: processor seconds of the whole process, medians.

``python`` is the interpreter alone, ``import torch`` the least that a command takes which loads PyTorch.
Show, compare and report read a small run that is made first.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _harness import Figures, Settings, run_benchmark

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.core.search.small_problem import run

SETTINGS = {"repeats": 9}
QUICK = {"repeats": 3}
GFB = "from gfb_brevitas.cli import app; app(prog_name='gfb')"
SHELL = {"_GFB_COMPLETE": "complete_bash", "COMP_WORDS": "gfb comp", "COMP_CWORD": "1"}


def processor_s(program: str, *arguments: str, **environment: str) -> float:
    """User and system time of a process and its children, that ends well or with an error that it tells."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(settings: Settings) -> Figures:
    """Rows of a command and its processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run(run_folder=Path(folder) / "run")
        place = str(Path(folder) / "run")
        commands = ["--help", "--version", "schema", "run --help", "resume --help", "inspect --help"]
        commands += [f"show {place}", f"compare {place} {place}", f"report {place}", "show nowhere"]
        commands += ["finn --help", "mlflow --help"]
        programs = {"python": ("pass", ""), "import torch": ("import torch", "")}
        programs["import gfb_brevitas"] = ("import gfb_brevitas", "")
        programs |= {f"gfb {command.replace(place, 'RUN')}": (GFB, command) for command in commands}
        programs["completion"] = (GFB, "")
        # In turn, so that what else the machine does meets all alike.
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(settings["repeats"]):
            for name, (program, arguments) in programs.items():
                environment = SHELL if name == "completion" else {}
                times[name].append(processor_s(program, *arguments.split(), **environment))
    rows = [{"command": name, "processor_s": statistics.median(values)} for name, values in times.items()]
    light = [row["processor_s"] for row in rows if row["command"] not in ("import torch", "gfb report RUN")]
    return {"commands": rows, "slowest_light_command_s": max(light)}


if __name__ == "__main__":
    run_benchmark("startup", measure, settings=SETTINGS, quick=QUICK)
