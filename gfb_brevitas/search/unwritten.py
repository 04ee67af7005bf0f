"""Trials that the user's storage did not take, kept in the run folder until it does.

The file is an Optuna journal, so that Optuna and optuna-dashboard open it like any other [ours].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from gfb_brevitas.files import replacing
from gfb_brevitas.search.saving import saving
from gfb_brevitas.search.storages import quiet_optuna


class UnwrittenTrials:
    """A file of trials by study.

    Args:
        path: The file; there is none while nothing is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, trials: Mapping[str, Sequence[FrozenTrial]]) -> None:
        """Replace the file's content; with nothing to keep, remove it.

        Raises:
            CheckpointError: If it cannot be written.
        """
        if not trials:
            self.path.unlink(missing_ok=True)
            return
        with saving(self.path), replacing(self.path) as temporary, quiet_optuna():
            storage = JournalStorage(JournalFileBackend(str(temporary)))
            for name, kept in trials.items():
                optuna.create_study(storage=storage, study_name=name).add_trials(kept)

    def read(self) -> dict[str, list[FrozenTrial]]:
        """The trials by study, in order."""
        if not self.path.exists():
            return {}
        storage = JournalStorage(JournalFileBackend(str(self.path)))
        names = optuna.get_all_study_names(storage)
        return {name: optuna.load_study(study_name=name, storage=storage).trials for name in names}
