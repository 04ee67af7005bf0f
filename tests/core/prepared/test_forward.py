from __future__ import annotations

import copy
import gc
import logging
import weakref
from typing import Any

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.evaluation.modes import inference_only
from gfb_brevitas.prepared import PreparedForward
from tests.core.prepared.preparing import searchable_model, searchable_model_of
from tests.core.prepared.test_capture import Around


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def ready(model: nn.Module, x: Any) -> tuple[SearchableModel, PreparedForward]:
    searchable = searchable_model(model, x)
    return searchable, PreparedForward(searchable, integers=False)


def test_the_model_runs_through_programs_inside_the_block_only(
    x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Counted(Around):
        def forward(self, x: Any, **settings: Any) -> Any:
            calls.append(1)
            return super().forward(x, **settings)

    model, forward = ready(Counted(), x)
    with inference_only(model):
        expected = model(x)
        with forward.active():
            model(x)
            checked = len(calls)
            assert torch.allclose(model(x), expected, atol=1e-6)
            assert len(calls) == checked > 1  # the model itself ran to make and check the program, not since
        model(x)
    assert len(calls) == checked + 1
    assert forward.fallbacks == []
    assert "forward" not in vars(model)


def test_hooks_and_attributes_are_not_lost(x: Tensor) -> None:
    model, forward = ready(Around(), x)
    seen = []
    model.model.linear.register_forward_hook(lambda *_: seen.append(1))
    with inference_only(model), forward.active():
        model(x)
        model(x)
    assert len(seen) == 2 and "forward hook" in forward.fallbacks[0]

    class Keeping(Around):
        def forward(self, x: Any, **settings: Any) -> Any:
            self.kept = x.mean()
            return super().forward(x, **settings)

    model, forward = ready(Keeping(), x)
    with inference_only(model), forward.active():
        for inputs in (x, x + 1):
            model(inputs)
            assert model.model.kept == inputs.mean()
    assert "attribute" in forward.fallbacks[0]


def test_whole_numbers_may_be_indices_into_other_inputs() -> None:
    class Gather(Around):
        def forward(self, x: Tensor, index: Tensor) -> Any:
            return super().forward(x[index[0]] - x[:3][index[1]])

    x, index = torch.randn(6, 6), torch.tensor([[5, 4, 3], [0, 1, 2]])
    searchable = searchable_model_of(Gather(), (x, index))
    forward = PreparedForward(searchable, integers=False)
    with inference_only(searchable), forward.active():
        assert torch.allclose(searchable(x, index), searchable.model(x, index), atol=1e-6)
    assert forward.fallbacks == []


def test_results_may_be_changed_in_place_and_inference_tensors_passed(x: Tensor) -> None:
    model, forward = ready(nn.Sequential(Around(), nn.ReLU(), nn.Sigmoid()), x)
    with inference_only(model), forward.active():
        expected = model.model(x)
        for _ in range(3):
            assert torch.allclose(model(x), expected, atol=1e-6)
            model(x).mul_(0)
    with torch.inference_mode():
        inputs = x * 1
    with inference_only(model), forward.active():
        assert torch.allclose(model(inputs), expected, atol=1e-6)


def test_weights_that_were_replaced_are_seen(x: Tensor) -> None:
    model, forward = ready(Around(), x)
    state = {name: value * 1.5 for name, value in model.state_dict().items()}
    with inference_only(model), forward.active():
        model(x)
    model.load_state_dict(state, assign=True)
    forward.weights_changed()
    with inference_only(model), forward.active():
        assert torch.allclose(model(x), model.model(x), atol=1e-6)


def test_every_signature_gets_a_program_of_its_own(x: Tensor) -> None:
    def scaled(module: nn.Module, y: Tensor, scale: float = 1.0) -> Tensor:
        return y * scale

    model, forward = ready(Around(after=scaled), x)
    with inference_only(model), forward.active():
        for inputs in (x, x[:3], torch.cat([x, x])):
            assert torch.allclose(model(inputs), model.model(inputs), atol=1e-6)
            assert torch.allclose(model(inputs, scale=2.0), model.model(inputs, scale=2.0), atol=1e-6)
    assert len(forward._ready) == 6


@pytest.mark.parametrize(
    "before",
    [
        lambda m, x: x if x.sum() > 0 else -x,
        # Recorded as a constant without a trace in the graph: only the check on other inputs sees it.
        lambda m, x: x + torch.from_numpy(np.sign(x.detach().numpy())),
    ],
)
def test_a_model_that_cannot_be_prepared_runs_itself_and_the_log_says_why(
    x: Tensor, before: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, forward = ready(Around(before), x)
    with caplog.at_level(logging.INFO), inference_only(model), forward.active():
        for inputs in (x, -x, x.roll(1, 1)):
            assert torch.equal(model(inputs), model.model(inputs))
    assert len(forward.fallbacks) == 1
    assert forward.fallbacks[0] in caplog.text


@pytest.mark.parametrize(
    "after",
    [
        lambda m, y: y / float(m.quant(torch.ones(1)).scale),
        lambda m, y: y * (3 if m.quant.act_quant.bit_width() < 3 else 1),
    ],
)
def test_numbers_and_branches_that_follow_from_widths_are_not_taken_for_constants(
    x: Tensor, after: Any
) -> None:
    model, forward = ready(Around(after=after), x)
    with inference_only(model), forward.active():
        for bits in (8, 2, 1):
            model.set_bits([bits] * len(model.profile))
            assert torch.equal(model(x), model.model(x))
    assert "what was recorded of it gives other results" in " ".join(forward.fallbacks)


def test_arguments_that_are_no_tensors_go_to_the_model(x: Tensor) -> None:
    class Data:
        def __init__(self, values: Tensor) -> None:
            self.rows = values

    model = searchable_model(Around(lambda m, data: getattr(data, "rows", data)), x)
    forward = PreparedForward(model, integers=False)
    with inference_only(model), forward.active():
        assert torch.equal(model(Data(x)), model.model(x))
    assert forward.fallbacks == ["The model runs unprepared: an argument of the model is a Data."]


def test_under_autocast_the_model_runs_itself(x: Tensor) -> None:
    model, forward = ready(Around(), x)
    with inference_only(model), forward.active(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x), model.model(x))
    assert forward.fallbacks == ["The model runs unprepared: it is called under torch.autocast."]


def test_changed_weights_and_widths_are_followed(x: Tensor) -> None:
    model, forward = ready(Around(), x)
    with inference_only(model), forward.active():
        for bits in (3, 5, 8):
            model.set_bits([bits] * len(model.profile))
            assert torch.allclose(model(x), model.model(x), atol=1e-6)
            for parameter in model.parameters():
                parameter.mul_(0.7)
            forward.weights_changed()
    assert len(forward._ready) == 1 and forward.fallbacks == []


def test_equal_addresses_are_not_equal_inputs(x: Tensor) -> None:
    model, forward = ready(Around(), x)
    with inference_only(model), forward.active():
        for step in range(5):
            fresh = x * step
            assert torch.allclose(model(fresh), model.model(x * step), atol=1e-6)
            fresh += 1
            assert torch.allclose(model(fresh), model.model(x * step + 1), atol=1e-6)
            del fresh


def test_it_keeps_no_model_alive_and_copies_apart(x: Tensor) -> None:
    model, forward = ready(Around(), x)
    with inference_only(model), forward.active():
        model(x)
    twin = copy.deepcopy(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert twin(x).shape == (4, 6)


def test_memory_of_inputs_is_given_back(x: Tensor) -> None:
    model, forward = ready(Around(), x)
    inputs = x.clone()
    gone = weakref.ref(inputs)
    with inference_only(model), forward.active():
        model(inputs)
    del inputs
    assert gone() is None


def test_quantizers_shared_by_several_layers(x: Tensor) -> None:
    shared = qnn.QuantIdentity(return_quant_tensor=True)
    model = nn.Sequential(
        shared, qnn.QuantLinear(6, 6, bias=False), shared, qnn.QuantLinear(6, 6, bias=False)
    )
    searchable, forward = ready(model, x)
    with inference_only(searchable), forward.active():
        for bits in (2, 6):
            searchable.set_bits([bits] * len(searchable.profile))
            assert torch.allclose(searchable(x), searchable.model(x), atol=1e-6)
    assert isinstance(searchable, gfb.SearchableModel)
