"""What holds for every kind of node."""

from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.hardware import (
    DataTypes,
    Folding,
    HardwareNode,
    MatrixVector,
    SlidingWindow,
    Thresholding,
    VectorVector,
    Widths,
)
from gfb_brevitas.hardware.boards import DspBlock
from tests.core.hardware.node_kinds import NODES, member, random_widths

every_node = pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
BLOCKS: tuple[DspBlock, ...] = ("DSP48E1", "DSP48E2", "DSP58")


@every_node
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_population_costs_what_its_members_cost_alone(
    block: DspBlock, node: HardwareNode, seed: int
) -> None:
    widths = random_widths(5, seed)
    foldings = node.foldings()
    chosen = foldings.as_list()[np.random.default_rng(seed).integers(0, foldings.as_list().pe.size, 5)]
    together = np.broadcast_to(node.resources(chosen, widths, block).table(), (5, 4))
    for i in range(5):
        alone = node.resources(chosen[np.array(i)], member(widths, i), block).table()
        np.testing.assert_array_equal(together[i], alone)
        assert np.broadcast_to(node.cycles(chosen), (5,))[i] == node.cycles(chosen[np.array(i)])


@every_node
def test_candidates_broadcast_against_foldings(node: HardwareNode) -> None:
    foldings = node.foldings().as_list()
    widths = random_widths(1, 0)
    grid = node.resources(foldings, widths, "DSP48E1").table()
    single = [
        node.resources(foldings[np.array([i])], widths, "DSP48E1").table() for i in range(foldings.pe.size)
    ]
    np.testing.assert_array_equal(
        np.broadcast_to(grid, (foldings.pe.size, 4)),
        np.concatenate([np.broadcast_to(one, (1, 4)) for one in single]),
    )


@every_node
def test_no_folding_is_slower_than_none(node: HardwareNode) -> None:
    foldings = node.foldings()
    cycles = node.cycles(foldings)
    assert cycles.max() == node.cycles(Folding())
    # Each takes a whole number of cycles: parallelism divides the work.
    np.testing.assert_array_equal(cycles, np.round(cycles))


def test_all_divisors_are_foldings() -> None:
    folding = MatrixVector(inputs=6, outputs=4).foldings()
    pairs = sorted(zip(folding.pe.tolist(), folding.simd.tolist(), strict=True))
    assert pairs == [(pe, simd) for pe in (1, 2, 4) for simd in (1, 2, 3, 6)]
    depthwise = VectorVector(channels=4, window=9, vectors=1).foldings()
    assert list(zip(depthwise.pe.tolist(), depthwise.simd.tolist(), strict=True)) == [
        (1, 1),
        (2, 1),
        (4, 1),
        (4, 3),
        (4, 9),
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: MatrixVector(inputs=0, outputs=1),
        lambda: MatrixVector(inputs=1, outputs=2.5),  # type: ignore[arg-type]
        lambda: VectorVector(channels=1, window=True, vectors=1),
        lambda: Thresholding(channels=-3),
        lambda: SlidingWindow(channels=1, kernel=(3, 3), image=(2, 8)),
        lambda: SlidingWindow(channels=1, kernel=(3, 3), image=(5, 4), dilation=(1, 2)),
        lambda: SlidingWindow(channels=1, kernel=(1, 1), image=(5, 4), stride=(5, 5)),
        lambda: Folding(pe=np.array([1, 0])),
    ],
)
def test_impossible_shapes_are_refused(make) -> None:
    with pytest.raises(ConfigurationError, match="got"):
        make()


@pytest.mark.parametrize(
    "node, widths",
    [
        (MatrixVector(inputs=4, outputs=4), Widths(inputs=DataTypes.unsigned(4))),
        (MatrixVector(inputs=4, outputs=4), Widths(weights=DataTypes.signed(4))),
        (Thresholding(channels=4), Widths(outputs=DataTypes.unsigned(4))),
        (Thresholding(channels=4), Widths(threshold_bits=np.array(4))),
        (SlidingWindow(channels=4, kernel=(3, 3), image=(8, 8)), Widths()),
    ],
)
def test_a_width_that_is_missing_is_named(node: HardwareNode, widths: Widths) -> None:
    with pytest.raises(ConfigurationError, match=r"give (it in Widths|`threshold_bits`)"):
        node.resources(Folding(), widths, "DSP48E1")


def test_an_hls_unit_has_limits_that_an_rtl_unit_has_not() -> None:
    node = MatrixVector(inputs=2048, outputs=64)
    narrow = Widths(inputs=DataTypes.unsigned(2), weights=DataTypes.signed(8, narrow=True))
    wide = Widths(inputs=DataTypes.unsigned(8), weights=DataTypes.signed(8, narrow=True))
    folding = Folding(pe=np.array([1, 1, 64, 64]), simd=np.array([1, 2, 8, 16]))
    assert node.is_legal(folding, narrow, "DSP48E1").tolist() == [False, True, True, False]
    assert node.is_legal(folding, wide, "DSP48E1").all()
