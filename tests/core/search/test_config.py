from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.search import SearchConfig, TrainingConfig


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"rounds": 0}, "rounds"),
        ({"rounds": 2.0}, "rounds"),
        ({"rounds": True}, "rounds"),
        ({"steps_per_round": 0}, "steps_per_round"),
        ({"evaluations_per_step": 2}, "evaluations_per_step"),
        ({"epochs_per_round": -1}, "epochs_per_round"),
        ({"pretrain_epochs": -1}, "pretrain_epochs"),
        ({"super_batch_size": 0}, "super_batch_size"),
        ({"super_batch": "sliding"}, "super_batch"),
        ({"method": "magic"}, "method"),
        ({"step_size": 0}, "step_size"),
        ({"step_size": float("nan")}, "step_size"),
        ({"population_size": 2}, "population_size"),
        ({"population_size": 8, "evaluations_per_step": 7}, "population_size"),
        ({"penalty": "cubic"}, "penalty"),
        ({"reevaluate_best": 0}, "reevaluate_best"),
        ({"reevaluate_batches": 0}, "reevaluate_batches"),
        ({"initial_bits": 0}, "initial_bits"),
        ({"initial_bits": (4, 33)}, "initial_bits"),
        ({"initial_bits": (4,)}, "initial_bits"),
        ({"initial_bits": "4"}, "initial_bits"),
        ({"evaluator": "fast"}, "evaluator"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"rounds": 10**23}, "rounds"),
        ({"population_size": 10**23}, "population_size"),
        ({"step_size": 10**400}, "step_size"),
    ],
)
def test_search_settings_are_checked(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}` must .*got {re.escape(repr(settings[name]))}"):
        SearchConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"optimizer": "lamb"}, "optimizer"),
        ({"schedule": "step"}, "schedule"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": None}, "learning_rate"),
        ({"clipping_learning_rate": -1.0}, "clipping_learning_rate"),
        ({"learning_rates": (("a", 0.0),)}, "learning_rates"),
        ({"learning_rates": ("a",)}, "learning_rates"),
        ({"learning_rates": 3}, "learning_rates"),
        ({"learning_rates": {"a": 0.1}}, "learning_rates"),
        ({"momentum": 1.0}, "momentum"),
        ({"data_parallel": 1}, "data_parallel"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"warmup_epochs": 0.5}, "warmup_epochs"),
        ({"warmup_epochs": 10**23}, "warmup_epochs"),
        ({"learning_rate": 10**400}, "learning_rate"),
        ({"gradient_clip_norm": 0}, "gradient_clip_norm"),
    ],
)
def test_training_settings_are_checked(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}` must be"):
        TrainingConfig(**settings)


def test_settings_are_frozen_and_keyword_only() -> None:
    with pytest.raises(FrozenInstanceError):
        SearchConfig().rounds = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        TrainingConfig("adam")  # type: ignore[call-arg]


def test_reevaluation_is_four_super_batches_unless_stated() -> None:
    assert SearchConfig(super_batch_size=3).reevaluation_size == 12
    assert SearchConfig(super_batch_size=3, reevaluate_batches=5).reevaluation_size == 5


def test_epochs_of_a_run() -> None:
    assert SearchConfig(rounds=3, epochs_per_round=5, pretrain_epochs=30).epochs == 45
