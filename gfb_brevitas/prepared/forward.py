"""A model's forward through prepared programs, with the model itself where none fits."""

from __future__ import annotations

import logging
import math
import weakref
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gfb_brevitas.prepared.capture import Call, Captured, NotCapturableError, capture
from gfb_brevitas.prepared.prepare import Prepared, prepare
from gfb_brevitas.prepared.recording import NOISE_REPEATS, TIMES_NOISE, Recording

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

EXACT = 1e-5
"""A recording runs the model's own operations. Its results are the model's but for this mean difference, as a
share of their spread, or TIMES_NOISE times what it differs from itself with rounding noise on all values."""
WIDTHS_TRIED = 3
LEAST_WIDTHS = -1
"""Allocations at which a new program is checked; one that is wrong is so at most of them."""

UNPREPARED = "The model runs unprepared: "

Run = Literal["program", "model", "recording", "noisy recording"]

_logger = logging.getLogger(__name__)


@dataclass
class _Ready:
    """A prepared program for calls of one signature."""

    captured: Captured
    recording: Recording
    prepared: Prepared
    inputs: tuple[tuple[Tensor, int], ...] = ()
    generation: int = 0

    def __call__(self, call: Call) -> Any:
        outputs = self.prepared.program(call.tensors, self._inputs_id(call))
        # The caller may change them in place, and they may share memory with what is kept.
        return self.captured.result([tensor.clone() for tensor in outputs])

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "an integer program" if self.prepared.in_integers else "a prepared program in floating point"

    def as_recorded(self, call: Call, noise_seed: int | None) -> Any:
        """The result by the operations that were recorded, each as the model does it; or with noise."""
        if noise_seed is None:
            results = self.recording(call.tensors)
        else:
            results = self.recording.with_noise(call.tensors, noise_seed)
        return self.captured.result([tensor.clone() for tensor in results])

    def _inputs_id(self, call: Call) -> Hashable:
        # The tensors are held, so no other can come to lie at their address meanwhile.
        if any(tensor.is_inference() for tensor in call.tensors):  # these do not say when they change
            self.generation, self.inputs = self.generation + 1, ()
            return self.generation
        inputs = tuple((tensor, tensor._version) for tensor in call.tensors)
        same = len(inputs) == len(self.inputs) and all(
            a is b and m == n for (a, m), (b, n) in zip(inputs, self.inputs, strict=True)
        )
        self.generation += not same
        self.inputs = inputs
        return self.generation

    def release(self) -> None:
        """Let go of inputs and of values kept between calls."""
        self.inputs = ()
        self.prepared.program.release()


