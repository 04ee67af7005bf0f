"""Iterative alternating retraining: the search from a searchable model to a plain Brevitas model.

Bodner et al., 2022, doi:10.3390/s22249772: pretrain, then N_rounds times N_GF gradient-free steps and
N_GB gradient-based epochs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfb_brevitas.allocation import BitAllocation
from gfb_brevitas.constraints import Budget, Constraints
from gfb_brevitas.costs.operator_costs import unknown_in_words
from gfb_brevitas.distributed import current_world, in_all_processes
from gfb_brevitas.errors import ConfigurationError
from gfb_brevitas.evaluation.batches import Batches, LossFunction, require_batches
from gfb_brevitas.evaluation.losses import metric_from
from gfb_brevitas.floating_point import float_layers_headline, float_layers_in_words, stays_in_floats
from gfb_brevitas.search.callbacks import AnyCallback, EndRecord, notify, require_callbacks
from gfb_brevitas.search.config import SearchConfig, TrainingConfig
from gfb_brevitas.search.fingerprint import described, described_model
from gfb_brevitas.search.loading import require_searchable
from gfb_brevitas.search.loop_trainer import make_trainer
from gfb_brevitas.search.loss import ExplainedLoss
from gfb_brevitas.search.result import SearchResult
from gfb_brevitas.search.run import Run, RunData
from gfb_brevitas.search.run_folder import RunFolder
from gfb_brevitas.search.storages import Storage, opened_storage
from gfb_brevitas.search.threads import computing_with
from gfb_brevitas.search.training_loop import TrainingLoop, described_loop, require_training
from gfb_brevitas.search.validation import Metric, Validation
from gfb_brevitas.space import SearchSpace

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

DEFAULT_BITS = 4
"""Initial width when neither the settings nor a budget names one [ours]."""

_logger = logging.getLogger(__name__)


@in_all_processes
def fit(
    model: SearchableModel,
    *,
    loss: LossFunction | str,
    train_batches: Batches,
    budgets: Sequence[Budget],
    metric: Metric | str | None = None,
    validation_batches: Batches | None = None,
    test_metric: Metric | str | None = None,
    test_batches: Batches | None = None,
    search_batches: Batches | None = None,
    calibration_batches: Batches | None = None,
    search: SearchConfig | None = None,
    training: TrainingConfig | TrainingLoop | None = None,
    allocation: Mapping[str, int] | None = None,
    calibrate: bool = True,
    run_folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    storage: Storage | None = None,
    name: str | None = None,
    callbacks: Sequence[AnyCallback] = (),
) -> SearchResult:
    """Search the bit allocation of a model under budgets and train it along the way.

    The order: check that the budgets can be met and that there is data; calibrate clipping; pretrain
    at the initial allocation; then rounds of gradient-free steps and gradient-based epochs. What is
    returned is the state with the best metric among those whose allocation satisfies the budgets and leaves
    no room in them: no single width can be raised by a bit.

    Everything random derives from ``search.seed``; the global random generators are left as they were.
    Batches may be drawn with the global generators of torch, NumPy and Python and with a DataLoader's
    ``generator``, which is seeded anew; draws from other generators do not repeat in a resumed run.
    Training uses ``model`` itself, on the device that it is on.

    Called by all processes of a program that torchrun started, they share the run's work: each evaluates
    its part of the candidates and trains on its part of every batch, with the result of one process. The
    first one writes files and studies, computes the metric and calls callbacks. See "Several processes" in
    the guide.

    Where a run cannot go on as it is (a loss that became NaN, say), its best state can: bring a model to
    it with :func:`gfb_brevitas.load_best` and call ``fit(model, calibrate=False, run_folder=...)`` with other
    settings and a new folder. Weights and clipping values go on from there; the search starts from
    ``search.initial_bits`` again.

    Example:
        >>> result = fit(  # doctest: +SKIP
        ...     make_searchable(model, example_inputs),
        ...     loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        ...     train_batches=train_loader,
        ...     budgets=paper_budgets(4),
        ...     metric=accuracy_on_validation_data,
        ...     run_folder="runs/first",
        ... )
        >>> result.model, result.allocation  # doctest: +SKIP

    Args:
        model: The searchable model.
        loss: ``loss(model, batch)``, a scalar tensor with gradients. In evaluation mode it must be
            repeatable, but for draws from the global random generators: these are the same for all
            candidates on a minibatch.
        train_batches: Training data: a DataLoader, a list, or a function that returns a fresh iterator.
        budgets: The budgets, all hard. With none, accuracy alone decides.
        metric: ``metric(model)`` on *validation* data, higher is better; called in evaluation mode
            without gradients. ``None``: the negative mean loss over ``validation_batches``, or over the
            search data if there are none.
        validation_batches: Data of the default metric.
        test_metric: ``test_metric(model)`` on *test* data, of the state that is returned: it is only
            reported, nothing is chosen by it. ``None``: the negative mean loss over ``test_batches``, if
            there are some.
        test_batches: Data of the default test metric.
        search_batches: Data that super-batches are drawn from; ``None``: the training data.
        calibration_batches: Data that clipping is calibrated on; ``None``: the first training batches.
        search: Settings of the search.
        training: Settings of the training, or a training loop of your own, see
            :class:`gfb_brevitas.TrainingLoop`.
        allocation: A fixed allocation: no gradient-free steps, the same epochs and schedule. The
            baseline to compare with; it need not satisfy the budgets.
        calibrate: Whether clipping parameters are started from data; ``False`` for a model whose clipping
            was trained or calibrated already.
        run_folder: Folder in which the run is kept, see :mod:`gfb_brevitas.search.run_folder`.
        resume: Go on with the run in ``run_folder``, as if it had never stopped; a folder without a run
            starts one. All arguments must be those of the run. ``model`` is a model made in the same
            way; its weights come from the checkpoint.
        storage: Optuna storage or its URL: the run is followed there as a study with a trial per round, and
            every gradient-free step is copied there as a study with a trial per candidate.
        name: Name of the run's study and first part of those of its steps, ``NAME/round-01/step-01``; by
            default the name of the run folder, or ``"gfb"``.
        callbacks: Objects with some of the methods of :class:`gfb_brevitas.search.Callback`.

    Returns:
        The result.

    Raises:
        ConfigurationError: If an argument is outside its rule.
        InfeasibleBudgetError: If no allocation satisfies the budgets.
        EmptyDataError: If an iterable of batches yields nothing.
        AllocationError: If ``allocation`` does not fit the model.
        CalibrationError: If the model's activations are not finite.
        NonFiniteLossError: If the training loss becomes NaN or infinite.
        LossAtChanceError: If it is at chance, and ``search.at_chance`` is ``"stop"``.
        CheckpointError: If ``run_folder`` is in use, damaged, or holds another run.
        DistributedError: If processes lose each other, or do not do the same. Any other error in one of
            them is raised in all.
    """
    search = SearchConfig() if search is None else search
    training = TrainingConfig() if training is None else training
    _check_kinds(model, search, training, callbacks)
    loss = ExplainedLoss(loss)
    metric = metric_from(metric, validation_batches, "metric", "validation_batches")
    test_metric = metric_from(test_metric, test_batches, "test_metric", "test_batches")
    if resume and run_folder is None:
        raise ConfigurationError("`resume=True` needs the `run_folder` of the run; got None.")
    _tell_floats(model)
    constraints = Constraints(model.space, budgets, penalty=search.penalty)
    if allocation is None:
        constraints.check_reachable()
        for sentence in constraints.idle():
            _logger.warning("%s", sentence)
    for found in model.profile.unknown_operators:
        _logger.warning("%s", unknown_in_words(found))
    start = _initial_allocation(model, constraints, search, allocation)
    pretrain = start if search.pretrain_bits is None else _uniform(model.space, search.pretrain_bits)
    data = RunData(
        train=train_batches,
        search=train_batches if search_batches is None else search_batches,
        calibration=calibration_batches,
    )
    _check_data(data, validation_batches, test_batches)
    test = None
    if test_metric is not None or test_batches is not None:
        test = Validation(test_metric, loss, test_batches or (), seed=search.seed, setting="test_metric")
    if metric is None and validation_batches is None:
        _logger.warning("There is neither a metric nor validation data: the search data decides.")
    validation_data = data.search if validation_batches is None else validation_batches
    trainer = None
    if search.epochs:
        trainer = make_trainer(model, loss, training, epochs=search.epochs, seed=search.seed)
    leads = current_world().is_first
    folder = RunFolder(Path(run_folder)) if run_folder is not None and leads else None
    with nullcontext() if folder is None else folder.opened():
        run = Run(
            model=model,
            loss=loss,
            data=data,
            constraints=constraints,
            search=search,
            trainer=trainer,
            validation=Validation(metric, loss, validation_data, seed=search.seed),
            pretrain=pretrain,
            start=start,
            searched=allocation is None,
            calibrate=calibrate,
            name=name or ("gfb" if run_folder is None else Path(run_folder).resolve().name),
            storage=opened_storage(storage) if leads else None,
            folder=folder,
            callbacks=callbacks if leads else (),
        )
        configuration = _configuration(model, constraints, search, training, allocation, calibrate)
        return _carry_out(run, configuration, resume, test)


def _carry_out(
    run: Run, configuration: dict[str, Any], resume: bool, test: Validation | None
) -> SearchResult:
    try:
        _start(run, configuration, resume)
        threads = int(run.world.first_value("threads", lambda: float(run.threads)))
        with computing_with(threads):
            run.finish_units()
            return _result(run, test)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            _logger.warning("Interrupted after %d of %d units.", run.completed, len(run.units))
        run.note_failure(error)
        raise


def _start(run: Run, configuration: dict[str, Any], resume: bool) -> None:
    if not run.world.is_first:
        run.follow()
    elif run.folder is None or not run.folder.holds_run:
        run.begin(configuration, _versions())
    elif resume:
        run.go_on(configuration)
    else:
        raise ConfigurationError(
            f"The folder {str(run.folder.path)!r} holds a run already. Pass resume=True to go on with "
            "it, or use another folder."
        )


def _result(run: Run, test: Validation | None) -> SearchResult:
    best = run.restore_best()
    tested = None if test is None else _tested(run, test)
    allocation = BitAllocation(best.allocation)
    result = SearchResult(
        model=run.model.freeze(allocation).eval(),
        searchable=run.model,
        allocation=allocation,
        metric=best.metric,
        test_metric=tested,
        best_epoch=best.epochs,
        costs=tuple(run.constraints.report(run.model.space.bits(allocation))),
        history=run.history,
        run_folder=run.path,
    )
    run.write_result(allocation, result.summary())
    notify(run.callbacks, EndRecord(summary=result.summary(), run_folder=result.run_folder))
    return result


def _tested(run: Run, test: Validation) -> float:
    """The test metric of the state that is returned: nothing is chosen by it."""
    return run.world.first_value("test metric", lambda: test(run.model))


def _initial_allocation(
    model: SearchableModel,
    constraints: Constraints,
    search: SearchConfig,
    allocation: Mapping[str, int] | None,
) -> BitAllocation:
    if allocation is not None:
        return model.space.check(allocation)
    bits = search.initial_bits
    if bits is None:
        named = (budget.uniform_bits for budget in constraints.budgets if budget.uniform_bits is not None)
        bits = next(named, DEFAULT_BITS)
    return _uniform(model.space, bits)


def _uniform(space: SearchSpace, bits: int | tuple[int, int]) -> BitAllocation:
    return space.uniform(*bits) if isinstance(bits, tuple) else space.uniform(bits)


def _tell_floats(model: SearchableModel) -> None:
    layers = model.profile.float_layers
    if headline := float_layers_headline(layers):
        level = logging.WARNING if stays_in_floats(layers) else logging.INFO
        _logger.log(level, "%s", " ".join([headline, *(f"{x}." for x in float_layers_in_words(layers))]))


def _check_kinds(model: object, search: object, training: object, callbacks: object) -> None:
    require_searchable(model)
    if not isinstance(search, SearchConfig):
        raise ConfigurationError(f"`search` must be a SearchConfig; got {search!r}.")
    require_training(training)
    require_callbacks(callbacks)


def _check_data(data: RunData, validation: Batches | None, test: Batches | None) -> None:
    require_batches(data.train, "train_batches")
    named = {
        "search_batches": data.search,
        "calibration_batches": data.calibration,
        "validation_batches": validation,
        "test_batches": test,
    }
    for name, batches in named.items():
        if batches is not None:
            require_batches(batches, name)


def _configuration(
    model: SearchableModel,
    constraints: Constraints,
    search: SearchConfig,
    training: TrainingConfig | TrainingLoop,
    allocation: Mapping[str, int] | None,
    calibrate: bool,
) -> dict[str, Any]:
    return {
        "search": described(search),
        "training": described(training) if isinstance(training, TrainingConfig) else described_loop(training),
        "budgets": described(constraints.budgets),
        "limits": described(constraints.limits),
        "model": described_model(model),
        "allocation": None if allocation is None else dict(allocation),
        "calibrate": calibrate,
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("gfb-brevitas", "torch", "brevitas", "optuna", "cma"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions
