"""A Brevitas model whose bit widths are settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from gfb_brevitas.adapters.calibration import calibrate
from gfb_brevitas.adapters.conversion import Conversion, convert
from gfb_brevitas.adapters.freezing import frozen_copy, working_copy
from gfb_brevitas.adapters.layer_recording import record_layers
from gfb_brevitas.adapters.profiling import make_profile
from gfb_brevitas.adapters.ties import trace_and_tie
from gfb_brevitas.adapters.tracing import ExampleInputs, batch_size_of, require_module
from gfb_brevitas.allocation import MAX_BITS, BitAllocation
from gfb_brevitas.errors import AllocationError, ConfigurationError, NothingSearchableError
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.quant import Clipping, ClippingKind
from gfb_brevitas.rules import Rule
from gfb_brevitas.space import SearchSpace

HALF_PRECISION_BITS = 15
"""Largest width of a model in float16."""


def make_searchable(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    bits: tuple[int, int] = (1, 8),
    rules: Sequence[Rule] = (),
    clipping: ClippingKind = "linear",
    weight_normalization: bool = False,
    batch_size: int | None = None,
) -> SearchableModel:
    """Make every quantizer's bit width of a Brevitas model a search parameter.

    The user's model is left as it is; the result works on a copy.

    Example:
        >>> searchable = make_searchable(model, torch.randn(1, 1, 28, 28))  # doctest: +SKIP
        >>> searchable.set_allocation(searchable.space.uniform(3))  # doctest: +SKIP

    Args:
        model: A Brevitas model. For a float model see
            :func:`~gfb_brevitas.adapters.float_model.quantize_float_model`.
        example_inputs: One batch: a tensor, a tuple of positional or a mapping of keyword arguments.
        bits: Smallest and largest width in bits (the paper: 1 to 8, or 1 to 12). A quantizer whose width
            in ``model`` is outside starts at the nearest one; how many do is logged.
        rules: Ranges, fixed widths and ties by name, see :mod:`gfb_brevitas.rules`.
        clipping: How learned clipping values depend on the width: ``"linear"`` (a0 + a1 * b),
            ``"constant"`` or ``"per_bit"``.
        weight_normalization: Quantize (w - mean) / std instead of w (the recipe of APoT). Changes
            what the model computes; meant for layers that a BatchNorm follows.
        batch_size: Samples in ``example_inputs``; by default the first dimension of its first tensor.

    Returns:
        The searchable model.

    Raises:
        NothingSearchableError: If no quantizer can be searched; lists why.
        UntraceableModelError: If the model fails on ``example_inputs``.
        ConfigurationError: If a setting or rule is not valid.
    """
    require_module(model)
    if isinstance(model, SearchableModel):
        raise ConfigurationError(
            "The model is searchable already. Use it as it is, or pass the Brevitas model it was made from."
        )
    _check_bits(bits)
    _check_precision(model, bits[1])
    if batch_size is not None and not (isinstance(batch_size, int) and batch_size >= 1):
        raise ConfigurationError(f"batch_size must be at least 1; got {batch_size!r}.")
    samples = batch_size_of(example_inputs) if batch_size is None else batch_size
    converted = working_copy(model)
    conversion = convert(
        converted, clipping=clipping, weight_normalization=weight_normalization, max_bits=bits[1]
    )
    if not conversion.sites:
        raise NothingSearchableError(_nothing_searchable(model, conversion))
    if weight_normalization:
        _check_weights(conversion, converted)
    seen = trace_and_tie(converted, example_inputs, conversion)
    names = {path: site.name for site in conversion.sites.values() for path in site.proxy_names}
    layers = record_layers(converted, example_inputs, batch_size=samples, names=names)
    profile = make_profile(converted, conversion, seen, layers, samples, bits)
    return SearchableModel(converted, conversion, profile, SearchSpace(profile, rules))


_logger = logging.getLogger(__name__)


class SearchableModel(nn.Module):
    """Behaves like the user's model at the bit widths of :attr:`allocation`.

    Made by :func:`make_searchable`.

    Attributes:
        model: The Brevitas model with searchable quantizers inside.
        profile: What is known about its quantizers.
        space: The search space.
    """

    def __init__(
        self, model: nn.Module, conversion: Conversion, profile: ModelProfile, space: SearchSpace
    ) -> None:
        super().__init__()
        self.model = model
        self.profile = profile
        self.space = space
        self._sites = [conversion.sites[name] for name in profile.names]
        initial = np.array([info.initial_bits for info in profile], dtype=np.int64)
        start = space.nearest(initial)
        self.set_bits(start)
        changed = int((start != initial).sum())
        if changed:
            _logger.info(
                "%d of %d quantizers start at another width than in the model, the nearest one that the "
                "search space (`bits` and `rules`) holds.",
                *(changed, len(profile)),
            )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the user's model."""
        return self.model(*args, **kwargs)

    @property
    def allocation(self) -> BitAllocation:
        """The bit widths in force."""
        return BitAllocation({site.name: site.width.bits for site in self._sites})

    def set_allocation(self, allocation: Mapping[str, int]) -> None:
        """Change the bit widths, in place; nothing else of the model changes.

        Raises:
            AllocationError: If names or widths do not fit the search space; nothing has changed then.
        """
        checked = self.space.check(allocation)
        self.set_bits([checked[site.name] for site in self._sites])

    def set_bits(self, bits: Iterable[int]) -> None:
        """Change the bit widths without checks of their ranges: one row of a bit matrix, in profile order.

        An allocation is taken too, as by :meth:`set_allocation`.

        Raises:
            AllocationError: If it is neither; nothing has changed then.
        """
        if isinstance(bits, Mapping):
            self.set_allocation(bits)
            return
        try:
            widths = [int(width) for width in bits]
        except (TypeError, ValueError):
            widths = []
        if len(widths) != len(self._sites):
            raise AllocationError(
                f"A row of bit widths of this model has {len(self._sites)} whole numbers, in the order of "
                f"its profile; got {bits!r}. set_allocation(model.space.uniform(4)) sets all by name."
            )
        for site, width in zip(self._sites, widths, strict=True):
            site.width.bits = width

    @contextmanager
    def using(self, allocation: Mapping[str, int]) -> Iterator[SearchableModel]:
        """A ``with`` block at other bit widths; the old ones are back after it."""
        before = [site.width.bits for site in self._sites]
        self.set_allocation(allocation)
        try:
            yield self
        finally:
            self.set_bits(before)

    def calibrate(self, batches: Iterable[Any], forward: Callable[[Any], Any] | None = None) -> None:
        """Start all clipping values at their MSE-optimal values.

        Args:
            batches: A few batches of training data.
            forward: Runs this model on a batch. By default the batch itself is the input, or its first
                element when it is a tuple or list.

        Raises:
            EmptyDataError: If there is no batch.
            CalibrationError: If a quantizer sees NaN or infinite values.
        """
        widths = {
            name: range(c.min_bits, c.max_bits + 1) for c in self.space.coordinates for name in c.quantizers
        }
        calibrate(self.model, self._sites, widths, batches, forward or self._forward_first)

    def clipping_parameters(self) -> list[nn.Parameter]:
        """Parameters of the learned clipping values."""
        clippings = (module for module in self.modules() if isinstance(module, Clipping))
        return list({id(p): p for module in clippings for p in module.parameters()}.values())

    def weight_parameters(self) -> list[nn.Parameter]:
        """All parameters that are not clipping values."""
        clipping = {id(p) for p in self.clipping_parameters()}
        return [p for p in self.parameters() if id(p) not in clipping]

    def clipping_values(self) -> dict[str, dict[int, torch.Tensor]]:
        """a(b) of every learned quantizer, per width of its range (detached)."""
        return {
            site.name: {
                bits: site.learned.clipping(bits).detach() for bits in range(info.min_bits, info.max_bits + 1)
            }
            for site, info in zip(self._sites, self.profile, strict=True)
            if site.learned is not None
        }

    def freeze(self, allocation: Mapping[str, int] | None = None) -> nn.Module:
        """A plain Brevitas copy at fixed bit widths, with no class of this package inside.

        Args:
            allocation: Widths to freeze at; by default those in force.

        Returns:
            A model that computes the same as this one, trains on with Brevitas alone, saves and
            loads its state dict, and exports.

        Raises:
            AllocationError: If ``allocation`` does not fit.
        """
        chosen = self.allocation if allocation is None else self.space.check(allocation)
        return frozen_copy(self.model, self._sites, chosen)

    def _forward_first(self, batch: Any) -> Any:
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        parameter = next(self.parameters(), None)
        if isinstance(inputs, torch.Tensor) and parameter is not None:
            inputs = inputs.to(parameter.device)
        return self.model(**inputs) if isinstance(inputs, Mapping) else self.model(inputs)


