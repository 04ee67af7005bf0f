"""Brevitas' QONNX export, with every quantizer checked against the node that is written for it.

Brevitas 0.13 chooses the node by bit width alone. That is wrong for a 1-bit unsigned quantizer (values
0 and 1, written as bipolar -1 and 1), for weights that are rounded otherwise than to nearest (written as
if they were), and for rounding modes that QONNX calls by another name or does not have. The handlers
here take the first node that computes the same values as the quantizer, and refuse when there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from brevitas.export.onnx.qonnx.function import (
    BrevitasBinaryQuantOp,
    BrevitasQuantOp,
    BrevitasQuantTorchScriptFn,
    BrevitasTruncOp,
    BrevitasTruncTorchScriptFn,
)
from brevitas.export.onnx.qonnx.handler import (
    BrevitasActQuantProxyHandler,
    BrevitasBiasQuantProxyHandler,
    BrevitasDecoupledWeightQuantProxyHandler,
    BrevitasDecoupledWeightQuantWithInputProxyHandler,
    BrevitasTruncQuantProxyHandler,
    BrevitasWeightQuantProxyHandler,
)
from brevitas.export.onnx.qonnx.manager import QONNXManager
from brevitas.function.ops import max_int, min_int
from brevitas.nn.mixin.base import QuantRecurrentLayerMixin
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from torch import Tensor, nn

from gfb_brevitas.errors import ExportError

_Rounding = tuple[str, Callable[[Tensor], Tensor]]

QONNX_ROUNDING: dict[str, _Rounding] = {
    "ROUND": ("ROUND", torch.round),
    "CEIL": ("CEIL", torch.ceil),
    "FLOOR": ("FLOOR", torch.floor),
    "ROUND_TO_ZERO": ("DOWN", torch.trunc),
}
"""Brevitas' rounding modes that QONNX has: what each is called there, and what it does."""

_MOST_PROBED_LEVELS = 64


class _QuantFn(BrevitasQuantTorchScriptFn):
    """Writes a Quant node with QONNX's name of the rounding mode, and computes what that node does."""

    @staticmethod
    def symbolic(g: Any, *args: Any) -> Any:
        return BrevitasQuantTorchScriptFn.symbolic(g, *args[:-1], QONNX_ROUNDING[args[-1].upper()][0])

    @staticmethod
    def forward(
        _: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        bit_width: Tensor,
        narrow_range: bool,
        signed: bool,
        rounding_mode: str,
    ) -> Tensor:
        rounded = QONNX_ROUNDING[rounding_mode.upper()][1]
        least, most = min_int(signed, narrow_range, bit_width), max_int(signed, narrow_range, bit_width)
        integers = rounded(torch.clamp(x / scale + zero_point, least, most))
        return (integers - zero_point) * scale


class _TruncFn(BrevitasTruncTorchScriptFn):
    """Writes a Trunc node with QONNX's name of the rounding mode."""

    @staticmethod
    def symbolic(g: Any, *args: Any) -> Any:
        return BrevitasTruncTorchScriptFn.symbolic(g, *args[:-1], QONNX_ROUNDING[args[-1].upper()][0])


class _QuantOp:
    torchscript = _QuantFn


class _TruncOp:
    torchscript = _TruncFn


class _NamesRounding:
    """Emits the nodes above in place of Brevitas' own."""

    symbolic_kwargs: dict[str, Any]

    def export_op(self, op: Any, *args: Any) -> Any:
        replaced = {BrevitasQuantOp: _QuantOp, BrevitasTruncOp: _TruncOp}.get(op, op)
        return replaced.torchscript.apply(*args)

    def require_rounding(self) -> None:
        if not _has_rounding(self.symbolic_kwargs):
            raise ExportError(_no_node(self.symbolic_kwargs))


class _ActivationHandler(_NamesRounding, BrevitasActQuantProxyHandler):
    """Writes the node that agrees with an activation quantizer on a grid over its range."""

    def prepare_for_export(self, module: Any) -> None:
        super().prepare_for_export(module)
        if not module.is_quant_enabled:
            return
        probes = _probes(**self.symbolic_kwargs)
        expected = module.fused_activation_quant_proxy.tensor_quant(probes.clone())[0]
        self.quant_op = _agreeing_op(self.symbolic_kwargs, probes, expected)
        if self.quant_op is None:
            raise ExportError(_no_node(self.symbolic_kwargs))


class _WeightHandler(_NamesRounding, BrevitasWeightQuantProxyHandler):
    """Writes the node that agrees with a weight quantizer on the weights themselves."""

    def prepare_for_export(self, module: Any) -> None:
        super().prepare_for_export(module)
        self.rounded_beforehand: dict[int, Tensor] = {}
        if not module.is_quant_enabled:
            return
        for layer in module.tracked_module_list:
            self._choose_op(layer.weight, self.quant_weight_values[layer.weight.data_ptr()])

    def _choose_op(self, weight: Tensor, expected: Tensor) -> None:
        op = _agreeing_op(self.symbolic_kwargs, weight, expected)
        if op is None:
            # Values on the grid stay where they are, whichever way they were rounded to it.
            op = _agreeing_op(self.symbolic_kwargs, expected, expected)
            self.rounded_beforehand[weight.data_ptr()] = expected.detach()
        if op is None:
            raise ExportError(_no_node(self.symbolic_kwargs))
        self.quant_op = op

    def symbolic_execution(self, x: Tensor, *args: Any) -> Any:
        return super().symbolic_execution(self.rounded_beforehand.get(x.data_ptr(), x), *args)


