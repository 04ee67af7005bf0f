"""Measured costs per layer and width pair: latency, energy, or whatever the table's unit says."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.costs._layer_widths import LayerOperands, WidthPair, layer_operands, reachable_pairs
from gfb_brevitas.costs._operand_widths import OperandWidths
from gfb_brevitas.costs._table_file import read_table, table_text
from gfb_brevitas.costs.protocol import NO_LAYER, BoundCost, Joining
from gfb_brevitas.errors import AllocationError, ConfigurationError
from gfb_brevitas.files import write_text_atomically
from gfb_brevitas.profile import ModelProfile
from gfb_brevitas.space import Bits, Vector


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Sum over layers of a table entry, chosen by the layer's weight and activation width.

    [ours] An entry is the cost of the whole layer for one sample. A layer that multiplies several
    times in one forward pass (one called repeatedly, an attention) has one entry all the same, at
    the widest right operand (weights, for a layer) and the widest left operand (activations) of its
    products. An operand that no searchable quantizer makes counts at its constant width, rounded
    up, e.g. 32 for a float input.

    Every layer of the model must be in the table. One whose cost is part of ``constant``, or zero,
    is listed without entries. A layer with an operator of which nobody knows what it multiplies must be, too.

    Example:
        >>> table = LatencyTable(name="latency", unit="us", layers={"conv": {(4, 8): 12.5, (8, 8): 20.0}})

    Args:
        name: Name in reports.
        unit: Unit of the entries.
        layers: For each layer (:attr:`gfb_brevitas.profile.Product.layer`) the cost per
            (weight bits, activation bits).
        constant: Cost of everything that does not depend on the widths.

    Raises:
        ConfigurationError: If an entry is not a finite number of at least zero, or a width is not a
            whole number from 1 to 32.
    """

    name: str
    unit: str
    layers: Mapping[str, Mapping[WidthPair, float]] = field(hash=False)
    constant: float = 0.0
    joined_by: ClassVar[Joining] = "sum"

    def __post_init__(self) -> None:
        _require_text("name", self.name)
        _require_text("unit", self.unit)
        checked = {
            layer: {_pair(layer, pair): _number(f"{layer} at {pair}", cost) for pair, cost in entries.items()}
            for layer, entries in self.layers.items()
        }
        object.__setattr__(self, "layers", checked)
        object.__setattr__(self, "constant", _number("the constant", self.constant))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Read a table file.

        Raises:
            ConfigurationError: If the file cannot be read, is not a cost table of this version, or
                holds a value that is not allowed.
        """
        try:
            document = read_table(Path(path).read_text(encoding="utf-8"))
            return cls(
                name=document.name, unit=document.unit, layers=document.layers, constant=document.constant
            )
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"The cost table {os.fspath(path)!r} cannot be read: {error}."
            ) from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{os.fspath(path)}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to ``path``, whole or not at all."""
        write_text_atomically(Path(path), table_text(self.name, self.unit, self.layers, self.constant))

    @staticmethod
    def write_template(
        path: str | os.PathLike[str], profile: ModelProfile, *, name: str = "latency", unit: str = "us"
    ) -> None:
        """Write a table with every entry a model needs, each ``null``, to be filled in.

        Args:
            path: The file to write.
            profile: The model's profile; :func:`~gfb_brevitas.costs.searched_profile` gives the one
                with only the widths that a search space can reach.
            name: Name of the cost.
            unit: Unit of the entries.
        """
        layers: dict[str, dict[WidthPair, float | None]] = {
            layer: dict.fromkeys(reachable_pairs(profile, operands))
            for layer, operands in layer_operands(profile).items()
        }
        write_text_atomically(Path(path), table_text(name, unit, layers, 0.0))

    @cached_property
    def monotone(self) -> bool:
        """Whether no entry falls when a width rises; true of some tables, and looked up in this one."""
        return all(_is_monotone(entries) for entries in self.layers.values())

    def bind(self, profile: ModelProfile) -> BoundCost:
        """The cost of a model; see :class:`~gfb_brevitas.costs.protocol.Cost`.

        The returned function raises AllocationError at widths the table does not hold.

        Raises:
            ConfigurationError: If the table names a layer the model lacks, lacks one of the model's,
                or lacks a width pair that the quantizers' ranges and ties in ``profile`` can reach.
        """
        _, entries = self._entries(profile)

        def costs(bits: Bits) -> Vector:
            total: Vector = entries(bits).sum(axis=1) + self.constant
            return total

        return costs

    def parts(self, profile: ModelProfile, bits: Bits) -> dict[str, float]:
        """Each layer's entry; see :class:`~gfb_brevitas.costs.protocol.LayeredCost`."""
        names, entries = self._entries(profile)
        found = dict(zip(names, entries(bits[None])[0].tolist(), strict=True))
        return found | ({NO_LAYER: self.constant} if self.constant else {})

    def _entries(self, profile: ModelProfile) -> tuple[list[str], Callable[[Bits], Vector]]:
        """The layers that are measured, and their entries for candidates, ``(P, layers)``."""
        operands = layer_operands(profile)
        self._require_layers(profile, operands)
        measured = {layer: operands[layer] for layer, entries in self.layers.items() if entries}
        self._require_pairs(profile, measured)
        names = list(measured)
        right = OperandWidths(profile, [measured[name].right for name in names])
        left = OperandWidths(profile, [measured[name].left for name in names])
        grid = np.stack([_grid(self.layers[name]) for name in names]) if names else np.empty((0, 1, 1))
        index = np.arange(len(names))

        def entries_of(bits: Bits) -> Vector:
            pairs = _whole(right(bits)), _whole(left(bits))
            entries: Vector = np.ascontiguousarray(grid[index, pairs[0], pairs[1]])
            if np.isnan(entries).any():
                row, layer = np.argwhere(np.isnan(entries))[0]
                raise AllocationError(
                    f"The cost table {self.name!r} has no entry for {names[layer]!r} at "
                    f"{pairs[0][row, layer]},{pairs[1][row, layer]} (weight bits, activation bits)."
                )
            return entries

        return names, entries_of

    def _require_layers(self, profile: ModelProfile, operands: Mapping[str, LayerOperands]) -> None:
        self._require_unknown_operators(profile, operands)
        others = {found.layer for found in profile.unknown_operators}
        unknown = [layer for layer in self.layers if layer not in operands and layer not in others]
        absent = [layer for layer in operands if layer not in self.layers]
        if unknown:
            raise ConfigurationError(
                f"The cost table {self.name!r} names layers that the model lacks: {', '.join(unknown)}. "
                f"The model has: {', '.join(operands)}."
            )
        if absent:
            raise ConfigurationError(
                f"The cost table {self.name!r} lacks these layers of the model: {', '.join(absent)}. "
                f"Add them; list a layer whose cost is in the constant without entries, as {{}}."
            )

    def _require_unknown_operators(
        self, profile: ModelProfile, operands: Mapping[str, LayerOperands]
    ) -> None:
        """Check that what nobody knows the widths of is in the constant."""
        for found in profile.unknown_operators:
            if found.layer not in operands and self.layers.get(found.layer, True):
                raise ConfigurationError(
                    f"The cost table {self.name!r} must list the layer {found.layer!r} without entries, as "
                    f"{{}}, with its cost in the constant: it runs {found.name}, and nobody knows of which "
                    "widths."
                )

    def _require_pairs(self, profile: ModelProfile, measured: Mapping[str, LayerOperands]) -> None:
        lacking = []
        for layer, operands in measured.items():
            missing = [p for p in reachable_pairs(profile, operands) if p not in self.layers[layer]]
            if missing:
                more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
                lacking.append(f"{layer} at {' and '.join(f'{w},{a}' for w, a in missing[:3])}{more}")
        if lacking:
            raise ConfigurationError(
                f"The cost table {self.name!r} lacks width pairs (weight bits, activation bits) that the "
                f"search can reach: {'; '.join(lacking)}. Add them, or narrow the search with rules."
            )


