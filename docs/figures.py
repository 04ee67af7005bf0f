"""Draw the figures of the documentation: a search of the handwritten digits, by our own plots.

    python docs/figures.py

It takes a few minutes the first time; the run stays in runs/figures and is used again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import gfb_brevitas as gfb
from gfb_integrations.plots.paper import save_figures

ROOT = Path(__file__).parents[1]
RUN = ROOT / "runs" / "figures"
FOLDER = ROOT / "docs" / "figures"
OF_POINTS = ("front",)
"""Figures of thousands of points, which are smaller as pictures."""


def main() -> None:
    """Search, unless it is done already, and draw."""
    gfb_command = Path(sys.executable).with_name("gfb")
    subprocess.run([gfb_command, "run", "examples/digits", "--run-folder", RUN], cwd=ROOT, check=True)
    for path in save_figures(gfb.RecordedRun.load(RUN), FOLDER, formats=["svg", "png"]):
        if path.suffix != (".png" if path.stem in OF_POINTS else ".svg"):
            path.unlink()
            continue
        if path.suffix == ".svg":
            path.write_text(shortened(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")


def shortened(svg: str) -> str:
    """With two decimals of a point, which nobody sees less of."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", svg)


if __name__ == "__main__":
    main()
