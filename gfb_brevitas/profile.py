"""What is known about a model's quantizers: the input of search spaces and costs.

A :class:`ModelProfile` is plain data. It is filled by :mod:`gfb_brevitas.adapters` from one forward
pass on example inputs and read by everything to the right of it (search space, costs, reports), none
of which needs the model itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gfb_brevitas.errors import AllocationError
from gfb_brevitas.layer_graph import LayerGraph

QuantizerKind = Literal["weight", "activation"]
ScaleGranularity = Literal["tensor", "channel"]

FLOAT_BITS = 32
"""Bit width at which a tensor that no quantizer touches is counted."""


@dataclass(frozen=True, kw_only=True)
class QuantizerInfo:
    """One searchable quantizer.

    Attributes:
        name: Dotted path of the Brevitas proxy in the model, e.g. ``"conv1.weight_quant"``.
        kind: ``"weight"`` or ``"activation"``.
        elements: Quantized elements. For weights the elements of the tensor(s); for activations the
            elements produced per sample, summed over all calls in one forward.
        largest_call_elements: Elements per sample of the largest single call (activations), or of
            the largest tensor (weights).
        macs: Multiply-accumulates per sample of the products that the quantizer is an operand of.
        signed: Whether the integer range is signed.
        narrow_range: Whether the signed range is symmetric (drops the most negative integer).
        granularity: One scale per tensor or one per output channel.
        min_bits: Smallest bit width the quantizer may take.
        max_bits: Largest bit width the quantizer may take.
        initial_bits: Bit width the quantizer had in the user's model.
        tie_group: Quantizers with the same group share one bit width. Equal to ``name`` of the
            first member.
        scaling: ``"learned"`` for this package's learned clipping, ``"native"`` where Brevitas' own
            scale is kept and only the width moves.
        feeds: Names of the modules whose products read the quantizer's output.
        reached: Whether the forward pass on the example inputs used the quantizer. One that it did not
            use keeps the width it has, unless it is fixed at another.
        layer: Kind and shape of the layer that it stands in, e.g. ``"Conv2d 1->8 3x3"``.
    """

    name: str
    kind: QuantizerKind
    elements: int
    largest_call_elements: int
    macs: int
    signed: bool
    narrow_range: bool
    granularity: ScaleGranularity
    min_bits: int
    max_bits: int
    initial_bits: int
    tie_group: str
    scaling: Literal["learned", "native"] = "learned"
    feeds: tuple[str, ...] = ()
    reached: bool = True
    layer: str = ""

    @property
    def has_numbered_layer(self) -> bool:
        """Whether its layer has a number for a name, which says nothing, as in ``nn.Sequential``."""
        return self.name.rpartition(".")[0].rpartition(".")[2].isdigit()


@dataclass(frozen=True, kw_only=True)
class Operand:
    """One side of a product: which quantizers made it, or a constant width.

    Attributes:
        quantizers: Names of the searchable quantizers whose values reach the operand. With several
            (a concatenation), the widest one counts. Empty when none does.
        constant_bits: Width when ``quantizers`` is empty: the width of an unsearchable quantizer,
            or :data:`FLOAT_BITS`.
        least_bits: Width of an unsearchable quantizer whose values reach the operand, too: the operand is at
            least as wide.
    """

    quantizers: tuple[str, ...] = ()
    constant_bits: float = FLOAT_BITS
    least_bits: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix product or convolution in the forward pass.

    Attributes:
        layer: Name of the module it runs in.
        macs: Multiply-accumulates per sample.
        left: First operand (the activation, for a layer).
        right: Second operand (the weight, for a layer).
    """

    layer: str
    macs: int
    left: Operand
    right: Operand


