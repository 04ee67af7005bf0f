"""Executing the graph after every stage, and finding where it parts from the first one."""

from __future__ import annotations

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
_ROUNDING_ERROR = 1e-4
"""Rounding error of what a quantizer gets, relative to the largest of its values: sums in another order."""


@dataclass(frozen=True, kw_only=True)
class _Execution:
    """What a graph computed on all samples.

    Attributes:
        output: Shape ``(samples, ...)``.
        rounded: Per node that rounds, in the order of the graph, its name and what it put out, shape
            ``(samples, values)``.
        margins: Per quantizer, how far its inputs are from the middle between two integers, in rounding
            errors of float32; shape ``(samples, values)``.
    """

    output: Array
    rounded: list[tuple[str, Array]]
    margins: dict[str, Array]


def verify(model: str, samples: str, output: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Execute the graph after every stage that can be executed.

    Args:
        model: Path of a QONNX file.
        samples: Path of an ``.npz`` file with ``inputs``, shape ``(samples, ...)``, and what the model puts
            out for them as ``outputs``; without them, what the QONNX graph puts out counts.
        output: Folder for what FINN writes.
        settings: See :func:`~.stages.make_config`.

    Returns:
        ``largest``, the largest absolute output that counts, and ``stages``, a list of

        - ``stage``, ``max_abs_diff``, ``argmax_agreement``;
        - ``node``, ``quantizer``, ``differing_values``: the first node that puts out other integers than the
          QONNX graph, and not because of rounding errors;
        - per sample ``differences`` (the largest), ``flips`` (values that rounding errors took to the other
          side; ``None`` where a node differs for another reason) and ``as_qonnx`` (whether the output is that
          of the QONNX graph).
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
    margins: dict[str, list[Array]] = {}
    for sample in inputs:
        context = execute_onnx(
            graph, {source: sample[None].astype(np.float32)}, return_full_exec_context=True
        )
        outputs.append(context[target][0])
        for values, node in zip(rounded, rounding, strict=True):
            values.append(_channels_last(graph, node.output[0], context[node.output[0]]))
            if (margin := _margin(node, context)) is not None:
                margins.setdefault(node.name, []).append(_channels_last(graph, node.output[0], margin))
    names = [node.name for node in rounding]
    return _Execution(
        output=np.stack(outputs),
        rounded=[(name, np.stack(values)) for name, values in zip(names, rounded, strict=True)],
        margins={name: np.stack(values) for name, values in margins.items()},
    )


def _margin(node: Any, context: dict[str, Array]) -> Array | None:
    """How far the inputs of a quantizer are from rounding to another integer, in rounding errors."""
    if node.op_type not in ("Quant", "IntQuant", "BipolarQuant"):
        return None
    scaled = context[node.input[0]].astype(np.float64) / context[node.input[1]]
    error = _ROUNDING_ERROR * max(1.0, float(np.abs(scaled).max()))
    if node.op_type == "BipolarQuant":
        margin: Array = np.abs(scaled) / error
    else:
        margin = np.abs(scaled - np.floor(scaled) - 0.5) / error
    return margin


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
    differences = np.abs(output.astype(np.float64) - expected).reshape(len(output), -1).max(axis=1)
    unlike_qonnx = (
        np.abs(output - reference.output.reshape(expected.shape)).reshape(len(output), -1).max(axis=1)
    )
    return {
        "max_abs_diff": float(differences.max()),
        "argmax_agreement": agreement,
        "differences": differences.tolist(),
        "as_qonnx": (unlike_qonnx <= 1e-5 * np.abs(reference.output).max()).tolist(),
        **_parting(found, reference),
    }


def _parting(found: _Execution, reference: _Execution) -> dict[str, Any]:
    """The first node with the integers of no quantizer of the reference, and which values only flipped."""
    levels = [(name, _levels(values)) for name, values in reference.rounded]
    flips = np.zeros(len(found.output), dtype=np.int64)
    parted: dict[str, Any] = {"node": None, "quantizer": None, "differing_values": 0}
    wrong = np.zeros(len(found.output), dtype=bool)
    for node, values in found.rounded:
        nearest = _nearest(_levels(values), levels)
        if nearest is None:
            continue
        name, apart = nearest
        differing = (apart > _LARGEST_NOISE) & ((flips == 0) & ~wrong)[:, None]
        if not differing.any():
            continue
        margins = reference.margins.get(name)
        by_rounding = np.zeros_like(differing) if margins is None else (margins <= 1) & (apart < 1.5)
        unexplained = (differing & ~by_rounding).any(axis=1)
        flips += np.where(unexplained, 0, differing.sum(axis=1))
        if unexplained.any() and not wrong.any():
            count = int(differing[unexplained].sum())
            parted = {"node": node, "quantizer": name, "differing_values": count}
        wrong |= unexplained
    return {**parted, "flips": [None if bad else int(n) for bad, n in zip(wrong, flips, strict=True)]}


def _nearest(own: Array, levels: list[tuple[str, Array]]) -> tuple[str, Array] | None:
    """The quantizer whose integers differ least, and by how much each value does; a scale may be negative."""
    candidates = [
        (name, np.abs(mine - other))
        for name, other in levels
        if other.shape == own.shape
        for mine in (own, own.max() - own)
    ]
    return min(candidates, key=lambda pair: (pair[1] > _LARGEST_NOISE).sum(), default=None)


def _levels(values: Array) -> Array:
    """Values in their smallest step, from their smallest on: equal where only scale and offset differ.

    They are whole numbers only where two neighbouring levels occur, so they are not rounded.
    """
    values = np.nan_to_num(values.astype(np.float64))
    distinct = np.unique(values)
    if len(distinct) < 2:
        return np.zeros(values.shape)
    gaps = np.diff(distinct)
    step = gaps[gaps > gaps.max() * 1e-4].min()
    numbers: Array = (values - distinct[0]) / step
    return numbers
