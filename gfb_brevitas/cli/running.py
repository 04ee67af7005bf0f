"""Carrying out the run of a configuration: the search, and what follows it."""

from __future__ import annotations

import importlib
import importlib.util
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import typer
from torch import nn

from gfb_brevitas.cli.models import export_result
from gfb_brevitas.cli.output import output_kept_for, put, say, tell
from gfb_brevitas.cli.users_code import told_in_short
from gfb_brevitas.configuration import ConfiguredRun
from gfb_brevitas.configuration.schema import Dashboard
from gfb_brevitas.constraints import Baseline
from gfb_brevitas.errors import ConfigurationError, GfbError
from gfb_brevitas.report import TerminalProgress, add_comparison, run_rows, runs_tables, summary_tables
from gfb_brevitas.report.heartbeat import saying_that
from gfb_brevitas.report.time_left import clock
from gfb_brevitas.search import RecordedRun, RecordedSeeds, SearchResult
from gfb_brevitas.search.callbacks import AnyCallback


def carry_out(run: ConfiguredRun, *, quiet: bool, as_json: bool) -> None:
    """Search, do what follows, and print what came out; with several seeds of all together."""
    if run.configuration.seeds == 1:
        _carry_out(run, quiet=quiet, as_json=as_json)
        return
    runs = run.of_each_seed()
    run.keep()
    for one in runs:
        if not (quiet or as_json):
            tell(f"seed {one.search.seed}, {runs.index(one) + 1} of {len(runs)}")
        _carry_out(one, quiet=quiet, as_json=as_json, shown=False)
    folded = RecordedSeeds.load(run.run_folder)
    files = [str(_report(run, nn.Identity()))] if _reported(run) else []
    if as_json or not quiet:
        put(
            {**run_rows([folded])[0], "files": files},
            lambda: [*runs_tables([folded]), "\n".join([str(run.run_folder), *files])],
            as_json=as_json,
        )


def _carry_out(run: ConfiguredRun, *, quiet: bool, as_json: bool, shown: bool = True) -> None:
    with output_kept_for(as_json), _no_silent_exit(), told_in_short(run):
        result, after = _carried_out(run, with_progress=not (quiet or as_json))
    if shown and (as_json or not quiet):
        summary = _with_comparison(run, result)
        files = [str(path) for path in after.written]
        put(
            {**summary, "run_folder": str(run.run_folder), "files": files},
            lambda: [*summary_tables(summary), "\n".join([str(run.run_folder), *files])],
            as_json=as_json,
        )
    if after.failed:
        after.say_failures()
        raise typer.Exit(1)


@dataclass
class _After:
    """What follows a search: each step happens, whatever becomes of the others."""

    told: bool  # whether a sign of life is printed of a step that takes long
    written: list[Path] = field(default_factory=list)
    failed: dict[str, Exception] = field(default_factory=dict)

    def do(self, what: str, step: Callable[[], Any]) -> None:
        """Carry out a step; the file that it returns is one that it wrote."""
        try:
            with saying_that(what) if self.told else nullcontext():
                made = step()
        except Exception as error:
            self.failed[what] = error
        else:
            self.written += [made] if isinstance(made, Path) else []

    def say_failures(self) -> None:
        for what, error in self.failed.items():
            if not isinstance(error, GfbError):
                traceback.print_exception(error)
            lines = str(error).splitlines() or [""]
            text = str(error) if isinstance(error, GfbError) else lines[0]
            say(f": {type(error).__name__}: {text}", lead=f"{what} failed")
        say(
            "The search itself has ended well, and its result is kept. The same command tries the rest again."
        )


def _carried_out(run: ConfiguredRun, *, with_progress: bool) -> tuple[SearchResult, _After]:
    steps = _what_follows(run)  # an extra that is missing is an error before any work
    after = _After(with_progress)
    tracking, notes = _tracking(run), _dashboard_notes(run)
    with ExitStack() as stack:
        # Closed last, when the files that they take along have been written.
        callbacks: list[AnyCallback] = [stack.enter_context(c) for c in (tracking, notes) if c is not None]
        if with_progress:
            progress = TerminalProgress("search")
            stack.callback(progress.close)
            callbacks.append(progress)
        result = run.fit(callbacks)
        if run.configuration.baselines:
            train = partial(_train_baselines, run, result, with_progress=with_progress)
            _After(False, after.written, after.failed).do("Training what the search is compared with", train)
        for what, step in steps.items():
            after.do(what, partial(step, run, result.model))
        if tracking is not None:
            about = run.configuration.mlflow
            name = None if isinstance(about, bool) else about.registered_name
            log_model = partial(tracking.log_model, registered_name=name)
            after.do("Logging the model with MLflow", lambda: log_model(result, run.example_inputs))
    return result, after