@dataclass(frozen=True, kw_only=True)
class RefusedQuantizer:
    """A quantizer that stays as it is, and why.

    Attributes:
        name: Dotted path of the Brevitas proxy.
        kind: The proxy's role, e.g. ``"bias"`` or ``"activation"``.
        reason: Why its bit width is not searched.
    """

    name: str
    kind: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """A layer that multiplies in floating point, or keeps weights in it: no width of it is searched.

    Attributes:
        name: Dotted path of the module; ``""`` for the model itself.
        kind: Class of the module, e.g. ``"Conv2d"``.
        operands: What no quantizer has rounded: the ``"weights"`` (in a product of two activations: the
            second one), the ``"inputs"``, or ``"both"``.
        reason: Why.
        macs: Multiply-accumulates per sample that it does in floating point.
        weights: Elements of its weights that stay in floating point.
        macs_share: ``macs`` as a part of all multiply-accumulates of the model, 0 to 1.
        weights_share: ``weights`` as a part of all weights of the model's layers, 0 to 1.
    """

    name: str
    kind: str
    operands: Literal["weights", "inputs", "both"]
    reason: str
    macs: int
    weights: int
    macs_share: float
    weights_share: float


@dataclass(frozen=True, kw_only=True)
class UnknownOperator:
    """An operator of the forward pass whose multiply-accumulates nobody knows.

    Costs of computation are not defined for a model that has one, until its cost is registered with
    :func:`~gfb_brevitas.costs.register_operator_cost`.

    Attributes:
        name: The operator, e.g. ``"mylib::fused_gate"``.
        layer: Name of the module it runs in; ``""`` for the model itself.
        reason: Why its cost is not known.
        quantizers: Names of the searchable quantizers whose values it reads.
    """

    name: str
    layer: str
    reason: str
    quantizers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """Everything the search knows about a model, in the order of the forward pass.

    Attributes:
        quantizers: The searchable quantizers; column ``j`` of every bit matrix of shape
            ``(candidates, len(quantizers))`` belongs to ``quantizers[j]``.
        products: All products of the forward pass.
        unknown_operators: Operators that may multiply, and of which it is not known how much.
        float_layers: Layers that multiply in floating point, or keep weights in it.
        refused: Quantizers that are not searched.
        constant_weight_bits: Bits of quantized weights whose width is not searched.
        layers: Every operation of the forward pass, for costs of hardware.
    """

    quantizers: tuple[QuantizerInfo, ...]
    products: tuple[Product, ...] = ()
    unknown_operators: tuple[UnknownOperator, ...] = ()
    float_layers: tuple[FloatLayer, ...] = ()
    refused: tuple[RefusedQuantizer, ...] = ()
    constant_weight_bits: float = 0.0
    layers: LayerGraph = field(default=LayerGraph(nodes=()), compare=False, repr=False)
    _columns: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        columns = {info.name: column for column, info in enumerate(self.quantizers)}
        object.__setattr__(self, "_columns", columns)

    def __iter__(self) -> Iterator[QuantizerInfo]:
        return iter(self.quantizers)

    def __len__(self) -> int:
        return len(self.quantizers)

    @property
    def names(self) -> tuple[str, ...]:
        """Quantizer names, in column order."""
        return tuple(info.name for info in self.quantizers)

    def column(self, name: str) -> int:
        """Column of the quantizer called ``name`` in a bit matrix.

        Raises:
            AllocationError: If there is no such quantizer.
        """
        try:
            return self._columns[name]
        except KeyError:
            raise AllocationError(
                f"The model has no searchable quantizer {name!r}. It has: {', '.join(self.names)}."
            ) from None

    def columns(self, kind: QuantizerKind) -> NDArray[np.int64]:
        """Columns of all quantizers of ``kind``; shape ``(n,)``."""
        return np.array([j for j, info in enumerate(self.quantizers) if info.kind == kind], dtype=np.int64)

    def elements(self) -> NDArray[np.float64]:
        """Element count per quantizer; shape ``(quantizers,)``."""
        return np.array([info.elements for info in self.quantizers], dtype=np.float64)
