"""Quantizers that need one scale because their outputs meet in an addition or concatenation."""

from __future__ import annotations

from torch import nn

from gfb_brevitas.adapters.conversion import Conversion, share_scale
from gfb_brevitas.adapters.eligibility import named_proxies, tensor_quantizer
from gfb_brevitas.adapters.product_recorder import Trace
from gfb_brevitas.adapters.tracing import ExampleInputs, trace
from gfb_brevitas.errors import ConfigurationError


def trace_and_tie(model: nn.Module, example_inputs: ExampleInputs, conversion: Conversion) -> Trace:
    """Run a converted model once, and make quantizers whose outputs meet share one scale.

    Args:
        model: The converted model.
        example_inputs: One batch, as in :func:`~gfb_brevitas.adapters.tracing.trace`.
        conversion: Its quantizers; ties are entered into it.

    Returns:
        What the forward pass showed.

    Raises:
        UntraceableModelError: If the forward pass fails.
        ConfigurationError: If quantizers meet whose scales cannot be made one.
    """
    searched = {site.quantizer: site.name for site in conversion.sites.values()}
    refused = {item.name for item in conversion.refused}
    others = [tensor_quantizer(p) for name, p in named_proxies(model) if name in refused]
    seen = trace(model, example_inputs, searched, others)
    for first, second in seen.meetings:
        if conversion.sites[first].leader != conversion.sites[second].leader:
            _join(conversion, first, second)
    return seen


def _join(conversion: Conversion, first: str, second: str) -> None:
    leader = conversion.sites[first]
    moved = conversion.sites[second].leader
    if (leader.learned is None) != (conversion.sites[second].learned is None):
        raise ConfigurationError(
            f"{first!r} and {second!r} meet in an addition or concatenation that needs one scale, but only "
            "one of them has a scale that can be learned. Give both the same scaling, or one quantizer."
        )
    for site in conversion.sites.values():
        if site.leader == moved:
            share_scale(leader, site)
