"""Training loops as a user would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gfb_brevitas.search import EpochOutcome, TrainingEpoch
from tests.core.search.small_problem import run, searchable

RATE = 0.05


class PlainLoop:
    """What `TrainingConfig(optimizer="sgd", learning_rate=RATE, schedule="constant")` does."""

    def __init__(self, model: nn.Module) -> None:
        self.optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)

    def run_epoch(self, model: nn.Module, epoch: TrainingEpoch) -> Any:
        losses = [self.step(model, epoch, batch) for batch in epoch.batches]
        return EpochOutcome(train_loss=sum(losses) / len(losses), learning_rate=RATE)

    def step(self, model: nn.Module, epoch: TrainingEpoch, batch: Any) -> float:
        self.optimizer.zero_grad()
        loss = epoch.loss(model, batch)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def state_dict(self) -> Any:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])


def looped(loop: Callable[[Any], Any] = PlainLoop, module: nn.Module | None = None, **changes: Any) -> Any:
    """A run with a training loop that is made of the model, both anew."""
    model = searchable(module)
    return run(model, **{"training": loop(model), "name": "run", **changes})
