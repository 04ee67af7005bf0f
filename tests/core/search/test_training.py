from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.adapters.searchable import SearchableModel
from gfb_brevitas.errors import ConfigurationError, EmptyDataError, NonFiniteLossError
from gfb_brevitas.search import TrainingConfig
from gfb_brevitas.search.checkpoint import content_digest, snapshot
from gfb_brevitas.search.schedule import learning_rate_factor
from gfb_brevitas.search.training import Trainer, parameter_groups
from tests.core.odd_names import NamedLayers
from tests.core.search.small_problem import loader, loss, network_with_native_scale, searchable


def trainer(model: SearchableModel | None = None, epochs: int = 4, **settings: Any) -> Trainer:
    config = TrainingConfig(**{"learning_rate": 0.05, **settings})
    return Trainer(model or searchable(), loss, config, epochs=epochs, seed=3)


def digest(t: Trainer) -> str:
    return content_digest({"model": dict(snapshot(t.model)), "optimizer": t.state_dict()})


def test_training_lowers_the_loss_and_keeps_the_allocation() -> None:
    t = trainer(epochs=10)
    before = t.model.allocation
    losses = [t.run_epoch(loader(), epoch).train_loss for epoch in range(10)]
    assert losses[-1] < 0.7 * losses[0]
    assert t.model.allocation == before


def test_clipping_parameters_are_trained() -> None:
    t = trainer()
    before = [p.detach().clone() for p in t.model.clipping_parameters()]
    t.run_epoch(loader(), 0)
    assert any(not torch.equal(a, b) for a, b in zip(before, t.model.clipping_parameters(), strict=True))


def test_an_epoch_repeats_from_its_saved_state_whatever_was_drawn_meanwhile() -> None:
    first = trainer(optimizer="adam")
    first.run_epoch(loader(), 0)
    model, optimizer = snapshot(first.model), first.state_dict()
    torch.rand(5)
    first.run_epoch(loader(), 1)
    second = trainer(optimizer="adam")
    second.model.load_state_dict(model)
    second.load_state_dict(optimizer)
    torch.rand(11)
    second.run_epoch(loader(), 1)
    assert digest(first) == digest(second)


def test_epochs_differ_in_their_draws() -> None:
    orders = []

    def noting(model: nn.Module, batch: Any) -> Tensor:
        orders.append(batch[1].tolist())
        return loss(model, batch)

    t = trainer()
    t.loss = noting
    t.run_epoch(loader(), 0)
    t.run_epoch(loader(), 1)
    assert orders[:4] != orders[4:]


