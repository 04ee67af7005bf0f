"""What operators cost that only their author knows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.profile import ModelProfile, UnknownOperator

CountMacs = Callable[..., float]
"""The arguments of one call of an operator to its multiply-accumulates, of the whole batch."""

_NAME = re.compile(r"\w+::\w+")


@dataclass(frozen=True, kw_only=True)
class OperatorCost:
    """What one operator multiplies.

    Attributes:
        macs: Multiply-accumulates of a call, from its arguments; 0 for an operator that multiplies nothing.
        operands: Which of the floating-point tensors among its arguments are multiplied with each other.
    """

    macs: CountMacs | Literal[0]
    operands: tuple[int, int] = (0, 1)


_registered: dict[str, OperatorCost] = {}


def register_operator_cost(
    name: str, macs: CountMacs | Literal[0], *, operands: tuple[int, int] = (0, 1)
) -> None:
    """State what an operator costs of which the profile of a model says that nobody knows it.

    Do it before :func:`~gfb_brevitas.make_searchable`. Registering a name again replaces its cost.

    Example:
        >>> register_operator_cost("mylib::gather_scale", 0)
        >>> register_operator_cost("mylib::fused_linear", lambda x, weight, bias: x.numel() * weight.shape[0])

    Args:
        name: The operator as ``profile.unknown_operators`` and messages name it, e.g. ``"mylib::gate"``.
        macs: Function of the operator's arguments that returns the multiply-accumulates of the call, of all
            samples in it; or 0, if it multiplies nothing.
        operands: Which of the floating-point tensors among the arguments are the two sides of the product,
            counted from 0: their widths are those of the product's bit operations. A side that there is not
            counts as 32 bits.

    Raises:
        ConfigurationError: If the name, the function or the operands are not valid.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            "An operator's name is namespace::operator, such as 'mylib::gate', without an overload; "
            f"got {name!r}."
        )
    if not callable(macs) and (isinstance(macs, bool) or macs != 0):
        raise ConfigurationError(
            f"`macs` of operator {name!r} must be a function of its arguments, or 0 if it multiplies "
            f"nothing; got {macs!r}. A number of its own would not know how many samples a call holds."
        )
    whole = isinstance(operands, tuple) and all(type(o) is int and o >= 0 for o in operands)
    if not whole or len(operands) != len(OperatorCost(macs=0).operands):
        raise ConfigurationError(
            f"`operands` of operator {name!r} must be two positions among its floating-point tensors, such "
            f"as (0, 1); got {operands!r}."
        )
    _registered[name] = OperatorCost(macs=macs, operands=operands)


def operator_cost(name: str) -> OperatorCost | None:
    """What was registered for an operator."""
    return _registered.get(name)


def stated_macs(name: str, macs: CountMacs, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """What the registered function of an operator says of one call.

    Raises:
        ConfigurationError: If it fails, or returns something else than a finite number of at least zero.
    """
    try:
        found: Any = macs(*args, **kwargs)
    except Exception as error:
        raise ConfigurationError(
            f"The registered cost of operator {name!r} failed on the arguments of a call: "
            f"{type(error).__name__}: {error}."
        ) from error
    is_number = isinstance(found, Real) and not isinstance(found, bool)
    if not is_number or not 0 <= float(found) < math.inf:
        raise ConfigurationError(
            f"The registered cost of operator {name!r} must be a finite number of at least zero; "
            f"got {found!r}."
        )
    return float(found)


def unknown_in_words(found: UnknownOperator) -> str:
    """A sentence on an operator of which nobody knows what it multiplies, and what to do."""
    where = f"the layer {found.layer!r}" if found.layer else "the model itself"
    return (
        f"Nobody knows what {found.name} multiplies, which {where} runs ({found.reason}): "
        "multiply-accumulates are without it, bit operations and costs of hardware are not known. "
        "gfb_brevitas.register_operator_cost states it."
    )


def require_known_operators(profile: ModelProfile, cost: str) -> None:
    """Check that a cost of computation can be told.

    Args:
        profile: The model's profile.
        cost: The cost's name, for the message.

    Raises:
        ConfigurationError: If the model has operators of which nobody knows what they multiply.
    """
    if not profile.unknown_operators:
        return
    listed = "; ".join(
        f"{found.name} in {repr(found.layer) if found.layer else 'the model itself'} ({found.reason})"
        for found in profile.unknown_operators
    )
    first = profile.unknown_operators[0].name
    raise ConfigurationError(
        f"The cost {cost!r} is not known for this model: nobody knows what these operators multiply: "
        f"{listed}. State it before the model is made searchable, with "
        f"gfb_brevitas.register_operator_cost({first!r}, macs), macs being a function of the operator's "
        "arguments, or 0 if it multiplies nothing; write the layer with other operators; or choose a cost "
        "that does not count multiplications."
    )