def _whole(widths: Vector) -> NDArray[np.int64]:
    return np.ceil(widths).astype(np.int64)


def _grid(entries: Mapping[WidthPair, float], fill: float = math.nan) -> Vector:
    grid = np.full((MAX_BITS + 1, MAX_BITS + 1), fill)
    for pair, cost in entries.items():
        grid[pair] = cost
    return grid


def _is_monotone(entries: Mapping[WidthPair, float]) -> bool:
    grid = _grid(entries, fill=-math.inf)
    highest = np.maximum.accumulate(np.maximum.accumulate(grid, axis=0), axis=1)
    return all(cost >= highest[pair] for pair, cost in entries.items())


def _require_text(setting: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"A cost table's {setting} must be a non-empty string; got {value!r}.")


def _pair(layer: str, pair: WidthPair) -> WidthPair:
    weight_bits, activation_bits = pair
    if not {weight_bits, activation_bits} <= set(range(1, MAX_BITS + 1)):
        raise ConfigurationError(
            f"The widths of cost tables must be whole numbers from 1 to {MAX_BITS}; got {pair} for {layer!r}."
        )
    return int(weight_bits), int(activation_bits)


def _number(what: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigurationError(
            f"A cost must be a finite number of at least zero; got {value!r} for {what}."
        )
    return number
