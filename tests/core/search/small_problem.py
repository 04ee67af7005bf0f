"""A problem small enough for many whole runs: a few separable classes, a tiny Brevitas network."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
import torch.nn.functional as F
from brevitas.quant import ShiftedUint8ActPerTensorFloat
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gfb_brevitas.adapters.searchable import SearchableModel, make_searchable
from gfb_brevitas.constraints import Budget
from gfb_brevitas.costs import MeanActivationBits, WeightSize
from gfb_brevitas.rules import Rule
from gfb_brevitas.search import Callback, SearchConfig, SearchResult, TrainingConfig, fit
from gfb_brevitas.search.checkpoint import model_state

FEATURES, CLASSES = 8, 4


def points(samples: int = 128, seed: int = 0) -> TensorDataset:
    """Gaussian clusters around fixed centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(100).normal(size=(CLASSES, FEATURES)) * 1.5
    labels = rng.integers(CLASSES, size=samples)
    inputs = centres[labels] + rng.normal(size=(samples, FEATURES))
    return TensorDataset(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels))


def loader(samples: int = 128, seed: int = 0) -> DataLoader[Any]:
    """A shuffling DataLoader of batches of 32."""
    return DataLoader(points(samples, seed), batch_size=32, shuffle=True)


def network(seed: int = 0, hidden: int = 12) -> nn.Module:
    """Two layers with dropout, so that training draws random numbers too."""
    torch.manual_seed(seed)
    return nn.Sequential(
        qnn.QuantLinear(FEATURES, hidden, bias=True, weight_bit_width=4),
        nn.BatchNorm1d(hidden),
        qnn.QuantReLU(bit_width=4),
        nn.Dropout(0.1),
        qnn.QuantLinear(hidden, CLASSES, bias=True, weight_bit_width=4),
    )


def network_with_native_scale(seed: int = 0) -> nn.Module:
    """A network with a quantizer that keeps Brevitas' own scale and zero point."""
    torch.manual_seed(seed)
    return nn.Sequential(
        qnn.QuantLinear(FEATURES, 12, bias=True, weight_bit_width=4),
        qnn.QuantIdentity(bit_width=4, act_quant=ShiftedUint8ActPerTensorFloat),
        nn.ReLU(),
        qnn.QuantLinear(12, CLASSES, bias=True, weight_bit_width=4),
    )


def searchable(module: nn.Module | None = None, rules: tuple[Rule, ...] = ()) -> SearchableModel:
    """The searchable model of a network."""
    return make_searchable(module or network(), torch.zeros(2, FEATURES), rules=rules)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def accuracy(model: nn.Module) -> float:
    """Share of held-out samples that are classified correctly."""
    inputs, labels = points(256, seed=1).tensors
    return float((model(inputs).argmax(dim=1) == labels).float().mean())


def budgets(beta: float = 0.9, uniform_bits: int = 4) -> list[Budget]:
    """A budget on weights and one on activations."""
    return [
        Budget(cost=WeightSize(), beta=beta, uniform_bits=uniform_bits, rho=20.0),
        Budget(cost=MeanActivationBits(), beta=beta, uniform_bits=uniform_bits, rho=0.5),
    ]


SEARCH = SearchConfig(
    rounds=2,
    steps_per_round=2,
    evaluations_per_step=12,
    population_size=4,
    epochs_per_round=2,
    pretrain_epochs=1,
    super_batch_size=2,
    reevaluate_best=2,
)
TRAINING = TrainingConfig(optimizer="sgd", learning_rate=0.05, weight_decay=1e-4)


def run(model: SearchableModel | None = None, **changes: Any) -> SearchResult:
    """A whole run with defaults for everything."""
    arguments: dict[str, Any] = {
        "loss": loss,
        "train_batches": loader(),
        "budgets": budgets(),
        "metric": accuracy,
        "search": SEARCH,
        "training": TRAINING,
    }
    return fit(searchable() if model is None else model, **{**arguments, **changes})


def comparable(result: SearchResult) -> tuple[Any, ...]:
    """Everything of a result but times: equal for equal runs."""
    records = [{k: v for k, v in r.to_dict().items() if k != "seconds"} for r in result.history]
    weights = {name: value.tolist() for name, value in model_state(result.searchable).items()}
    frozen = {name: value.tolist() for name, value in model_state(result.model).items()}
    return dict(result.allocation), result.metric, result.best_epoch, records, weights, frozen


class Recorder(Callback):
    """Keeps the records it receives, by method name."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda record: self.seen.append((name, record))
        return super().__getattribute__(name)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]
