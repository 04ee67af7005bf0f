"""From a captured graph to a program, with or without integer arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from gfb_brevitas.prepared.capture import Captured
from gfb_brevitas.prepared.fold_batch_norm import fold_batch_norm
from gfb_brevitas.prepared.fuse_elementwise import fuse_elementwise
from gfb_brevitas.prepared.integer_products import IntegerProduct
from gfb_brevitas.prepared.lower_products import lower_products, round_products
from gfb_brevitas.prepared.lower_quantizers import lower_quantizers
from gfb_brevitas.prepared.program import Program
from gfb_brevitas.prepared.spread_codes import spread_codes, without_needless_codes

aten = torch.ops.aten


@dataclass(frozen=True)
class Prepared:
    """A program, and what was left as it was.

    Attributes:
        program: Runs the model.
        in_floating_point: For each product that integers could not take over, why.
        in_integers: How many products integers took over.
    """

    program: Program
    in_floating_point: tuple[str, ...]
    in_integers: int


def prepare(captured: Captured, largest_bits: dict[int, int], *, integers: bool) -> Prepared:
    """Bring a captured graph into the form that runs fastest.

    Args:
        captured: The graph; it is used up.
        largest_bits: The largest width that each quantizer, by number, may get.
        integers: Whether products of quantized values are computed in eight-bit integers.
    """
    graph, sites = captured.graph.graph, captured.sites
    allow_any_layout(graph)
    reasons: list[str] = []
    if integers:
        spread_codes(graph, sites, largest_bits)
        reasons = lower_products(graph, sites, largest_bits)
    fold_batch_norm(graph)
    if integers:
        round_products(graph)
        without_needless_codes(graph)
    lower_quantizers(graph, sites)
    graph.eliminate_dead_code()
    fuse_elementwise(graph, on_cpu=captured.on_cpu)
    graph.eliminate_dead_code()
    in_integers = sum(isinstance(node.target, IntegerProduct) for node in graph.nodes)
    return Prepared(Program(captured.graph, graph, sites), tuple(reasons), in_integers)


def allow_any_layout(graph: fx.Graph) -> None:
    """Let the operations of a captured graph take tensors that are laid out otherwise, in place."""
    # A view of a tensor that is laid out otherwise than when it was recorded may need a copy.
    for node in graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