def _check_bits(bits: object) -> None:
    match bits:
        case (int() | np.integer() as low, int() | np.integer() as high) if 1 <= low <= high <= MAX_BITS:
            return
    raise ConfigurationError(
        f"bits must be (smallest, largest) from 1 to {MAX_BITS}, whole numbers in that order; got {bits!r}."
    )


def _check_precision(model: nn.Module, most: int) -> None:
    if most > HALF_PRECISION_BITS and any(p.dtype == torch.float16 for p in model.parameters()):
        raise ConfigurationError(
            f"In float16, widths go up to {HALF_PRECISION_BITS} bits, since it does not hold 65,535; "
            f"got `bits` up to {most}. Lower them, or convert the model: model.float() or model.bfloat16()."
        )


def _check_weights(conversion: Conversion, model: nn.Module) -> None:
    for site in conversion.sites.values():
        for layer in site.tracked_layers(model) if site.kind == "weight" else ():
            if not isinstance(layer.weight, nn.Parameter):
                raise ConfigurationError(
                    f"`weight_normalization` needs weights that are parameters; those of {site.name!r} are "
                    "computed at every forward pass (by pruning, a parametrization or a hook). Make them "
                    "plain (prune.remove, parametrize.remove_parametrizations), or leave it out."
                )


def _nothing_searchable(model: nn.Module, conversion: Conversion) -> str:
    if not conversion.refused:
        return (
            f"{type(model).__name__} holds no Brevitas quantizer. Build it from brevitas.nn layers, or turn "
            "a float model into one with gfb_brevitas.quantize_float_model(model, example_inputs)."
        )
    listed = "; ".join(f"{item.name}: {item.reason}" for item in conversion.refused)
    return f"No quantizer of {type(model).__name__} can be searched. {listed}."
