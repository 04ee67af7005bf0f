"""A network on an FPGA: the most accurate bit widths that a board has room for at a frame rate.

    gfb run examples/fpga                                    # scikit-learn's handwritten digits
    gfb run examples/fpga --data data/fashion_mnist          # Fashion-MNIST, downloaded if it is not there
    gfb run examples/fpga --board ZCU104 --fps 100000 --utilisation 0.05

A small convolutional network is checked, searched under the board's resources, compared with uniform widths
that were trained as long, exported, and, where FINN is installed (gfb finn install), estimated by FINN and
executed after every stage of its flow. A picture shows accuracy against LUTs and the bits of every layer; a
report, what each layer takes of the board, and FINN's estimate and proof.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import matplotlib as mpl
import numpy as np
import torch
from digits import digits_data
from experiment import Data, accuracy, cross_entropy
from fashion_mnist import fashion_data
from rich.table import Table
from torch import nn

import gfb_brevitas as gfb
from gfb_brevitas.dataflow import Accelerator, Target
from gfb_brevitas.errors import MissingExtraError
from gfb_brevitas.files import replacing, write_text_atomically
from gfb_brevitas.report import TerminalProgress
from gfb_brevitas.search.run_folder import add_to_summary
from gfb_brevitas.terminal import plain_console
from gfb_integrations.finn import (
    FinnProcess,
    check,
    estimate,
    estimate_run,
    make_searchable,
    verify_run,
)
from gfb_integrations.qonnx import export_qonnx, require_export
from gfb_integrations.report import require_report, write_report


def enlarged_digits() -> Data:
    """The 8x8 images of scikit-learn's digits, every pixel three times as wide and high."""
    data = digits_data()
    parts = (data.train, data.validation, data.test)
    large = [
        (images.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3), labels) for images, labels in parts
    ]
    return Data(train=large[0], validation=large[1], test=large[2])


def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A convolution, BatchNorm and ReLU."""
    return [
        qnn.QuantConv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        qnn.QuantReLU(return_quant_tensor=True),
    ]


def fpga_model() -> nn.Module:
    """Four convolutions and a linear layer; images of 24x24 or 28x28."""
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        *block(1, 8, 2),
        *block(8, 16, 2),
        *block(16, 32, 1),
        nn.MaxPool2d(2),
        *block(32, 32, 1),
        nn.MaxPool2d(3),
        nn.Flatten(),
        qnn.QuantLinear(32, 10, bias=True),
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A trained allocation.

    Attributes:
        name: What it is.
        validation: Accuracy on validation data, which everything is chosen by.
        test: Accuracy on test data.
        lut: Look-up tables.
        bram_18k: Block RAMs.
        dsp: DSP slices.
        fps: Samples per second.
        feasible: Whether it keeps the budgets.
        allocation: The widths.
    """

    name: str
    validation: float
    test: float
    lut: float
    bram_18k: float
    dsp: float
    fps: float
    feasible: bool
    allocation: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class FpgaStory:
    """A search and the trainings that it is compared with.

    Attributes:
        data: The images.
        target: Board, frame rate and clock.
        utilisation: Share of the board that may be used.
        search: Settings of the search.
        training: Settings of the training.
    """

    data: Data
    target: Target
    utilisation: float
    search: gfb.SearchConfig
    training: gfb.TrainingConfig

    @property
    def budgets(self) -> tuple[gfb.Budget, ...]:
        """What the board has room for."""
        return gfb.dataflow.board_budgets(self.target, utilisation=self.utilisation)

    def fit(
        self, bits: int | None = None, run_folder: Path | None = None
    ) -> tuple[gfb.SearchResult, Outcome]:
        """Search, or train uniform widths of ``bits`` for as many epochs."""
        torch.manual_seed(self.search.seed)
        model = make_searchable(fpga_model(), self.data.train[0][:2])
        bar = TerminalProgress("search" if bits is None else f"uniform {bits}")
        try:
            result = gfb.fit(
                model,
                loss=cross_entropy,
                train_batches=self.data.loader(128),
                budgets=self.budgets if bits is None else (),
                metric=lambda candidate: accuracy(candidate, self.data.validation),
                search=self.search,
                training=self.training,
                allocation=None if bits is None else model.space.uniform(bits),
                run_folder=run_folder,
                resume=run_folder is not None,
                callbacks=[bar],
            )
        finally:
            bar.close()
        accelerator = Accelerator.of(model.profile, self.target)
        widths = model.space.bits(result.allocation)[None]
        cost = accelerator.cost(widths)
        outcome = Outcome(
            name="searched" if bits is None else f"uniform {bits}",
            validation=result.metric,
            test=accuracy(result.model, self.data.test),
            lut=float(cost.resources.lut[0]),
            bram_18k=float(cost.resources.bram_18k[0]),
            dsp=float(cost.resources.dsp[0]),
            fps=self.target.clock_mhz * 1e6 / float(cost.cycles[0]),
            feasible=bool(gfb.Constraints(model.space, self.budgets).feasible(widths)[0]),
            allocation=dict(result.allocation),
        )
        return result, outcome


