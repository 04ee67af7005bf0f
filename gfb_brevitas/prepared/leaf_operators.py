"""Operators that stand for quantizers while a model is captured.

In the captured graph a learned quantizer is one node, whatever its arithmetic, and the width of a
quantizer that keeps Brevitas' arithmetic is one node too. So the graph holds for every allocation.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gfb_brevitas.prepared.site_values import SiteValues, WidthInForce
from gfb_brevitas.quant import LearnedClippingQuantizer, RuntimeBitWidth
from gfb_brevitas.quant.quantizer import QuantizerOutput, normalize_weight

_library = torch.library.Library("gfb_brevitas", "DEF")
_library.define("quantize(Tensor x, int site) -> Tensor")
_library.define("scale(Tensor like, int site) -> Tensor")
_library.define("width(Tensor like, int site) -> Tensor")

_sites: list[WidthInForce] = []
_one_capture_at_a_time = threading.RLock()


def _quantize(x: Tensor, site: int) -> Tensor:
    return _learned(site).quantized(x)


def _scale(_like: Tensor, site: int) -> Tensor:
    return _learned(site).scale().clone()


def _width(_like: Tensor, site: int) -> Tensor:
    return _sites[site].width().clone()


def _learned(site: int) -> SiteValues:
    values = _sites[site]
    assert isinstance(values, SiteValues)
    return values


for _name, _function in (("quantize", _quantize), ("scale", _scale), ("width", _width)):
    _library.impl(_name, _function, "CompositeExplicitAutograd")

QUANTIZE = torch.ops.gfb_brevitas.quantize.default
SCALE = torch.ops.gfb_brevitas.scale.default
WIDTH = torch.ops.gfb_brevitas.width.default


@contextmanager
def quantizers_as_leaves(model: nn.Module) -> Iterator[list[WidthInForce]]:
    """Every searchable quantizer of ``model`` is one operator inside the block.

    Yields:
        The quantizers, by the number that the operators carry.
    """
    learned = [m for m in model.modules() if isinstance(m, LearnedClippingQuantizer)]
    inside = {id(quantizer.width) for quantizer in learned}
    native = [m for m in model.modules() if isinstance(m, RuntimeBitWidth) and id(m) not in inside]
    sites: list[WidthInForce] = []
    for quantizer in learned:
        sites.append(SiteValues(quantizer, len(sites)))
        quantizer.forward = _learned_forward(quantizer, len(sites) - 1)  # type: ignore[method-assign]
    for width in native:
        sites.append(WidthInForce(width, len(sites)))
        width.forward = _width_forward(width, len(sites) - 1)  # type: ignore[method-assign]
    with _one_capture_at_a_time:
        outer = _sites[:]
        _sites[:] = sites
        try:
            yield sites
        finally:
            _sites[:] = outer
            for module in (*learned, *native):
                del module.forward


def _learned_forward(quantizer: LearnedClippingQuantizer, index: int) -> Any:
    unit = quantizer.clipping.unit

    def forward(x: Tensor) -> QuantizerOutput:
        if quantizer.normalize:
            x = normalize_weight(x)
        values = torch.ops.gfb_brevitas.quantize(x, index)
        scale = torch.ops.gfb_brevitas.scale(unit, index)
        return values, scale, quantizer._zero, torch.ops.gfb_brevitas.width(unit, index)

    return forward


def _width_forward(width: RuntimeBitWidth, index: int) -> Any:
    return lambda: torch.ops.gfb_brevitas.width(width._widths, index)
