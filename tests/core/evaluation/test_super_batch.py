from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from gfb_brevitas.errors import ConfigurationError, EmptyDataError
from gfb_brevitas.evaluation import SuperBatch


class Noisy(Dataset[Tensor]):
    """Items that draw from all three global generators, as augmentations do."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        noise = torch.rand(()).item() + np.random.rand() + random.random()  # noqa: NPY002
        return torch.tensor(index + noise)


def contents(super_batch: SuperBatch) -> list[Any]:
    return [batch.tolist() if isinstance(batch, Tensor) else batch for batch in super_batch]


def test_moving_replaces_the_oldest_minibatch() -> None:
    window = SuperBatch([0, 1, 2, 3, 4], size=3, kind="moving")
    seen = [contents(window)]
    for _ in range(3):
        window.advance()
        seen.append(contents(window))
    assert seen == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]]


def test_fixed_never_changes() -> None:
    window = SuperBatch([0, 1, 2, 3, 4], size=3, kind="fixed")
    version = window.version
    window.advance()
    assert contents(window) == [0, 1, 2]
    assert window.version == version


def test_single_holds_one_minibatch_and_replaces_it() -> None:
    window = SuperBatch([0, 1, 2], size=32, kind="single")
    seen = [contents(window)]
    for _ in range(3):
        window.advance()
        seen.append(contents(window))
    assert seen == [[0], [1], [2], [0]]


def test_version_changes_with_the_content() -> None:
    window = SuperBatch([[0], [1], [2], [3]], size=2)
    versions = [window.version]
    for _ in range(2):
        window.advance()
        versions.append(window.version)
    assert len(set(versions)) == 3
    assert versions[0][1] == versions[1][0]
    assert not set(SuperBatch([[0], [1]], size=2).version) & set(versions[-1])


def test_short_data_repeats_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert contents(SuperBatch([1, 2], size=5, kind="fixed")) == [1, 2, 1, 2, 1]
    assert "fewer batches than the super-batch (5)" in caplog.text


def test_one_object_that_repeats_is_one_minibatch() -> None:
    graph = object()
    window = SuperBatch([graph], size=4)
    assert len(window) == 4
    assert len(set(window.version)) == 1


def shuffled() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(24.0)), batch_size=2, shuffle=True)


def with_own_generator() -> DataLoader[Any]:
    data = TensorDataset(torch.arange(24.0))
    return DataLoader(data, batch_size=2, shuffle=True, generator=torch.Generator())


def augmented() -> DataLoader[Any]:
    return DataLoader(Noisy(), batch_size=2, shuffle=True)


def drawn(data: Any, seed: int, *, disturbed: bool) -> list[Any]:
    window = SuperBatch(data, size=4, seed=seed)
    seen = []
    for _ in range(14):  # more than two passes
        if disturbed:
            torch.rand(3)
            np.random.rand(2)  # noqa: NPY002
            random.random()
            list(data)
        window.advance()
        seen.append(torch.cat([torch.as_tensor(b[0] if isinstance(b, list) else b) for b in window]).tolist())
    return seen


@pytest.mark.parametrize("make", [shuffled, with_own_generator, augmented])
def test_equal_seeds_draw_equal_batches_whatever_else_is_drawn(make: Any) -> None:
    assert drawn(make(), 7, disturbed=False) == drawn(make(), 7, disturbed=True)
    assert drawn(make(), 7, disturbed=False) != drawn(make(), 8, disturbed=False)


def test_global_generators_are_left_as_they_were() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    SuperBatch(augmented(), size=4).advance()
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def counting() -> Iterator[int]:
    yield from range(3)


def test_a_function_that_returns_an_iterator_is_data() -> None:
    assert contents(SuperBatch(counting, size=5)) == [0, 1, 2, 0, 1]


def test_a_generator_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"iterable more than once.*'generator'.*function itself"):
        SuperBatch(counting(), size=2)


def test_what_is_not_iterable_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'int'"):
        SuperBatch(3, size=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [[], lambda: iter(())])
def test_empty_data(data: Any) -> None:
    with pytest.raises(EmptyDataError, match="yielded none"):
        SuperBatch(data, size=2)


class Exhausted:
    """Iterable that yields only once in its life."""

    def __init__(self) -> None:
        self._items = iter([1, 2])

    def __iter__(self) -> Iterator[int]:
        yield from self._items


def test_data_that_cannot_be_repeated_is_noticed() -> None:
    with pytest.raises(EmptyDataError, match="pass 2 over it yielded none"):
        SuperBatch(Exhausted(), size=3)


@pytest.mark.parametrize(
    ("settings", "message"), [({"size": 0}, "at least 1"), ({"size": 1, "kind": "sliding"}, "one of moving")]
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SuperBatch([1], **settings)


def test_of_takes_exactly_what_it_is_given() -> None:
    window = SuperBatch.of(x for x in (5, 6))
    window.advance()
    assert contents(window) == [5, 6]
    with pytest.raises(EmptyDataError):
        SuperBatch.of([])