class _DecoupledWeightHandler(_WeightHandler, BrevitasDecoupledWeightQuantProxyHandler):
    handled_layer = BrevitasDecoupledWeightQuantProxyHandler.handled_layer


class _DecoupledWeightWithInputHandler(_WeightHandler, BrevitasDecoupledWeightQuantWithInputProxyHandler):
    handled_layer = BrevitasDecoupledWeightQuantWithInputProxyHandler.handled_layer


class _BiasHandler(_NamesRounding, BrevitasBiasQuantProxyHandler):
    def prepare_for_export(self, module: Any) -> None:
        super().prepare_for_export(module)
        if module.is_quant_enabled:
            self.require_rounding()


class _TruncHandler(_NamesRounding, BrevitasTruncQuantProxyHandler):
    def prepare_for_export(self, module: Any) -> None:
        super().prepare_for_export(module)
        self.require_rounding()


_OWN_HANDLERS = [
    _ActivationHandler,
    _WeightHandler,
    _DecoupledWeightHandler,
    _DecoupledWeightWithInputHandler,
    _BiasHandler,
    _TruncHandler,
]


class CheckedQONNXManager(QONNXManager):
    """Brevitas' QONNX manager with the handlers of this module; errors name the quantizer."""

    handlers: ClassVar[list[type]] = [
        *_OWN_HANDLERS,
        *(h for h in QONNXManager.handlers if not any(issubclass(own, h) for own in _OWN_HANDLERS)),
    ]

    @classmethod
    def set_export_mode(cls, model: nn.Module, enabled: bool) -> None:
        for path, module in model.named_modules():
            if isinstance(module, QuantProxyFromInjector) and hasattr(module, "export_mode"):
                _set_export_mode(path, module, enabled)


def refuse_unexportable(model: nn.Module) -> None:
    """Check that the model is quantized, and that its quantizers are of kinds that QONNX has.

    Raises:
        ExportError: Saying which module is not, and what to do.
    """
    quantizers = 0
    for path, module in model.named_modules():
        if isinstance(module, QuantRecurrentLayerMixin):
            raise ExportError(
                f"The recurrent layer {path!r} ({type(module).__name__}) cannot be exported: QONNX has no "
                "operator for it that can be run. Write its cell with QuantLinear and activation layers."
            )
        if not isinstance(module, QuantProxyFromInjector) or not module.requires_export_handler:
            continue
        quantizers += 1
        if CheckedQONNXManager.handler_from_module(module, no_inheritance=True) is None:
            raise ExportError(
                f"The quantizer {path!r} is a {type(module).__name__}, which has no counterpart in QONNX "
                "(dynamic and group-wise quantizers do not). Give the layer a quantizer with a static "
                "scale per tensor or per channel."
            )
    if not quantizers:
        raise ExportError(
            "The model holds no active Brevitas quantizer; QONNX is a format for quantized models. "
            "Quantize it first, or export it with torch.onnx."
        )


def _set_export_mode(path: str, module: Any, enabled: bool) -> None:
    try:
        module.export_mode = enabled
    except Exception as error:
        path = path.removeprefix("model.")
        raise ExportError(
            f"The quantizer {path!r} cannot be exported: {error or 'unknown reason'}"
        ) from error


def _agreeing_op(parameters: dict[str, Any], inputs: Tensor, expected: Tensor) -> Any:
    """The first QONNX node that maps ``inputs`` to ``expected``, or none."""
    candidates: list[Any] = [_QuantOp] if _has_rounding(parameters) else []
    if parameters["bit_width"] == 1:
        # QONNX reads a signed 1-bit Quant node as bipolar, which Brevitas' integers -1 and 0 are not.
        candidates = [BrevitasBinaryQuantOp, *candidates * (not parameters["signed"])]
    for op in candidates:
        computed = op.torchscript.apply(inputs, *parameters.values())
        if torch.allclose(computed, expected, rtol=1e-6, atol=0.0):
            return op
    return None


def _has_rounding(parameters: dict[str, Any]) -> bool:
    return str(parameters["rounding_mode"]).upper() in QONNX_ROUNDING


def _probes(*, scale: Tensor, zero_point: Tensor, bit_width: Tensor, **_: Any) -> Tensor:
    """Inputs between all rounding boundaries (a sample of them for wide quantizers), and beyond."""
    reach = 2.0 ** float(bit_width) + 1
    levels = torch.linspace(-reach, reach, _MOST_PROBED_LEVELS + 1)
    if 2 * reach <= _MOST_PROBED_LEVELS:
        levels = torch.arange(-reach, reach)
    offsets = torch.tensor([-0.375, 0.0, 0.375])
    grid = (levels.round()[:, None] + offsets).flatten()
    return (grid.view(-1, *[1] * scale.dim()) - zero_point) * scale


def _no_node(parameters: dict[str, Any]) -> str:
    if not _has_rounding(parameters):
        return (
            f"QONNX has no rounding mode like {parameters['rounding_mode']!r}; it has "
            f"{', '.join(QONNX_ROUNDING)}. Give the quantizer one of them (float_to_int_impl_type)."
        )
    if parameters["bit_width"] == 1:
        return (
            "its 1-bit values are neither -scale and scale (bipolar: give it QuantType.BINARY) nor 0 and "
            "scale (unsigned), the only ones that QONNX can write with 1 bit. Use 2 bits or one of these."
        )
    return "no QONNX node computes its values. Use an integer quantizer that rounds to nearest."
