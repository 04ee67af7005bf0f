"""Calibration in one thread while another uses Brevitas too."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from gfb_brevitas.adapters import make_searchable


def invalid() -> IntQuantTensor:
    """A quant tensor whose values are not on its grid."""
    half = torch.tensor(0.5)
    return IntQuantTensor(half, torch.tensor(1.0), torch.tensor(0.0), torch.tensor(4.0), True, False)


class Negated(nn.Module):
    """What Brevitas refuses for a quant tensor that is not valid."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = qnn.QuantIdentity(return_quant_tensor=True)

    def forward(self, x: Tensor) -> Any:
        return (-self.quant(x)).value


def test_other_threads_still_see_what_is_not_valid() -> None:
    searchable = make_searchable(Negated(), torch.randn(4, 3))
    seen: list[bool] = []

    def forward(batch: Tensor) -> None:
        searchable(batch)
        with ThreadPoolExecutor(1) as other:
            seen.append(bool(other.submit(lambda: invalid().is_valid).result()))

    searchable.calibrate([torch.randn(4, 3)], forward=forward)
    assert seen == [False]
    assert "is_valid" not in vars(IntQuantTensor)


def test_two_threads_calibrate_at_once() -> None:
    together = threading.Barrier(2, timeout=60)

    def calibrated(ends_first: bool) -> bool:
        searchable = make_searchable(Negated(), torch.randn(4, 3))

        def forward(batch: Tensor) -> None:
            together.wait()  # both have begun
            if not ends_first:
                ended.wait(60)  # the other has ended
            searchable(batch)

        searchable.calibrate([torch.randn(4, 3)], forward=forward)
        ended.set()
        return True

    ended = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(calibrated, [True, False]))
    assert "is_valid" not in vars(IntQuantTensor)
