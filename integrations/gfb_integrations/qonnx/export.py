"""Export of plain Brevitas models to QONNX."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, ExportError
from gfb_brevitas.files import replacing
from gfb_integrations._optional import require
from gfb_integrations.qonnx._copies import as_inputs, working_copy
from gfb_integrations.qonnx._decisions import noting_decisions, require_no_frozen_decision
from gfb_integrations.qonnx._failures import explain, explain_forward
from gfb_integrations.qonnx._graph import clean, trace
from gfb_integrations.qonnx._quiet import quietly
from gfb_integrations.qonnx.verification import EXTRA, REQUIRED_MODULES, VerificationReport, verify_file

OPSETS = range(11, 21)
"""ONNX operator sets that can be written."""


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """An input or output of the graph.

    Attributes:
        name: Its name in the graph.
        shape: Its static shape.
        datatype: Its QONNX data type, e.g. ``"FLOAT32"`` or ``"SCALEDINT<8>"``.
    """

    name: str
    shape: tuple[int, ...]
    datatype: str


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported.

    Attributes:
        path: The file.
        size_bytes: Its size.
        opset: ONNX operator set of the graph.
        ir_version: ONNX IR version of the file.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        operators: Number of nodes per operator.
        seconds: Time that the export took, without verification.
        versions: Versions of the packages that took part.
        verification: The comparison with the model, when samples were given for it.
    """

    path: str
    size_bytes: int
    opset: int
    ir_version: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: dict[str, int]
    seconds: float
    versions: dict[str, str]
    verification: VerificationReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as data for JSON."""
        return _plain(self)  # type: ignore[no-any-return]


def require_export() -> None:
    """Check that everything the export needs is installed, before a long run rather than after it.

    Raises:
        MissingExtraError: With the install command.
    """
    require(*REQUIRED_MODULES, extra=EXTRA, purpose="Exporting to QONNX")


def export_qonnx(
    model: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    path: str | os.PathLike[str],
    *,
    verify_on: Tensor | tuple[Tensor, ...] | None = None,
    opset: int = 17,
    rtol: float = 1e-5,
    atol: float | None = None,
) -> ExportReport:
    """Write a plain Brevitas model as a cleaned QONNX file.

    The model is exported in evaluation mode by Brevitas' TorchScript exporter, cleaned up by QONNX, and
    given shapes and QONNX data types. Every quantizer is checked against the node that is written for it:
    a 1-bit unsigned activation becomes a ``Quant`` node of 1 bit (Brevitas alone would write a bipolar one).
    The export works on a copy on the CPU: the model is not changed. The file appears whole or not at all,
    and with ``verify_on`` only if it computes what the model does. [ours]

    Example::

        report = export_qonnx(model, torch.zeros(1, 3, 32, 32), "model.onnx", verify_on=images)
        print(report.verification.max_abs_diff, report.verification.rounding_flips)

    Args:
        model: The model, e.g. what ``freeze()`` returned. It takes and returns tensors.
        example_input: An input of the shape that the graph is fixed to, batch size included (FINN wants 1);
            a tuple when the model takes several.
        path: Where the file goes; folders are made.
        verify_on: Samples for :func:`~gfb_integrations.qonnx.verify`.
        opset: ONNX operator set, 11 to 20.
        rtol: Tolerance of the verification.
        atol: Tolerance of the verification.

    Returns:
        What was exported.

    Raises:
        ExportError: If the model cannot be exported, or the graph computes something else. Nothing is
            written then.
        ConfigurationError: If an argument is outside its rule.
        MissingExtraError: If QONNX, ONNX, onnxoptimizer or ONNX Runtime is not installed.
    """
    require_export()
    if opset not in OPSETS:
        raise ConfigurationError(f"`opset` must be from {OPSETS[0]} to {OPSETS[-1]}; got {opset!r}.")
    target = Path(path)
    started = time.perf_counter()
    example = as_inputs(example_input, "example_input")
    graph, decisions = _exported(model, example, opset)
    seconds = time.perf_counter() - started
    verification = None
    with _writing(target), replacing(target) as temporary:
        temporary.write_bytes(graph.model.SerializeToString())
        if decisions:
            own = working_copy(model)
            require_no_frozen_decision(own, example, decisions, partial(_is_same, own, temporary, rtol))
        if verify_on is not None:
            verification = verify_file(
                working_copy(model), temporary, verify_on, rtol=rtol, atol=atol, shown=target
            )
    return _report(target, graph, opset, seconds, verification)


def _is_same(model: nn.Module, path: Path, rtol: float, inputs: tuple[Tensor, ...]) -> bool:
    try:
        verify_file(model, path, inputs, rtol=rtol, atol=None)
    except ExportError:
        return False
    return True


def _exported(model: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> tuple[Any, list[str]]:
    """The graph, and the lines that decide by values."""
    copied = working_copy(model)
    with quietly():
        _run_once(copied, inputs)
        try:
            with noting_decisions() as decisions:
                traced = trace(copied, inputs, opset)
            return clean(traced), decisions
        except ExportError:
            raise
        except Exception as error:
            raise ExportError(explain(error)) from error


def _run_once(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Tell a model that does not run on the example apart from one that does not export."""
    try:
        with torch.no_grad():
            model(*inputs)
    except Exception as error:
        raise ExportError(explain_forward(error)) from error


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(f"The file {str(target)!r} cannot be written: {error}.") from error


def _report(
    target: Path, graph: Any, opset: int, seconds: float, verification: VerificationReport | None
) -> ExportReport:
    return ExportReport(
        path=str(target),
        size_bytes=target.stat().st_size,
        opset=opset,
        ir_version=graph.model.ir_version,
        inputs=_tensors(graph, graph.graph.input),
        outputs=_tensors(graph, graph.graph.output),
        operators=dict(sorted(Counter(node.op_type for node in graph.graph.node).items())),
        seconds=seconds,
        versions={name: version(name) for name in ("torch", "brevitas", "qonnx", "onnx", "onnxruntime")},
        verification=verification,
    )


def _tensors(graph: Any, infos: Any) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            name=info.name,
            shape=tuple(graph.get_tensor_shape(info.name)),
            datatype=graph.get_tensor_datatype(info.name).get_canonical_name(),
        )
        for info in infos
    )


def _plain(value: Any) -> Any:
    """A report as dictionaries and lists."""
    if isinstance(value, (ExportReport, TensorInfo)):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, VerificationReport):
        return value.to_dict()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
