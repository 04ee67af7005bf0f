"""A profile narrowed to the ranges and ties of a search space."""

from __future__ import annotations

from dataclasses import replace

from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import SearchSpace


def searched_profile(space: SearchSpace) -> ModelProfile:
    """The space's profile with the ranges and ties that its rules leave.

    A cost that is bound to it knows which widths can occur: a latency table then needs entries for
    those only.

    Args:
        space: The search space.

    Returns:
        A profile with the same quantizers, in the same order.
    """
    coordinate = {name: c for c in space.coordinates for name in c.quantizers}
    quantizers = tuple(
        replace(
            info,
            min_bits=coordinate[info.name].min_bits,
            max_bits=coordinate[info.name].max_bits,
            tie_group=coordinate[info.name].name,
        )
        for info in space.profile
    )
    return replace(space.profile, quantizers=quantizers)
