"""FINN's estimate of a run and its proof, kept in the run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gfb_brevitas.dataflow import FoldedLayer, Target
from gfb_brevitas.errors import CheckpointError, ExportError
from gfb_brevitas.files import write_text_atomically
from gfb_brevitas.search import RecordedRun
from gfb_brevitas.search.saving import saving
from gfb_integrations.finn.client import FinnProcess, in_process
from gfb_integrations.finn.estimate import FinnEstimate, estimate
from gfb_integrations.finn.folding import corresponding_nodes, folding_of
from gfb_integrations.finn.verification import FinnVerification, verify

if TYPE_CHECKING:
    from torch import Tensor, nn

MODEL_FILE = "model.qonnx.onnx"
ESTIMATE_FILE = "finn_estimate.json"
VERIFICATION_FILE = "finn_verification.json"
FOLDING_FILE = "folding.json"
DEFAULT = Target(board="Pynq-Z1")
"""What is built without being told for what."""


@dataclass(frozen=True, kw_only=True)
class ExportedRun:
    """A run whose model was exported.

    Attributes:
        run: The run.
        model: Its QONNX file.
        target: What its budgets on hardware are for; ``None`` without such budgets. Of several the first.
        layers: Its hardware layers with the folding that the search counted with; empty where the folder does
            not hold them.
    """

    run: RecordedRun
    model: Path
    target: Target | None
    layers: tuple[FoldedLayer, ...]

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> ExportedRun:
        """Look into the folder of a run.

        Raises:
            CheckpointError: If it holds no run, or naming the file that is damaged.
            ExportError: If nothing was exported, with the command that does it.
        """
        run = RecordedRun.load(folder)
        model = run.path / MODEL_FILE
        if not model.is_file():
            raise ExportError(_how_to_export(run))
        hardware = run.layer_costs.hardware if run.layer_costs is not None else ()
        try:
            built = hardware[0] if hardware else {}
            layers = tuple(FoldedLayer.from_dict(layer) for layer in built.get("layers", ()))
            target = _target(built["target"]) if built else _asked(run)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{str(run.path / 'layer_costs.json')!r} is damaged: it does not say what is built ({error})."
            ) from error
        return cls(run=run, model=model, target=target, layers=layers)


def _how_to_export(run: RecordedRun) -> str:
    began = f"{str(run.path)!r} holds no {MODEL_FILE}: "
    if run.allocation is None:
        return f"{began}the run has not ended. Let it end, and export it then."
    model = "" if (run.path / "run.yaml").exists() else " --model MODULE:FUNCTION"
    return f"{began}its model was not exported. Do it with: gfb export {run.path}{model}"


def _target(document: Mapping[str, Any]) -> Target:
    known = {field.name for field in fields(Target)}
    return Target(**{name: value for name, value in document.items() if name in known})


def _asked(run: RecordedRun) -> Target | None:
    """The target of a run that ended before folders held what is built."""
    for budget in run.configuration.get("budgets", []):
        cost = budget.get("cost") if isinstance(budget, Mapping) else None
        target = cost.get("target") if isinstance(cost, Mapping) else None
        if isinstance(target, Mapping):
            return _target(target)
    return None


def estimate_run(
    folder: str | os.PathLike[str],
    *,
    board: str | None = None,
    fps: float | None = None,
    clock_mhz: float | None = None,
    standalone_thresholds: bool | None = None,
    folding_file: str | Path | None = None,
    output: str | Path | None = None,
    process: FinnProcess | None = None,
    timeout_s: float | None = None,
) -> FinnEstimate:
    """FINN's estimate of a run's exported model, kept in the folder for the report.

    Board, clock and thresholds are those of the run's budgets, and the parallelism is that which the search
    counted with, unless they are given. The folder gets ``finn_estimate.json`` and, with the search's
    parallelism, ``folding.json``, which FINN's builds take.

    Example:
        >>> found = estimate_run("runs/fpga")  # doctest: +SKIP
        >>> found.folded_by, found.total("lut")  # doctest: +SKIP
        ('search', 7867.0)

    Args:
        folder: The folder of a run; its model is exported as ``model.qonnx.onnx``.
        board: Name of the board; by default the run's, or Pynq-Z1 for a run without one.
        fps: Samples per second that FINN's own folding is to reach, instead of the search's folding.
        clock_mhz: Clock frequency; by default the run's, or 100.
        standalone_thresholds: Whether activations become layers of their own; by default as in the run.
        folding_file: FINN's folding file, instead of the search's folding.
        output: As :func:`~gfb_integrations.finn.estimate`.
        process: As :func:`~gfb_integrations.finn.estimate`.
        timeout_s: As :func:`~gfb_integrations.finn.estimate`.

    Raises:
        CheckpointError: If it holds no run, or a file of it is damaged or cannot be written.
        ExportError: If the run's model was not exported.
        MissingExtraError, FinnBuildError, FinnError, ConfigurationError: As
            :func:`~gfb_integrations.finn.estimate`.
    """
    exported = ExportedRun.of(folder)
    target = exported.target or DEFAULT
    standalone = target.standalone_thresholds if standalone_thresholds is None else standalone_thresholds
    settings: dict[str, Any] = {
        "board": target.board if board is None else board,
        "clock_mhz": target.clock_mhz if clock_mhz is None else clock_mhz,
        "standalone_thresholds": standalone,
        "timeout_s": timeout_s,
    }
    own = fps is None and folding_file is None
    same_layers = standalone == target.standalone_thresholds
    with in_process(process, timeout_s) as used:
        settings["process"] = used
        if own and exported.layers and same_layers:
            found = _with_the_searchs_folding(exported, settings, output)
        else:
            rate = target.fps if own else fps
            found = estimate(exported.model, fps=rate, folding_file=folding_file, output=output, **settings)
            if exported.layers and same_layers:
                found = replace(found, layers=_names(exported.layers, found))
    found.save(exported.run.path / ESTIMATE_FILE)
    return found


def _with_the_searchs_folding(
    exported: ExportedRun, settings: Mapping[str, Any], output: str | Path | None
) -> FinnEstimate:
    plain = estimate(exported.model, **settings)
    text = json.dumps(folding_of(exported.layers, plain), indent=2)
    file = exported.run.path / FOLDING_FILE
    with saving(file):
        write_text_atomically(file, text)
    found = estimate(exported.model, folding_file=file, output=output, **settings)
    return replace(found, folded_by="search", layers=_names(exported.layers, found))


def _names(layers: tuple[FoldedLayer, ...], found: FinnEstimate) -> dict[str, str]:
    """The layer of the model for each of FINN's nodes."""
    nodes = corresponding_nodes(layers, found.nodes)
    return {node.name: layer.name for layer, node in zip(layers, nodes, strict=True)}


