"""Settings of the search and of the training.

Defaults of the search are the values of the CIFAR column of Table 1 of Bodner et al., 2022,
doi:10.3390/s22249772, where it gives one; those of the training are for a model that is trained already
(``tests/benchmarks/bench_training_defaults.py`` measures them) [ours]. Settings and values that the paper
does not give are marked [ours].
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from gfb_brevitas.allocation import MAX_BITS
from gfb_brevitas.choices import (
    BATCHNORM_STATISTICS,
    SUPER_BATCH_KINDS,
    BatchNormStatistics,
    SuperBatchKind,
)
from gfb_brevitas.errors import ConfigurationError

if TYPE_CHECKING:
    from torch.optim import Optimizer
else:
    Optimizer = Any  # settings are described without PyTorch

Penalty = Literal["exact", "squared"]
Method = Literal["surrogate", "cma-es"]
AtChance = Literal["warn", "stop"]
ChooseBy = Literal["metric", "loss"]
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
Schedule = Callable[[float], float]
_LARGEST_COUNT = 10**9
_LARGEST_SEED = 2**63 - 1  # that every generator takes


def _require(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise ConfigurationError(f"`{name}` must be {rule}; got {value!r}.")


def _is_count(value: object, smallest: int, largest: int = _LARGEST_COUNT) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= largest


def _count_rule(smallest: int, largest: int = _LARGEST_COUNT) -> str:
    return f"a whole number of at least {smallest} and at most {largest:,}"


def _is_number(value: object, *, above: float = -math.inf, least: float = -math.inf) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max and value > above and value >= least


def _check_uniform_bits(name: str, bits: int | tuple[int, int] | None) -> None:
    widths = bits if isinstance(bits, tuple) else () if bits is None else (bits,)
    valid = all(_is_count(width, 1) and width <= MAX_BITS for width in widths)
    rule = f"None, a width from 1 to {MAX_BITS}, or a pair (weight bits, activation bits) of widths"
    _require(valid and (not isinstance(bits, tuple) or len(bits) == 2), name, rule, bits)


def _is_pattern_and_rate(entry: object) -> bool:
    match entry:
        case (str(), rate):
            return _is_number(rate, above=0.0)
    return False


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How bit allocations are searched.

    Attributes:
        rounds: N_rounds, alternations of gradient-free steps and gradient-based epochs.
        steps_per_round: N_GF, gradient-free steps of a round.
        evaluations_per_step: M, objective evaluations of a gradient-free step. Whole generations only:
            one that does not fit into M any more is not begun [ours].
        epochs_per_round: N_GB, gradient-based epochs of a round.
        pretrain_epochs: Epochs at the initial allocation before the first round. The default, 0, is for a
            model that is trained already [ours]; the paper's numbers are in
            :func:`gfb_brevitas.search.preset`.
        super_batch_size: Minibatches per super-batch.
        super_batch: ``"moving"`` (the paper), ``"fixed"`` (one super-batch per step) [ours] or ``"single"``
            (one minibatch, replaced each generation) [ours].
        method: What proposes candidates: ``"surrogate"`` [ours], a model of the loss that starts from the
            sensitivity of every quantizer, or ``"cma-es"``, the paper's.
        step_size: Initial standard deviation of CMA-ES in log2 bits [ours].
        population_size: Candidates per generation, at least 3; ``None`` is CMA-ES's default,
            4 + floor(3 ln n), or ``evaluations_per_step`` if that is less [ours].
        carry_distribution: Whether mean, covariance and step size go on into the next step; otherwise
            each step starts anew at the current allocation [ours].
        penalty: First power of a violation (``"exact"``) or its square [ours].
        reevaluate_best: How many of the best feasible candidates are re-evaluated on more data at the
            end of a step, before one is chosen [ours].
        reevaluate_batches: Minibatches of that re-evaluation, at most one pass over the data; ``None``
            is four super-batches [ours].
        choose_by: What decides among them: the user's validation ``"metric"``, with BatchNorm statistics of
            their own, or the ``"loss"``, as always where there is no metric [ours].
        initial_bits: The allocation that the search starts from: one width, or ``(weight bits,
            activation bits)``; ``None`` is the uniform width of the first budget that has one, or else 4.
        pretrain_bits: The allocation of the pretraining, in the same form; ``None`` is that of
            ``initial_bits``. At another one, clipping is calibrated again after the pretraining [ours].
        batchnorm: Statistics that BatchNorm uses while candidates are evaluated: its ``"running"`` ones
            (evaluation mode proper), or those of each minibatch, ``"batch"``, which do not belong to the
            widths of the last training [ours].
        at_chance: What to do when the training loss rises to that of a model which says the same of every
            sample, or stays there: ``"warn"`` and go on, or ``"stop"`` [ours].
        threads: Threads to compute with on a processor. ``"auto"``: as few as are as fast, by a measurement
            of at most about a second at the start; ``OMP_NUM_THREADS``, where it is set, counts instead. A
            resumed run keeps the number, on which the last digits of sums depend [ours].
        evaluator: Name of the evaluator, see :func:`gfb_brevitas.evaluation.register_evaluator`.
        seed: Everything random in the search and the training derives from it.

    Raises:
        ConfigurationError: If a setting is outside its rule.
    """

    rounds: int = 5
    steps_per_round: int = 4
    evaluations_per_step: int = 1024
    epochs_per_round: int = 16
    pretrain_epochs: int = 0
    super_batch_size: int = 32
    super_batch: SuperBatchKind = "moving"
    method: Method = "surrogate"
    step_size: float = 0.5
    population_size: int | None = None
    carry_distribution: bool = False
    penalty: Penalty = "exact"
    reevaluate_best: int = 5
    reevaluate_batches: int | None = None
    choose_by: ChooseBy = "metric"
    initial_bits: int | tuple[int, int] | None = None
    pretrain_bits: int | tuple[int, int] | None = None
    batchnorm: BatchNormStatistics = "batch"
    at_chance: AtChance = "warn"
    threads: int | Literal["auto"] = "auto"
    evaluator: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        from gfb_brevitas.evaluation import evaluator_names  # settings are described without PyTorch

        smallest = {"rounds": 1, "steps_per_round": 1, "evaluations_per_step": 3, "epochs_per_round": 0}
        smallest |= {"pretrain_epochs": 0, "super_batch_size": 1, "reevaluate_best": 1}
        for name, least in smallest.items():
            value = getattr(self, name)
            _require(_is_count(value, least), name, _count_rule(least), value)
        _require(_is_count(self.seed, 0, _LARGEST_SEED), "seed", _count_rule(0, _LARGEST_SEED), self.seed)
        for name, least in (("population_size", 3), ("reevaluate_batches", 1)):
            value = getattr(self, name)
            rule = f"None or {_count_rule(least)}"
            _require(value is None or _is_count(value, least), name, rule, value)
        _require(_is_number(self.step_size, above=0.0), "step_size", "a positive number", self.step_size)
        kinds = SUPER_BATCH_KINDS
        _require(self.super_batch in kinds, "super_batch", f"one of {', '.join(kinds)}", self.super_batch)
        _require(self.penalty in ("exact", "squared"), "penalty", "'exact' or 'squared'", self.penalty)
        methods = get_args(Method)
        _require(self.method in methods, "method", f"one of {', '.join(methods)}", self.method)
        _require(self.choose_by in ("metric", "loss"), "choose_by", "'metric' or 'loss'", self.choose_by)
        known = self.threads == "auto" or _is_count(self.threads, 1, 4096)
        _require(known, "threads", f"'auto' or {_count_rule(1, 4096)}", self.threads)
        _require(self.at_chance in ("warn", "stop"), "at_chance", "'warn' or 'stop'", self.at_chance)
        names = evaluator_names()
        _require(self.evaluator in names, "evaluator", f"one of {', '.join(names)}", self.evaluator)
        statistics = BATCHNORM_STATISTICS
        rule = f"one of {', '.join(statistics)}"
        _require(self.batchnorm in statistics, "batchnorm", rule, self.batchnorm)
        self._check_population()
        _check_uniform_bits("initial_bits", self.initial_bits)
        _check_uniform_bits("pretrain_bits", self.pretrain_bits)

    def _check_population(self) -> None:
        if self.population_size is not None and self.population_size > self.evaluations_per_step:
            raise ConfigurationError(
                f"`population_size` must fit into `evaluations_per_step` ({self.evaluations_per_step}), "
                f"or not even one generation is possible; got {self.population_size}."
            )

    @property
    def reevaluation_size(self) -> int:
        """Minibatches of the re-evaluation."""
        return 4 * self.super_batch_size if self.reevaluate_batches is None else self.reevaluate_batches

    @property
    def epochs(self) -> int:
        """Gradient-based epochs of the whole run."""
        return self.pretrain_epochs + self.rounds * self.epochs_per_round


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How weights and clipping parameters are trained.

    Attributes:
        optimizer: ``"adam"`` [ours], ``"sgd"`` (the paper's), or a function that takes a list of parameter
            groups (dicts with ``params``, ``lr``, ``weight_decay``) and returns a
            ``torch.optim.Optimizer`` [ours].
        learning_rate: Highest learning rate of the weights. The default is for Adam and a trained model
            [ours]; an untrained small one learns faster at 2e-3 to 4e-3. SGD wants 10 to 20 times as much,
            and the paper's rates, for networks without a trained start, are those of
            :func:`gfb_brevitas.search.preset`.
        clipping_learning_rate: Highest learning rate of the clipping parameters; ``None``: the same.
        learning_rates: Pairs of a shell pattern of parameter names in the model and a learning rate;
            the first pattern that matches wins over the two above.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of the weights; what quantizers learn (clipping values, Brevitas' own
            scales) is never decayed [ours].
        schedule: ``"cosine"`` (to zero over all epochs of the run), ``"constant"``, or a function from
            the share of training that is done (0 at the first epoch, below 1 at the last) to a factor
            of the learning rates [ours].
        warmup_epochs: Epochs over which the learning rates rise linearly to the schedule's [ours].
        gradient_clip_norm: Largest norm of the gradient of all parameters together; ``None``: any [ours].
        data_parallel: Where several processes share a run: whether each trains on a part of every batch.
            Otherwise each trains on whole batches, which saves no time and gives the weights of one
            process bit for bit [ours].

    Raises:
        ConfigurationError: If a setting is outside its rule.
    """

    optimizer: Literal["sgd", "adam"] | OptimizerFactory = "adam"
    learning_rate: float = 1e-3
    clipping_learning_rate: float | None = None
    learning_rates: tuple[tuple[str, float], ...] = ()
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] | Schedule = "cosine"
    warmup_epochs: int = 0
    gradient_clip_norm: float | None = None
    data_parallel: bool = True

    def __post_init__(self) -> None:
        known = callable(self.optimizer) or self.optimizer in ("sgd", "adam")
        _require(known, "optimizer", "'sgd', 'adam' or a function", self.optimizer)
        known = callable(self.schedule) or self.schedule in ("cosine", "constant")
        _require(known, "schedule", "'cosine', 'constant' or a function", self.schedule)
        for name in ("learning_rate", "clipping_learning_rate", "gradient_clip_norm"):
            value = getattr(self, name)
            optional = value is None and name != "learning_rate"
            _require(optional or _is_number(value, above=0.0), name, "a positive number", value)
        rule = "a tuple of pairs of a pattern and a positive learning rate"
        pairs = self.learning_rates
        _require(isinstance(pairs, tuple | list), "learning_rates", rule, pairs)
        for entry in pairs:
            _require(_is_pattern_and_rate(entry), "learning_rates", rule, entry)
        for name in ("momentum", "weight_decay"):
            value = getattr(self, name)
            _require(_is_number(value, least=0.0), name, "a number of at least 0", value)
        _require(self.momentum < 1.0, "momentum", "below 1", self.momentum)
        _require(_is_count(self.warmup_epochs, 0), "warmup_epochs", _count_rule(0), self.warmup_epochs)
        is_flag = isinstance(self.data_parallel, bool)
        _require(is_flag, "data_parallel", "True or False", self.data_parallel)
