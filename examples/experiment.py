"""What the examples share: search a classifier, train uniform widths as long, compare, export, verify."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gfb_brevitas as gfb
from gfb_brevitas.quantities import quantity, with_unit
from gfb_brevitas.report import Contender, TerminalProgress, comparison_table, verdict
from gfb_brevitas.search.run_folder import add_to_summary
from gfb_brevitas.terminal import plain_console
from gfb_integrations.qonnx import export_qonnx, require_export
from gfb_integrations.report import require_report, write_report

Samples = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images and labels. Everything is chosen on ``validation``; ``test`` is only reported."""

    train: Samples
    validation: Samples
    test: Samples

    def loader(self, batch_size: int) -> DataLoader[Any]:
        """Shuffled training minibatches."""
        return DataLoader(TensorDataset(*self.train), batch_size=batch_size, shuffle=True, drop_last=True)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A classifier, its data and how it is searched and trained.

    Attributes:
        make_model: Makes the Brevitas model.
        data: The data.
        search: Settings of the search.
        training: Settings of the training.
        batch_size: Samples per minibatch.
        rho: Penalty weight of both budgets; ``None`` takes the paper's.
        clipping: How clipping values depend on the width.
        rules: Ranges, fixed widths and ties.
    """

    make_model: Callable[[], nn.Module]
    data: Data
    search: gfb.SearchConfig
    training: gfb.TrainingConfig
    batch_size: int
    rho: float | None = None
    clipping: Any = "linear"
    rules: tuple[Any, ...] = ()

    def searchable(self) -> gfb.SearchableModel:
        """A new searchable model; its weights follow from the seed."""
        torch.manual_seed(self.search.seed)
        example = self.data.train[0][:2]
        return gfb.make_searchable(self.make_model(), example, clipping=self.clipping, rules=self.rules)

    def fit(
        self,
        budget_bits: int,
        *,
        uniform_bits: int | None = None,
        fixed: Mapping[str, int] | None = None,
        progress: str = "",
        run_folder: Path | None = None,
    ) -> tuple[gfb.SearchResult, Contender]:
        """Search under the budgets of uniform ``budget_bits``, or train a fixed allocation as long.

        Args:
            budget_bits: The budgets are those of uniform widths of so many bits.
            uniform_bits: Uniform widths to train without a search.
            fixed: Widths other than these, by quantizer name.
            progress: What to call the run on the screen; nothing is shown without.
            run_folder: Where the run is kept, if anywhere; one that was stopped goes on.
        """
        model = self.searchable()
        is_searched = uniform_bits is None
        allocation = None if uniform_bits is None else {**model.space.uniform(uniform_bits), **(fixed or {})}
        bar = TerminalProgress(progress) if progress else None
        began = time.perf_counter()
        try:
            result = gfb.fit(
                model,
                loss=cross_entropy,
                train_batches=self.data.loader(self.batch_size),
                budgets=gfb.paper_budgets(budget_bits, rho=self.rho),
                metric=lambda candidate: accuracy(candidate, self.data.validation),
                search=self.search,
                training=self.training,
                allocation=allocation,
                run_folder=run_folder,
                resume=run_folder is not None,
                callbacks=[] if bar is None else [bar],
            )
        finally:
            if bar is not None:
                bar.close()
        row = Contender.of(
            f"searched, budget {budget_bits}" if is_searched else f"uniform {uniform_bits}",
            model.space,
            result.allocation,
            accuracy=accuracy(result.model, self.data.test),
            costs=result.costs,
            searched=is_searched,
            epochs=self.search.epochs,
            seconds=result.seconds if run_folder is not None else time.perf_counter() - began,
        )
        return result, row

    def fit_uniform(
        self,
        bits: int,
        *,
        budget_bits: int | None = None,
        fixed: Mapping[str, int] | None = None,
        progress: str = "",
    ) -> tuple[gfb.SearchResult, Contender]:
        """The stronger of two trainings at uniform widths, by validation accuracy.

        Both take as many epochs as a search: one at the uniform widths throughout, one that begins at
        the widths of the search's pretraining. Use is of the budgets of ``budget_bits`` (default: ``bits``).
        """
        direct = replace(self, search=replace(self.search, pretrain_bits=None))
        budget_bits = budget_bits or bits
        tries = [direct.fit(budget_bits, uniform_bits=bits, fixed=fixed, progress=progress)]
        if self.search.pretrain_bits is not None and self.search.pretrain_epochs:
            other = f"{progress} from {self.search.pretrain_bits}" if progress else ""
            tries.append(self.fit(budget_bits, uniform_bits=bits, fixed=fixed, progress=other))
        return max(tries, key=lambda result_and_row: result_and_row[0].metric)


def cross_entropy(model: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    """The loss of a minibatch of images and labels."""
    images, labels = batch
    return F.cross_entropy(model(images), labels)


@torch.no_grad()
def accuracy(model: nn.Module, samples: Samples) -> float:
    """Share of samples classified right, in evaluation mode."""
    model.eval()
    images, labels = samples
    right = sum(
        int((model(i).argmax(1) == c).sum())
        for i, c in zip(images.split(512), labels.split(512), strict=True)
    )
    return right / len(labels)


def compare(
    experiment: Experiment,
    budget_bits: int,
    run_folder: Path,
    *,
    others: Sequence[int] = (),
    verify_samples: int = 256,
    title: str,
) -> dict[str, Any]:
    """The whole story: search, uniform widths, table, QONNX file, ``summary.json``.

    Args:
        experiment: What to search.
        budget_bits: The budgets are those of uniform widths of so many bits.
        run_folder: Where everything is written; a run that was stopped goes on.
        others: Further uniform widths to train for the table.
        verify_samples: Test samples that the QONNX file is verified on.
        title: Title of the table.
    """
    require_export()
    require_report()
    console = plain_console()
    result, searched = experiment.fit(budget_bits, progress="search", run_folder=run_folder)
    began = time.perf_counter()
    rows = []
    for bits in sorted({budget_bits, *others}):
        _, row = experiment.fit_uniform(bits, budget_bits=budget_bits, progress=f"uniform {bits}")
        rows.append(row)
    uniform = next(row for row in rows if row.name == f"uniform {budget_bits}")
    console.print(comparison_table([*rows, searched], title))
    console.print("\n".join(verdict([*rows, searched])), markup=False)
    summary = {
        "accuracy": searched.accuracy,
        "uniform_accuracy": uniform.accuracy,
        "weight_bits_ratio": searched.weight_bits / uniform.weight_bits,
        "mean_activation_bits": searched.mean_activation_bits,
        "feasible": all(use.feasible for use in result.costs),
        "comparison": [row.to_dict() for row in (*rows, searched)],
    }
    add_to_summary(run_folder, summary)
    images = experiment.data.test[0]
    report = export_qonnx(
        result.model, images[:1], run_folder / "model.qonnx.onnx", verify_on=images[:verify_samples]
    )
    proof = report.verification
    assert proof is not None
    for use in result.costs:
        value, limit = quantity(use.value), with_unit(use.limit, use.unit)
        console.print(f"{use.name}: {value} of at most {limit} ({use.use:.1%})")
    console.print(
        f"{report.path}: {proof.samples} samples, largest difference to PyTorch {proof.max_abs_diff:.3g}, "
        f"same class for {proof.argmax_agreement:.1%}",
        soft_wrap=True,  # paths are whole, to be copied
    )
    summary |= {
        "qonnx_max_abs_diff": proof.max_abs_diff,
        "qonnx_argmax_agreement": proof.argmax_agreement,
        "qonnx": report.to_dict(),
        "seconds": result.seconds + time.perf_counter() - began,
    }
    add_to_summary(run_folder, summary)
    console.print(f"allocation, checkpoints, history and summary: {run_folder}", soft_wrap=True)
    explained = write_report(run_folder)
    console.print(f"all of it explained, to be opened in a browser: {explained}", soft_wrap=True)
    return summary
