"""Search spaces of which FINN builds every allocation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters import SearchableModel, record_layers
from gfb_brevitas.adapters.tracing import ExampleInputs
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.rules import Rule
from gfb_integrations.finn.check_activations import MAX_ACTIVATION_BITS
from gfb_integrations.finn.check_pooling import averaged_widths
from gfb_integrations.finn.checking import check
from gfb_integrations.finn.findings import CheckReport

MIN_BITS = 2
"""Narrowest width: -1 and 1 are wrong with zero padding and with several thresholds behind them."""

_OF_WIDTHS = ("activation width", "truncated width")
"""Rules that the widths of a search may satisfy where those of the model do not."""


def make_searchable(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    bits: tuple[int, int] = (MIN_BITS, MAX_ACTIVATION_BITS),
    rules: Sequence[Rule] = (),
    standalone_thresholds: bool = False,
    **settings: Any,
) -> SearchableModel:
    """Make a model searchable within what FINN builds: 2 to 8 bits everywhere.

    The model is checked first. Quantizers whose outputs are added share one width, as always. A quantizer in
    front of an average keeps to widths whose averages FINN truncates as Brevitas does.

    Example:
        >>> searchable = make_searchable(model, images[:1], bits=(2, 6))  # doctest: +SKIP

    Args:
        model: A Brevitas model.
        example_inputs: One batch.
        bits: Smallest and largest width in bits, within 2 to 8.
        rules: Ranges, fixed widths and ties, within 2 to 8.
        standalone_thresholds: Whether activations become layers of their own.
        settings: Further arguments of :func:`gfb_brevitas.make_searchable`.

    Raises:
        FinnCheckError: If FINN does not build the model as it stands; says what to change.
        ConfigurationError: If a width is outside 2 to 8.
    """
    found = check(model, example_inputs, standalone_thresholds=standalone_thresholds)
    others = tuple(f for f in found.findings if f.rule not in _OF_WIDTHS)
    CheckReport(findings=others, layers=found.layers).require()
    graph = record_layers(model, example_inputs)
    narrower = (_range(name, widths, bits) for name, widths in averaged_widths(graph).items())
    ranges = [rule for rule in narrower if rule is not None]
    searchable = gfb.make_searchable(model, example_inputs, bits=bits, rules=[*ranges, *rules], **settings)
    require_buildable(searchable)
    check(searchable, example_inputs, standalone_thresholds=standalone_thresholds).require()
    return searchable


def _range(name: str, widths: set[int], bits: tuple[int, int]) -> Rule | None:
    """The largest range within ``bits`` of which every width is one of ``widths``."""
    low, high = bits
    ranges = [
        (b, c) for b in range(low, high + 1) for c in range(b, high + 1) if set(range(b, c + 1)) <= widths
    ]
    if not ranges or (low, high) in ranges:
        return None  # where there is none, the check of the space says so
    return gfb.Range(name, *max(ranges, key=lambda ends: (ends[1] - ends[0], ends[1])))


def require_buildable(searchable: SearchableModel) -> None:
    """Check that FINN builds every allocation of a search space.

    Raises:
        ConfigurationError: If a quantizer may take a width that FINN does not build; names it.
    """
    for coordinate in searchable.space.coordinates:
        if coordinate.min_bits < MIN_BITS or coordinate.max_bits > MAX_ACTIVATION_BITS:
            raise ConfigurationError(
                f"For FINN every width must be from {MIN_BITS} to {MAX_ACTIVATION_BITS} bits; "
                f"{coordinate.name!r} may have {coordinate.min_bits} to {coordinate.max_bits}. "
                "Narrow `bits` or the rule for it."
            )
    averaged = averaged_widths(searchable.profile.layers)
    for coordinate in searchable.space.coordinates:
        for name in coordinate.quantizers:
            widths = range(coordinate.min_bits, coordinate.max_bits + 1)
            if wrong := sorted(set(widths) - averaged.get(name, set(widths))):
                raise ConfigurationError(
                    f"FINN truncates the averages of {name!r} to other values than Brevitas at "
                    f"{', '.join(map(str, wrong))} bits. Exclude these widths with a rule for it, or "
                    "truncate to fewer bits."
                )
