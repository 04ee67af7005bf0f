"""Export of plain Brevitas models to QCDQ: ONNX's QuantizeLinear, Clip and DequantizeLinear."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, ExportError
from gfb_brevitas.files import replacing
from gfb_integrations._optional import require
from gfb_integrations.onnxruntime.execution import EXTRA, REQUIRED_MODULES
from gfb_integrations.onnxruntime.limits import qcdq_limits
from gfb_integrations.onnxruntime.verification import QcdqVerification, verify_file
from gfb_integrations.qonnx._copies import as_inputs, working_copy
from gfb_integrations.qonnx._decisions import noting_decisions, require_no_frozen_decision
from gfb_integrations.qonnx._failures import explain_forward
from gfb_integrations.qonnx._graph import IR_VERSION
from gfb_integrations.qonnx._layer_outputs import tensors_in
from gfb_integrations.qonnx._quiet import importing_exporters, quietly

if TYPE_CHECKING:
    import onnx

OPSETS = range(13, 21)
"""ONNX operator sets that can be written; scales per channel need 13."""


_ROUNDED_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class QcdqExport:
    """What was exported.

    Attributes:
        path: The file.
        size_bytes: Its size.
        opset: ONNX operator set of the graph.
        operators: Number of nodes per operator.
        verification: The comparison with the model, when samples were given for it.
    """

    path: str
    size_bytes: int
    opset: int
    operators: dict[str, int]
    verification: QcdqVerification | None = None


def export_qcdq(
    model: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    path: str | os.PathLike[str],
    *,
    verify_on: Tensor | tuple[Tensor, ...] | None = None,
    opset: int = 17,
) -> QcdqExport:
    """Write a plain Brevitas model as an ONNX file that ONNX Runtime runs as it is.

    Narrow widths are 8-bit integers with a Clip behind them, so that the file computes the same at any width
    from 2 to 8 bits. The batch size stays open. The model is not changed; the file appears whole or not at
    all.

    Example::

        exported = export_qcdq(model, images[:1], "model.onnx", verify_on=images)
        print(exported.verification.max_abs_diff)

    Args:
        model: The model, e.g. what ``freeze()`` returned. It takes and returns tensors.
        example_input: An input; a tuple when the model takes several.
        path: Where the file goes; folders are made.
        verify_on: Samples to compare with the model on, see :func:`~gfb_integrations.onnxruntime.verify`.
        opset: ONNX operator set, 13 to 20.

    Raises:
        ExportError: If QCDQ cannot carry a quantizer (all are named, with what to do), or the model cannot be
            exported. Nothing is written then.
        ConfigurationError: If an argument is outside its rule.
        MissingExtraError: If ONNX or ONNX Runtime is not installed.
    """
    require(*REQUIRED_MODULES, extra=EXTRA, purpose="Exporting to ONNX")
    if opset not in OPSETS:
        raise ConfigurationError(f"`opset` must be from {OPSETS[0]} to {OPSETS[-1]}; got {opset!r}.")
    inputs = as_inputs(example_input, "example_input")
    copied = working_copy(model)
    _run_once(copied, inputs)
    limits = qcdq_limits(copied)
    if limits:
        listed = "\n".join(f"- {limit}" for limit in limits)
        raise ExportError(f"ONNX's own quantization operators cannot carry this model:\n{listed}")
    proto, decisions = _converted(copied, inputs, opset)
    target, verification = Path(path), None
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(proto.SerializeToString())
            if decisions:
                own = working_copy(model)
                require_no_frozen_decision(own, inputs, decisions, partial(_is_same, own, temporary))
            if verify_on is not None:
                verification = verify_file(working_copy(model), temporary, verify_on, shown=target)
    except OSError as error:
        raise ExportError(f"The file {str(target)!r} cannot be written: {error}.") from error
    return QcdqExport(
        path=str(target),
        size_bytes=target.stat().st_size,
        opset=opset,
        operators=dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        verification=verification,
    )


def _is_same(model: nn.Module, path: Path, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a file computes what the model does, but for values that round to the other side."""
    found = verify_file(model, path, inputs)
    with torch.no_grad():
        largest = max(float(tensor.abs().max()) for tensor in tensors_in(model(*inputs)))
    steps = found.as_written.max_diff_steps
    return found.max_abs_diff <= 1e-2 * largest + 1e-6 or (steps is not None and steps <= _ROUNDED_STEPS)


class _Tensors(nn.Module):
    """Returns the outputs of a model as plain tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors_in(self.model(*inputs)))


def _run_once(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Tell a model that does not run apart; truncations have no width before."""
    try:
        with quietly(), torch.no_grad():
            model(*inputs)
    except Exception as error:
        raise ExportError(explain_forward(error)) from error


def _converted(model: nn.Module, inputs: tuple[Tensor, ...], opset: int) -> tuple[onnx.ModelProto, list[str]]:
    """The graph, and the lines that decide by values."""
    import onnx

    with importing_exporters():
        from brevitas.export.onnx.standard.qcdq.manager import StdQCDQONNXManager

    names = [f"input_{index}" for index in range(len(inputs))]
    # The manager hands a graph back only through a file.
    with TemporaryDirectory() as folder, quietly(), noting_decisions() as decisions:
        target = Path(folder) / "model.onnx"
        try:
            StdQCDQONNXManager.export(
                _Tensors(model),
                args=inputs,
                export_path=str(target),
                dynamo=False,
                opset_version=opset,
                input_names=names,
                dynamic_axes={name: {0: "batch"} for name in names},
                disable_warnings=False,
                keep_initializers_as_inputs=False,  # ONNX Runtime folds only constants
            )
        except Exception as error:
            cause = str(error).strip() or type(error).__name__
            raise ExportError(f"The model cannot be exported to ONNX: {cause}") from error
        proto = onnx.load(target)
    proto.ir_version = IR_VERSION
    return proto, decisions
