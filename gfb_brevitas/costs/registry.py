"""Costs by name, so that configuration files can state them and third parties can add theirs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from gfb_brevitas.costs.protocol import Cost
from gfb_brevitas.errors import ConfigurationError, unknown_name

CostFactory = Callable[..., Cost]
_F = TypeVar("_F", bound=CostFactory)
_factories: dict[str, CostFactory] = {}


def register_cost(name: str, factory: _F) -> _F:
    """Make a cost available to :func:`cost_from_name`.

    Args:
        name: The name configurations use.
        factory: A class or function whose keyword arguments are the cost's options.

    Returns:
        ``factory``.

    Raises:
        ConfigurationError: If another factory holds the name.

    Example:
        >>> register_cost("widest_weight", WidestWeight)  # doctest: +SKIP
        >>> cost_from_name("widest_weight")  # doctest: +SKIP
    """
    if not name or not isinstance(name, str):
        raise ConfigurationError(f"A cost is registered under a non-empty string; got {name!r}.")
    if not callable(factory):
        raise ConfigurationError(f"The factory of cost {name!r} must be callable; got {factory!r}.")
    if _factories.setdefault(name, factory) != factory:
        raise ConfigurationError(f"A cost named {name!r} is already registered; choose another name.")
    return factory


def registered_costs() -> tuple[str, ...]:
    """Names that :func:`cost_from_name` knows, sorted."""
    _require_own_costs()
    return tuple(sorted(_factories))


def cost_from_name(name: str, /, **options: Any) -> Cost:
    """Make a cost from its registered name and its options.

    Raises:
        ConfigurationError: If the name is unknown or an option does not exist.

    Example:
        >>> cost_from_name("activation_memory", total="largest")
        ActivationMemory(name='activation_memory', total='largest')
    """
    _require_own_costs()
    factory = _factories.get(name)
    if factory is None:
        raise ConfigurationError(unknown_name("cost", name, registered_costs()))
    signature = inspect.signature(factory)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ConfigurationError(f"Cost {name!r} takes {signature}; {error}.") from None
    return factory(**options)


def _require_own_costs() -> None:
    """The costs of boards are registered where they are, in a package that is made of costs."""
    importlib.import_module("gfb_brevitas.dataflow")
