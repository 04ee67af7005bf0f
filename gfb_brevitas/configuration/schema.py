"""What a configuration file may say."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.choices import ClippingKind
from gfb_brevitas.configuration.descriptions import attribute_descriptions
from gfb_brevitas.search.config import SearchConfig, TrainingConfig

_REFERENCE = r"^[\w.]+:[\w.]+$"
Reference = Annotated[str, Field(pattern=_REFERENCE, description="User code, module:function.")]
Widths = tuple[int, int]
Text = Annotated[str, Field(min_length=1)]
Width = Annotated[int, Field(ge=1, le=MAX_BITS)]
BaselineEntry = Literal["auto", "by_hand"] | Width | tuple[Width, Width]
Baselines = Annotated[
    list[BaselineEntry],
    BeforeValidator(lambda given: [given] if isinstance(given, str | int) else given),
]


def _settings_schema(kind: type) -> dict[str, Any]:
    """Names, descriptions and defaults: values are checked by the class itself, which says more."""
    described = attribute_descriptions(kind)
    properties = {
        field.name: {"description": described.get(field.name, ""), "default": field.default}
        for field in fields(kind)
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _settings_or_reference(kind: type) -> dict[str, Any]:
    reference = {"type": "string", "pattern": _REFERENCE, "description": "User code, module:function."}
    return {"anyOf": [_settings_schema(kind), reference]}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Take the descriptions of the schema from the docstring."""
        for name, description in attribute_descriptions(cls).items():
            cls.model_fields[name].description = description
        cls.model_rebuild(force=True)


class FixRule(_Section):
    """A width that is not searched, see :class:`gfb_brevitas.Fix`.

    Attributes:
        fix: Pattern or patterns of quantizer names, e.g. ``"stem.*"``.
        bits: The width.
        kind: Restrict the rule to quantizers of weights or of activations.
    """

    fix: str | list[str]
    bits: int
    kind: Literal["weight", "activation"] | None = None


class RangeRule(_Section):
    """A range of widths, see :class:`gfb_brevitas.Range`.

    Attributes:
        range: Pattern or patterns of quantizer names.
        bits: Smallest and largest width.
        kind: Restrict the rule to quantizers of weights or of activations.
    """

    range: str | list[str]
    bits: Widths
    kind: Literal["weight", "activation"] | None = None


class TieRule(_Section):
    """Quantizers of one width, see :class:`gfb_brevitas.Tie`.

    Attributes:
        tie: Pattern or patterns of quantizer names; all that match any of them share a width.
    """

    tie: str | list[str]


class PaperBudgets(_Section):
    """The paper's two budgets, see :func:`gfb_brevitas.paper_budgets`.

    Attributes:
        paper: Uniform width that the budgets are shares of, or those of weights and of activations.
        preset: Whose shares: the columns of the paper's table.
        rho: Penalty weight of both budgets; by default the paper's.
    """

    paper: int | Widths
    preset: Literal["cifar", "imagenet", "cityscapes"] = "cifar"
    rho: float | None = None


class CostBudget(_Section):
    """A budget on a cost by its name, see :class:`gfb_brevitas.Budget`.

    Attributes:
        cost: Name of the cost, e.g. ``weight_size`` or ``bit_operations``.
        options: Arguments of the cost, by name.
        beta: Share of the cost at the uniform widths; 1 when not given.
        uniform_bits: Uniform width that the limit is a share of, or those of weights and of activations.
        limit: The limit in the cost's unit, instead of ``beta`` and ``uniform_bits``.
        rho: Weight of the violation in the objective's penalty.
    """

    cost: str
    options: dict[str, Any] = {}
    beta: float | None = None
    uniform_bits: int | Widths | None = None
    limit: float | None = None
    rho: float = 10.0


class BoardBudget(_Section):
    """What a board and a frame rate allow, see :meth:`gfb_brevitas.Budget.board`.

    Attributes:
        board: Name of the board, e.g. ``Pynq-Z1``.
        fps: Samples per second to reach.
        clock_mhz: Clock frequency.
        utilisation: Share of each resource that may be used.
        latency_us: Longest latency in microseconds.
        standalone_thresholds: Whether activations become layers of their own.
        folding: How the parallelism of the layers is chosen, see :class:`gfb_brevitas.dataflow.Target`.
        rho: Penalty weight of each budget.
    """

    board: str
    fps: float | None = None
    clock_mhz: float = 100.0
    utilisation: float = 0.7
    latency_us: float | None = None
    standalone_thresholds: bool = False
    folding: Literal["cheapest", "finn", "none"] = "cheapest"
    rho: float = 20.0


def _by_key(*keys: str) -> Discriminator:
    """Which kind of an entry it is, by the key that only one kind has."""

    def kind(entry: Any) -> str | None:
        present = entry if isinstance(entry, dict) else vars(entry) if isinstance(entry, BaseModel) else ()
        return next((f"<{key}>" for key in keys if key in present), None)

    names = " or ".join(repr(key) for key in keys)
    return Discriminator(
        kind, custom_error_type="no_kind", custom_error_message=f"an entry has one of the keys {names}"
    )


Rules = Annotated[
    Annotated[FixRule, Tag("<fix>")]
    | Annotated[RangeRule, Tag("<range>")]
    | Annotated[TieRule, Tag("<tie>")],
    _by_key("fix", "range", "tie"),
]
Budgets = Annotated[
    Annotated[PaperBudgets, Tag("<paper>")]
    | Annotated[CostBudget, Tag("<cost>")]
    | Annotated[BoardBudget, Tag("<board>")],
    _by_key("paper", "cost", "board"),
]