def test_the_global_generator_is_left_as_it_was() -> None:
    t = trainer()
    before = torch.get_rng_state()
    t.run_epoch(loader(), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_weight_decay_and_learning_rates_by_kind_of_parameter() -> None:
    model = searchable()
    config = TrainingConfig(learning_rate=0.1, clipping_learning_rate=0.01, weight_decay=5e-4)
    groups = {(g["lr"], g["weight_decay"]): g["params"] for g in parameter_groups(model, config)}
    assert set(groups) == {(0.1, 5e-4), (0.01, 0.0)}
    assert {id(p) for p in groups[0.01, 0.0]} == {id(p) for p in model.clipping_parameters()}
    assert {id(p) for p in groups[0.1, 5e-4]} == {id(p) for p in model.weight_parameters()}


def test_learning_rates_by_name() -> None:
    model = searchable()
    config = TrainingConfig(learning_rate=0.1, learning_rates=(("4.weight", 0.3), ("4.*", 0.2)))
    rates = {id(p): g["lr"] for g in parameter_groups(model, config) for p in g["params"]}
    named = dict(model.model.named_parameters())
    assert rates[id(named["4.weight"])] == 0.3
    assert rates[id(named["4.bias"])] == 0.2
    assert rates[id(named["0.weight"])] == 0.1


def test_learning_rates_by_exact_names_that_look_like_patterns() -> None:
    model = gfb.make_searchable(NamedLayers(), NamedLayers.example)
    name = "layers.branch[0].weight"
    config = TrainingConfig(learning_rate=0.1, learning_rates=((name, 0.3),))
    rates = {id(p): g["lr"] for g in parameter_groups(model, config) for p in g["params"]}
    assert {n for n, p in model.model.named_parameters() if rates[id(p)] == 0.3} == {name}


def test_learning_rates_of_nothing_are_refused() -> None:
    config = TrainingConfig(learning_rates=(("4.wieght", 0.3),))
    with pytest.raises(
        ConfigurationError, match=r"'4.wieght' in `learning_rates` matches no parameter.*4.weight"
    ):
        parameter_groups(searchable(), config)


def test_frozen_parameters_stay() -> None:
    model = searchable()
    model.model[0].weight.requires_grad_(False)  # type: ignore[index]
    before = model.model[0].weight.clone()  # type: ignore[index]
    trainer(model, weight_decay=0.1).run_epoch(loader(), 0)
    assert torch.equal(model.model[0].weight, before)  # type: ignore[index]


def test_a_model_without_trainable_parameters() -> None:
    model = searchable()
    model.requires_grad_(False)
    with pytest.raises(ConfigurationError, match="parameters that require gradients"):
        trainer(model)


def test_own_optimizer() -> None:
    t = trainer(optimizer=lambda groups: torch.optim.AdamW(groups, betas=(0.8, 0.9)))
    assert isinstance(t.optimizer, torch.optim.AdamW)
    assert t.run_epoch(loader(), 0).learning_rate == 0.05
    with pytest.raises(ConfigurationError, match="must return a torch.optim.Optimizer; got 'list'"):
        trainer(optimizer=lambda groups: groups)


def factors(epochs: int = 4, **settings: Any) -> list[float]:
    config = TrainingConfig(**settings)
    return [round(learning_rate_factor(config, epoch, epochs), 6) for epoch in range(epochs)]


def test_schedules() -> None:
    assert factors() == [round(0.5 * (1 + math.cos(math.pi * e / 4)), 6) for e in range(4)]
    assert factors(schedule="constant") == [1.0] * 4
    assert factors(schedule=lambda done: 1 - done) == [1.0, 0.75, 0.5, 0.25]
    assert factors(schedule="constant", warmup_epochs=3) == [0.25, 0.5, 0.75, 1.0]


def test_learning_rates_follow_the_schedule() -> None:
    t = trainer(clipping_learning_rate=0.01)
    rates = []
    for epoch in range(4):
        t.run_epoch(loader(), epoch)
        rates.append([group["lr"] for group in t.optimizer.param_groups])
    assert rates[0] == [0.05, 0.01]
    assert rates[2] == pytest.approx([0.025, 0.005])


def test_gradients_are_clipped() -> None:
    def change(limit: float | None) -> float:
        t = trainer(optimizer="sgd", gradient_clip_norm=limit, momentum=0.0, learning_rate=1.0)
        before = [p.detach().clone() for p in t.model.parameters()]
        t.run_epoch([next(iter(loader()))], 0)
        moves = [(a - b).detach().norm() for a, b in zip(before, t.model.parameters(), strict=True)]
        return float(torch.stack(moves).norm())

    assert change(0.01) == pytest.approx(0.01, rel=1e-3)
    assert change(None) > 0.02


def failing_at(number: int, value: float) -> Any:
    calls = iter(range(1, 1000))

    def function(model: nn.Module, batch: Any) -> Tensor:
        return loss(model, batch) * (value if next(calls) == number else 1.0)

    return function


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_epoch_and_batch_and_what_is_saved(value: float) -> None:
    t = trainer()
    t.loss = failing_at(3, value)
    with pytest.raises(NonFiniteLossError, match=rf"became {value} in epoch 2, batch 3 .*Saved in x\. Lower"):
        t.run_epoch(loader(), 1, recovery="Saved in x.")
    assert all(bool(torch.isfinite(p).all()) for p in t.model.parameters())


def test_weights_that_are_not_finite_are_noticed_before_they_are_saved() -> None:
    t = trainer(optimizer="adam")

    def overflowing(model: nn.Module, batch: Any) -> Tensor:
        # A finite loss whose gradient is not.
        weight = t.model.weight_parameters()[0]
        return loss(model, batch) + torch.sqrt((weight * 0.0).abs().sum())

    t.loss = overflowing
    with pytest.raises(NonFiniteLossError, match=r"A weight became NaN .* epoch 1"):
        t.run_epoch(list(loader())[:1], 0)


def test_an_epoch_without_batches() -> None:
    with pytest.raises(EmptyDataError, match="epoch 1 had none"):
        trainer().run_epoch([], 0)


def test_a_loss_without_gradients() -> None:
    t = trainer()
    t.loss = lambda model, batch: loss(model, batch).detach()
    with pytest.raises(ConfigurationError, match="gradients"):
        t.run_epoch(loader(), 0)


def test_scales_of_brevitas_are_not_decayed() -> None:
    model = searchable(network_with_native_scale())
    layer = model.model.get_submodule("0")
    scales = {id(p) for n, p in model.model.named_parameters() if "_quant." in n}
    scales -= {id(p) for p in model.clipping_parameters()}
    assert scales
    decay = {
        id(p): group["weight_decay"]
        for group in parameter_groups(model, TrainingConfig(weight_decay=5e-4))
        for p in group["params"]
    }
    assert {decay[key] for key in scales} == {0.0}
    assert decay[id(layer.weight)] == decay[id(layer.bias)] == 5e-4