def verify_run(
    folder: str | os.PathLike[str],
    samples: Tensor | np.ndarray[Any, Any],
    *,
    model: nn.Module | None = None,
    outputs: np.ndarray[Any, Any] | None = None,
    board: str | None = None,
    standalone_thresholds: bool | None = None,
    process: FinnProcess | None = None,
    timeout_s: float | None = None,
) -> FinnVerification:
    """Execute every stage of FINN's flow on a run's exported model, and keep the proof in the folder.

    The folder gets ``finn_verification.json``, whether the stages compute the same or not.

    Example:
        >>> verify_run("runs/fpga", images[:16], model=result.model).exact  # doctest: +SKIP
        True

    Args:
        folder: The folder of a run; its model is exported as ``model.qonnx.onnx``.
        samples: As :func:`~gfb_integrations.finn.verify`.
        model: As :func:`~gfb_integrations.finn.verify`.
        outputs: As :func:`~gfb_integrations.finn.verify`.
        board: Board of the build; by default the run's, or Pynq-Z1 for a run without one.
        standalone_thresholds: Whether activations become layers of their own; by default as in the run.
        process: As :func:`~gfb_integrations.finn.verify`.
        timeout_s: As :func:`~gfb_integrations.finn.verify`.

    Raises:
        CheckpointError: If it holds no run, or a file of it is damaged or cannot be written.
        ExportError: If the run's model was not exported.
        MissingExtraError, FinnBuildError, FinnError, ConfigurationError, EmptyDataError: As
            :func:`~gfb_integrations.finn.verify`.
    """
    exported = ExportedRun.of(folder)
    target = exported.target or DEFAULT
    found = verify(
        exported.model,
        samples,
        model=model,
        outputs=outputs,
        board=target.board if board is None else board,
        standalone_thresholds=(
            target.standalone_thresholds if standalone_thresholds is None else standalone_thresholds
        ),
        process=process,
        timeout_s=timeout_s,
    )
    found.save(exported.run.path / VERIFICATION_FILE)
    return found
