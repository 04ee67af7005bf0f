from __future__ import annotations

import logging
from pathlib import Path

import brevitas.nn as qnn
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.floating_point import float_layers_headline, float_layers_in_words, stays_in_floats


def network(hidden: type[nn.Linear]) -> gfb.SearchableModel:
    torch.manual_seed(0)
    layers = [qnn.QuantIdentity(), hidden(4, 12), qnn.QuantReLU(), qnn.QuantLinear(12, 2, bias=False)]
    return gfb.make_searchable(nn.Sequential(*layers), torch.randn(8, 4))


def run(searchable: gfb.SearchableModel, folder: Path) -> None:
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    batches = [(images, (images[:, 0] > 0).long())]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    search = gfb.SearchConfig(rounds=1, steps_per_round=1, evaluations_per_step=8, epochs_per_round=1)
    gfb.fit(
        searchable,
        loss=loss,
        train_batches=batches,
        validation_batches=batches,
        search=search,
        budgets=gfb.paper_budgets(4),
        run_folder=folder,
    )


def test_a_run_begins_with_what_stays_in_floating_point_and_keeps_it(caplog, tmp_path: Path) -> None:
    searchable = network(nn.Linear)
    with caplog.at_level(logging.INFO, logger="gfb_brevitas"):
        run(searchable, tmp_path / "run")
    (message,) = [r for r in caplog.records if "in floating point" in r.getMessage()]
    assert message.levelno == logging.WARNING
    assert "1 layer stays in floating point: 67% of the multiply-accumulates" in message.getMessage()
    assert "it is PyTorch's Linear, not Brevitas' QuantLinear" in message.getMessage()
    recorded = gfb.RecordedRun.load(tmp_path / "run")
    assert recorded.float_layers == searchable.profile.float_layers
    (layer,) = recorded.float_layers
    assert (layer.name, layer.operands, layer.macs, layer.weights) == ("1", "weights", 48, 48)


def test_nothing_is_said_where_all_is_quantized(caplog, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO, logger="gfb_brevitas"):
        run(network(qnn.QuantLinear), tmp_path / "run")
    assert "stays in floating point" not in caplog.text
    assert gfb.RecordedRun.load(tmp_path / "run").float_layers == ()


def test_inputs_alone_are_told_apart_from_weights_and_small_shares_from_large_ones() -> None:
    def layer(operands: str, share: float, number: int = 0) -> gfb.FloatLayer:
        return gfb.FloatLayer(
            name=f"layer{number}",
            kind="Conv2d",
            operands=operands,  # type: ignore[arg-type]
            reason="a reason",
            macs=10,
            weights=0 if operands == "inputs" else 5,
            macs_share=share,
            weights_share=share,
        )

    assert not stays_in_floats([layer("inputs", 1.0)]) and not stays_in_floats([layer("weights", 0.01)])
    assert stays_in_floats([layer("both", 0.03), layer("weights", 0.03)])
    headline = float_layers_headline([layer("inputs", 0.25), layer("weights", 0.5)])
    assert headline.startswith("1 layer stays in floating point: 50% of the multiply-accumulates")
    assert headline.endswith("1 layer reads inputs in floating point: 25% of the multiply-accumulates.")
    (line,) = float_layers_in_words([layer("weights", 0.1, number) for number in range(10)])
    assert line.startswith("in floating point (a reason): layer0 (Conv2d, 10.0% of the MACs")
    assert line.endswith("and 2 more")
