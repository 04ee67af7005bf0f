"""What layers take of a cost, by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def joined(parts: Iterable[tuple[str, float]], join: Callable[[float, float], float]) -> dict[str, float]:
    """One number for each name, in the order in which the names come first.

    Example:
        >>> joined([("conv", 2.0), ("fc", 1.0), ("conv", 3.0)], max)
        {'conv': 3.0, 'fc': 1.0}
    """
    found: dict[str, float] = {}
    for name, value in parts:
        found[name] = join(found[name], float(value)) if name in found else float(value)
    return found


def layer_of(quantizer: str) -> str:
    """The layer that a quantizer is part of.

    Example:
        >>> layer_of("features.0.weight_quant"), layer_of("weight_quant")
        ('features.0', 'weight_quant')
    """
    return quantizer.rpartition(".")[0] or quantizer
