"""Executing the graph after every stage, and finding where it parts from the first one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from finn.core.onnx_exec import execute_onnx

from .failures import StageError, failing_as
from .stages import STAGES, make_config, run_stages

Array = np.ndarray[Any, Any]

_ROUNDING_OPERATORS = ("Quant", "IntQuant", "BipolarQuant", "Trunc")
_THRESHOLD_OPERATORS = ("MultiThreshold", "Thresholding", "Requant", "MVAU", "VVAU")
_LARGEST_NOISE = 0.1
"""Difference of levels, in steps, that comes of floating point."""


@dataclass(frozen=True, kw_only=True)
class _Execution:
    """What a graph computed on all samples.

    Attributes:
        output: Shape ``(samples, ...)``.
        rounded: Per node that rounds, in the order of the graph, its name and what it put out.
    """

    output: Array
    rounded: list[tuple[str, Array]]


def verify(model: str, samples: str, output: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Execute the graph after every stage that can be executed.

    Args:
        model: Path of a QONNX file.
        samples: Path of an ``.npz`` file with ``inputs``, shape ``(samples, ...)``, and what the model puts
            out for them as ``outputs``; without them, what the QONNX graph puts out counts.
        output: Folder for what FINN writes.
        settings: See :func:`~.stages.make_config`.

    Returns:
        ``largest``, the largest absolute output that counts, and ``stages``, a list of ``stage``,
        ``max_abs_diff``, ``argmax_agreement``, and ``node``, ``quantizer`` and ``differing_values`` of the
        first node that puts out other integers than the QONNX graph.
    """
    with failing_as("reading"), np.load(samples, allow_pickle=False) as file:
        inputs = file["inputs"]
        expected = file["outputs"] if "outputs" in file.files else None
    executable = [stage.name for stage in STAGES if stage.executable]
    reference: _Execution | None = None
    results = []
    for stage, graph in run_stages(model, make_config(output, settings), last=executable[-1]):
        with failing_as(f"execution of {stage.name}"):
            found = _execute(graph, inputs)
        reference = reference or found
        expected = found.output if expected is None else expected
        results.append({"stage": stage.name, **_compare(found, expected, reference)})
    return {"largest": 0.0 if expected is None else float(np.abs(expected).max()), "stages": results}


def _execute(graph: Any, inputs: Array) -> _Execution:
    source, target = _ends(graph)
    shape = tuple(graph.get_tensor_shape(source))
    if shape[0] != 1 or tuple(inputs.shape[1:]) != shape[1:]:
        raise StageError(
            "reading",
            f"The graph takes an input of shape {shape}, the samples are of shape {inputs.shape}. FINN takes "
            "one sample at a time: export with one, and give samples of that shape.",
        )
    rounding = [node for node in graph.graph.node if _rounds(graph, node)]
    outputs, rounded = [], [list[Array]() for _ in rounding]
    for sample in inputs:
        context = execute_onnx(
            graph, {source: sample[None].astype(np.float32)}, return_full_exec_context=True
        )
        outputs.append(context[target][0])
        for values, node in zip(rounded, rounding, strict=True):
            values.append(_channels_last(graph, node.output[0], context[node.output[0]]))
    names = [node.name for node in rounding]
    return _Execution(
        output=np.stack(outputs),
        rounded=[(name, np.stack(values)) for name, values in zip(names, rounded, strict=True)],
    )


def _ends(graph: Any) -> tuple[str, str]:
    """The input and the output of a graph that has one of each."""
    inputs = [i.name for i in graph.graph.input if graph.get_initializer(i.name) is None]
    outputs = [o.name for o in graph.graph.output]
    if len(inputs) != 1 or len(outputs) != 1:
        raise StageError(
            "reading",
            f"Graphs are compared that have one input and one output; this one has {len(inputs)} inputs and "
            f"{len(outputs)} outputs. Export the part with one of each.",
        )
    return inputs[0], outputs[0]


def _rounds(graph: Any, node: Any) -> bool:
    if node.op_type in _ROUNDING_OPERATORS:
        return graph.get_initializer(node.input[0]) is None
    if node.op_type in ("MVAU", "VVAU"):
        return len(node.input) > 2  # with thresholds
    return node.op_type in _THRESHOLD_OPERATORS


def _channels_last(graph: Any, tensor: str, value: Array) -> Array:
    layout = graph.get_tensor_layout(tensor)
    last = layout is not None and list(layout) == ["N", "H", "W", "C"]
    return (value if last or value.ndim != 4 else value.transpose(0, 2, 3, 1)).ravel()


def _compare(found: _Execution, expected: Array, reference: _Execution) -> dict[str, Any]:
    output = found.output.reshape(expected.shape)
    agreement = None
    if expected.ndim == 2 and expected.shape[1] > 1:
        agreement = float((output.argmax(axis=1) == expected.argmax(axis=1)).mean())
    difference = float(np.abs(output.astype(np.float64) - expected).max())
    return {"max_abs_diff": difference, "argmax_agreement": agreement, **_parting(found, reference)}


def _parting(found: _Execution, reference: _Execution) -> dict[str, Any]:
    """The first node whose integers are those of no quantizer of the reference."""
    levels = [(name, _levels(values)) for name, values in reference.rounded]
    for node, values in found.rounded:
        own = _levels(values)
        best = min(_mismatches(own, levels), default=None)
        if best is not None and best[0] > 0:
            return {"node": node, "quantizer": best[1], "differing_values": best[0]}
    return {"node": None, "quantizer": None, "differing_values": 0}


def _mismatches(own: Array, levels: list[tuple[str, Array]]) -> Iterator[tuple[int, str]]:
    for name, other in levels:
        if other.size == own.size:
            yield _unequal(own, other), name
            yield _unequal(own.max() - own, other), name  # a negative scale


def _unequal(one: Array, other: Array) -> int:
    return int((np.abs(one - other) > _LARGEST_NOISE).sum())


def _levels(values: Array) -> Array:
    """Values in their smallest step, from their smallest on: equal where only scale and offset differ.

    They are whole numbers only where two neighbouring levels occur, so they are not rounded.
    """
    values = np.nan_to_num(values.astype(np.float64))
    distinct = np.unique(values)
    if len(distinct) < 2:
        return np.zeros(values.size)
    gaps = np.diff(distinct)
    step = gaps[gaps > gaps.max() * 1e-4].min()
    numbers: Array = (values.ravel() - distinct[0]) / step
    return numbers
