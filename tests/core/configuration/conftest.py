"""A folder of a user: a network, its data, and a configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

NETWORK = """\
import torch
from tests.core.search import small_problem

def make():
    return small_problem.network(), torch.zeros(2, small_problem.FEATURES)

def train():
    return small_problem.loader()

def validation():
    yield from small_problem.loader(seed=1)

def nothing():
    return 3

def sgd(groups):
    return torch.optim.SGD(groups, lr=0.05)

loss = small_problem.loss
metric = small_problem.accuracy
"""
SEARCH = """\
model: configured_network:make
loss: configured_network:loss
train_batches: configured_network:train
validation_batches: configured_network:validation
metric: accuracy
rules:
  - {fix: "0.*", bits: 6, kind: weight}
  - {range: ["2.*"], bits: [2, 5]}
budgets:
  - {cost: weight_size, beta: 0.9, uniform_bits: 4, rho: 20}
search:
  {rounds: 2, steps_per_round: 1, evaluations_per_step: 12, population_size: 4, epochs_per_round: 1,
   super_batch_size: 2}
training: {learning_rate: 0.05, optimizer: "configured_network:sgd"}
run_folder: run
baselines: []
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user, which is the current one."""
    (tmp_path / "configured_network.py").write_text(NETWORK)
    (tmp_path / "search.yaml").write_text(SEARCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    sys.modules.pop("configured_network", None)
