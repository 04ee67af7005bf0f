"""Graph passes: products of quantized activations and weights in integers, rounded to the next codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from gfb_brevitas.prepared.dependencies import depends_on_input
from gfb_brevitas.prepared.integer_products import (
    IntegerConvolution,
    IntegerLinear,
    IntegerProduct,
    PackConvolutionWeight,
    integer_weight,
    no_zero_points,
    packed_linear_weight,
    per_row,
)
from gfb_brevitas.prepared.leaf_operators import QUANTIZE
from gfb_brevitas.prepared.record_operations import PARAMETER
from gfb_brevitas.prepared.site_values import LARGEST_CODE_BITS, SiteValues, WidthInForce, encode
from gfb_brevitas.prepared.spread_codes import CODES, codes_behind

aten = torch.ops.aten
SMALLEST_PRODUCT_MACS = 1 << 20
"""Below this, calling oneDNN's integer kernels costs more than they save."""


def lower_products(graph: fx.Graph, sites: list[WidthInForce], largest_bits: dict[int, int]) -> list[str]:
    """Replace every convolution and linear layer that integers can compute, in place.

    Args:
        graph: A graph whose activations were spread as codes.
        sites: Its quantizers.
        largest_bits: The largest width that each quantizer, by number, may get.

    Returns:
        For each product that stays in floating point, why.
    """
    lowering = _Lowering(graph, sites, largest_bits)
    reasons = []
    for node in depends_on_input(graph):
        attempt = _ATTEMPTS.get(node.target)
        if attempt is not None:
            reason = attempt(lowering, node)
            reasons += [] if reason is None else [f"{_layer(node)}: {reason}"]
    return reasons


def _layer(product: fx.Node) -> str:
    """The name of the layer whose weight comes nearest to a product, or else what the graph calls it."""
    reached = dict.fromkeys(product.all_input_nodes)
    for node in (waiting := list(reached)):
        if PARAMETER in node.meta:
            name: str = node.meta[PARAMETER]
            return name.rpartition(".")[0] or name
        if node.target not in _ATTEMPTS:  # nor past another product
            new = [n for n in node.all_input_nodes if n not in reached]
            reached.update(dict.fromkeys(new))
            waiting += new
    return product.name


def round_products(graph: fx.Graph) -> None:
    """Let every integer product round to the codes of the one quantizer that its result goes to, in place."""
    for node in list(graph.find_nodes(op="call_function", target=encode)):
        rectifier = node.args[0]
        rectified = rectifier.target is aten.relu.default and len(rectifier.users) == 1
        product = rectifier.args[0] if rectified else rectifier
        if not isinstance(product.target, IntegerProduct) or len(product.users) != 1:
            continue
        target = product.target.rounded_to(node.meta[CODES], rectified=rectified)
        with graph.inserting_before(node):
            rounded = graph.call_function(target, product.args)
        rounded.meta = dict(node.meta)
        node.replace_all_uses_with(rounded)
        for old in (node, rectifier, product) if rectified else (node, product):
            graph.erase_node(old)


class _Lowering:
    def __init__(self, graph: fx.Graph, sites: list[WidthInForce], largest_bits: dict[int, int]) -> None:
        self.graph, self.sites, self.largest_bits = graph, sites, largest_bits
        self._packed: dict[tuple[Any, ...], tuple[fx.Node, ...]] = {}

    def convolution(self, node: fx.Node) -> str | None:
        arguments: tuple[Any, ...] = node.args
        x, weight, bias, stride, padding, dilation, transposed, _, groups = arguments
        if transposed or len(stride) > 2:
            return "it is transposed or has more than two dimensions"
        if len(node.meta["tensor_meta"].shape) != len(stride) + 2:
            return "its input has no batch dimension"
        codes, site, reason = self._operands(node, x, weight)
        if reason is not None:
            return reason
        if len(stride) == 1:  # an image of a single row
            stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
        geometry = PackConvolutionWeight(tuple(stride), tuple(padding), tuple(dilation), groups)
        product = IntegerConvolution(codes.meta[CODES], geometry=geometry)
        self._replace(node, product, codes, weight, site, bias, geometry)
        return None

    def linear(self, node: fx.Node) -> str | None:
        arguments: tuple[Any, ...] = node.args
        bias, x, transposed = arguments if node.target is aten.addmm.default else (None, *arguments)
        if node.kwargs or not (isinstance(transposed, fx.Node) and transposed.target is aten.t.default):
            return "the other factor is no weight"
        weight: Any = transposed.args[0]
        codes, site, reason = self._operands(node, x, weight)
        if reason is not None:
            return reason
        self._replace(node, IntegerLinear(codes.meta[CODES]), codes, weight, site, bias, packed_linear_weight)
        return None

    def _operands(self, node: fx.Node, x: object, weight: object) -> tuple[Any, Any, str | None]:
        codes = codes_behind(x)
        if codes is None:
            return None, None, "its input is not quantized with one scale to at most 8 bits"
        if not (isinstance(weight, fx.Node) and weight.target is QUANTIZE):
            return None, None, "its weight is not quantized by a learned quantizer"
        shape = weight.meta["tensor_meta"].shape
        if node.meta["tensor_meta"].shape.numel() * shape[1:].numel() < SMALLEST_PRODUCT_MACS:
            return None, None, "too small to gain from integers"
        site = self.sites[weight.args[1]]  # type: ignore[index]
        if not isinstance(site, SiteValues) or self.largest_bits[site.index] > LARGEST_CODE_BITS:
            return None, None, "its weight may have more than 8 bits"
        unit = site.quantizer.clipping.unit
        if not site.integers.signed:
            return None, None, "its weight is unsigned"
        if unit.numel() > 1 and (unit.dim() == 0 or unit.shape[0] != unit.numel()):
            return None, None, "its weight has scales along another dimension than the output's"
        return codes, site, None

    def _replace(
        self,
        node: fx.Node,
        product: IntegerProduct,
        codes: fx.Node,
        weight: fx.Node,
        site: SiteValues,
        bias: object,
        pack: Callable[..., object],
    ) -> None:
        graph = self.graph
        with graph.inserting_before(node):
            scale = graph.call_function(site.scale)
            values = graph.call_function(site.quantized, (weight.args[0],))
            integers = graph.call_function(integer_weight, (values, scale))
            packed = graph.call_function(pack, (integers,))
            rows = weight.meta["tensor_meta"].shape[0]
            scales = graph.call_function(per_row, (scale, rows))
            zeros = graph.call_function(no_zero_points, (scales,))
            replacement = graph.call_function(product, (codes, packed, scales, zeros, bias))  # type: ignore[arg-type]
        replacement.meta = dict(node.meta)
        node.replace_all_uses_with(replacement)
        graph.erase_node(node)


_ATTEMPTS: dict[Any, Callable[[_Lowering, fx.Node], str | None]] = {
    aten.convolution.default: _Lowering.convolution,
    aten.addmm.default: _Lowering.linear,
    aten.mm.default: _Lowering.linear,
}
