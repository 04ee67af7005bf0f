"""Running exported files with ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from gfb_brevitas.errors import ConfigurationError, ExportError
from gfb_integrations._optional import require
from gfb_integrations.qonnx._copies import as_inputs

REQUIRED_MODULES = ("onnx", "onnxruntime", "onnxoptimizer")
EXTRA = "export"

Array = NDArray[Any]

_ERRORS_ONLY = 3
_NO_INTEGER_KERNELS = ("session.disable_quant_qdq", "1")


class Session:
    """A graph loaded into ONNX Runtime on the CPU.

    Args:
        model: The serialized graph.
        integer_kernels: Whether ONNX Runtime may replace float operations between quantizers by integer
            ones (its default).
        optimised: Whether it may transform the graph at all.
        shown: What to call the graph in messages.

    Raises:
        ExportError: If ONNX Runtime cannot load the graph.
    """

    def __init__(
        self, model: bytes, *, integer_kernels: bool, optimised: bool = True, shown: object = "the graph"
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = 1
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if not integer_kernels:
            options.add_session_config_entry(*_NO_INTEGER_KERNELS)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot load {shown}: {error}") from error
        self.inputs = [info.name for info in self._session.get_inputs()]
        self.shapes = [tuple(info.shape) for info in self._session.get_inputs()]
        self.outputs = [info.name for info in self._session.get_outputs()]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph; all outputs by name.

        Raises:
            ExportError: If ONNX Runtime cannot run it on these inputs.
        """
        try:
            values = self._session.run(self.outputs, {name: feeds[name] for name in self.inputs})
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot run the graph: {error}") from error
        return dict(zip(self.outputs, values, strict=True))

    def on(self, inputs: Sequence[Tensor]) -> list[Array]:
        """Run the graph on tensors in the order of its inputs; its outputs in order.

        Raises:
            ConfigurationError: If there are more or fewer tensors than inputs.
        """
        if len(inputs) != len(self.inputs):
            raise ConfigurationError(f"The graph has {len(self.inputs)} inputs; {len(inputs)} were given.")
        values = self({name: x.numpy() for name, x in zip(self.inputs, inputs, strict=True)})
        return [values[name] for name in self.outputs]


def read(path: Path) -> bytes:
    """The content of an ONNX file.

    Raises:
        ExportError: If the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"The file {str(path)!r} cannot be read: {error}.") from error


def run(
    path: str | os.PathLike[str], inputs: Tensor | tuple[Tensor, ...], *, integer_kernels: bool = False
) -> list[Array]:
    """Run an ONNX file on the CPU.

    By default ONNX Runtime's own replacement of quantized layers by integer kernels is switched off: it
    rounds float biases to integers and intermediate results differently, so that outputs move by whole
    steps (microsoft/onnxruntime, pull request 22889 and issue 32132). :func:`verify` measures by how many.

    Example::

        scores = run("model.onnx", images)[0]

    Args:
        path: The file.
        inputs: The graph's input, or a tuple when it has several; of the shape that it was exported for.
        integer_kernels: Whether to run as ONNX Runtime does by default.

    Returns:
        The outputs, in the order of the graph.

    Raises:
        ExportError: If the file cannot be read or run.
        ConfigurationError: If the number of inputs is wrong.
        MissingExtraError: If ONNX Runtime is not installed.
    """
    require(*REQUIRED_MODULES, extra=EXTRA, purpose="Running an ONNX file")
    session = Session(read(Path(path)), integer_kernels=integer_kernels, shown=repr(str(path)))
    return session.on(as_inputs(inputs, "inputs"))
