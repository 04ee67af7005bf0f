"""Decisions that a model makes by values, of which an export keeps the outcome on its example only.

PyTorch's tracer warns where a tensor becomes a Python number or truth value. Many of these are harmless, such
as a check of shapes. So the places are noted, and whether the file follows the model is tried on inputs that
differ from the example [ours].
"""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import brevitas
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.overrides import TorchFunctionMode

import gfb_brevitas
import gfb_integrations
from gfb_brevitas.errors import ExportError

# The tracer does not warn of those of the first line, and while a mode is active takes it for the caller.
_READS_VALUES = {"equal", "allclose", "is_nonzero"}
_READS_VALUES |= {"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "__array__"}
_BETWEEN = tuple(str(Path(torch.__file__).parent / name) for name in ("overrides.py", "_tensor.py"))
_OTHERS = tuple(
    str(Path(module.__file__ or "").resolve().parent)
    for module in (torch, brevitas, gfb_brevitas, gfb_integrations)
)


@contextmanager
def noting_decisions() -> Iterator[list[str]]:
    """Note, during a trace, lines of others than PyTorch, Brevitas and this project that decide by values."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as heard, _Comparisons(found):
        warnings.filterwarnings("always", category=TracerWarning)
        yield found
    for warning in heard:
        if str(Path(warning.filename).resolve()).startswith(_OTHERS):
            continue
        if not issubclass(warning.category, TracerWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        else:
            _note(found, warning.filename, warning.lineno)


class _Comparisons(TorchFunctionMode):
    """Notes who asks PyTorch for a truth value or a number that depends on values."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in _READS_VALUES:
            frame = sys._getframe(1)
            while frame.f_back and frame.f_code.co_filename in _BETWEEN:
                frame = frame.f_back
            if not str(Path(frame.f_code.co_filename).resolve()).startswith(_OTHERS):
                _note(self._found, frame.f_code.co_filename, frame.f_lineno)
        return func(*args, **(kwargs or {}))


def _note(found: list[str], filename: str, lineno: int) -> None:
    line = linecache.getline(filename, lineno).strip()
    place = f'File "{filename}", line {lineno}: {line}'
    found += [place] if place not in found else []


def require_no_frozen_decision(
    model: nn.Module, example: tuple[Tensor, ...], decisions: list[str], is_same: Callable[..., bool]
) -> None:
    """Refuse an export that does not follow the model where its decisions may be others.

    Args:
        model: What was exported.
        example: The inputs that it was exported on.
        decisions: The lines that :func:`noting_decisions` found; without any there is nothing to try.
        is_same: Whether the file computes what the model does, on given inputs.

    Raises:
        ExportError: With the lines, if it does not.
    """
    for what, inputs in _variations(example) if decisions else ():
        if _runs(model, inputs) and not is_same(inputs):
            listed = "\n".join(f"  {decision}" for decision in decisions)
            raise ExportError(
                "The model decides by values, and an exported graph keeps what was decided on the example "
                f"input: on {what}, it computes something else than the model. A tensor becomes a number or "
                f"a truth value at\n{listed}\nReplace the decision by operations on tensors (such as "
                "torch.where), or export the part that is used by itself."
            )


def _variations(example: tuple[Tensor, ...]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    yield "the example upside down", tuple(x.flip(tuple(range(x.dim()))) for x in example)
    yield "the example moved by one", tuple(x.roll(1, -1) if x.dim() else x for x in example)
    yield "its magnitudes", tuple(x.abs() for x in example)
    scaled = {"zeros": 0.0, "minus the example": -1.0, "a tenth of it": 0.1, "ten times the example": 10.0}
    for what, factor in scaled.items():
        yield what, tuple((x * factor).to(x.dtype) if x.is_floating_point() else x * 0 for x in example)


def _runs(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    try:
        with torch.no_grad():
            model(*inputs)
    except Exception:  # inputs that the model refuses tell nothing
        return False
    return True
