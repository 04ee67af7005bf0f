"""Mean bit width of the searchable activation quantizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gfb_brevitas.costs._weighting import Weighting, check_weighting, mean_bits
from gfb_brevitas.costs.protocol import BoundCost
from gfb_brevitas.profile import ModelProfile


@dataclass(frozen=True, kw_only=True)
class MeanActivationBits:
    """Mean width of the searchable activation quantizers; other activations do not count.

    By default every activation value counts once, as every weight does in
    :class:`~gfb_brevitas.costs.WeightSize`: the budget is then one on activation storage. Taken as the C_2
    that GradFreeBits (doi:10.3390/s22249772) constrains [ours].

    Args:
        name: Name in reports.
        weighting: ``"elements"``: every element counts once; ``"quantizers"``: every quantizer does.

    Raises:
        ConfigurationError: If ``weighting`` is neither.
    """

    name: str = "mean_activation_bits"
    weighting: Weighting = "elements"
    unit: ClassVar[str] = "bits"
    monotone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_weighting(self.weighting)

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`.

        Raises:
            ConfigurationError: If the model has no searchable activation quantizer.
        """
        return mean_bits(profile, "activation", self.weighting)