def best_that_fits(outcomes: list[Outcome]) -> Outcome | None:
    """The uniform allocation of the best validation accuracy among those that keep the budgets."""
    fitting = [o for o in outcomes if o.feasible and o.name != "searched"]
    return max(fitting, key=lambda o: o.validation, default=None)


def table(outcomes: list[Outcome], story: FpgaStory) -> Table:
    """Accuracy and resources."""
    limit = {budget.name: budget.limit for budget in story.budgets}
    room = f"{limit['lut']:,.0f} LUTs, {limit['bram_18k']:,.0f} BRAM18s, {limit['dsp']:,.0f} DSPs"
    title = f"{story.target.board}, {story.target.fps:g} samples/s, {story.utilisation:.0%}: {room}"
    result = Table(title=title)
    for heading in ("", "test accuracy", "LUT", "BRAM18", "DSP", "samples/s", "fits"):
        result.add_column(heading, justify="left" if not heading else "right")
    for o in outcomes:
        numbers = (f"{o.test:.2%}", f"{o.lut:,.0f}", f"{o.bram_18k:,.0f}", f"{o.dsp:,.0f}", f"{o.fps:,.0f}")
        result.add_row(o.name, *numbers, "yes" if o.feasible else "no")
    return result


def picture(outcomes: list[Outcome], story: FpgaStory, path: Path) -> None:
    """Accuracy against LUTs, and the widths of the search, as a PNG file."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    searched = next(o for o in outcomes if o.name == "searched")
    uniform = sorted((o for o in outcomes if o.name != "searched"), key=lambda o: o.lut)
    limit = next(budget.limit for budget in story.budgets if budget.name == "lut")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    left.plot([o.lut for o in uniform], [100 * o.test for o in uniform], "o--", color="0.45", label="uniform")
    for o in uniform:
        left.annotate(o.name.removeprefix("uniform "), (o.lut, 100 * o.test), xytext=(5, -12),
                      textcoords="offset points", color="0.3")  # fmt: skip
    left.plot(searched.lut, 100 * searched.test, "*", markersize=16, color="tab:blue", label="searched")
    left.axvline(limit, color="tab:red", linestyle=":", label="budget")
    left.set(
        xlabel="LUTs",
        ylabel="test accuracy in %",
        title=f"{story.target.board} at {story.target.fps:,.0f} samples/s",
    )
    left.legend()
    names, bits = list(searched.allocation), list(searched.allocation.values())
    colours = ["tab:blue" if "weight" in name else "tab:orange" for name in names]
    hatches = ["" if "weight" in name else "//" for name in names]
    bars = right.bar(np.arange(len(names)), bits, color=colours, hatch=hatches, edgecolor="white")
    right.bar_label(bars)
    right.set_xticks(np.arange(len(names)), [n.replace("_quant", "") for n in names], rotation=60, ha="right")
    right.margins(y=0.12)
    right.set(ylabel="bits", title="searched widths: weights plain, activations hatched")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def prove(result: gfb.SearchResult, story: FpgaStory, folder: Path) -> dict[str, Any]:
    """Export, and where FINN is installed, its estimate at our folding and its execution of every stage.

    Both are kept in the run's folder, for the report.
    """
    images = story.data.test[0]
    path = folder / "model.qonnx.onnx"
    report = export_qonnx(result.model, images[:1], path, verify_on=images[:64])
    assert report.verification is not None
    add_to_summary(folder, {"qonnx": report.to_dict()})
    found: dict[str, Any] = {"export_max_abs_diff": report.verification.max_abs_diff}
    settings: Mapping[str, Any] = {
        "board": story.target.board,
        "clock_mhz": story.target.clock_mhz,
        "standalone_thresholds": story.target.standalone_thresholds,
    }
    try:
        process = FinnProcess()
    except MissingExtraError as error:
        return {**found, "finn": str(error)}
    with process:
        ours = estimate_run(folder, process=process)
        automatic = estimate(path, **settings, fps=story.target.fps, process=process)
        proof = verify_run(folder, images[:16], model=result.model, process=process)
    return {
        **found,
        "finn": ", ".join(f"{name} {version}" for name, version in ours.versions.items()),
        "finn_lut": ours.total("lut"),
        "finn_bram_18k": ours.total("bram_18k"),
        "finn_dsp": ours.total("dsp"),
        "finn_fps": ours.fps,
        "finn_own_folding_lut": automatic.total("lut"),
        "finn_own_folding_fps": automatic.fps,
        "finn_exact": proof.exact,
        "finn_largest_difference_in_steps": {stage.stage: stage.max_diff_steps for stage in proof.stages},
    }


def fpga_story(
    data: Data, target: Target, utilisation: float, seed: int, *, quick: bool = False
) -> FpgaStory:
    """The settings of the example and of its benchmark."""
    return FpgaStory(
        data=data,
        target=target,
        utilisation=utilisation,
        search=gfb.SearchConfig(
            pretrain_epochs=1 if quick else 5,
            pretrain_bits=4,
            rounds=1 if quick else 2,
            steps_per_round=1,
            evaluations_per_step=24 if quick else 128,
            epochs_per_round=1 if quick else 5,
            super_batch_size=2,
            seed=seed,
        ),
        training=gfb.TrainingConfig(optimizer="adam", learning_rate=2e-3, weight_decay=1e-4),
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="fpga", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST; digits without")
    parser.add_argument("--run-folder", type=Path, default=Path("runs/fpga"))
    parser.add_argument("--board", default="Pynq-Z1")
    parser.add_argument("--fps", type=float, default=30_000)
    parser.add_argument("--clock-mhz", type=float, default=100.0)
    parser.add_argument("--utilisation", type=float, default=0.15, help="share of the board that may be used")
    parser.add_argument("--standalone-thresholds", action="store_true", help="use DSPs from 4 bits on")
    parser.add_argument("--train-samples", type=int, default=6_000, help="at most 56,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few epochs on little data only")
    options = parser.parse_args(arguments)
    require_export()
    require_report()
    target = Target(
        board=options.board,
        fps=options.fps,
        clock_mhz=options.clock_mhz,
        standalone_thresholds=options.standalone_thresholds,
    )
    samples = 1_000 if options.quick else min(options.train_samples, 56_000)
    if options.data is None:
        data = enlarged_digits()
    else:
        data = fashion_data(options.data, samples, 1_000 if options.quick else 10_000)
    story = fpga_story(data, target, options.utilisation, options.seed, quick=options.quick)
    check(fpga_model(), data.train[0][:2]).require()

    result, searched = story.fit(run_folder=options.run_folder)
    outcomes = [story.fit(bits)[1] for bits in ((3,) if options.quick else (2, 3, 4, 5, 6))] + [searched]
    console = plain_console()
    console.print(table(outcomes, story))
    picture(outcomes, story, options.run_folder / "fpga.png")
    add_to_summary(options.run_folder, {"accuracy": searched.test})
    proof = prove(result, story, options.run_folder)
    best = best_that_fits(outcomes)
    summary = {
        "outcomes": [asdict(o) for o in outcomes],
        "best_uniform": None if best is None else best.name,
        "gain_points": None if best is None else 100 * (searched.test - best.test),
        **proof,
    }
    write_text_atomically(options.run_folder / "fpga.json", json.dumps(summary, indent=2))
    for name, value in summary.items():
        if name != "outcomes":
            console.print(f"{name.replace('_', ' ')}: {_in_words(value)}", highlight=False)
    files = f"{options.run_folder / 'fpga.png'}, fpga.json, model.qonnx.onnx, folding.json"
    console.print(files, soft_wrap=True)
    explained = write_report(options.run_folder)
    console.print(f"all of it explained, to be opened in a browser: {explained}", soft_wrap=True)


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


if __name__ == "__main__":
    main()
