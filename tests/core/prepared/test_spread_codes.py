from __future__ import annotations

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

from gfb_brevitas.prepared.site_values import decode, encode
from gfb_brevitas.prepared.spread_codes import CODES, pooled_codes, spread_codes, without_needless_codes
from tests.core.prepared.preparing import images, searchable_model
from tests.core.prepared.test_capture import captured


class Moving(nn.Module):
    """Quantized values that are only moved before a product uses them."""

    def __init__(self, *, bits: int = 8) -> None:
        super().__init__()
        self.quant = qnn.QuantIdentity(return_quant_tensor=False)
        self.linear = qnn.QuantLinear(48, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.max_pool2d(self.quant(x), 3, stride=2, padding=1)
        return self.linear(pooled[:, :, :4, :4].permute(0, 2, 3, 1).reshape(len(x), -1))


def test_codes_reach_the_product_through_operations_that_move_values() -> None:
    recorded, _ = captured(Moving(), images(4))
    graph = recorded.graph.graph
    spread_codes(graph, recorded.sites, dict.fromkeys(range(9), 8))
    (product,) = (node for node in graph.nodes if "mm" in str(node.target))
    values = product.args[-2]
    assert values.target is decode
    assert CODES in values.args[0].meta
    assert any(node.target is pooled_codes for node in graph.nodes)
    without_needless_codes(graph)
    assert any(node.target is encode for node in graph.nodes)


def test_codes_that_nothing_uses_are_taken_back() -> None:
    recorded, _ = captured(nn.Sequential(qnn.QuantIdentity(), nn.Sigmoid()), torch.randn(4, 6))
    graph = recorded.graph.graph
    spread_codes(graph, recorded.sites, dict.fromkeys(range(9), 8))
    assert any(node.target is encode for node in graph.nodes)
    without_needless_codes(graph)
    graph.eliminate_dead_code()
    assert not any(node.target in (encode, decode) for node in graph.nodes)


def test_wide_quantizers_have_no_codes() -> None:
    recorded, _ = captured(Moving(), images(4))
    spread_codes(recorded.graph.graph, recorded.sites, dict.fromkeys(range(9), 9))
    assert not any(node.target is encode for node in recorded.graph.graph.nodes)


def test_pooling_of_large_images() -> None:
    codes = torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8)
    for settings in (([2, 2],), ([3, 3], [2, 2], [1, 1]), ([2, 2], [1, 1], [0, 0], [1, 1], True)):
        expected = nn.functional.max_pool2d(codes.float(), *settings)
        assert torch.equal(pooled_codes(codes, *settings).float(), expected)


def test_the_model_of_these_tests_is_searchable() -> None:
    assert len(searchable_model(Moving(), images(4)).profile) == 2
