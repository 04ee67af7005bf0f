"""Numbers for people: costs with SI prefixes, metrics as shares where they are some."""

from __future__ import annotations

import math

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_FIRST_WITH_PREFIX = 1e4


def quantity(value: float | None, digits: int = 4) -> str:
    """A cost or a count for people, without exponents; from ten thousand on with an SI prefix.

    Example:
        >>> [quantity(value) for value in (1474560.0, 9216, 16948.8, 0.0123456, 999_999_9, float("nan"))]
        ['1.475M', '9,216', '16.95k', '0.01235', '10M', '–']

    Args:
        value: The number.
        digits: Significant digits that are shown; whole numbers below ten thousand are shown whole.
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    shown = float(f"{value:.{digits - 1}e}") if value else 0.0
    for size, prefix in _PREFIXES:
        if abs(shown) >= max(size, _FIRST_WITH_PREFIX):
            return f"{shown / size:.{digits}g}{prefix}" if shown < 1e18 else f"{shown:.{digits}g}"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.{digits}g}"


def with_unit(value: float, unit: str, digits: int = 4) -> str:
    """A cost with its unit.

    Example:
        >>> with_unit(1474560.0, "bit operations")
        '1.475M bit operations'
    """
    return f"{quantity(value, digits)} {unit}".rstrip()


def measure(value: float | None, measured: str) -> str:
    """A metric for people: a share where what is measured is an accuracy.

    Example:
        >>> measure(0.98123, "validation accuracy"), measure(-0.0332, "validation metric")
        ('98.12%', '-0.0332')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2%}" if is_share(measured) else f"{value:.4g}"


def is_share(measured: str) -> bool:
    """Whether what is measured is a share, shown in percent."""
    return measured.endswith("accuracy")


def difference(value: float, measured: str) -> str:
    """How much better a metric is, in points where it is a share.

    Example:
        >>> difference(0.028, "test accuracy"), difference(-0.0031, "validation metric")
        ('+2.80', '-0.0031')
    """
    return f"{100 * value:+.2f}" if is_share(measured) else f"{value:+.3g}"
