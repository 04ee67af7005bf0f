from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import gfb_brevitas as gfb
from gfb_brevitas.errors import ConfigurationError
from gfb_integrations.finn import FinnCheckError, FinnProcess, check, make_searchable, mend, verify
from gfb_integrations.qonnx import export_qonnx
from tests.integrations.finn.patterns import (
    BUILDS,
    FAILS,
    Branches,
    Pattern,
    entry,
    plain,
    relu,
    trained,
    trunc_pool,
)


@pytest.mark.parametrize("name", ["residual", "depthwise", "truncated average"])
def test_allocations_drawn_from_the_space_build_and_compute_the_same(
    name: str, finn: FinnProcess, tmp_path: Path
) -> None:
    model, x = trained(BUILDS[name])
    searchable = make_searchable(model, x[:1])
    searchable.calibrate([x])
    rng = np.random.default_rng(0)
    for _ in range(2):
        vector = rng.uniform(searchable.space.lower, searchable.space.upper)
        allocation = searchable.space.allocation(searchable.space.decode(vector[None])[0])
        frozen = searchable.freeze(allocation)
        export_qonnx(frozen, x[:1], tmp_path / "model.onnx")
        found = verify(tmp_path / "model.onnx", x, model=frozen, process=finn)
        assert found.exact, (allocation, found.stages)


def test_the_widths_are_what_finn_builds() -> None:
    model, x = trained(BUILDS["residual"])
    space = make_searchable(model, x[:1]).space
    assert {(c.min_bits, c.max_bits) for c in space.coordinates} == {(2, 8)}
    narrow = make_searchable(model, x[:1], bits=(3, 6), rules=[gfb.Fix("entry.0.*", 8)]).space
    assert {(c.min_bits, c.max_bits) for c in narrow.coordinates} == {(3, 6), (8, 8)}


def test_widths_in_front_of_averages_are_those_whose_averages_come_out_right(
    finn: FinnProcess, tmp_path: Path
) -> None:
    model, x = trained(Pattern(lambda: plain(pool=trunc_pool("FLOOR", 3, 4))))
    searchable = make_searchable(model, x[:1])
    ranges = {c.name: (c.min_bits, c.max_bits) for c in searchable.space.coordinates}
    assert ranges["3.act_quant"] == (4, 8)  # of the sum of nine 3-bit values FINN drops too few bits
    assert ranges["0.act_quant"] == (2, 8)
    searchable.calibrate([x])
    for bits in ranges["3.act_quant"]:
        frozen = searchable.freeze({**searchable.allocation, "3.act_quant": bits})
        export_qonnx(frozen, x[:1], tmp_path / "model.onnx")
        assert verify(tmp_path / "model.onnx", x, model=frozen, process=finn).exact
    with pytest.raises(ConfigurationError, match=r"averages of '3.act_quant' .* at 2, 3 bits"):
        make_searchable(model, x[:1], rules=[gfb.Range("3.*", 2, 8)])


def test_widths_that_finn_does_not_build_are_refused() -> None:
    model, x = trained(BUILDS["plain"])
    with pytest.raises(ConfigurationError, match=r"from 2 to 8 bits; '0.act_quant' may have 1 to 8"):
        make_searchable(model, x[:1], bits=(1, 8))
    with pytest.raises(ConfigurationError, match="may have 10 to 10"):
        make_searchable(model, x[:1], rules=[gfb.Fix("1.*", 10)], bits=(2, 8))


def test_a_model_that_does_not_build_is_refused_with_advice() -> None:
    model, x = trained(FAILS["rounded average"])
    with pytest.raises(FinnCheckError, match="FLOOR"):
        make_searchable(model, x[:1])


def test_an_input_quantizer_is_put_in_front() -> None:
    model, x = trained(FAILS["no input quantizer"])
    mended = mend(model, x[:1], ["input quantizer"])
    assert check(mended.model, x[:1]).builds
    assert mended.changes == ("A QuantIdentity of 8 bits was put in front of the model.",)
    assert not check(model, x[:1]).builds


def test_branches_get_one_quantizer() -> None:
    model, x = trained(FAILS["branches of two quantizers"])
    mended = mend(model, x[:1], ["shared quantizer"])
    assert check(mended.model, x[:1]).builds
    assert mended.changes == ("other is one now: one quantizer for the addition 'add'.",)
    assert mended.model(x).shape == (8, 5)


def test_branches_of_other_layers_are_left() -> None:
    model = Branches(entry(4), relu(4), relu(4))
    x = torch.rand(2, 3, 8, 8)
    mended = mend(model, x, ["shared quantizer"])
    assert mended.changes == ()
    assert [f.rule for f in check(mended.model, x).findings] == ["shared quantizer"]


def test_truncation_becomes_floor(finn: FinnProcess, tmp_path: Path) -> None:
    model, x = trained(FAILS["rounded average"])
    mended = mend(model, x[:1], ["truncation"])
    assert mended.changes == ("4 truncates by FLOOR.",)
    mended.model.eval()
    export_qonnx(mended.model, x[:1], tmp_path / "model.onnx")
    assert verify(tmp_path / "model.onnx", x, model=mended.model, process=finn).exact


def test_only_what_is_asked_for_is_mended() -> None:
    model, x = trained(FAILS["rounded average"])
    assert mend(model, x[:1], []).changes == ()
    with pytest.raises(ConfigurationError, match="'zero point'"):
        mend(model, x[:1], ["zero point"])  # type: ignore[list-item]
