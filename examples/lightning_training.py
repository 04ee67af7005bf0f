"""Your own training epoch with a Lightning Trainer, on handwritten digits.

    gfb run examples/lightning_training

The search is that of examples/digits; every epoch is trained by a LightningModule. It runs on the device that
Lightning chooses, one of them. A run that was stopped goes on when the command is used again.
"""

from __future__ import annotations

import argparse
import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import torch
from digits import digits_experiment
from experiment import accuracy, cross_entropy
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.report import TerminalProgress, summary_tables
from gfb_brevitas.terminal import plain_console

try:
    import lightning
except ImportError as error:
    raise gfb.MissingExtraError(
        f"This example needs the package 'lightning' ({error}). Install it with: pip install 'lightning>=2.5'"
    ) from error


class Digits(lightning.LightningModule):
    """What a Lightning user has already; the network in it is the searchable one.

    Args:
        network: The searchable model.
        epochs: Epochs of the whole run.
    """

    def __init__(self, network: nn.Module, epochs: int) -> None:
        super().__init__()
        self.network = network
        # Made once: every epoch has a Trainer of its own, and all of them go on with these.
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=epochs)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the learning rate's schedule over all epochs."""
        return [self.optimizer], [self.scheduler]

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss of a minibatch."""
        loss = cross_entropy(self.network, batch)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss


class LightningTraining:
    """Has Lightning train an epoch wherever `gfb.fit` comes to one.

    Args:
        module: The LightningModule around the searchable model.
    """

    def __init__(self, module: Digits) -> None:
        self.module = module

    def run_epoch(self, model: gfb.SearchableModel, epoch: gfb.TrainingEpoch) -> gfb.EpochOutcome:
        """Fit for one epoch."""
        device = next(model.parameters()).device
        rate = self.module.optimizer.param_groups[0]["lr"]
        trainer = lightning.Trainer(
            max_epochs=1,
            devices=1,
            gradient_clip_val=5.0,
            logger=False,
            enable_checkpointing=False,  # the run keeps checkpoints
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(self.module, epoch.batches)
        except SystemExit:  # what Lightning makes of Ctrl-C
            signal.signal(signal.SIGINT, interrupt)
            raise KeyboardInterrupt from None
        model.to(device)  # Lightning leaves it on the CPU
        return gfb.EpochOutcome(train_loss=trainer.callback_metrics["loss"].item(), learning_rate=rate)

    def state_dict(self) -> dict[str, Any]:
        """What the next epoch needs of this one; kept in the run's checkpoints."""
        module = self.module
        return {"optimizer": module.optimizer.state_dict(), "scheduler": module.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.module.optimizer.load_state_dict(state["optimizer"])
        self.module.scheduler.load_state_dict(state["scheduler"])


def main(arguments: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(prog="lightning_training", description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("runs/lightning_training"))
    parser.add_argument("--quick", action="store_true", help="a few epochs only")
    options = parser.parse_args(arguments)
    # What Lightning says anew for every Trainer.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
    experiment = digits_experiment(quick=options.quick)
    searchable = experiment.searchable().to("cuda" if torch.cuda.is_available() else "cpu")
    result = gfb.fit(
        searchable,
        loss=cross_entropy,
        train_batches=experiment.data.loader(experiment.batch_size),
        budgets=gfb.paper_budgets(2),
        metric=lambda model: accuracy(model, experiment.data.validation),
        search=experiment.search,
        training=LightningTraining(Digits(searchable, experiment.search.epochs)),
        run_folder=options.run_folder,
        resume=True,
        callbacks=[TerminalProgress()],
    )
    console = plain_console()
    for table in summary_tables(result.summary()):
        console.print(table)
    console.print(f"searched: {accuracy(result.model, experiment.data.test):.2%} of the test images")


if __name__ == "__main__":
    main()
