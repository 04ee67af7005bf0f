"""What a configuration file may say."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.quant import ClippingKind
from gfb_brevitas.search.config import SearchConfig, TrainingConfig

_REFERENCE = r"^[\w.]+:[\w.]+$"
Reference = Annotated[str, Field(pattern=_REFERENCE, description="User code, module:function.")]
Widths = tuple[int, int]
Width = Annotated[int, Field(ge=1, le=MAX_BITS)]


def _settings_schema(kind: type) -> dict[str, Any]:
    """A schema by names only: values are checked by the class itself, which says more."""
    return {
        "type": "object",
        "properties": {field.name: {} for field in fields(kind)},
        "additionalProperties": False,
    }


def _settings_or_reference(kind: type) -> dict[str, Any]:
    reference = {"type": "string", "pattern": _REFERENCE, "description": "User code, module:function."}
    return {"anyOf": [_settings_schema(kind), reference]}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixRule(_Section):
    """A width that is not searched, see :class:`gfb_brevitas.Fix`."""

    fix: str | list[str]
    bits: int
    kind: Literal["weight", "activation"] | None = None


class RangeRule(_Section):
    """A range of widths, see :class:`gfb_brevitas.Range`."""

    range: str | list[str]
    bits: Widths
    kind: Literal["weight", "activation"] | None = None


class TieRule(_Section):
    """Quantizers of one width, see :class:`gfb_brevitas.Tie`."""

    tie: str | list[str]


class PaperBudgets(_Section):
    """The paper's two budgets, see :func:`gfb_brevitas.paper_budgets`."""

    paper: int | Widths
    preset: Literal["cifar", "imagenet", "cityscapes"] = "cifar"
    rho: float | None = None


class CostBudget(_Section):
    """A budget on a cost by its name, see :class:`gfb_brevitas.Budget`."""

    cost: str
    options: dict[str, Any] = {}
    beta: float | None = None
    uniform_bits: int | Widths | None = None
    limit: float | None = None
    rho: float = 10.0


class BoardBudget(_Section):
    """What a board and a frame rate allow, see :meth:`gfb_brevitas.Budget.board`."""

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
    """Tracking, see :mod:`gfb_integrations.mlflow`."""

    tracking_uri: str | None = None
    experiment: str = "gfb_brevitas"
    run_name: str | None = None
    registered_name: str | None = None


class Dashboard(_Section):
    """Pictures, notes and files for optuna-dashboard, see :mod:`gfb_integrations.optuna_dashboard`."""

    artifacts: str | None = None


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
        finn: Whether the search is restricted to what FINN builds.
        bits: Smallest and largest width; by default 1 to 8, with ``finn`` 2 to 8.
        clipping: How clipping values depend on the width.
        weight_normalization: Whether normalised weights are quantized.
        rules: Fixed widths, ranges and ties.
        budgets: The budgets.
        baselines: Uniform widths that are trained after the search to compare it with, e.g. ``[2, 3]`` or
            ``[[4, 8]]`` (weights, activations): for as many epochs, with the same settings, each in a folder
            ``baselines/uniform-...`` of the run. Rules keep what they fix; ``callbacks`` are not called.
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
    finn: bool = False
    bits: Widths | None = None
    clipping: ClippingKind = "linear"
    weight_normalization: bool = False
    rules: list[Rules] = []
    budgets: list[Budgets] = []
    baselines: list[Width | tuple[Width, Width]] = []
    preset: Literal["cifar", "imagenet", "cityscapes"] | None = None
    search: Annotated[dict[str, Any], WithJsonSchema(_settings_schema(SearchConfig))] = {}
    training: Annotated[dict[str, Any] | str, WithJsonSchema(_settings_or_reference(TrainingConfig))] = {}
    callbacks: list[Reference] = []
    run_folder: str
    name: str | None = None
    storage: str | None = None
    dashboard: bool | Dashboard = False
    mlflow: bool | Mlflow = False
    report: bool | None = None
    export: bool = False
