"""What a model computes, layer by layer: the input of hardware costs and of hardware checks.

A :class:`LayerGraph` is plain data, like :class:`~gfb_brevitas.profile.ModelProfile`. It is recorded by
:func:`gfb_brevitas.adapters.record_layers` from one forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LayerOperation = Literal[
    "input",
    "output",
    "quantize",
    "conv",
    "linear",
    "matmul",
    "batch_norm",
    "max_pool",
    "avg_pool",
    "add",
    "mul",
    "concat",
    "reshape",
    "pad",
    "relu",
    "other",
]


@dataclass(frozen=True, kw_only=True)
class LayerNode:
    """One operation of a forward pass.

    What :attr:`attributes` hold, per operation:

    - ``quantize``: ``quantizer`` (its name, as in a :class:`~gfb_brevitas.allocation.BitAllocation`),
      ``kind`` (``"activation"`` or ``"truncation"``), ``bits``, ``signed``, ``narrow_range``, ``zero_point``
      (whether one is not zero), ``per_channel`` (whether there are several scales), ``scale`` (a number when
      there is one, else ``None``), ``activation`` (class of the activation function in front, ``""`` for
      none) and ``rounding`` (Brevitas' name of the rounding in capitals, or ``None``). A quantizer without
      integer widths has ``bits`` ``None``.
    - ``conv``: ``kernel``, ``stride``, ``padding``, ``dilation`` (tuples, one number per spatial dimension),
      ``groups``, ``transposed``, ``in_channels``, ``out_channels``; and what follows.
    - ``linear``: ``in_features``, ``out_features``, ``vectors`` (input vectors per sample); and what follows.
    - both: ``weight_quantizer`` (its name, or ``None``), ``weight_bits``, ``weight_signed``,
      ``weight_narrow_range``, ``weight_per_channel``, ``weight_zero_point``, ``bias`` (whether there is
      one), ``bias_quantizer`` (its name, or ``None``) and ``bias_bits``.
    - ``max_pool``, ``avg_pool``: ``kernel``, ``stride``, ``padding``, ``dilation``, ``ceil_mode`` and
      ``adaptive`` (whether the size of the output was given, not that of the window). A mean over all
      positions is an ``avg_pool`` as large as its input.
    - ``add``, ``mul``: ``constant`` (whether the other operand is not computed from the input) and
      ``per_channel`` (whether a constant is one number or one per channel that scales or shifts); ``add``:
      ``factor`` of the second operand, -1 for a subtraction.
    - ``concat``: ``dim``.
    - ``pad``: ``padding`` (amounts, last dimension first) and ``value``.
    - ``other``: ``own_statistics`` for a normalisation by statistics of its own input, where PyTorch runs it
      as a BatchNorm (BatchNorm without running statistics, InstanceNorm).
    - ``reshape``, ``other``: ``target``, the ATen operator; ``"aten.flatten"`` for all ways to flatten.
    - ``other``: ``multiplies`` (whether it is known to multiply more than element by element).

    Attributes:
        name: Unique name; that of its module where a module runs one such operation once.
        op: What it does.
        module: Dotted path of the innermost module that it ran in.
        inputs: Names of the nodes it reads. Weights are attributes, not nodes.
        shape: Shape of its output without the batch dimension.
        attributes: See above.
    """

    name: str
    op: LayerOperation
    module: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LayerGraph:
    """The operations of one forward pass, in the order in which they ran.

    Attributes:
        nodes: The operations; the graph's inputs come first, its outputs last.
    """

    nodes: tuple[LayerNode, ...]
    _by_name: Mapping[str, LayerNode] = field(init=False, repr=False, compare=False)
    _consumers: Mapping[str, tuple[LayerNode, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {node.name: node for node in self.nodes}
        consumers: dict[str, list[LayerNode]] = {name: [] for name in by_name}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                consumers[name].append(node)
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "_consumers", {name: tuple(nodes) for name, nodes in consumers.items()})

    def __iter__(self) -> Iterator[LayerNode]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> LayerNode:
        """The node called ``name``."""
        return self._by_name[name]

    def consumers(self, node: LayerNode) -> tuple[LayerNode, ...]:
        """The nodes that read ``node``, in the order in which they ran."""
        return self._consumers[node.name]

    def producers(self, node: LayerNode) -> tuple[LayerNode, ...]:
        """The nodes that ``node`` reads."""
        return tuple(self._by_name[name] for name in node.inputs)

    def of(self, *operations: LayerOperation) -> Iterator[LayerNode]:
        """The nodes that do one of ``operations``."""
        return (node for node in self.nodes if node.op in operations)
