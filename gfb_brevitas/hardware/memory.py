"""How many memory blocks a memory of a width and a depth takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gfb_brevitas.hardware.datatypes import FloatArray


def block_rams(
    width: ArrayLike, depth: ArrayLike, *, packed: tuple[int, int, int] = (9, 18, 36)
) -> FloatArray:
    """Block RAMs of 18 kbit in simple dual port mode.

    FINN: ``matrixvectoractivation.py`` and ``elementwise_binary.py`` (all bits of a line used), and
    ``vectorvectoractivation.py`` (``packed`` 8, 16, 32), ``bram_estimation``.

    Args:
        width: Bits per word.
        depth: Words.
        packed: Bits used of a line at 2048, 1024 and 512 lines.
    """
    w, d = np.asarray(width, dtype=np.float64), np.asarray(depth, dtype=np.float64)
    blocks: FloatArray = np.select(
        [w == 1, w == 2, w <= 4, w <= 9, (w <= 18) | (d > 512)],
        [
            np.ceil(d / 16384),
            np.ceil(d / 8192),
            np.ceil(d / 4096) * np.ceil(w / 4),
            np.ceil(d / 2048) * np.ceil(w / packed[0]),
            np.ceil(d / 1024) * np.ceil(w / packed[1]),
        ],
        np.ceil(d / 512) * np.ceil(w / packed[2]),
    )
    return blocks


def ultra_rams(width: ArrayLike, depth: ArrayLike) -> FloatArray:
    """UltraRAMs of 72 bits by 4096 words (``matrixvectoractivation.py``, ``uram_estimation``)."""
    blocks: FloatArray = np.ceil(np.asarray(width) / 72) * np.ceil(np.asarray(depth) / 4096)
    return blocks


@dataclass(frozen=True)
class MemoryPrimitive:
    """A memory block.

    Attributes:
        resource: Field of :class:`~gfb_brevitas.hardware.resources.Resources` that it counts in.
        width: Bits per word.
        depth: Words.
    """

    resource: str
    width: int
    depth: int


PRIMITIVES = (
    MemoryPrimitive("uram", 72, 4096),
    MemoryPrimitive("uram", 36, 8192),
    MemoryPrimitive("uram", 18, 16384),
    MemoryPrimitive("uram", 9, 32768),
    MemoryPrimitive("bram_18k", 36, 512),
    MemoryPrimitive("bram_18k", 18, 1024),
    MemoryPrimitive("bram_18k", 9, 2048),
    MemoryPrimitive("lut", 1, 64),
)
"""FINN's choices (``util/memutil.py``, mem_primitives_versal); it makes them for every part."""

_WIDTHS = np.array([primitive.width for primitive in PRIMITIVES], dtype=np.float64)
_DEPTHS = np.array([primitive.depth for primitive in PRIMITIVES], dtype=np.float64)


def least_waste(width: ArrayLike, depth: ArrayLike) -> dict[str, FloatArray]:
    """Blocks of the primitive that leaves the fewest bits unused; the first of equals.

    FINN: ``util/memutil.py``, get_memutil_alternatives.

    Args:
        width: Bits per word.
        depth: Words.

    Returns:
        Number of blocks per resource; all but one are zero.
    """
    w, d = np.asarray(width, dtype=np.float64)[..., None], np.asarray(depth, dtype=np.float64)[..., None]
    blocks = np.ceil(w / _WIDTHS) * np.ceil(d / _DEPTHS)
    chosen = np.argmin(blocks * (_WIDTHS * _DEPTHS) - w * d, axis=-1)
    count = np.take_along_axis(blocks, chosen[..., None], axis=-1)[..., 0]
    return {
        resource: np.where(
            np.isin(chosen, [i for i, p in enumerate(PRIMITIVES) if p.resource == resource]), count, 0.0
        )
        for resource in ("lut", "bram_18k", "uram")
    }
