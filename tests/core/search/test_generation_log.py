from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.search.generation_log import GenerationLog

BITS = np.array([[1, 2], [3, 4]])
LOSSES = np.array([0.1 + 0.2, np.nan])
COSTS = np.array([[10.0], [14.0]])


def test_losses_come_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    GenerationLog(path, {"state": "a"}).append(1, BITS, LOSSES, COSTS)
    log = GenerationLog(path, {"state": "a"})
    known = log.known(1, BITS)
    assert known is not None
    np.testing.assert_array_equal(known, LOSSES)
    assert log.known(2, BITS) is None
    candidates = log.candidates(1)
    assert candidates is not None and log.candidates(2) is None
    np.testing.assert_array_equal(candidates, BITS)


def test_a_torn_line_is_evaluated_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = GenerationLog(path, {"state": "a"})
    log.append(1, BITS, LOSSES, COSTS)
    log.append(2, BITS, LOSSES, COSTS)
    path.write_bytes(path.read_bytes()[:-7])
    log = GenerationLog(path, {"state": "a"})
    assert log.known(1, BITS) is not None
    assert log.known(2, BITS) is None
    log.append(2, BITS, LOSSES, COSTS)
    assert GenerationLog(path, {"state": "a"}).known(2, BITS) is not None


def test_other_candidates_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    GenerationLog(path, {"state": "a"}).append(1, BITS, LOSSES, COSTS)
    with pytest.raises(CheckpointError, match=r"Generation 1 in '.*log\.jsonl' holds other candidates"):
        GenerationLog(path, {"state": "a"}).known(1, BITS + 1)


def test_a_log_of_other_weights_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    GenerationLog(path, {"state": "a"}).append(1, BITS, LOSSES, COSTS)
    assert GenerationLog(path, {"state": "b"}).known(1, BITS) is None
    assert GenerationLog(path, {"state": "a"}).known(1, BITS) is None
