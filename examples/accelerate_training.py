"""Your own training epoch with Hugging Face Accelerate, on handwritten digits.

    gfb run examples/accelerate_training

The search is that of examples/digits; every epoch is trained by the class below. It runs on the device that
Accelerate chooses, and in several processes started by `accelerate launch`. A run that was stopped goes on
when the command is used again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from digits import digits_experiment
from experiment import accuracy, cross_entropy

import gfb_brevitas as gfb
from gfb_brevitas.distributed import is_first_process
from gfb_brevitas.report import TerminalProgress, summary_tables
from gfb_brevitas.terminal import plain_console

try:
    from accelerate import Accelerator
except ImportError as error:
    raise gfb.MissingExtraError(
        f"This example needs the package 'accelerate' ({error}). "
        "Install it with: pip install 'accelerate>=1.0'"
    ) from error


class AccelerateTraining:
    """One epoch as an Accelerate user writes it; `gfb.fit` calls it between the steps of the search.

    Args:
        accelerator: Knows devices, processes and precision.
        model: The searchable model.
        epochs: Epochs of the whole run.
    """

    def __init__(self, accelerator: Accelerator, model: gfb.SearchableModel, epochs: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        self.accelerator = accelerator
        self.model, self.optimizer = accelerator.prepare(model, optimizer)

    def run_epoch(self, model: gfb.SearchableModel, epoch: gfb.TrainingEpoch) -> gfb.EpochOutcome:
        """Train on this process's batches; the mean loss is that of all processes."""
        rate, losses = self.optimizer.param_groups[0]["lr"], []
        for batch in epoch.batches:
            self.optimizer.zero_grad()
            loss = epoch.loss(self.model, batch)  # the prepared model, which shares gradients
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimizer.step()
            losses.append(loss.detach())
        self.scheduler.step()
        mean = self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean")
        return gfb.EpochOutcome(train_loss=mean.item(), learning_rate=rate)

    def state_dict(self) -> dict[str, Any]:
        """What the next epoch needs of this one; kept in the run's checkpoints."""
        return {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="accelerate_training", description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("runs/accelerate_training"))
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    options = parser.parse_args(arguments)
    experiment = digits_experiment(quick=options.quick)
    accelerator = Accelerator()
    searchable = experiment.searchable()
    batches = experiment.data.loader(experiment.batch_size)
    result = gfb.fit(
        searchable,
        loss=cross_entropy,
        train_batches=accelerator.prepare(batches),  # every process trains on its part of these
        search_batches=batches,  # candidates are evaluated on whole batches
        calibration_batches=batches,
        budgets=gfb.paper_budgets(2),
        metric=lambda model: accuracy(model, experiment.data.validation),
        search=experiment.search,
        training=AccelerateTraining(accelerator, searchable, experiment.search.epochs),
        run_folder=options.run_folder,
        resume=True,
        callbacks=[TerminalProgress()],
    )
    if is_first_process():
        console = plain_console()
        for table in summary_tables(result.summary()):
            console.print(table)
        console.print(f"searched: {accuracy(result.model, experiment.data.test):.2%} of the test images")


if __name__ == "__main__":
    main()
