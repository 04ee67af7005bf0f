from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.adapters import apply_allocation, make_searchable, quantize_float_model
from gfb_brevitas.errors import UntraceableModelError
from tests.core.adapters.layer_kinds import classes_of_ours, outputs, plain, tensor_quant


class Residual(nn.Module):
    """A float network with what graph quantization has to handle: branches that are added, and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(8)
        self.side = nn.Conv2d(8, 4, 1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.relu(x + self.inner_norm(self.inner(x)))
        x = torch.cat([x, self.relu(self.side(x))], dim=1)
        return self.head(torch.mean(x, (2, 3)))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def float_model(images: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = Residual().train()
    for _ in range(5):
        model(images)
    return model.eval()


@pytest.fixture(scope="module")
def quantized(float_model: nn.Module, images: Tensor) -> nn.Module:
    return quantize_float_model(float_model, images)


def test_the_result_is_close_to_the_float_model_once_calibrated(float_model, quantized, images):
    searchable = make_searchable(quantized, images)
    searchable.calibrate([images])
    searchable.set_allocation(searchable.space.uniform(8))
    expected = outputs(float_model, images)
    assert (outputs(searchable, images) - expected).abs().max() < 0.1 * expected.abs().max()


def test_branches_that_meet_are_tied_and_share_one_scale(quantized, images):
    searchable = make_searchable(quantized, images)
    searchable.calibrate([images])
    kinds = [info.kind for info in searchable.profile]
    assert kinds.count("weight") == 4 and len(searchable.space) < len(searchable.profile)
    groups = [c.quantizers for c in searchable.space.coordinates if len(c.quantizers) > 1]
    frozen = searchable.freeze(searchable.space.uniform(5))
    for group in groups:
        assert len({id(tensor_quant(frozen, name).scaling_impl) for name in group}) == 1


def test_every_allocation_freezes_exactly(quantized, images):
    searchable = make_searchable(quantized, images)
    searchable.calibrate([images])
    space, generator = searchable.space, np.random.default_rng(0)
    rows = space.decode(generator.uniform(space.lower, space.upper, (6, len(space))))
    for allocation in [space.smallest(), *map(space.allocation, rows)]:
        searchable.set_allocation(allocation)
        frozen = searchable.freeze()
        assert classes_of_ours(frozen) == []
        # Where quant tensors are added, Brevitas itself checks their scales and widths.
        assert torch.equal(outputs(frozen, images), outputs(searchable, images))
    fresh = apply_allocation(quantized, allocation)
    fresh.load_state_dict(frozen.state_dict())
    assert torch.equal(outputs(fresh, images), outputs(searchable, images))
    plain(frozen.train()(images)).sum().backward()


def test_every_product_has_quantized_operands(quantized, images):
    products = make_searchable(quantized, images).profile.products
    assert len(products) == 4
    assert all(p.left.quantizers and p.right.quantizers for p in products)
    assert sum(p.macs for p in products) == 64 * (27 * 8 + 72 * 8 + 8 * 4) + 12 * 5


@pytest.mark.parametrize("training", [True, False])
def test_the_float_model_is_left_alone(float_model, images, training):
    model = copy.deepcopy(float_model).train(training)
    state = copy.deepcopy(model.state_dict())
    quantized = quantize_float_model(model, images)
    assert quantized.training == training
    assert all(module.training == training for module in model.modules())
    assert type(model.stem) is nn.Conv2d
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_batchnorm_may_stay(float_model, images):
    quantized = quantize_float_model(float_model, images, merge_batchnorm=False)
    assert any(isinstance(module, nn.BatchNorm2d) for module in quantized.modules())
    merged = quantize_float_model(float_model, images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())


def test_positional_and_named_inputs_work():
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.fc(left + right)

    pair = (torch.randn(2, 6), torch.randn(2, 6))
    for inputs in (pair, {"right": pair[1], "left": pair[0]}):
        quantized = quantize_float_model(TwoInputs(), inputs)
        assert make_searchable(quantized, inputs).profile.names


def test_a_model_that_cannot_be_traced_says_so():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x) if x.sum() > 0 else x

    with pytest.raises(UntraceableModelError, match=r"could not quantize Branching.*brevitas\.nn layers"):
        quantize_float_model(Branching(), torch.randn(2, 6))


def test_inputs_that_do_not_fit_say_so():
    with pytest.raises(UntraceableModelError, match="shapes cannot be multiplied"):
        quantize_float_model(nn.Sequential(nn.Linear(6, 2)), torch.randn(2, 7))
