"""A run of a configuration file: the user's code is loaded, settings become objects, the search is done."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from gfb_brevitas.adapters.searchable import SearchableModel, make_searchable
from gfb_brevitas.configuration.baselines import baselines_of
from gfb_brevitas.configuration.document import Document
from gfb_brevitas.configuration.keeping import (
    CODE_FOLDER,
    STARTED_IN,
    Keeping,
    document_of,
    require_free_name,
    require_room,
)
from gfb_brevitas.configuration.objects import as_dict, budgets_of, rule_of, tupled
from gfb_brevitas.configuration.references import call, load_object, users_code
from gfb_brevitas.configuration.schema import RunConfiguration
from gfb_brevitas.configuration.validation import settings_of, validated
from gfb_brevitas.constraints import Baseline, Budget, Constraints
from gfb_brevitas.errors import ConfigurationError, GfbError
from gfb_brevitas.evaluation.batches import Batches
from gfb_brevitas.evaluation.losses import METRICS, Loss, loss_from, metric_from
from gfb_brevitas.rules import Range, Rule
from gfb_brevitas.search.alternation import fit
from gfb_brevitas.search.callbacks import AnyCallback, require_callbacks
from gfb_brevitas.search.config import SearchConfig, TrainingConfig
from gfb_brevitas.search.presets import preset
from gfb_brevitas.search.result import SearchResult
from gfb_brevitas.search.seeds import folder_of_seed
from gfb_brevitas.search.storages import absolute_storage
from gfb_brevitas.search.training_loop import TrainingLoop

_FUNCTIONS = ("optimizer", "schedule")  # settings of the training that may be user code


@dataclass(frozen=True, kw_only=True)
class ConfiguredRun:
    """A configuration with the place of the user's code.

    Example:
        >>> run = ConfiguredRun.of(read_document(Path("search.yaml")))  # doctest: +SKIP
        >>> result = run.fit()  # doctest: +SKIP

    Attributes:
        document: What was read.
        configuration: The same, checked.
        code: Folder in which modules of the user are looked for first.
        started_in: Folder that relative places begin in, but for ``run_folder``.
    """

    document: Document
    configuration: RunConfiguration
    code: Path
    started_in: Path
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, document: Document, code: Path | None = None, started_in: Path | None = None
    ) -> ConfiguredRun:
        """Check a document.

        Args:
            document: The document.
            code: Folder of the user's modules; by default that of the file, or what a run's own file says.
            started_in: Folder that relative places begin in; by default the current one, or likewise.

        Raises:
            ConfigurationError: Naming every setting that is wrong and its line.
        """
        content = dict(document.content)
        kept = [content.pop(name, None) for name in (CODE_FOLDER, STARTED_IN)]
        code = code or (Path(kept[0]) if isinstance(kept[0], str) else document.path.parent)
        started_in = started_in or (Path(kept[1]) if isinstance(kept[1], str) else Path.cwd())
        document = replace(document, content=content)
        run = cls(
            document=document,
            configuration=validated(document),
            code=code.resolve(),
            started_in=started_in,
        )
        run.search, run.rules, run.budgets  # noqa: B018 - errors before any work
        _ = run.training_loop or run.training
        if run.configuration.bits is not None:
            run._at(("bits",), Range, "*", *run.configuration.bits)
        return run

    @classmethod
    def of_folder(cls, folder: Path) -> ConfiguredRun:
        """The configuration of a run, from its folder.

        Raises:
            CheckpointError: If the run was not started with a configuration file.
            ConfigurationError: If the file in it is damaged.
        """
        return cls.of(document_of(folder))

    @property
    def run_folder(self) -> Path:
        """Where the run is kept."""
        return Path(self.configuration.run_folder)

    def of_each_seed(self) -> list[ConfiguredRun]:
        """A run for every seed, each in a folder of its own; the run itself where there is one seed."""
        if self.configuration.seeds == 1:
            return [self]
        first = self.search.seed
        return [self._of_seed(seed) for seed in range(first, first + self.configuration.seeds)]

    def _of_seed(self, seed: int) -> ConfiguredRun:
        content = {key: value for key, value in self.document.content.items() if key != "seeds"}
        content["search"] = {**content.get("search", {}), "seed": seed}
        content["run_folder"] = str(folder_of_seed(self.run_folder, seed))
        content["name"] = f"{self.configuration.name or self.run_folder.resolve().name}-seed-{seed}"
        return ConfiguredRun.of(replace(self.document, content=content), self.code, self.started_in)

    def keep(self) -> None:
        """Write the configuration of runs of several seeds into their folder.

        Raises:
            ConfigurationError: If a file of the user is there.
            CheckpointError: If a run or other runs are there, or it cannot be written.
        """
        require_room(self.run_folder, self.document.content)
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self._keeping.write()

    @property
    def storage(self) -> str | None:
        """URL of the Optuna storage, the same from any folder."""
        given = self.configuration.storage
        return None if given is None else absolute_storage(given, self.started_in)

    @property
    def search(self) -> SearchConfig:
        """Settings of the search."""
        chosen = self.configuration.preset
        base = {} if chosen is None else as_dict(preset(chosen).search)
        values = {name: tupled(value) for name, value in self.configuration.search.items()}
        found: SearchConfig = settings_of(SearchConfig, base | values, self.document, "search")
        return found

    @property
    def training_loop(self) -> Callable[[SearchableModel, int], TrainingLoop] | None:
        """What makes the user's training loop for a model and a number of epochs, if there is one."""
        reference = self.configuration.training
        if not isinstance(reference, str):
            return None
        make: Any = self._loaded(reference, "training")
        if not callable(make):
            raise ConfigurationError(
                f"{self.document.place(('training',))}: {reference!r} must be a class or function that is "
                f"called with the searchable model and the number of epochs; it is {make!r:.60}."
            )
        return cast(Callable[[SearchableModel, int], TrainingLoop], make)

    @property
    def training(self) -> TrainingConfig:
        """Settings of the training; functions of the user are loaded."""
        chosen, given = self.configuration.preset, self.configuration.training
        base = {} if chosen is None else as_dict(preset(chosen).training)
        values = {} if isinstance(given, str) else {name: tupled(value) for name, value in given.items()}
        for name in _FUNCTIONS:
            value = values.get(name)
            if isinstance(value, str) and ":" in value:
                values[name] = self._loaded(value, "training", name)
        found: TrainingConfig = settings_of(TrainingConfig, base | values, self.document, "training")
        return found

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What is said about widths."""
        return tuple(self._at(("rules", i), rule_of, rule) for i, rule in enumerate(self.configuration.rules))

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The budgets."""
        entries = enumerate(self.configuration.budgets)
        return tuple(budget for i, entry in entries for budget in self._at(("budgets", i), budgets_of, entry))

    def model(self) -> tuple[nn.Module, Any]:
        """The user's model, made anew from the seed, and example inputs.

        Raises:
            ConfigurationError: If the user's code cannot be loaded or returns something else.
        """
        torch.manual_seed(self.search.seed)
        made = self._called("model")
        if self.configuration.example_inputs is not None:
            made = made, self._called("example_inputs")
        if isinstance(made, tuple) and len(made) == 2:
            self._made["example_inputs"] = made[1]
            return made
        raise ConfigurationError(
            f"{self.document.place(('model',))}: {self.configuration.model!r} returns no example inputs. "
            "Return (model, example inputs), or name a function for `example_inputs`."
        )

    @property
    def example_inputs(self) -> Any:
        """Inputs of the user's model, as they were made with it last."""
        return self._made["example_inputs"] if "example_inputs" in self._made else self.model()[1]

    def searchable(self) -> SearchableModel:
        """The model with its widths as settings."""
        model, example = self.model()
        about = self.configuration
        settings: dict[str, Any] = {
            "rules": self.rules,
            "clipping": about.clipping,
            "weight_normalization": about.weight_normalization,
        }
        if about.bits is not None:
            settings["bits"] = about.bits
        make: Any = make_searchable
        if about.finn:
            make = importlib.import_module("gfb_integrations.finn").make_searchable
        try:
            found: SearchableModel = make(model, example, **settings)
        except GfbError as error:
            named = next((i for i, rule in enumerate(self.rules) if repr(rule) in str(error)), None)
            if named is None:
                raise
            raise type(error)(f"{self.document.place(('rules', named))}: {error}") from error
        return found

    def batches(self, name: str) -> Batches | None:
        """Data by the name of its setting, made once; ``None`` where the file names none."""
        reference = getattr(self.configuration, name)
        if reference is None:
            return None
        if name not in self._made:
            self._made[name] = self._data(name, reference)
        found: Batches = self._made[name]
        return found

    def _data(self, name: str, reference: str) -> Batches:
        made = self._called(name)
        if made is None:
            raise ConfigurationError(
                f"{self.document.place((name,))}: {reference!r} returns None. Return a DataLoader, or a list "
                "of batches."
            )
        # A generator function is asked again for every pass.
        found: Batches = self._loaded(reference, name) if isinstance(made, Iterator) else made
        return found

    def fit(self, callbacks: Sequence[AnyCallback] = ()) -> SearchResult:
        """Start the run, or go on with it where it stopped.

        Args:
            callbacks: As :func:`gfb_brevitas.fit`.
        """
        searchable, own = self.searchable(), self._callbacks()
        require_free_name(self.run_folder)
        return self._fit(
            searchable,
            run_folder=self.run_folder,
            storage=self.storage,
            name=self.configuration.name,
            callbacks=[self._keeping, *callbacks, *own],
        )

    def baselines(self) -> tuple[list[Baseline], list[str]]:
        """The fixed widths that the search is compared with, and what to say of those that do not fit."""
        if not self.configuration.baselines:
            return [], []
        constraints = Constraints(self.searchable().space, self.budgets)
        return baselines_of(self.configuration.baselines, constraints)

    def fit_baseline(self, baseline: Baseline, callbacks: Sequence[AnyCallback] = ()) -> SearchResult:
        """Train fixed widths as long as the search and with the same settings, to compare it with them.

        Kept in a folder of its own in the run's; repeating it goes on where it stopped.

        Args:
            baseline: The widths.
            callbacks: As :func:`gfb_brevitas.fit`; those of the configuration are not called.
        """
        return self._fit(
            self.searchable(),
            allocation=baseline.allocation,
            run_folder=self.run_folder / "baselines" / baseline.folder,
            callbacks=callbacks,
        )

    def _fit(self, searchable: SearchableModel, **settings: Any) -> SearchResult:
        train = self.batches("train_batches")
        assert train is not None
        validation = self.batches("validation_batches")
        with chdir("."):  # back at the end, should the user's code go elsewhere
            return fit(
                searchable,
                loss=self._loss(),
                train_batches=train,
                validation_batches=validation,
                search_batches=self.batches("search_batches"),
                calibration_batches=self.batches("calibration_batches"),
                budgets=self.budgets,
                metric=self._metric("metric", self.configuration.metric, "validation_batches"),
                test_batches=self.batches("test_batches"),
                test_metric=self._metric("test_metric", self.test_metric, "test_batches"),
                search=self.search,
                training=self._training_of(searchable),
                resume=True,
                **settings,
            )

    @property
    def _keeping(self) -> Keeping:
        content = self.document.content
        folder = self.run_folder.absolute()
        return Keeping(folder=folder, content=content, code=self.code, started_in=self.started_in)

    def _training_of(self, searchable: SearchableModel) -> TrainingConfig | TrainingLoop:
        make = self.training_loop
        if make is None:
            return self.training
        with users_code(f"{self.document.place(('training',))}: {self.configuration.training!r} failed"):
            return make(searchable, self.search.epochs)

    def _callbacks(self) -> list[AnyCallback]:
        own: list[AnyCallback] = []
        for i, reference in enumerate(self.configuration.callbacks):
            callback = self._at(("callbacks", i), call, reference, self.code)
            self._at(("callbacks", i), require_callbacks, [callback])
            own.append(callback)
        return own

    def _loss(self) -> Loss:
        name = self.configuration.loss
        if ":" not in name:
            named: Loss = self._at(("loss",), loss_from, name)
            return named
        loss: Loss = self._loaded(name, "loss")
        return loss

    @property
    def test_metric(self) -> str | None:
        """What is measured on test data: what is given, or else the metric's name where it has one."""
        about = self.configuration
        named = about.metric if about.metric in METRICS and about.test_batches is not None else None
        return about.test_metric or named

    def _metric(self, setting: str, name: str | None, data: str) -> Any:
        if name is None:
            return None
        if ":" not in name:
            batches = self.batches(data) if name in METRICS else None
            return self._at((setting,), metric_from, name, batches, setting, data)
        return self._loaded(name, setting)

    def _called(self, setting: str) -> Any:
        reference = getattr(self.configuration, setting)
        return self._at((setting,), call, reference, self.code)

    def _loaded(self, reference: str, *place: str) -> Any:
        return self._at(place, load_object, reference, self.code)

    def _at(self, place: tuple[str | int, ...], function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except GfbError as error:
            raise type(error)(f"{self.document.place(place)}: {error}") from error
