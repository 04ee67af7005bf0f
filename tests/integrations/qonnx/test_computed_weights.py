"""Weights that a parametrization, pruning or a hook computes are exported as the values they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gfb_brevitas as gfb
from gfb_integrations.onnxruntime import export_qcdq
from gfb_integrations.qonnx import export_qonnx
from tests.core.adapters.test_copying import CHANGES, X, network, values


@pytest.mark.parametrize("name", CHANGES)
def test_computed_weights_are_exported_and_proven(name: str, tmp_path: Path) -> None:
    searchable = gfb.make_searchable(network(CHANGES[name]), X)
    searchable.calibrate([X])
    frozen: Any = searchable.freeze().eval()
    before, keys = values(frozen(X)), list(frozen.state_dict())
    for export in (export_qonnx, export_qcdq):
        report = export(frozen, X[:1], tmp_path / "model.onnx", verify_on=X)
        assert report.verification is not None
        assert report.verification.max_abs_diff < 1e-6
    assert list(frozen.state_dict()) == keys
    assert bool((values(frozen(X)) == before).all())
