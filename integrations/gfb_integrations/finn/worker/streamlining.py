"""Streamlining that residual networks and plain ones get through.

FINN's default step stops at a fork: scales stay on both branches and the layers behind cannot be mapped.
Moving them past forks and additions of equal scales, until nothing moves any more, is what its own ResNet
examples do; see ``builder/custom_step_library/resnet.py`` of finn-plus 1.6.1.
"""

from __future__ import annotations

from typing import Any

from finn.transformation.streamline import Streamline, absorb, reorder
from finn.transformation.streamline.round_thresholds import RoundAndClipThresholds
from qonnx.transformation.base import Transformation
from qonnx.transformation.bipolar_to_xnor import ConvertBipolarMatMulToXnorPopcount
from qonnx.transformation.general import GiveReadableTensorNames, GiveUniqueNodeNames, RemoveUnusedTensors
from qonnx.transformation.infer_data_layouts import InferDataLayouts
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul

_LARGEST_NUMBER_OF_PASSES = 50


def streamline(model: Any, configuration: Any) -> Any:  # noqa: ARG001 - FINN's signature of a build step
    """Collect scales in front of thresholds and behind the network, and bring the layout to channels last."""
    model = model.transform(absorb.AbsorbScalarBiasIntoMultiThreshold())
    model = _scales_past_forks(model)
    if model.get_nodes_by_op_type("Conv"):
        model = _channels_last(model)
    model = model.transform(ConvertBipolarMatMulToXnorPopcount())
    model = _scales_past_forks(model)
    for transformation in (
        _ScaleBeforeLastFlatten(),
        absorb.AbsorbScalarMulAddIntoTopK(),
        RoundAndClipThresholds(),
        InferDataTypes(),
        InferDataLayouts(),
        RemoveUnusedTensors(),
    ):
        model = model.transform(transformation)
    return model


def _scales_past_forks(model: Any) -> Any:
    """Streamline, and move what stands before a fork or an addition behind it, to a fixed point."""
    for _ in range(_LARGEST_NUMBER_OF_PASSES):
        before = _shape_of_graph(model)
        model = model.transform(Streamline())
        model = model.transform(reorder.MoveLinearPastFork())
        model = model.transform(reorder.MoveLinearPastEltwiseAdd())
        model = model.transform(InferDataTypes())
        if _shape_of_graph(model) == before:
            break
    return model


def _channels_last(model: Any) -> Any:
    """Make convolutions matrix products, and absorb the transpositions that come with that."""
    model = model.transform(LowerConvsToMatMul())
    for _ in range(_LARGEST_NUMBER_OF_PASSES):
        before = _shape_of_graph(model)
        for transformation in (
            reorder.MakeMaxPoolNHWC(),
            absorb.AbsorbTransposeIntoMultiThreshold(),
            reorder.MoveTransposePastFork(),
            reorder.MoveTransposePastJoinAdd(),
            reorder.MakeScaleResizeNHWC(),
            absorb.AbsorbConsecutiveTransposes(),
            _KnownLayouts(),
            absorb.AbsorbTransposeIntoFlatten(),
            GiveUniqueNodeNames(),
            GiveReadableTensorNames(),
            InferDataTypes(),
            InferDataLayouts(),
        ):
            model = model.transform(transformation)
        if _shape_of_graph(model) == before:
            break
    return model


class _KnownLayouts(Transformation):  # type: ignore[misc]
    """Says which transpositions bring channels to the front.

    AbsorbTransposeIntoFlatten looks at the layout to tell whether an image is one pixel large. Where the
    layout is unknown it takes that for granted, and the values come in another order.
    """

    def apply(self, model: Any) -> tuple[Any, bool]:
        for node in model.get_nodes_by_op_type("Transpose"):
            if list(node.attribute[0].ints) == [0, 3, 1, 2]:
                model.set_tensor_layout(node.input[0], ["N", "H", "W", "C"])
        return model, False


class _ScaleBeforeLastFlatten(Transformation):  # type: ignore[misc]
    """Brings a scalar scale or bias at the output in front of a last Flatten and its transposition.

    FINN's streamlining leaves it behind, so that the Flatten is in the middle of the hardware.
    """

    def apply(self, model: Any) -> tuple[Any, bool]:
        for node in model.graph.node:
            constant = model.get_initializer(node.input[1]) if node.op_type in ("Mul", "Add") else None
            moving = model.find_producer(node.input[0])
            if constant is None or constant.size != 1 or moving is None:
                continue
            behind = moving if moving.op_type == "Flatten" else _only_consumer(model, node)
            if (
                moving.op_type in ("Flatten", "Transpose")
                and behind is not None
                and behind.op_type == "Flatten"
                and _is_last(model, node if behind is moving else behind)
            ):
                _exchange(model, moving, node)
                return model, True
        return model, False


def _only_consumer(model: Any, node: Any) -> Any:
    consumers = model.find_consumers(node.output[0])
    return consumers[0] if len(consumers) == 1 else None


def _is_last(model: Any, node: Any) -> bool:
    return node.output[0] in [output.name for output in model.graph.output]


def _exchange(model: Any, first: Any, second: Any) -> None:
    """Swap two nodes in a row, of which the second does not depend on the shape."""
    source, between, result = first.input[0], first.output[0], second.output[0]
    model.set_tensor_shape(between, model.get_tensor_shape(source))
    second.input[0], second.output[0] = source, between
    first.input[0], first.output[0] = between, result
    nodes = model.graph.node
    position = list(nodes).index(first)
    nodes.remove(second)
    nodes.insert(position, second)


def _shape_of_graph(model: Any) -> tuple[str, ...]:
    return tuple(node.op_type for node in model.graph.node)
