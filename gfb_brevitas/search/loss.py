"""The user's loss function, with errors that say what the batch was."""

from __future__ import annotations

import torch
from torch import nn

from gfb_brevitas.errors import BatchError, ConfigurationError, GfbError
from gfb_brevitas.evaluation.batch_faults import advice_on, described_batch
from gfb_brevitas.evaluation.batches import Batch, LossFunction
from gfb_brevitas.evaluation.losses import loss_from
from gfb_brevitas.users_frames import failed_in


class ExplainedLoss:
    """A loss function whose errors say which batch they are about.

    A loss that fails on the first batch that it gets fits neither these batches nor this model. Once it
    has worked, the batch is to blame. The error itself is the ``__cause__``. Too little memory on an
    accelerator stays what it is: training loops catch it.

    Args:
        loss: ``loss(model, batch)``, or the name of one.

    Raises:
        ConfigurationError: If it cannot be called, or there is none of that name.
    """

    def __init__(self, loss: LossFunction | str) -> None:
        self._loss = loss_from(loss)
        self._has_worked = False

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch.

        Raises:
            ConfigurationError: If the first call fails.
            BatchError: If a later one does.
        """
        try:
            value = self._loss(model, batch)
        except (GfbError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise self._explained(error, batch) from error
        self._has_worked = True
        return value

    def _explained(self, error: Exception, batch: Batch) -> GfbError:
        if self._has_worked:
            return BatchError(
                f"The loss failed on the batch {described_batch(batch)}: {failed_in(error)}{advice_on(error)}"
            )
        return ConfigurationError(
            "loss(model, batch) must work on every batch of the data; on the first one, "
            f"{described_batch(batch)}, it raised {failed_in(error)}Check which parts of the batch the loss "
            "passes to the model, and their shapes and types."
        )
