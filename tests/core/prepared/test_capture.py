from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.prepared.capture import Call, Captured, NotCapturableError, capture


class Around(nn.Module):
    """A quantized layer with something around it."""

    def __init__(self, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.quant = qnn.QuantIdentity(return_quant_tensor=True)
        self.linear = qnn.QuantLinear(6, 6, bias=True)
        self.register_buffer("calls", torch.zeros(()))
        self._before, self._after = before, after

    def forward(self, x: Any, **settings: Any) -> Any:
        x = x if self._before is None else self._before(self, x)
        y = self.linear(self.quant(x))
        return y if self._after is None else self._after(self, y, **settings)


def captured(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[Captured, Call]:
    searchable = gfb.make_searchable(model, args[0])
    with inference_only(searchable):
        call = Call.of(args, kwargs)
        return capture(searchable.model, call), call


def count(module: nn.Module, x: Tensor) -> Tensor:
    module.calls += 1
    return x


REFUSED = {
    "looks at values": (lambda m, x: x if x.sum() > 0 else -x, "decides by the values"),
    "takes a number out": (lambda m, x: x * x.max().item(), "decides by the values"),
    "has a shape by values": (lambda m, x: x[x[:, 0] > -9], "shape of a result depends on values"),
    "draws random numbers": (lambda m, x: x + torch.rand_like(x), "draws random numbers"),
    "changes its state": (count, "changes a tensor of its own"),
    "computes in NumPy": (lambda m, x: torch.from_numpy(x.numpy() * 2), "leave PyTorch by .numpy"),
    "makes a list": (lambda m, x: x * max(x[0].tolist()), "leave PyTorch by .tolist"),
    "keeps a tuple": (lambda m, x: vars(m).update(_kept=(x,)) or x, "keeps something of its forward pass"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_one_recording_cannot_stand_for_is_refused(name: str) -> None:
    before, reason = REFUSED[name]
    with pytest.raises(NotCapturableError, match=reason):
        captured(Around(before), torch.randn(4, 6))


def test_in_place_operations_are_recorded_as_ordinary_ones() -> None:
    def double(module: nn.Module, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 0] += 1
        y.mul_(2)
        return y

    x = torch.randn(4, 6)
    model = Around(double)
    recorded, call = captured(model, x)
    kept = x.clone()
    operators = [node.target for node in recorded.graph.graph.nodes if node.op == "call_function"]
    assert not any(operator._schema.is_mutable for operator in operators)
    assert torch.equal(x, kept)
    assert len(call.tensors) == 1


def test_keyword_arguments_and_constants_belong_to_the_signature() -> None:
    x = torch.randn(4, 6)
    one, other = Call.of((x,), {"scale": 2}), Call.of((x,), {"scale": 3})
    assert one.signature != other.signature
    assert one.signature == Call.of((x + 1,), {"scale": 2}).signature
    assert one.signature != Call.of((x[:2],), {"scale": 2}).signature
    assert one.signature != Call.of((x.double(),), {"scale": 2}).signature
    assert Call.of((True,), {}).signature != Call.of((1,), {}).signature
    args, kwargs = one.arguments((x,))
    assert args == (x,) and kwargs == {"scale": 2}


@pytest.mark.parametrize("argument", [np.zeros(3), object(), torch.eye(2).to_sparse()])
def test_arguments_that_are_no_plain_tensors_are_refused(argument: Any) -> None:
    with pytest.raises(NotCapturableError, match="an argument of the model is a"):
        Call.of((argument,), {})


def test_results_keep_their_structure() -> None:
    def dressed(module: nn.Module, y: Tensor) -> dict[str, Any]:
        return {"logits": y, "parts": (y[0], None), "name": "around", "quant": module.quant(y)}

    x = torch.randn(4, 6)
    recorded, _ = captured(Around(after=dressed), x)
    tensors = [torch.full((1,), float(i)) for i in range(len(recorded.constants) - 2)]
    result = recorded.result(tensors)
    assert result["name"] == "around" and result["parts"][1] is None
    assert isinstance(result["quant"], IntQuantTensor)


def test_what_brevitas_computes_beside_the_values_falls_away() -> None:
    recorded, _ = captured(Around(), torch.randn(4, 6))
    operators = [str(node.target) for node in recorded.graph.graph.nodes if node.op == "call_function"]
    assert sorted(operators) == sorted(
        [
            "gfb_brevitas.quantize.default",
            "gfb_brevitas.quantize.default",
            "aten.slice.Tensor",
            "aten.t.default",
            "aten.addmm.default",
        ]
    )
