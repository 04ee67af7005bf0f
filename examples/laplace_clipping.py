"""The best clipping value of Laplace samples lies on a line in the bit width.

    gfb run examples/laplace_clipping --output laplace_clipping.png

A check of Fig. 3 of the GradFreeBits paper (doi:10.3390/s22249772), which is why clipping values are a
linear function of the bit width, a(b) = a0 + a1 b, in this package.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

import gfb_brevitas as gfb
from gfb_brevitas.extras import install_command
from gfb_brevitas.files import replacing
from gfb_brevitas.quant import IntegerFormat, Samples, fake_quantize, mse_optimal_clipping
from gfb_brevitas.terminal import plain_console

LOCATION, SCALE = 0.0, 0.5
WIDTHS = np.arange(1, 9)
FITTED = WIDTHS >= 2  # one bit has no zero: -a and +a
INTEGERS = IntegerFormat.plain(signed=True, narrow_range=True)
Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Optima:
    """The best clipping value of each width of ``WIDTHS``, and the line through those of ``FITTED``."""

    clipping: Vector
    error: Vector
    slope: float
    intercept: float

    @property
    def line(self) -> Vector:
        """The line at ``WIDTHS``."""
        return self.intercept + self.slope * WIDTHS

    @property
    def r_squared(self) -> float:
        """Share of the variance of the fitted optima that the line explains."""
        fitted = self.clipping[FITTED]
        return float(1 - np.var(fitted - self.line[FITTED]) / np.var(fitted))


def laplace_samples(count: int, seed: int) -> torch.Tensor:
    """Samples of Laplace(0, 0.5); shape ``(count,)``."""
    return torch.from_numpy(np.random.default_rng(seed).laplace(LOCATION, SCALE, count)).float()


def mean_squared_error(values: torch.Tensor, clipping: float, bits: int) -> float:
    """Error of quantizing ``values`` to ``bits``."""
    quantized, _ = fake_quantize(values, torch.tensor(clipping), int(bits), INTEGERS)
    return float((quantized - values).square().mean())


def find_optima(values: torch.Tensor) -> Optima:
    """Find the best clipping values, and the line through them."""
    samples = [Samples(values=values[None, :], integers=INTEGERS)]
    clipping = np.array([float(mse_optimal_clipping(samples, int(bits))) for bits in WIDTHS])
    error = np.array([mean_squared_error(values, a, b) for a, b in zip(clipping, WIDTHS, strict=True)])
    slope, intercept = np.polyfit(WIDTHS[FITTED], clipping[FITTED], 1)
    return Optima(clipping=clipping, error=error, slope=float(slope), intercept=float(intercept))


def optima_table(optima: Optima) -> Table:
    """The optima for the terminal."""
    table = Table("bits", "best clipping value", "line", "mean squared error")
    for column in table.columns:
        column.justify = "right"
    for bits, best, line, error in zip(WIDTHS, optima.clipping, optima.line, optima.error, strict=True):
        table.add_row(str(bits), f"{best:.3f}", f"{line:.3f}" if bits >= 2 else "", f"{error:.3g}")
    return table


def draw(values: torch.Tensor, optima: Optima, path: Path) -> None:
    """Draw the error against the clipping value, and the best clipping value against the width."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise gfb.MissingExtraError(
            "The picture needs the package 'matplotlib', which cannot be imported. "
            f"Install it with: {install_command('plots')}"
        ) from error
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    _draw_errors(left, values, optima)
    _draw_line(right, optima)
    figure.suptitle(f"Quantizing {len(values):,} samples of Laplace({LOCATION:g}, {SCALE:g})")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    plt.close(figure)


def _draw_errors(axes: Any, values: torch.Tensor, optima: Optima) -> None:
    scanned = np.linspace(0.15, 1.25 * optima.clipping.max(), 80)
    for bits, best, error in zip(WIDTHS, optima.clipping, optima.error, strict=True):
        curve = [mean_squared_error(values, a, bits) for a in scanned]
        axes.plot(scanned, curve, color="0.35", linewidth=1.2)
        axes.plot(best, error, "o", color="tab:red", markeredgecolor="black", markersize=6)
        label, end = f" {bits} bit{'s' if bits > 1 else ''}", (scanned[-1], curve[-1])
        axes.annotate(label, end, verticalalignment="center")
    axes.plot([], [], "o", color="tab:red", markeredgecolor="black", label="smallest error")
    axes.set(yscale="log", xlabel="clipping value (unit of the samples)")
    axes.set(ylabel="mean squared error (unit of the samples, squared)")
    axes.set_xlim(0, 1.16 * scanned[-1])
    axes.legend(loc="lower left")


def _draw_line(axes: Any, optima: Optima) -> None:
    label = f"{_line_text(optima)}, R² = {optima.r_squared:.4f}"
    axes.plot(WIDTHS[FITTED], optima.line[FITTED], "--", color="black", linewidth=1.2, label=label)
    style = {"color": "tab:red", "markeredgecolor": "black", "markersize": 7, "linestyle": "none"}
    axes.plot(WIDTHS[FITTED], optima.clipping[FITTED], marker="o", label="smallest error", **style)
    style["color"] = "white"
    axes.plot(WIDTHS[~FITTED], optima.clipping[~FITTED], marker="s", label="1 bit, not fitted", **style)
    axes.set(xlabel="bit width b (bits)", ylabel="best clipping value (unit of the samples)", xticks=WIDTHS)
    axes.set_ylim(0, 1.1 * optima.clipping.max())
    axes.legend(loc="lower right")


def _line_text(optima: Optima) -> str:
    return f"{optima.slope:.3f} b {'-' if optima.intercept < 0 else '+'} {abs(optima.intercept):.3f}"


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(
        prog="laplace_clipping", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("laplace_clipping.png"), help="picture to write")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    options = parser.parse_args(arguments)
    values = laplace_samples(options.samples // 10 if options.quick else options.samples, options.seed)
    optima = find_optima(values)
    console = plain_console()
    console.print(optima_table(optima))
    console.print(f"line through 2 to 8 bits: {_line_text(optima)}, R^2 = {optima.r_squared:.5f}")
    draw(values, optima, options.output)
    console.print(f"picture: {options.output}", soft_wrap=True)


if __name__ == "__main__":
    main()
