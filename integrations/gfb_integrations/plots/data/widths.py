"""The bit widths of a run: which are in force, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from gfb_brevitas.profile import QuantizerInfo
from gfb_brevitas.search import RecordedRun
from gfb_brevitas.space import Bits

LONGEST_LABEL = 34


@dataclass(frozen=True, kw_only=True, eq=False)
class OfWidths:
    """What a chart of the widths in force begins with.

    Attributes:
        run: The run.
    """

    run: RecordedRun

    @cached_property
    def widths(self) -> Bits | None:
        """The widths in force, shape ``(quantizers,)``."""
        return widths_in_force(self.run)

    @cached_property
    def reference(self) -> Bits | None:
        """Uniform widths to compare with, shape ``(quantizers,)``."""
        return reference_widths(self.run)

    @property
    def reference_name(self) -> str:
        """What the reference is called."""
        return reference_name(self.run)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Short names of the quantizers in forward order."""
        return labels(self.run)

    @property
    def missing(self) -> str | None:
        """Why there is nothing to draw."""
        if not self.run.quantizers:
            return "The model has no quantizer that is searched."
        return "No allocation was recorded yet." if self.widths is None else None


def widths_in_force(run: RecordedRun) -> Bits | None:
    """The final widths, or of a run under way those of its last record; shape ``(quantizers,)``."""
    allocation: Mapping[str, int] | None = run.allocation
    if allocation is None:
        records = (getattr(record, "allocation", None) for record in reversed(run.history.records))
        allocation = next((found for found in records if found), None)
    if allocation is None:
        return None
    return np.array([int(allocation[q.name]) for q in run.quantizers], dtype=np.int64)


def reference_widths(run: RecordedRun) -> Bits | None:
    """The uniform widths that the first relative budget speaks of, within every quantizer's range."""
    for budget in run.configuration.get("budgets", []):
        uniform = budget.get("uniform_bits") if isinstance(budget, Mapping) else None
        if uniform is not None:
            weight, activation = _pair(uniform)
            return np.array(
                [
                    min(max(weight if q.kind == "weight" else activation, q.min_bits), q.max_bits)
                    for q in run.quantizers
                ],
                dtype=np.int64,
            )
    return None


def reference_name(run: RecordedRun) -> str:
    """What the widths of :func:`reference_widths` are called."""
    for budget in run.configuration.get("budgets", []):
        uniform = budget.get("uniform_bits") if isinstance(budget, Mapping) else None
        if uniform is not None:
            weight, activation = _pair(uniform)
            return f"uniform {weight}" if weight == activation else f"uniform {weight} / {activation}"
    return "uniform"


def labels(run: RecordedRun) -> tuple[str, ...]:
    """Short names of the quantizers for an axis, each different: the layer, and W or A."""
    return unique([_short(q, "W" if q.kind == "weight" else "A") for q in run.quantizers])


def layer_label(run: RecordedRun, layer: str) -> str:
    """The short name of a layer; with its kind and shape where the name is only a number."""
    kinds = {q.name.rpartition(".")[0]: q.layer for q in run.quantizers if q.has_numbered_layer}
    about = kinds.get(layer) or kinds.get(layer.rpartition(".")[0], "")
    return shortened(f"{layer} {about}".rstrip(), LONGEST_LABEL)


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names with a number behind those that were there before; on an axis equal ones would be one place.

    Example:
        >>> unique(["conv", "fc", "conv"])
        ('conv', 'fc', 'conv (2)')
    """
    taken: set[str] = set()
    made = []
    for name in names:
        numbered = (f"{name} ({number})" for number in count(2))
        made.append(name if name not in taken else next(text for text in numbered if text not in taken))
        taken.add(made[-1])
    return tuple(made)


def _short(quantizer: QuantizerInfo, kind: str) -> str:
    layer = quantizer.name
    for suffix in (".weight_quant", ".act_quant", ".output_quant", ".input_quant"):
        layer = layer.removesuffix(suffix)
    about = f" {quantizer.layer}" if quantizer.has_numbered_layer and quantizer.layer else ""
    return f"{shortened(f'{layer}{about}', LONGEST_LABEL - 2)} {kind}"


def shortened(text: str, most: int) -> str:
    """A text with its middle left out where it is long.

    Example:
        >>> shortened("layer4.1.downsample.conv", 15)
        'layer4.1.….conv'
    """
    if len(text) <= most:
        return text
    head = most * 3 // 5
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def _pair(uniform: Any) -> tuple[int, int]:
    weight, activation = uniform if isinstance(uniform, list | tuple) else (uniform, uniform)
    return int(weight), int(activation)