class Mlflow(_Section):
    """Tracking, see :class:`gfb_integrations.mlflow.MlflowTracking`.

    Attributes:
        tracking_uri: The server or store; by default what MLflow is set to.
        experiment: Name of the experiment.
        run_name: Name of the search's run; by default that of the run folder.
        parent_run_id: A run to nest the search's run under.
        tags: Tags of the search's run.
        registered_name: Name to register the final model under.
        log_artifacts: Whether files of the run folder are logged.
        system_metrics: Whether the machine's load is logged.
        timeout_s: Seconds that the end of the run waits for the server.
    """

    tracking_uri: Text | None = None
    experiment: str = "gfb_brevitas"
    run_name: Text | None = None
    parent_run_id: Text | None = None
    tags: dict[str, str | int | float | bool] = {}
    registered_name: Text | None = None
    log_artifacts: bool = True
    system_metrics: bool = True
    timeout_s: float = Field(default=15.0, ge=0, allow_inf_nan=False)


class Dashboard(_Section):
    """Pictures, notes and files, see :class:`gfb_integrations.optuna_dashboard.DashboardNotes`.

    Attributes:
        artifacts: Folder that files are kept in; without it there are none.
        timeout_s: Seconds that the end of the run waits for the storage.
    """

    artifacts: Text | None = None
    timeout_s: float = Field(default=30.0, ge=0, allow_inf_nan=False)


class RunConfiguration(_Section):
    """A run: whose model and data, what is searched, under which budgets, how.

    Attributes:
        model: Function without arguments that returns a Brevitas model, or the model and example inputs.
        example_inputs: Function that returns one batch of inputs, if ``model`` returns none.
        loss: Function ``loss(model, batch)``, or the name of a loss for batches (inputs, targets).
        train_batches: Function that returns the training data (a DataLoader, a list), or the data itself.
        validation_batches: Likewise, for the metric.
        search_batches: Likewise, what candidates are evaluated on.
        calibration_batches: Likewise, what clipping is calibrated on.
        metric: Function ``metric(model)``, higher is better, or ``"accuracy"`` on ``validation_batches``.
        test_batches: Likewise, for the test metric, which is only reported: nothing is chosen by it.
        test_metric: Function ``metric(model)`` on test data, or ``"accuracy"`` on ``test_batches``; by
            default what ``metric`` names, or else the negative mean loss, on ``test_batches``.
        finn: Whether the search is restricted to what FINN builds.
        bits: Smallest and largest width; by default 1 to 8, with ``finn`` 2 to 8.
        clipping: How clipping values depend on the width.
        weight_normalization: Whether normalised weights are quantized.
        rules: Fixed widths, ranges and ties.
        budgets: The budgets.
        baselines: Fixed widths that are trained after the search to compare it with: ``auto``, the widest
            uniform widths that keep all budgets; ``by_hand``, input, first and last layer at 8 bits and the
            rest as wide as the budgets allow; uniform widths, ``3`` or ``[4, 8]`` (weights, activations).
            Each takes as many epochs as the search, with the same settings, in a folder ``baselines/...``;
            ``[]`` trains none. Rules keep what they fix; ``callbacks`` are not called.
        seeds: How many times the run is done, with the seeds ``search.seed``, ``search.seed`` + 1 and so on,
            each in a folder ``seed-...`` of ``run_folder``, with baselines of its own.
        preset: Settings of the paper that ``search`` and ``training`` go on from.
        search: Settings of :class:`gfb_brevitas.SearchConfig`.
        training: Settings of :class:`gfb_brevitas.TrainingConfig`, functions as module:function; or a class
            or function that returns a :class:`gfb_brevitas.TrainingLoop` for the searchable model and the
            number of epochs.
        callbacks: Classes or functions without arguments that return callbacks, or callbacks themselves.
        run_folder: Where the run is kept; relative to the current folder.
        name: First part of the names of Optuna studies.
        storage: URL of an Optuna storage.
        dashboard: Whether pictures and notes are attached to the studies in ``storage``, and in which folder
            files are kept.
        mlflow: Whether and where the run is tracked.
        report: Whether ``report.html`` is written at the end; by default where the extra is installed.
        export: Whether ``model.qonnx.onnx`` is written and verified at the end.
    """

    model: Reference
    example_inputs: Reference | None = None
    loss: str
    train_batches: Reference
    validation_batches: Reference | None = None
    search_batches: Reference | None = None
    calibration_batches: Reference | None = None
    metric: str | None = None
    test_batches: Reference | None = None
    test_metric: str | None = None
    finn: bool = False
    bits: Widths | None = None
    clipping: ClippingKind = "linear"
    weight_normalization: bool = False
    rules: list[Rules] = []
    budgets: list[Budgets] = []
    baselines: Baselines = ["auto"]
    seeds: Annotated[int, Field(ge=1)] = 1
    preset: Literal["cifar", "imagenet", "cityscapes"] | None = None
    search: Annotated[dict[str, Any], WithJsonSchema(_settings_schema(SearchConfig))] = {}
    training: Annotated[dict[str, Any] | str, WithJsonSchema(_settings_or_reference(TrainingConfig))] = {}
    callbacks: list[Reference] = []
    run_folder: Text
    name: Text | None = None
    storage: Text | None = None
    dashboard: bool | Dashboard = False
    mlflow: bool | Mlflow = False
    report: bool | None = None
    export: bool = False
