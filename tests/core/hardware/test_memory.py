"""Memory blocks hold what is asked of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.hardware.memory import PRIMITIVES, block_rams, least_waste, ultra_rams

WIDTHS, DEPTHS = st.integers(1, 600), st.integers(1, 40_000)


@given(width=WIDTHS, depth=DEPTHS)
def test_block_rams_hold_all_bits(width, depth):
    assert block_rams(width, depth) * 18 * 1024 >= width * depth
    assert ultra_rams(width, depth) * 72 * 4096 >= width * depth


@given(width=WIDTHS, depth=DEPTHS)
def test_the_memory_of_least_waste(width, depth):
    found = least_waste(width, depth)
    used = {name: int(count) for name, count in found.items() if count}
    ((resource, count),) = used.items()
    waste = {
        (p.resource, blocks): blocks * p.width * p.depth - width * depth
        for p in PRIMITIVES
        for blocks in [-(-width // p.width) * -(-depth // p.depth)]
    }
    assert waste[resource, count] == min(waste.values()) >= 0


@pytest.mark.parametrize(
    "width, depth, blocks",
    [(1, 16384, 1), (1, 16385, 2), (4, 4096, 1), (9, 2048, 1), (36, 512, 1), (36, 513, 2), (37, 512, 2)],
)
def test_block_rams_of_known_memories(width, depth, blocks):
    assert block_rams(width, depth) == blocks


def test_memories_are_vectorised():
    widths, depths = np.meshgrid([1, 5, 40], [10, 600, 5000])
    np.testing.assert_array_equal(
        block_rams(widths, depths),
        [
            [float(block_rams(w, d)) for w, d in zip(*row, strict=True)]
            for row in zip(widths, depths, strict=True)
        ],
    )
