"""Pictures for the dashboard: of one panel each, and small enough to be loaded again and again.

They need no run folder; those of :mod:`gfb_integrations.plots`, which do, show more and are larger than the
dashboard's boxes. Nothing is told by colour alone: kinds differ in their hatching, candidates in their
symbols, steps in their line styles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from gfb_brevitas.search import RecordedLayerCost
from gfb_integrations.optuna_dashboard.candidates import StepCandidates
from gfb_integrations.plots._figure import plain
from gfb_integrations.plots.colours import HATCH_OF_KIND, OF_KIND

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_HATCHES = ("", "/", "x", ".", "-", "|")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
_MOST_LABELS = 40
_MOST_CANDIDATES = 1200
"""In one picture, beside those on the fronts: a dashboard loads all pictures again every few seconds."""
_KINDS = {"weights": "weight", "activations": "activation"}


def bits_per_layer(allocation: Mapping[str, int], title: str) -> go.Figure:
    """Bars of the bit widths, in the order of the forward pass.

    Args:
        allocation: Bits by quantizer name.
        title: Title of the picture.
    """
    names = list(allocation)
    figure = go.Figure()
    for label, kind in _KINDS.items():
        shown = [name for name in names if is_weight(name) is (kind == "weight")]
        figure.add_bar(
            x=[plain(name) for name in shown],
            y=[allocation[name] for name in shown],
            name=label,
            marker={"color": OF_KIND[kind], "pattern": {"shape": HATCH_OF_KIND[kind]}},
            hovertemplate="%{x}: %{y} bits<extra></extra>",
        )
    axis = _quantizer_axis(names)
    figure.update_layout(
        **_layout(plain(title)),
        xaxis=axis,
        yaxis={"title": "bits", "rangemode": "tozero", "dtick": _tick(allocation)},
    )
    return figure


def bits_per_round(allocations: Mapping[int, Mapping[str, int]]) -> go.Figure:
    """A map of the bit widths of all rounds.

    Args:
        allocations: Bits by quantizer name, by round.
    """
    names = list(next(iter(allocations.values())))
    rounds = [f"round {number}" for number in allocations]
    widths = [[int(allocation[name]) for name in names] for allocation in allocations.values()]
    few = len(names) <= _MOST_LABELS
    figure = go.Figure(
        go.Heatmap(
            x=[plain(name) for name in names],
            y=rounds,
            z=widths,
            colorscale="Cividis",
            colorbar={"title": "bits"},
            texttemplate="%{z}" if few else None,
            hovertemplate="%{y}, %{x}: %{z} bits<extra></extra>",
        )
    )
    figure.update_layout(
        **_layout("Bits by round"), xaxis=_quantizer_axis(names), yaxis={"autorange": "reversed"}
    )
    return figure


def layer_costs(budgets: Sequence[RecordedLayerCost]) -> go.Figure:
    """What each layer takes, in percent of every budget.

    Args:
        budgets: The budgets, with what each layer takes.
    """
    figure = go.Figure()
    names = list(dict.fromkeys(layer for budget in budgets for layer in budget.layers))
    for k, budget in enumerate(budget for budget in budgets if budget.limit > 0):
        layers = list(budget.layers)
        unit = plain(budget.unit)
        figure.add_bar(
            x=[plain(layer) for layer in layers],
            y=_rounded(100 * np.array(list(budget.layers.values())) / budget.limit),
            customdata=[_short(value) for value in budget.layers.values()],
            name=plain(budget.name),
            marker={"color": _COLOURS[k % len(_COLOURS)], "pattern": {"shape": _HATCHES[k % len(_HATCHES)]}},
            hovertemplate="%{x}: %{customdata} " + unit + ", %{y}% of the budget<extra></extra>",
        )
    figure.update_layout(
        **_layout("Budgets, layer by layer", "what each layer takes, in percent of the budget"),
        xaxis=_quantizer_axis(names),
        yaxis={"title": "% of the budget", "rangemode": "tozero"},
    )
    return figure


def front(steps: Sequence[StepCandidates], budget: int, cost: Mapping[str, Any]) -> go.Figure:
    """Loss over one cost: candidates, and the best ones at each cost.

    Args:
        steps: Candidates by step; of many steps the last ones are shown.
        budget: Number of the budget.
        cost: Its row in a record: ``name``, ``limit`` and ``unit``.
    """
    figure, shown = go.Figure(), steps[-len(_COLOURS) :]
    for k, step in enumerate(shown):
        rows = step.shown(budget, most=_MOST_CANDIDATES // len(shown))
        _add_step(figure, step, rows, budget, float(cost["limit"]), k)
    figure.add_vline(x=_short(float(cost["limit"])), line_dash="dash", annotation_text="limit")
    left_out = f"; the last {len(shown)} of {len(steps)} steps" if len(shown) < len(steps) else ""
    explained = f"crosses are over a budget, lines are the best within all budgets{left_out}"
    name = plain(str(cost["name"]))  # plotly reads texts as markup
    unit = f" ({plain(str(cost['unit']))})" if cost["unit"] else ""
    figure.update_layout(
        **_layout(f"Loss and {name} of the candidates", explained),
        xaxis={"title": f"{name}{unit}"},
        yaxis={"title": "loss on super-batches"},
    )
    return figure


def is_weight(quantizer: str) -> bool:
    """Whether a quantizer is one of weights, by its name in Brevitas."""
    return quantizer.rsplit(".", maxsplit=1)[-1].startswith("weight")


def _add_step(
    figure: go.Figure, step: StepCandidates, rows: NDArray[np.int64], budget: int, limit: float, k: int
) -> None:
    costs, best = (1.0 + step.excess[:, budget]) * limit, step.front(budget)
    colour, symbol = _COLOURS[k % len(_COLOURS)], _SYMBOLS[k % len(_SYMBOLS)]
    feasible = step.feasible[rows]
    for chosen, mark in ((rows[feasible], symbol), (rows[~feasible], "x-thin-open")):
        figure.add_scatter(
            x=_rounded(costs[chosen]),
            y=_rounded(step.losses[chosen]),
            mode="markers",
            marker={"color": colour, "symbol": mark, "size": 6, "opacity": 0.7, "line": {"width": 1}},
            name=step.label,
            legendgroup=step.label,
            showlegend=mark == symbol,
        )
    figure.add_scatter(
        x=_rounded(costs[best]),
        y=_rounded(step.losses[best]),
        mode="lines",
        line={"color": colour, "dash": _LINES[k % len(_LINES)], "shape": "hv"},
        name=f"{step.label}, the best",
        legendgroup=step.label,
        showlegend=False,
    )


def _layout(title: str, explained: str = "") -> dict[str, Any]:
    return {
        "title": {"text": f"{title}<br><sub>{explained}</sub>" if explained else title},
        "template": "none",  # a template is several kilobytes in every picture
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "font": {"size": 10}},
        "margin": {"l": 60, "r": 20, "t": 110, "b": 60},
    }


def _quantizer_axis(names: Sequence[str]) -> dict[str, Any]:
    few = len(names) <= _MOST_LABELS
    # The order is that of the names, not that in which kinds are drawn.
    return {
        "type": "category",  # names may be numbers
        "categoryorder": "array",
        "categoryarray": [plain(name) for name in names],
        "showticklabels": few,
        "tickangle": -45,
        "automargin": True,
        "title": "" if few else "quantizers in the order of the forward pass",
    }


def _tick(allocation: Mapping[str, int]) -> int:
    return 1 if max(allocation.values(), default=0) <= 16 else 4


def _rounded(values: NDArray[np.float64]) -> list[float]:
    # Lists of short numbers: fewer characters than arrays.
    return [_short(value) for value in values.tolist()]


def _short(value: float) -> float:
    return float(f"{value:.5g}")
