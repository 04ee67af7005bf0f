from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, EmptyDataError
from gfb_brevitas.evaluation.batches import device_of, moved, one_pass, require_batches

META = torch.device("meta")
Pair = namedtuple("Pair", "x y")


@dataclass
class Sample:
    x: Tensor
    name: str


class Graph:
    """Like the batches of graph libraries: an object with a `to` of its own."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: torch.device) -> Graph:
        return Graph(self.x.to(device))


def test_moved_reaches_tensors_in_all_kinds_of_batches() -> None:
    x = torch.zeros(2)
    batch: dict[str, Any] = {
        "pair": Pair(x, 3),
        "list": [x, (x, "label")],
        "sample": Sample(x, "a"),
        "graph": Graph(x),
    }
    result = moved(batch, META)
    assert isinstance(result["pair"], Pair) and result["pair"].y == 3
    assert result["list"][1][1] == "label"
    assert result["sample"].name == "a"
    tensors = [result["pair"].x, *result["list"][:1], result["list"][1][0]]
    assert all(t.device == META for t in [*tensors, result["sample"].x, result["graph"].x])
    assert batch["list"][0].device.type == "cpu"


def test_moved_leaves_what_has_no_device() -> None:
    assert moved("text", META) == "text"
    batch = [torch.zeros(1)]
    assert moved(batch, None) is batch


def test_device_of() -> None:
    assert device_of(nn.Linear(1, 1)) == torch.device("cpu")
    assert device_of(nn.BatchNorm1d(2, affine=False)) == torch.device("cpu")
    assert device_of(nn.ReLU()) is None


def test_one_pass_stops_at_the_limit_and_at_the_end() -> None:
    assert list(one_pass([1, 2, 3], 0, limit=2)) == [1, 2]
    assert list(one_pass([1, 2, 3], 0, limit=5)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("batches", "error"),
    [([], EmptyDataError), (iter([1]), ConfigurationError), (None, ConfigurationError)],
)
def test_require_batches_names_the_argument(batches: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="`train_batches`"):
        require_batches(batches, "train_batches")
