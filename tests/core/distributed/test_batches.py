"""Which part of a batch belongs to which process."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from gfb_brevitas.distributed.batches import batch_digest, divided, part_of

Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Sample:
    x: torch.Tensor
    mask: torch.Tensor | None


def parts(batch: Any, size: int) -> list[Any]:
    found = [part_of(batch, rank, size) for rank in range(size)]
    return [None if part is None else divided(batch, part) for part in found]


@pytest.mark.parametrize("total, size", [(7, 2), (8, 3), (3, 3), (64, 5)])
def test_parts_are_the_whole_and_differ_by_one_sample_at_most(total: int, size: int) -> None:
    batch = (torch.arange(total), {"y": [torch.arange(total) * 2], "z": np.arange(total)})
    found = parts(batch, size)
    assert torch.equal(torch.cat([x for x, _ in found]), batch[0])
    assert torch.equal(torch.cat([more["y"][0] for _, more in found]), batch[0] * 2)
    assert np.concatenate([more["z"] for _, more in found]).tolist() == list(range(total))
    lengths = [len(x) for x, _ in found]
    assert max(lengths) - min(lengths) <= 1
    weights = [part.weight for rank in range(size) if (part := part_of(batch, rank, size))]
    assert sum(weights) == pytest.approx(1)


def test_kinds_of_batches_stay_what_they_are() -> None:
    pair = parts(Pair(torch.arange(4), torch.arange(4)), 2)[1]
    assert isinstance(pair, Pair) and pair.y.tolist() == [2, 3]
    sample = parts(Sample(torch.arange(4), None), 2)[0]
    assert isinstance(sample, Sample) and sample.x.tolist() == [0, 1] and sample.mask is None


@pytest.mark.parametrize(
    "batch",
    [
        (torch.zeros(5, 4), torch.zeros(4)),  # time first
        (torch.zeros(4), torch.tensor(1.0)),
        (torch.zeros(4), ["a", "b", "c", "d"]),
        (torch.zeros(4), 3),
        (torch.zeros(1, 8), torch.zeros(1)),  # fewer samples than processes
        "nothing to divide",
        (),
        object(),
    ],
    ids=[
        "time first",
        "scalar targets",
        "list of names",
        "plain number",
        "one sample",
        "string",
        "empty",
        "unknown type",
    ],
)
def test_what_cannot_be_divided(batch: Any) -> None:
    assert part_of(batch, 0, 2) is None


def test_the_digest_tells_batches_apart() -> None:
    x = torch.arange(6.0)
    assert batch_digest((x, "name")) == batch_digest([x.clone(), object()])
    others = [(x + 1,), (x.reshape(2, 3),), (x.double(),), (x, x), (x.numpy(), x.numpy())]
    assert len({batch_digest(batch) for batch in [(x,), *others]}) == 6
