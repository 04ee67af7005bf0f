"""Mean bit width of the searchable weight quantizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gfb_brevitas.costs._weighting import Weighting, check_weighting, mean_bits
from gfb_brevitas.costs.protocol import BoundCost
from gfb_brevitas.profile import ModelProfile


@dataclass(frozen=True, kw_only=True)
class MeanWeightBits:
    """Mean width of the weight quantizers.

    Weight bits divided by weight elements: what papers call a model's average weight width.

    Args:
        name: Name in reports.
        weighting: ``"elements"``: every element counts once; ``"quantizers"``: every quantizer does.

    Raises:
        ConfigurationError: If ``weighting`` is neither.
    """

    name: str = "mean_weight_bits"
    weighting: Weighting = "elements"
    unit: ClassVar[str] = "bits"
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weighting(self.weighting)

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`.

        Raises:
            ConfigurationError: If the model has no searchable weight quantizer.
        """
        return mean_bits(profile, "weight", self.weighting)
