"""A model's forward through prepared programs, with the model itself where none fits."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gfb_brevitas.prepared.capture import Call, Captured, NotCapturableError, capture
from gfb_brevitas.prepared.prepare import Prepared, prepare

if TYPE_CHECKING:
    from gfb_brevitas.adapters.searchable import SearchableModel

FAITHFUL_AT_HAND = 0.25
FAITHFUL_AT_MOST_BITS = 0.05
"""Largest mean difference from the model's outputs, as a share of their spread, that a program may show
before it is used. Rounding noise flips single values to the next level, which at few bits is much; an
error in the program changes everything."""
NOISE = 1e-6
FAITHFUL_TO_NOISE = 4.0
"""Some models amplify rounding noise beyond that, those with BatchNorm statistics of the batch above all. A
program may also differ from the model by this multiple of what the model differs from itself when its
inputs are multiplied by 1 + NOISE."""

_logger = logging.getLogger(__name__)


@dataclass
class _Ready:
    """A prepared program for calls of one signature."""

    captured: Captured
    prepared: Prepared
    inputs: tuple[tuple[Tensor, int], ...] = ()
    generation: int = 0

    def __call__(self, call: Call) -> Any:
        outputs = self.prepared.program(call.tensors, self._inputs_id(call))
        # The caller may change them in place, and they may share memory with what is kept.
        return self.captured.result([tensor.clone() for tensor in outputs])

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
    and checked against the model: at 4 bits on the inputs at hand, and at the largest widths on the inputs
    rolled by one sample. Where a model cannot be recorded, or a program computes something else, the model
    itself runs and the log says why.

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
        self._recorded_tensors: tuple[int, ...] = ()
        self._suspended = False

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
        for ready in self._ready.values():
            if ready is not None:
                ready.prepared.program.forget()
        self._unchecked = set(self._ready)

    @property
    def order_of_columns(self) -> list[int]:
        """Quantizers, as columns of a bit matrix, in the order in which a program meets them."""
        for ready in self._ready.values():
            if ready is not None:
                columns = {id(site.width): number for number, site in enumerate(self.model._sites)}
                met = ready.prepared.program.order_of_sites
                return [columns[id(ready.captured.sites[site].holder)] for site in met]
        return []

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Within :meth:`active`, the model runs as it is inside the block."""
        before, self._suspended = self._suspended, True
        try:
            yield
        finally:
            self._suspended = before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's result."""
        if self._suspended or torch.is_grad_enabled():  # programs have no gradients
            return self.model.model(*args, **kwargs)
        try:
            call = Call.of(args, kwargs)
        except NotCapturableError as reason:
            self.note(f"The model runs unprepared: {reason}.")
            return self.model.model(*args, **kwargs)
        if call.signature not in self._ready:
            self._ready[call.signature] = self._made(call)
        elif call.signature in self._unchecked:
            ready = self._ready[call.signature]
            if ready is None or not self._is_faithful(ready, call):
                self._ready[call.signature] = self._made(call)
        self._unchecked.discard(call.signature)
        ready = self._ready[call.signature]
        return self.model.model(*args, **kwargs) if ready is None else ready(call)

    def _tensors(self) -> tuple[int, ...]:
        return tuple(id(tensor) for tensor in (*self.model.parameters(), *self.model.buffers()))

    def _made(self, call: Call) -> _Ready | None:
        self._recorded_tensors = self._tensors()
        is_float32 = all(p.dtype == torch.float32 for p in self.model.parameters() if p.is_floating_point())
        for integers in (True, False) if self.integers and is_float32 else (False,):
            try:
                captured = capture(self.model.model, call)
            except NotCapturableError as reason:
                self.note(f"The model runs unprepared: {reason}.")
                return None
            largest = self._largest_bits(captured)
            ready = _Ready(captured, prepare(captured, largest, integers=integers))
            if self._is_faithful(ready, call):
                for product in ready.prepared.in_floating_point:
                    self.note(f"In floating point: {product}.")
                return ready
            kind = "A program in integers" if integers else "A program"
            self.note(f"{kind} that computes something else than the model is not used.")
        return None

    def _largest_bits(self, captured: Captured) -> dict[int, int]:
        by_width = {id(s.width): info for s, info in zip(self.model._sites, self.model.profile, strict=True)}
        return {site.index: by_width[id(site.holder)].max_bits for site in captured.sites}

    def _is_faithful(self, ready: _Ready, call: Call) -> bool:
        # At fixed widths: every process, and a resumed run, comes to the same verdict.
        before = [site.width.bits for site in self.model._sites]
        try:
            self.model.set_bits(min(max(4, info.min_bits), info.max_bits) for info in self.model.profile)
            if not self._agrees(ready, call, call.tensors, FAITHFUL_AT_HAND):
                return False
            self.model.set_bits(info.max_bits for info in self.model.profile)
            return self._agrees(ready, call, _rolled(call.tensors), FAITHFUL_AT_MOST_BITS)
        finally:
            self.model.set_bits(before)

    def _agrees(self, ready: _Ready, call: Call, tensors: tuple[Tensor, ...], share: float) -> bool:
        expected = self._outputs(call, tensors)
        try:
            computed = ready.prepared.program(tensors)
        except RuntimeError as error:
            self.note(f"A program fails: {error}.")
            return False
        if len(expected) != len(computed):
            return False
        pairs = list(zip(expected, computed, strict=True))
        if all(_difference(one, other) <= share for one, other in pairs):
            return True
        shaken = tuple(t * (1 + NOISE) if t.is_floating_point() else t for t in tensors)
        noise = map(_difference, expected, self._outputs(call, shaken))
        return all(
            _difference(one, other) <= max(share, FAITHFUL_TO_NOISE * own)
            for (one, other), own in zip(pairs, noise, strict=True)
        )

    def _outputs(self, call: Call, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        args, kwargs = call.arguments(tensors)
        return [x for x in pytree.tree_leaves(self.model.model(*args, **kwargs)) if isinstance(x, Tensor)]

    def note(self, text: str) -> None:
        """Say once what is computed otherwise than asked for."""
        if text not in self.fallbacks:
            self.fallbacks.append(text)
            _logger.info(text)


def _rolled(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # Whole numbers may be indices into the others, and stay what they are.
    return tuple(t.roll(1, 0) if t.dim() and t.is_floating_point() else t for t in tensors)


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
