"""Every layer kind, from make_searchable to the frozen model, against models that Brevitas builds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gfb_brevitas.adapters import SearchableModel, apply_allocation, make_searchable
from gfb_brevitas.allocation import BitAllocation
from tests.core.adapters.layer_kinds import (
    KINDS,
    Kind,
    Quantizers,
    classes_of_ours,
    outputs,
    plain,
    tensor_quant,
    trained,
)

# Brevitas warns about itself where the layers of a recurrent stack share a quantizer.
pytestmark = pytest.mark.filterwarnings("ignore:Keyword arguments are being passed:UserWarning")

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)


def random_allocations(searchable: SearchableModel, count: int) -> list[BitAllocation]:
    space, generator = searchable.space, np.random.default_rng(0)
    vectors = generator.uniform(space.lower, space.upper, (count, len(space)))
    return [space.allocation(row) for row in space.decode(vectors)]


@every_kind
def test_computes_what_the_users_model_does(kind: Kind):
    x = kind.inputs()
    model = trained(kind.build(Quantizers()), x)
    expected = outputs(model, x)
    for clipping in ("constant", "linear", "per_bit"):
        assert torch.equal(outputs(make_searchable(model, x, clipping=clipping), x), expected)


@every_kind
def test_equals_models_that_brevitas_builds_at_every_width(kind: Kind):
    x = kind.inputs()
    searchable = make_searchable(kind.build(Quantizers(8)), x, clipping="constant")
    searchable.calibrate([x])
    state, clipping = searchable.model.state_dict(), searchable.clipping_values()
    seen = set()
    for bits in range(2, 9):
        native = kind.build(Quantizers(bits))
        with torch.no_grad():
            for name, parameter in native.named_parameters():
                if name in state:
                    parameter.copy_(state[name])
            for name, values in clipping.items():
                tensor_quant(native, name).scaling_impl.value.copy_(values[bits])
        searchable.set_allocation(searchable.space.uniform(bits))
        computed = outputs(searchable, x)
        assert torch.equal(computed, outputs(native, x))
        seen.add(computed.sum().item())
    assert len(seen) > 4  # widths compute different things


@every_kind
def test_frozen_models_equal_the_searchable_one(kind: Kind):
    x = kind.inputs()
    searchable = make_searchable(trained(kind.build(Quantizers()), x), x)
    searchable.calibrate([x])
    allocations = [searchable.space.smallest(), *random_allocations(searchable, 2)]
    for allocation in allocations:
        searchable.set_allocation(allocation)
        expected = outputs(searchable, x)
        frozen = searchable.freeze()
        assert classes_of_ours(frozen) == []
        assert torch.equal(outputs(frozen, x), expected)
    # Freezing at an allocation that is not in force changes nothing in the searchable model.
    again = searchable.freeze(allocations[0])
    assert searchable.allocation == allocations[-1]
    searchable.set_allocation(allocations[0])
    assert torch.equal(outputs(again, x), outputs(searchable, x))


@every_kind
def test_frozen_state_loads_into_a_fresh_model_and_survives_copies(kind: Kind):
    x = kind.inputs()
    searchable = make_searchable(trained(kind.build(Quantizers()), x), x)
    searchable.calibrate([x])
    (allocation,) = random_allocations(searchable, 1)
    frozen = searchable.freeze(allocation)
    state = copy.deepcopy(frozen.state_dict())
    expected = outputs(frozen, x)

    fresh = apply_allocation(kind.build(Quantizers()), allocation)
    assert classes_of_ours(fresh) == []
    for _ in range(2):
        fresh.load_state_dict(state)
        assert torch.equal(outputs(fresh, x), expected)
    duplicate = copy.deepcopy(fresh)
    assert torch.equal(outputs(duplicate, x), expected)
    duplicate.load_state_dict(state)
    assert torch.equal(outputs(duplicate, x), expected)


@every_kind
def test_a_frozen_model_trains_with_brevitas_alone(kind: Kind):
    x = kind.inputs()
    searchable = make_searchable(trained(kind.build(Quantizers()), x), x)
    searchable.calibrate([x])
    (allocation,) = random_allocations(searchable, 1)
    frozen = searchable.freeze(allocation).train()
    before = {name: p.detach().clone() for name, p in frozen.named_parameters()}
    optimizer = torch.optim.SGD(frozen.parameters(), lr=0.05)
    plain(frozen(x)).square().sum().backward()
    optimizer.step()
    changed = {name for name, p in frozen.named_parameters() if not torch.equal(p, before[name])}
    assert changed >= {name for name in before if name.endswith("scaling_impl.value")}
    assert changed >= {name for name in before if name.endswith("weight")}


@every_kind
def test_a_searchable_model_trains_weights_and_clipping(kind: Kind):
    x = kind.inputs()
    searchable = make_searchable(trained(kind.build(Quantizers()), x), x)
    searchable.calibrate([x])
    searchable.set_allocation(random_allocations(searchable, 1)[0])
    plain(searchable.train()(x)).square().sum().backward()
    gradients = [p.grad for p in searchable.clipping_parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    # A quantizer behind another one may have nothing to round or clip, and then nothing to learn.
    assert any(g.any() for g in gradients)
    weights = [p for n, p in searchable.named_parameters() if n.endswith("weight")]
    assert all(p.grad is not None for p in weights)