class PreparedForward:
    """Stands in for a searchable model's forward while candidates are evaluated.

    A program is made for each signature of the arguments (shapes, layouts, types) when it first occurs
    and checked in two steps. What was recorded must give the model's results, and every value of the program
    must be what the recorded operations make of the program's own values before it (see
    :mod:`gfb_brevitas.prepared.recording`): so rounding noise is never mistaken for an error, whatever a
    network makes of it, nor an error for noise. Where a model cannot be recorded, or a program computes
    something else, the model itself runs and the log says why.

    Args:
        model: The model, in the mode that it is evaluated in.
        integers: Whether products are computed in eight-bit integers where that is possible.

    Attributes:
        fallbacks: What is computed otherwise than asked for, and why.
    """

    def __init__(self, model: SearchableModel, *, integers: bool) -> None:
        self._model = weakref.ref(model)  # so that a table from models to these keeps no model alive
        self.integers = integers
        self.fallbacks: list[str] = []
        self._ready: dict[Hashable, _Ready | None] = {}
        self._unchecked: set[Hashable] = set()
        self._hopeless: set[Hashable] = set()  # other weights change nothing
        self._recorded_tensors: tuple[int, ...] = ()
        self._run: Run = "program"
        self._noise_seed = 0

    @property
    def model(self) -> SearchableModel:
        """The model."""
        model = self._model()
        assert model is not None
        return model

    @contextmanager
    def active(self) -> Iterator[None]:
        """The model's calls go through programs inside the block."""
        self.model.forward = self  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.model.forward
            for ready in self._ready.values():
                if ready is not None:
                    ready.release()

    def weights_changed(self) -> None:
        """Check every program anew before it is used: its constants are computed again."""
        if self._tensors() != self._recorded_tensors:  # replaced, not changed in place
            self._ready.clear()
            self._hopeless.clear()
        for ready in self._ready.values():
            if ready is not None:
                ready.prepared.program.forget()
        self._unchecked = set(self._ready) - self._hopeless

    @property
    def order_of_columns(self) -> list[int]:
        """Quantizers, as columns of a bit matrix, in the order in which a program meets them."""
        for ready in self._ready.values():
            if ready is not None:
                columns = {id(site.width): number for number, site in enumerate(self.model._sites)}
                met = ready.prepared.program.order_of_sites
                return [columns[id(ready.captured.sites[site].holder)] for site in met]
        return []

    @property
    def has_programs(self) -> bool:
        """Whether any call so far ran a program."""
        return any(ready is not None for ready in self._ready.values())

    @property
    def account(self) -> str:
        """What runs, in words, and why nothing faster."""
        kinds = {ready.kind for ready in self._ready.values() if ready is not None}  # usually one
        texts = [text.removeprefix(UNPREPARED).removesuffix(".") for text in self.fallbacks]
        reasons = [text[0].lower() + text[1:] for text in texts]
        what = " and ".join(sorted(kinds)) or "the model itself"
        return f"{what}; {'; '.join(reasons)}" if reasons else what

    @contextmanager
    def running(self, what: Run, noise_seed: int = 0) -> Iterator[None]:
        """Within :meth:`active`, something else than programs runs inside the block.

        Args:
            what: ``"model"``, the model as it is; ``"recording"``, what was recorded of it, operation by
                operation; ``"noisy recording"``, the same with rounding noise on all values.
            noise_seed: Where the noise starts.
        """
        before, self._run = self._run, what
        self._noise_seed = noise_seed
        try:
            yield
        finally:
            self._run = before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's result."""
        if self._run == "model" or torch.is_grad_enabled():  # programs have no gradients
            return self.model.model(*args, **kwargs)
        try:
            call = Call.of(args, kwargs)
        except NotCapturableError as reason:
            self.note(f"{UNPREPARED}{reason}.")
            return self.model.model(*args, **kwargs)
        ready = self._ready_for(call)
        if ready is None:
            return self.model.model(*args, **kwargs)
        if self._run == "program":
            return ready(call)
        return ready.as_recorded(call, self._noise_seed if self._run == "noisy recording" else None)

    def _ready_for(self, call: Call) -> _Ready | None:
        signature = call.signature
        if signature not in self._ready:
            self._ready[signature] = self._made(call)
        elif signature in self._unchecked:
            ready = self._ready[signature]
            if ready is None or not self._is_still_faithful(ready, call):
                self._ready[signature] = self._made(call)
        self._unchecked.discard(signature)
        return self._ready[signature]

    def _tensors(self) -> tuple[int, ...]:
        return tuple(id(tensor) for tensor in (*self.model.parameters(), *self.model.buffers()))

    def _made(self, call: Call) -> _Ready | None:
        self._recorded_tensors = self._tensors()
        is_float32 = all(p.dtype == torch.float32 for p in self.model.parameters() if p.is_floating_point())
        for integers in (True, False) if self.integers and is_float32 else (False,):
            try:
                captured = capture(self.model.model, call)
            except NotCapturableError as reason:
                self._hopeless.add(call.signature)
                self.note(f"{UNPREPARED}{reason}.")
                return None
            recording, largest = Recording(captured), self._largest_bits(captured)
            ready = _Ready(captured, recording, prepare(captured, largest, integers=integers))
            if not self._is_model_recorded(ready, call):
                self._hopeless.add(call.signature)
                self.note(f"{UNPREPARED}what was recorded of it gives other results.")
                return None
            if self._is_faithful(ready, call):
                if ready.prepared.in_floating_point:
                    self.note(f"In floating point: {_grouped(ready.prepared.in_floating_point)}.")
                return ready
            kind = "A program in integers" if integers else "A program"
            self.note(f"{kind} that computes something else than the model is not used.")
        return None

    def _largest_bits(self, captured: Captured) -> dict[int, int]:
        by_width = {id(s.width): info for s, info in zip(self.model._sites, self.model.profile, strict=True)}
        return {site.index: by_width[id(site.holder)].max_bits for site in captured.sites}

    def _is_faithful(self, ready: _Ready, call: Call) -> bool:
        # What is rare is rounding: an error shows at most widths.
        passed = [self._agrees(ready, call, number) for number in range(WIDTHS_TRIED)]
        return 2 * sum(passed) > len(passed)

    def _is_still_faithful(self, ready: _Ready, call: Call) -> bool:
        return self._agrees(ready, call, 0) or self._is_faithful(ready, call)

    @contextmanager
    def _tried_widths(self, number: int) -> Iterator[None]:
        # Fixed ones: every process, and a resumed run, comes to the same verdict.
        before = [site.width.bits for site in self.model._sites]
        try:
            if number == LEAST_WIDTHS:
                self.model.set_bits(info.min_bits for info in self.model.profile)
            elif number == WIDTHS_TRIED - 1:
                self.model.set_bits(info.max_bits for info in self.model.profile)
            else:
                random = np.random.default_rng(number)
                least = 2 if number else 1  # one bit is arithmetic of its own
                ranges = [(max(info.min_bits, least), info.max_bits) for info in self.model.profile]
                self.model.set_bits(int(random.integers(min(low, high), high + 1)) for low, high in ranges)
            yield
        finally:
            self.model.set_bits(before)

    def _agrees(self, ready: _Ready, call: Call, number: int) -> bool:
        """Whether a program's values are right, at widths and on samples that differ from check to check."""
        tensors = tuple(_rolled(tensor, number) for tensor in call.tensors)
        with self._tried_widths(number):
            try:
                found = ready.prepared.program.observed(tensors)
            except RuntimeError as error:
                self.note(f"A program fails: {error}.")
                return False
            differences = ready.recording.differences(tensors, found)
        for difference in differences:
            _logger.info("A program computes something else than the model: %s.", difference)
        return not differences

    def _is_model_recorded(self, ready: _Ready, call: Call) -> bool:
        """Whether the recording gives the model's results on samples and at widths that it was not made with.

        Numbers and decisions that depend on widths (a scale as a Python number, a branch at few bits) are
        constants in a recording.
        """
        numbers = (WIDTHS_TRIED - 1, LEAST_WIDTHS, 0)
        return all(self._is_recorded_at(number, ready, call) for number in numbers)

    def _is_recorded_at(self, number: int, ready: _Ready, call: Call) -> bool:
        tensors = tuple(_rolled(tensor, 1) for tensor in call.tensors)
        with self._tried_widths(number):
            expected, recorded = self._outputs(call, tensors), ready.recording(tensors)
            if len(expected) != len(recorded):
                return False
            differences = list(map(_difference, expected, recorded))
            if max(differences, default=0.0) <= EXACT:
                return True
            noise = [0.0] * len(expected)
            for seed in range(NOISE_REPEATS):
                noisy = ready.recording.with_noise(tensors, seed)
                noise = list(map(max, noise, map(_difference, recorded, noisy)))
        return all(d <= TIMES_NOISE * own for d, own in zip(differences, noise, strict=True))

    def _outputs(self, call: Call, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        args, kwargs = call.arguments(tensors)
        return [x for x in pytree.tree_leaves(self.model.model(*args, **kwargs)) if isinstance(x, Tensor)]

    def note(self, text: str) -> None:
        """Say once what is computed otherwise than asked for."""
        if text not in self.fallbacks:
            self.fallbacks.append(text)
            _logger.info(text)


def _grouped(products: Iterable[str]) -> str:
    """Products that stay in floating point, each as ``name: reason``, counted by reason."""
    reasons = Counter(product.partition(": ")[2] for product in products)
    return "; ".join(f"{n} product{'s' * (n > 1)} ({reason})" for reason, n in reasons.items())


def _rolled(tensor: Tensor, by: int) -> Tensor:
    # Whole numbers may be indices into the others, and stay what they are.
    if not by or not tensor.dim() or not tensor.is_floating_point():
        return tensor
    return torch.empty_like(tensor).copy_(tensor.roll(by, 0))


def _difference(expected: Tensor, computed: Tensor) -> float:
    """Mean difference as a share of the spread of what is expected; infinite where nothing fits."""
    if expected.shape != computed.shape or expected.dtype != computed.dtype:
        return math.inf
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, computed) else math.inf
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(computed)):
        return math.inf
    if not bool(finite.any()):
        return 0.0
    one, other = expected[finite].double(), computed[finite].double()
    spread = float((one - one.mean()).abs().mean()) + 1e-6 * float(one.abs().mean())
    difference = float((one - other).abs().mean())
    return difference / spread if spread else (0.0 if difference == 0.0 else math.inf)
