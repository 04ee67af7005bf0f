"""What ``gfb apply`` and ``gfb export`` do: a plain Brevitas model out of an allocation or a run."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

import gfb_brevitas as gfb
from gfb_brevitas.cli.output import errors_in_one_line, output_kept_for, put, say
from gfb_brevitas.configuration import ConfiguredRun
from gfb_brevitas.configuration.references import call
from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.files import replacing
from gfb_brevitas.report import profile_table
from gfb_brevitas.search.run_folder import add_to_summary
from gfb_brevitas.search.seeds import seed_folders

VERIFIED_SAMPLES = 256
"""Samples that an exported file is compared with the model on, at most."""


def apply(
    allocation: Path,
    model: str,
    weights: Path | None,
    save: Path | None,
    export_to: Path | None,
    as_json: bool,
) -> None:
    """``gfb apply``."""
    with errors_in_one_line():
        with output_kept_for(as_json):
            module, example = model_and_inputs(model)
            file = allocation / "allocation.json" if allocation.is_dir() else allocation
            bits = gfb.BitAllocation.load(file)
            applied = gfb.apply_allocation(module, bits)
            if weights is not None:
                _load_weights(applied, weights)
            profile = gfb.make_searchable(module, example).profile
            if save is not None:
                _save_weights(applied, save)
            if export_to is not None:
                _export(applied.eval(), example, export_to, None)
        written = [str(path) for path in (save, export_to) if path is not None]
        if written and weights is None:
            say(
                "",
                lead=f"The weights are those that {model} makes; --weights gives trained ones.",
                style="yellow",
            )
        put(
            {"allocation": dict(bits), "files": written},
            lambda: [profile_table(profile, bits), *written],
            as_json=as_json,
        )


def export(folder: Path, output: Path | None, model: str | None, weights: Path | None, as_json: bool) -> None:
    """``gfb export``."""
    with errors_in_one_line():
        path = folder / "model.qonnx.onnx" if output is None else output
        with output_kept_for(as_json):
            run = None
            if model is None:
                run = ConfiguredRun.of_folder(folder)
                searchable, example = run.searchable(), run.example_inputs
            else:
                module, example = model_and_inputs(model)
                searchable = gfb.make_searchable(module, example)
            frozen = _best(folder, searchable)
            if weights is not None:
                _save_weights(frozen, weights)
            report = _export(frozen, example, path, None if run is None else _samples(run))
            _note_proof(folder, report)
        put(report.to_dict(), lambda: [_export_table(report)], as_json=as_json)


def best_with_samples(folder: Path) -> tuple[nn.Module, Any]:
    """The best model of a run of a configuration file, as plain Brevitas, and inputs of its data.

    The inputs are ``None`` where batches are not pairs of inputs and something else.

    Raises:
        GfbError: If it is no such run, or its files are damaged.
    """
    run = ConfiguredRun.of_folder(folder)
    samples = _samples(run)
    return _best(folder, run.searchable()), None if samples is None else samples[0]


def _best(folder: Path, searchable: gfb.SearchableModel) -> nn.Module:
    if seed_folders(folder):
        gfb.RecordedRun.load(folder)  # says which folders there are
    return searchable.freeze(gfb.load_best(folder, searchable)).eval()


def export_result(run: ConfiguredRun, model: nn.Module, path: Path) -> Any:
    """Write the model of a run that has ended as QONNX, verified on its validation data.

    What the proof found is added to the run's summary.
    """
    report = _export(model, run.example_inputs, path, _samples(run))
    add_to_summary(run.run_folder, _proof(report))
    return report


def _proof(report: Any) -> dict[str, Any]:
    """What an export adds to the summary of its run."""
    figures: dict[str, Any] = {"qonnx": report.to_dict()}
    if report.verification is not None:
        figures["qonnx_max_abs_diff"] = report.verification.max_abs_diff
        figures["qonnx_argmax_agreement"] = report.verification.argmax_agreement
    return figures


def _note_proof(folder: Path, report: Any) -> None:
    """Add what an export found to the summary of a run, if it has one that can be written."""
    if not (folder / "summary.json").exists():
        return  # of a run that has not ended
    try:
        add_to_summary(folder, _proof(report))
    except CheckpointError as error:
        say(f": {error}", lead="The run's summary does not say that it was exported", style="yellow")


def model_and_inputs(factory: str) -> tuple[nn.Module, Any]:
    """What a function of the user returns: a Brevitas model and example inputs.

    Raises:
        ConfigurationError: If it cannot be loaded or returns something else.
    """
    made = call(factory)
    if not (isinstance(made, (tuple, list)) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise ConfigurationError(
            f"{factory!r} must be a function that returns a model and example inputs, (model, inputs); got "
            f"{repr(made)[:200]}."
        )
    return made[0], made[1]


def _export(model: nn.Module, example: Any, path: Path, samples: Any) -> Any:
    qonnx = importlib.import_module("gfb_integrations.qonnx")
    inputs = _tensors(example)
    one = tuple(tensor[:1] for tensor in inputs)  # FINN wants one sample
    verify_on = inputs if samples is None else samples
    return qonnx.export_qonnx(model, one, path, verify_on=tuple(verify_on))


def _samples(run: ConfiguredRun) -> tuple[Tensor, ...] | None:
    """Inputs of validation batches like the example, where batches are pairs of inputs and something else."""
    batches = run.batches("validation_batches")
    if batches is None:
        batches = run.batches("train_batches")
    assert batches is not None
    examples = _tensors(run.example_inputs)
    found: list[Tensor] = []
    for batch in batches() if callable(batches) else batches:
        if len(examples) > 1 or not (
            isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor)
        ):
            return None
        if batch[0].shape[1:] == examples[0].shape[1:]:  # a file is of one size
            found.append(batch[0])
        if sum(map(len, found)) >= VERIFIED_SAMPLES:
            break
    return (torch.cat(found)[:VERIFIED_SAMPLES],) if found else None


def _tensors(example: Any) -> tuple[Tensor, ...]:
    if isinstance(example, Tensor):
        return (example,)
    if isinstance(example, tuple | list) and all(isinstance(item, Tensor) for item in example):
        return tuple(example)
    raise ConfigurationError(f"Export takes tensors as example inputs; got {type(example).__name__!r}.")


def _save_weights(model: nn.Module, path: Path) -> None:
    try:
        with replacing(path) as temporary:
            torch.save(model.state_dict(), temporary)
    except OSError as error:
        raise ConfigurationError(f"{str(path)!r} cannot be written: {error.strerror}.") from error


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, AttributeError, TypeError, EOFError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(
            f"{str(path)!r} does not hold the weights of this model: {' '.join(lines[:2])[:300]} It must "
            "be a state dict of the plain Brevitas model, as `gfb export RUN --weights FILE` writes it."
        ) from error
    except Exception as error:  # pickle's own, of a file that is not one of weights only
        raise CheckpointError(f"{str(path)!r} is not a file of weights: {type(error).__name__}.") from error


def _export_table(report: Any) -> Table | str:
    proof = report.verification
    if proof is None:
        return str(report.path)
    return (
        f"{report.path}: {proof.samples} samples, largest difference to PyTorch {proof.max_abs_diff:.3g}, "
        f"same class for {proof.argmax_agreement:.1%}"
    )
