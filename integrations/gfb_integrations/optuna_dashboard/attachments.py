"""Attaching things to studies: doing it again replaces them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import plotly.graph_objects as go
from optuna.artifacts import get_all_artifact_meta, upload_artifact
from optuna_dashboard import get_note, save_note, save_plotly_graph_object

from gfb_integrations.optuna_dashboard.text import replaced

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore


def attach_figure(study: optuna.Study, figure: go.Figure, name: str) -> None:
    """Show a picture with a study; one of the same name is replaced."""
    # The dashboard uses the name as an id in HTML.
    save_plotly_graph_object(study, figure, graph_object_id=f"gfb-{re.sub('[^A-Za-z0-9._-]', '-', name)}")


def attach_note(study: optuna.Study, text: str, trial_number: int | None = None) -> None:
    """Write the note of a study or of one of its trials; what people wrote into it stays."""
    target: optuna.Study | optuna.Trial = study
    if trial_number is not None:
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, trial_number)
        target = optuna.Trial(study, trial_id)
    present = get_note(target)
    wanted = replaced(present, text)
    if wanted != present:
        save_note(target, wanted)


def attach_file(study: optuna.Study, store: ArtifactStore, path: Path) -> None:
    """Keep a file as an artifact of a study; one of the same name is replaced."""
    present = [meta for meta in _artifacts(study) if meta.filename == path.name]
    if present:
        # Also one whose upload failed half-way: Optuna names it before it is written.
        with path.open("rb") as content:
            store.write(present[-1].artifact_id, content)
    else:
        upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=study)


def _artifacts(study: optuna.Study) -> list[optuna.artifacts.ArtifactMeta]:
    try:
        return get_all_artifact_meta(study)
    except TypeError:  # Optuna 5.0 cannot read what the dashboard leaves of an artifact that was deleted
        return []
