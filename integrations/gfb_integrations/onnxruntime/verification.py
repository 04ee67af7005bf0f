"""Proof, on real samples, that ONNX Runtime computes what the model computes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from gfb_brevitas.errors import EmptyDataError, ExportError
from gfb_integrations._optional import require
from gfb_integrations.onnxruntime.execution import EXTRA, REQUIRED_MODULES, Array, Session, read
from gfb_integrations.qonnx._comparison import largest_difference
from gfb_integrations.qonnx._copies import as_inputs, working_copy
from gfb_integrations.qonnx._layer_outputs import tensors_in

if TYPE_CHECKING:
    import onnx

_KEEPS_STEPS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "MaxPool", "Relu")
_PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, kw_only=True)
class OutputDifference:
    """How far outputs are from the model's.

    Attributes:
        max_abs_diff: Largest absolute difference.
        max_diff_steps: The same in steps of the output, rounded to whole ones; ``None`` where it has no step.
        argmax_agreement: Share of samples whose largest output is the same; ``None`` for other outputs.
    """

    max_abs_diff: float
    max_diff_steps: int | None
    argmax_agreement: float | None


@dataclass(frozen=True, kw_only=True)
class QcdqVerification:
    """How ONNX Runtime compares with the model.

    Attributes:
        path: The file.
        samples: Samples that were compared.
        output_step: Smallest step between values of the first output; ``None`` where it has none.
        as_written: Operators run as the file has them, in float between quantizers.
        integer_kernels: ONNX Runtime's default, which puts integer kernels in place of quantized layers and
            rounds biases and intermediate results in its own way.
    """

    path: str
    samples: int
    output_step: float | None
    as_written: OutputDifference
    integer_kernels: OutputDifference

    @property
    def max_abs_diff(self) -> float:
        """Largest absolute difference of the file as it is written."""
        return self.as_written.max_abs_diff


def verify(
    model: nn.Module, path: str | os.PathLike[str], samples: Tensor | tuple[Tensor, ...]
) -> QcdqVerification:
    """Run an exported file with ONNX Runtime and the model on the same samples, and compare.

    Args:
        model: The plain Brevitas model that was exported. It is not changed.
        path: The file that :func:`~gfb_integrations.onnxruntime.export_qcdq` wrote.
        samples: The model's input, first axis samples; a tuple when it takes several.

    Raises:
        ExportError: If the file cannot be read or run, or puts out another shape.
        EmptyDataError: If there are no samples.
        MissingExtraError: If ONNX Runtime is not installed.
    """
    require(*REQUIRED_MODULES, extra=EXTRA, purpose="Verifying an ONNX file")
    return verify_file(working_copy(model), Path(path), samples)


def verify_file(
    model: nn.Module, path: Path, samples: Tensor | tuple[Tensor, ...], *, shown: Path | None = None
) -> QcdqVerification:
    """:func:`verify` with a model that may be used as it is, and with a path for messages (``shown``)."""
    import onnx

    inputs = as_inputs(samples, "samples")
    if not len(inputs[0]):
        raise EmptyDataError("There are no samples to verify the file on; give at least one.")
    content, name = read(path), shown or path
    sessions = [Session(content, integer_kernels=kernels, shown=repr(str(name))) for kernels in (False, True)]
    expected = _outputs(model, inputs)
    step = _output_step(onnx.load_from_string(content).graph)
    plain, kernels = (_difference(session.on(inputs), expected, step, name) for session in sessions)
    return QcdqVerification(
        path=str(name),
        samples=len(inputs[0]),
        output_step=step,
        as_written=plain,
        integer_kernels=kernels,
    )


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Array]:
    with torch.no_grad():
        return [tensor.numpy() for tensor in tensors_in(model(*inputs))]


def _difference(
    found: list[Array], expected: list[Array], step: float | None, path: Path
) -> OutputDifference:
    if [value.shape for value in found] != [value.shape for value in expected]:
        raise ExportError(
            f"{str(path)!r} puts out {[v.shape for v in found]}, the model {[v.shape for v in expected]}. "
            "If the model was changed after the export, export it again."
        )
    largest = max(largest_difference(f, e) for f, e in zip(found, expected, strict=True))
    first, wanted = found[0], expected[0]
    agreement = None
    if wanted.ndim == 2 and wanted.shape[1] > 1:
        agreement = float((first.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    return OutputDifference(
        max_abs_diff=largest,
        max_diff_steps=round(largest / step) if step and np.isfinite(largest) else None,
        argmax_agreement=agreement,
    )


def _output_step(graph: onnx.GraphProto) -> float | None:
    """Smallest step of the first output: its scale, or the product of the scales of both operands."""
    producers = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)

    def scale(tensor: str) -> float | None:
        node = producers.get(tensor)
        if node is None:
            return None
        if node.op_type == "DequantizeLinear":
            values = constants.get(node.input[1])
            return None if values is None else float(np.abs(values).min())
        if node.op_type in _PRODUCTS:
            left, right = scale(node.input[0]), scale(node.input[1])
            return None if left is None or right is None else left * right
        if node.op_type == "Add":
            computed = [name for name in node.input if name not in constants]
            return scale(computed[0]) if len(computed) == 1 else None
        return scale(node.input[0]) if node.op_type in _KEEPS_STEPS else None

    return scale(graph.output[0].name)


def _constants(graph: onnx.GraphProto) -> dict[str, Array]:
    from onnx.numpy_helper import to_array

    found = {value.name: to_array(value) for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = to_array(node.attribute[0].t)
    return found
