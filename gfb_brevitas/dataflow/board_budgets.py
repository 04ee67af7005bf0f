"""What a board and a frame rate allow, as budgets."""

from __future__ import annotations

import math

from gfb_brevitas.constraints.budget import Budget
from gfb_brevitas.dataflow.accelerator import Target
from gfb_brevitas.dataflow.costs import FpgaCycles, FpgaLatency, FpgaResource, Resource
from gfb_brevitas.errors import ConfigurationError

_NONE = 0.5
"""Limit on a resource that a board does not have: less than one."""


def board_budgets(
    target: Target, *, utilisation: float = 0.7, latency_us: float | None = None, rho: float = 20.0
) -> tuple[Budget, ...]:
    """One budget per resource of a board, one for the frame rate and one for the latency.

    Example:
        >>> budgets = board_budgets(Target(board="Pynq-Z1", fps=30_000), utilisation=0.7)
        >>> {budget.name: budget.limit for budget in budgets}
        {'lut': 37240.0, 'bram_18k': 196.0, 'dsp': 154.0, 'cycles': 3333.0}

    Args:
        target: Board, frame rate and clock.
        utilisation: Share of each resource that may be used; the rest is for FIFOs, converters and routing.
        latency_us: Longest latency in microseconds, see :class:`~gfb_brevitas.dataflow.FpgaLatency`.
        rho: Penalty weight of each budget.

    Raises:
        ConfigurationError: If ``utilisation`` is not above 0 and at most 1.
    """
    if not (isinstance(utilisation, (int, float)) and 0 < utilisation <= 1):
        raise ConfigurationError(f"`utilisation` must be above 0 and at most 1; got {utilisation!r}.")
    parts = target.device
    there: dict[Resource, int] = {
        "lut": parts.lut,
        "bram_18k": parts.bram_18k,
        "uram": parts.uram,
        "dsp": parts.dsp,
    }
    budgets = [
        Budget(
            cost=FpgaResource(resource=resource, target=target),
            limit=float(math.floor(count * utilisation)) or _NONE,
            rho=rho,
        )
        for resource, count in there.items()
        # Only thresholds in layers of their own are put into UltraRAM without being told to.
        if count or target.standalone_thresholds
    ]
    if target.target_cycles is not None:
        budgets.append(Budget(cost=FpgaCycles(target=target), limit=float(target.target_cycles), rho=rho))
    if latency_us is not None:
        budgets.append(Budget(cost=FpgaLatency(target=target), limit=latency_us, rho=rho))
    return tuple(budgets)
