"""Trials that the user's storage did not take, kept in the run folder until it does.

The file is an Optuna journal, so that Optuna and optuna-dashboard open it like any other [ours].
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.files import CHECKSUM, replacing, sealed
from gfb_brevitas.search.saving import saving
from gfb_brevitas.search.storages import StudyHead, first_line, new_study, quiet_optuna


class UnwrittenTrials:
    """A file of trials by study.

    Args:
        path: The file; there is none while nothing is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(
        self, trials: Mapping[str, Sequence[FrozenTrial]], heads: Mapping[str, StudyHead] | None = None
    ) -> None:
        """Replace the file's content; with nothing to keep, remove it.

        Args:
            trials: Trials by study.
            heads: What studies are made with that are not plain ones.

        Raises:
            CheckpointError: If it cannot be written.
        """
        if not trials:
            self.path.unlink(missing_ok=True)
            return
        with saving(self.path), replacing(self.path) as temporary, quiet_optuna():
            storage = JournalStorage(JournalFileBackend(str(temporary)))
            for name, kept in trials.items():
                study = new_study(storage, name, None, (heads or {}).get(name))
                study.set_user_attr(CHECKSUM, _checksum(kept))
                study.add_trials(kept)

    def read(self) -> dict[str, list[FrozenTrial]]:
        """The trials by study, in order.

        Raises:
            CheckpointError: If the file is damaged.
        """
        if not self.path.exists():
            return {}
        try:
            with quiet_optuna():
                return self._read()
        except Exception as error:  # whatever a damaged file makes Optuna raise
            raise CheckpointError(
                f"{str(self.path)!r} is damaged: {first_line(error)}. It holds trials that the storage did "
                "not take; delete it to go on without them."
            ) from error

    def _read(self) -> dict[str, list[FrozenTrial]]:
        storage = JournalStorage(JournalFileBackend(str(self.path)))
        trials = {}
        for name in optuna.get_all_study_names(storage):
            study = optuna.load_study(study_name=name, storage=storage)
            trials[name] = study.trials
            if study.user_attrs.get(CHECKSUM) != _checksum(trials[name]):
                raise ValueError(f"the trials of {name!r} are not those that were written")
        if not trials:
            raise ValueError("it holds no study")
        return trials


def _checksum(trials: Sequence[FrozenTrial]) -> str:
    rows = [
        [t.state.name, t.values, t.params, t.user_attrs, t.system_attrs, t.intermediate_values]
        for t in trials
    ]
    return str(sealed({"trials": json.loads(json.dumps(rows))})[CHECKSUM])
