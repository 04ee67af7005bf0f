"""Fake quantization with a bit width that is set at run time."""

from gfb_brevitas.quant.clipping import (
    Clipping,
    ClippingKind,
    ConstantClipping,
    LinearClipping,
    PerBitClipping,
    make_clipping,
)
from gfb_brevitas.quant.fake_quantize import fake_quantize
from gfb_brevitas.quant.integers import IntegerFormat
from gfb_brevitas.quant.mse import Samples, mse_optimal_clipping
from gfb_brevitas.quant.quantizer import LearnedClippingQuantizer, RuntimeBitWidth, normalize_weight

__all__ = [
    "Clipping",
    "ClippingKind",
    "ConstantClipping",
    "IntegerFormat",
    "LearnedClippingQuantizer",
    "LinearClipping",
    "PerBitClipping",
    "RuntimeBitWidth",
    "Samples",
    "fake_quantize",
    "make_clipping",
    "mse_optimal_clipping",
    "normalize_weight",
]
