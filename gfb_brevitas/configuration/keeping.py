"""The configuration in a run's folder, with which the run is resumed, exported and begun anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from gfb_brevitas.configuration.document import Document, read_document
from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.files import write_text_atomically
from gfb_brevitas.search.callbacks import StartRecord
from gfb_brevitas.search.saving import saving

FILE_NAME = "run.yaml"
"""The configuration in a run's folder, with all that was changed on the command line."""
CODE_FOLDER, STARTED_IN = "code_folder", "started_in"
"""What it says besides: where the user's modules are, and where relative places begin."""


@dataclass(frozen=True)
class Keeping:
    """Writes the configuration into the folder of a run that has begun there, and so is its only one.

    Attributes:
        folder: The run's folder.
        content: The configuration.
        code: Folder of the user's modules.
        started_in: Folder that relative places begin in.
    """

    folder: Path
    content: Mapping[str, Any]
    code: Path
    started_in: Path

    def on_start(self, record: StartRecord) -> None:
        """The run starts or goes on."""
        if not (record.resumed and (self.folder / FILE_NAME).exists()):
            self.write()

    def write(self) -> None:
        """Write the file."""
        path = self.folder / FILE_NAME
        content = {CODE_FOLDER: str(self.code), STARTED_IN: str(self.started_in), **self.content}
        with saving(path):
            write_text_atomically(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def document_of(folder: Path) -> Document:
    """The configuration of a run, from its folder.

    Raises:
        CheckpointError: If the run was not started with a configuration file.
        ConfigurationError: If the file in it is damaged.
    """
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise CheckpointError(f"There is no folder {str(folder)!r}. Give the folder of a run.")
    if not path.is_file():
        raise CheckpointError(
            f"{str(folder)!r} was not made from a configuration file (it has no {FILE_NAME}). The run of "
            "a program goes on when the program's command is repeated."
        )
    document = read_document(path)
    if not isinstance(document.content.get(CODE_FOLDER), str):
        raise ConfigurationError(f"{str(path)!r} is damaged: it lacks `{CODE_FOLDER}`.")
    return replace(document, content={**document.content, "run_folder": str(folder)})


def require_free_name(folder: Path) -> None:
    """Check that a run's folder holds no file of the user under the configuration's name.

    Raises:
        ConfigurationError: If it does, or what is there cannot be read.
    """
    path = folder / FILE_NAME
    if path.exists() and CODE_FOLDER not in read_document(path).content:
        raise ConfigurationError(
            f"{str(path)!r} is where the run keeps its configuration, and it is a file of yours. Give it "
            "another name, or use another `run_folder`."
        )


def require_room(folder: Path, content: Mapping[str, Any]) -> None:
    """Check that the folder of runs of several seeds holds no other runs.

    More seeds may be asked of runs that are there already.

    Raises:
        ConfigurationError: If it holds a file of the user under the configuration's name.
        CheckpointError: If it holds a run, or runs of another configuration.
    """
    require_free_name(folder)
    if (folder / "config.json").exists():
        raise CheckpointError(
            f"{str(folder)!r} holds a run already. Runs of several seeds need a `run_folder` of their own."
        )
    path = folder / FILE_NAME
    if not path.exists():
        return
    then, now = _without_seeds(read_document(path).content), _without_seeds(content)
    differing = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if differing:
        raise CheckpointError(
            f"{str(folder)!r} holds runs of several seeds whose {', '.join(differing)} differ. Go on with "
            "the same settings, or use another `run_folder`."
        )


def _without_seeds(content: Mapping[str, Any]) -> dict[str, Any]:
    left_out = (CODE_FOLDER, STARTED_IN, "seeds", "run_folder", "baselines", "report", "export")
    return {name: value for name, value in content.items() if name not in left_out}
