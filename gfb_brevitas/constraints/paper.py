"""The budgets of the GradFreeBits paper."""

from __future__ import annotations

from typing import Literal, get_args

from gfb_brevitas.constraints.budget import Budget
from gfb_brevitas.costs.mean_activation_bits import MeanActivationBits
from gfb_brevitas.costs.weight_size import WeightSize
from gfb_brevitas.errors import ConfigurationError

PaperPreset = Literal["cifar", "imagenet", "cityscapes"]

# (beta, rho) of the weight budget and of the activation budget: Table 1 of doi:10.3390/s22249772.
_TABLE_1: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "cifar": ((0.9, 20.0), (0.98, 0.5)),
    "imagenet": ((0.9, 10.0), (0.9, 10.0)),
    "cityscapes": ((0.98, 0.1), (0.98, 0.5)),
}


def paper_budgets(
    weight_bits: int,
    activation_bits: int | None = None,
    *,
    preset: PaperPreset = "cifar",
    rho: float | None = None,
) -> tuple[Budget, Budget]:
    """The paper's two budgets: beta and rho are those of its Table 1 (doi:10.3390/s22249772).

    [ours] Which costs the two are: the size of the quantized weights, and the mean width of the searchable
    activations, in which every activation value counts once (the default ``weighting`` of
    :class:`~gfb_brevitas.costs.MeanActivationBits`). A model without searchable activations takes
    ``Budget(cost=WeightSize(), ...)`` alone.

    Args:
        weight_bits: Width of the uniform allocation's weights, in bits.
        activation_bits: Width of its activations, in bits; the weights' when not given.
        preset: The column of Table 1: ``"cifar"``, ``"imagenet"`` or ``"cityscapes"``.
        rho: Penalty weight of both budgets instead of the table's [ours]. At the 0.5 that the table has
            for activations, CMA-ES can settle outside the budget, and its result has to be repaired.

    Returns:
        The weight budget and the activation budget.

    Raises:
        ConfigurationError: If the preset is unknown or a width is out of range.

    Example:
        >>> weights, activations = paper_budgets(2, 4)
        >>> weights.beta, weights.rho
        (0.9, 20.0)
    """
    if preset not in _TABLE_1:
        raise ConfigurationError(
            f"`preset` must be one of {', '.join(get_args(PaperPreset))}; got {preset!r}."
        )
    uniform_bits = (weight_bits, weight_bits if activation_bits is None else activation_bits)
    (weight_beta, weight_rho), (activation_beta, activation_rho) = _TABLE_1[preset]
    if rho is not None:
        weight_rho = activation_rho = rho
    return (
        Budget(cost=WeightSize(), beta=weight_beta, uniform_bits=uniform_bits, rho=weight_rho),
        Budget(
            cost=MeanActivationBits(), beta=activation_beta, uniform_bits=uniform_bits, rho=activation_rho
        ),
    )
