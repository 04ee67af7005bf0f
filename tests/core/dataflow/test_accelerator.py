from __future__ import annotations

import numpy as np
import pytest

from gfb_brevitas.dataflow import Accelerator, Target
from gfb_brevitas.dataflow.cheapest_folding import board_share
from gfb_brevitas.dataflow.tables import CostTables
from gfb_brevitas.dataflow.units import against_foldings
from gfb_brevitas.errors import ConfigurationError

FPS = (1_000.0, 30_000.0, 300_000.0)


def accelerator(network, fps=30_000.0, **target) -> Accelerator:
    return Accelerator.of(network.profile, Target(board="Pynq-Z1", fps=fps, **target))


def random_bits(network, count=32):
    return np.random.default_rng(0).integers(2, 9, (count, len(network.profile)))


def shares(found, cost):
    return board_share(cost.resources, found.target.device)


@pytest.mark.parametrize("standalone", [False, True])
@pytest.mark.parametrize("fps", FPS)
def test_the_cheapest_folding_is_no_dearer_than_finns_at_its_frame_rate(network, fps, standalone):
    bits = random_bits(network, 8)
    theirs = accelerator(network, fps, standalone_thresholds=standalone, folding="finn")
    for row in bits:
        expected = theirs.cost(row[None])
        reached = 100e6 // expected.cycles[0]
        ours = accelerator(network, reached, standalone_thresholds=standalone)
        found = ours.cost(row[None])
        assert found.cycles[0] <= ours.target.target_cycles
        assert shares(ours, found)[0] <= shares(theirs, expected)[0] + 1e-9


def test_the_cheapest_folding_is_the_cheapest_of_all_that_are_fast_enough(network):
    found = accelerator(network)
    bits = random_bits(network, 4)
    cost = found.cost(bits)
    target = int(max(cost.cycles.max(), found.target.target_cycles))
    assert target == found.target.target_cycles  # so that the folding was chosen once
    for j, unit in enumerate(found.units):
        widths = [against_foldings(w) for w in found.graph.widths(bits, unit.positions)]
        foldings = unit.layer.node.foldings().as_list()
        block = found.target.device.dsp_block
        share = np.broadcast_to(
            board_share(unit.resources(foldings, widths, block), found.target.device),
            (len(bits), len(foldings.pe)),
        )
        fast = (unit.cycles(foldings).max(axis=-1) <= target) & unit.is_legal(foldings, widths, block)
        smallest = np.where(fast, share, np.inf).min(axis=1)
        table = cost.layer_resources[:, j] / [found.target.device.lut, 280, np.inf, 220]
        assert table.sum(axis=1) == pytest.approx(smallest, abs=1e-4)


def test_foldings_divide_what_they_fold(network):
    found = accelerator(network)
    cost = found.cost(random_bits(network))
    for position, layer in enumerate(found.graph):
        node = layer.node
        outputs = getattr(node, "outputs", None) or node.channels
        assert not (outputs % cost.pe[:, position]).any()
        if node.kind == "MVAU":
            assert not (node.inputs % cost.simd[:, position]).any()


def test_a_frame_rate_out_of_reach_gets_what_the_slowest_layer_reaches(network):
    found = accelerator(network, fps=100e6)
    bits = random_bits(network)
    cost = found.cost(bits)
    assert (cost.cycles > found.target.target_cycles).all()
    reachable = accelerator(network, fps=100e6 // cost.cycles[0])
    assert reachable.cost(bits[:1]).resources.lut[0] == cost.resources.lut[0]


def test_without_a_frame_rate_nothing_is_parallel(network):
    cost = accelerator(network, fps=None).cost(random_bits(network))
    assert (cost.pe == 1).all() and (cost.simd == 1).all()


def test_latency_is_the_longest_path(residual_network):
    found = accelerator(residual_network)
    cost = found.cost(random_bits(residual_network, 1))
    cycles = cost.layer_cycles[0]
    paths = {}
    for position, layer in enumerate(found.graph):
        paths[position] = cycles[position] + max((paths[i] for i in layer.inputs), default=0)
    assert cost.latency_cycles[0] == max(paths.values()) < cycles.sum()


def test_populations_are_priced_as_their_candidates_are(network):
    bits = random_bits(network)
    together = accelerator(network, folding="finn").cost(bits)
    for i in (0, 7, 31):
        alone = accelerator(network, folding="finn").cost(bits[i : i + 1])
        assert together.layer_resources[i].tolist() == alone.layer_resources[0].tolist()
        assert together.cycles[i] == alone.cycles[0]


def test_tables_hold_what_pricing_anew_gives(network, monkeypatch):
    bits = random_bits(network)
    expected = accelerator(network, standalone_thresholds=True).cost(bits)
    monkeypatch.setattr("gfb_brevitas.dataflow.tables.LARGEST_TABLE", 40)
    found = accelerator(network, standalone_thresholds=True).cost(bits)
    assert found.layer_resources.tolist() == expected.layer_resources.tolist()
    assert found.layer_cycles.tolist() == expected.layer_cycles.tolist()


def test_widths_outside_the_space_are_priced_too(network):
    bits = random_bits(network, 2)
    bits[0] = 12
    cost = accelerator(network).cost(bits)
    wider = accelerator(network).cost(np.full_like(bits, 8))
    assert cost.resources.bram_18k[0] >= wider.resources.bram_18k[0]
    assert cost.resources.lut[1] == accelerator(network).cost(bits[1:]).resources.lut[0]


def test_a_table_is_made_once_for_a_target(network, monkeypatch):
    made = []
    original = CostTables.__init__
    monkeypatch.setattr(CostTables, "__init__", lambda self, *a: (made.append(a), original(self, *a))[1])
    found = accelerator(network, fps=1000.0)
    for _ in range(3):
        found.cost(random_bits(network))
    assert len(made) == 1


def test_products_of_dsps_only_with_standalone_thresholds(plain_network):
    bits = np.full((1, len(plain_network.profile)), 4)
    fused, standalone = (
        accelerator(plain_network, standalone_thresholds=s).cost(bits).resources for s in (False, True)
    )
    assert standalone.dsp[0] > fused.dsp[0]
    low = accelerator(plain_network, standalone_thresholds=True).cost(np.full_like(bits, 3)).resources
    assert low.dsp[0] == 0


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"board": "Pynq-Z9"}, "Pynq-Z1"),
        ({"fps": 0}, "fps"),
        ({"fps": float("inf")}, "fps"),
        ({"clock_mhz": -1.0}, "clock_mhz"),
        ({"folding": "best"}, "cheapest"),
    ],
)
def test_settings_are_checked(changes, match):
    with pytest.raises(ConfigurationError, match=match):
        Target(**{"board": "Pynq-Z1", "fps": 1000, **changes})


def test_target_cycles_are_those_of_the_frame_rate_rounded_up():
    assert Target(board="Pynq-Z1", fps=30_000).target_cycles == 3333
    assert Target(board="Pynq-Z1", fps=29_999.5, clock_mhz=200.0).target_cycles == 6666
    assert Target(board="Pynq-Z1").target_cycles is None