def _train_baselines(run: ConfiguredRun, searched: SearchResult, *, with_progress: bool) -> None:
    """Train what the search is compared with, one after the other; what there is so far is compared."""
    names = {"measured": ("validation", run.configuration.metric), "test_measured": ("test", run.test_metric)}
    measured = {
        key: f"{data} {'accuracy' if name == 'accuracy' else 'metric'}" for key, (data, name) in names.items()
    }
    baselines, notes = run.baselines()
    if with_progress and baselines:
        tell(_announced(baselines, searched))
    trained: dict[str, SearchResult] = {}
    for baseline in baselines:
        progress = TerminalProgress(baseline.name) if with_progress else None
        try:
            trained[baseline.name] = run.fit_baseline(baseline, [] if progress is None else [progress])
        finally:
            if progress is not None:
                progress.close()
        add_comparison(searched, trained, **measured, notes=notes)
    if notes and not baselines:
        add_comparison(searched, {}, **measured, notes=notes)


def _announced(baselines: Sequence[Baseline], searched: SearchResult) -> str:
    """What is going to be trained, and how long it will take."""
    epochs = searched.history.epochs
    seconds = clock(sum(epoch.seconds for epoch in epochs))
    names = ", ".join(baseline.name for baseline in baselines)
    return (
        f"to compare with: {names}; {len(epochs)} epochs like the search's, about {seconds}"
        f"{' each' if len(baselines) > 1 else ''} (baselines=[] leaves this out)"
    )


def _with_comparison(run: ConfiguredRun, result: SearchResult) -> dict[str, Any]:
    """The result in numbers, with what it is compared with beside it."""
    kept = RecordedRun.load(run.run_folder).summary if run.configuration.baselines else None
    names = ("comparison", "comparison_notes")
    return {**result.summary(), **{key: kept[key] for key in names if kept and key in kept}}


@contextmanager
def _no_silent_exit() -> Iterator[None]:
    """Where the user's code ends the program, end it as what it is: a run that has not ended."""
    try:
        yield
    except SystemExit as error:
        traceback.print_exception(error)
        say(": the code above called sys.exit().", lead="The run has not ended")
        raise typer.Exit(1) from None


def _tracking(run: ConfiguredRun) -> Any:
    about = run.configuration.mlflow
    if about is False:
        return None
    settings: dict[str, Any] = {} if about is True else about.model_dump(exclude={"registered_name"})
    integration = importlib.import_module("gfb_integrations.mlflow")
    with chdir(run.started_in if run.started_in.is_dir() else "."):
        settings["tracking_uri"] = _store(settings)
    try:
        return integration.MlflowTracking(**settings, project=run.code)
    except ConfigurationError as error:
        raise ConfigurationError(f"{run.document.place(('mlflow',))}: {error}") from error


def _store(settings: Mapping[str, Any]) -> str:
    """Where MLflow writes, by the settings or its own; the same from any folder."""
    uri = settings.get("tracking_uri") or importlib.import_module("mlflow").get_tracking_uri()
    found: str = importlib.import_module("gfb_integrations.mlflow.spool").absolute(str(uri))
    return found


def _dashboard_notes(run: ConfiguredRun) -> Any:
    about = run.configuration.dashboard
    if about is False:
        return None
    if run.storage is None:
        raise ConfigurationError(f"{run.document.place(('dashboard',))}: `dashboard` needs a `storage`.")
    about, store = Dashboard() if about is True else about, None
    if about.artifacts is not None:
        folder = run.started_in / about.artifacts
        folder.mkdir(parents=True, exist_ok=True)
        store = optuna.artifacts.FileSystemArtifactStore(folder)
    integration = importlib.import_module("gfb_integrations.optuna_dashboard")
    return integration.DashboardNotes(run.storage, artifact_store=store, timeout_s=about.timeout_s)


def _what_follows(run: ConfiguredRun) -> dict[str, Callable[[ConfiguredRun, nn.Module], Path]]:
    steps: dict[str, Callable[[ConfiguredRun, nn.Module], Path]] = {}
    if run.configuration.export:
        importlib.import_module("gfb_integrations.qonnx").require_export()
        steps["Export"] = _export
    if _reported(run):
        importlib.import_module("gfb_integrations.report").require_report()
        steps["Report"] = _report
    return steps


def _reported(run: ConfiguredRun) -> bool:
    wanted = run.configuration.report
    return _report_is_installed() if wanted is None else wanted


def _report_is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("jinja2", "plotly", "gfb_integrations"))


def _export(run: ConfiguredRun, model: nn.Module) -> Path:
    return Path(export_result(run, model, run.run_folder / "model.qonnx.onnx").path)


def _report(run: ConfiguredRun, _: nn.Module) -> Path:
    path: Path = importlib.import_module("gfb_integrations.report").write_report(run.run_folder)
    return path
