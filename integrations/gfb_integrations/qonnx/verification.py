"""Proof, on real samples, that an exported file computes what the model computes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gfb_brevitas.errors import ConfigurationError, EmptyDataError, ExportError
from gfb_integrations._optional import require
from gfb_integrations.qonnx._comparison import Comparator, Comparison, Parting, largest_difference
from gfb_integrations.qonnx._copies import as_inputs, working_copy
from gfb_integrations.qonnx._execution import Array, ExecutableGraph
from gfb_integrations.qonnx._output_step import output_step

REQUIRED_MODULES = ("onnx", "onnxruntime", "onnxoptimizer", "qonnx")
EXTRA = "export"

LARGE_BATCH = 32
"""Samples that are run at once where the graph allows."""


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """How an exported graph compares with the model.

    Attributes:
        path: The file.
        samples: Samples that were compared.
        max_abs_diff: Largest absolute difference between the outputs; both run freely.
        output_step: Smallest step between neighbouring values of the first output; ``None`` when the
            output is not a quantized value or a product of them.
        max_diff_steps: ``max_abs_diff`` in such steps.
        no_step_reason: Why ``output_step`` is ``None``.
        argmax_agreement: Fraction of the first output's largest entries along axis 1 that agree; ``None``
            for an output without such an axis.
        rounding_flips: Quantized values that the graph rounds to the other side although its quantizer
            gets the same values up to the rounding error of float32. They explain differences of whole steps.
        flips_by_layer: ``rounding_flips`` per quantizer.
        samples_with_flips: Samples in which there is one; all of a batch where a quantizer's first axis is
            not the batch.
        layers_compared: Layers whose outputs were compared.
        layers_not_compared: Layers of the graph for which the model has no comparable output.
        rtol: Tolerance of the comparison, see :func:`verify`.
    """

    path: str
    samples: int
    max_abs_diff: float
    output_step: float | None
    max_diff_steps: float | None
    no_step_reason: str | None
    argmax_agreement: float | None
    rounding_flips: int
    flips_by_layer: dict[str, int]
    samples_with_flips: int
    layers_compared: int
    layers_not_compared: tuple[str, ...]
    rtol: float

    def to_dict(self) -> dict[str, Any]:
        """The report as data for JSON."""
        return asdict(self)


def verify(
    model: nn.Module,
    path: str | os.PathLike[str],
    samples: Tensor | tuple[Tensor, ...],
    *,
    rtol: float = 1e-5,
    atol: float | None = None,
) -> VerificationReport:
    """Run an exported QONNX file and the model on the same samples and compare them layer by layer.

    The file is executed by QONNX itself. Where the two differ, the graph is run again node by node with
    the model's values put in after every difference, so that a *rounding flip* (a value within the rounding
    error of float32 of the boundary between two integers) is told apart from an error. Flips are counted,
    errors raised. What is proven is the equality on these samples: a clipping value that none of them
    reaches is not. [ours]

    Args:
        model: The plain Brevitas model that was exported. It is not changed.
        path: The file that :func:`~gfb_integrations.qonnx.export_qonnx` wrote.
        samples: The model's input, first axis samples; a tuple when it takes several. The graph has a fixed
            batch size; samples are fed in batches of it, the last one filled up by repetition.
        rtol: Rounding error of float32 to allow for, relative to the largest magnitude in a tensor.
        atol: When given, the largest absolute difference of the outputs that is accepted, flips included.

    Returns:
        The figures of the comparison.

    Raises:
        ExportError: If the graph computes something else; the message names the first layer that does.
            Also if the file cannot be read or run, or ``atol`` is exceeded.
        ConfigurationError: If ``samples`` do not fit the graph, or a tolerance is negative.
        EmptyDataError: If there are no samples.
        MissingExtraError: If QONNX is not installed.
    """
    require(*REQUIRED_MODULES, extra=EXTRA, purpose="Verifying a QONNX file")
    return verify_file(working_copy(model), Path(path), samples, rtol=rtol, atol=atol)


def verify_file(
    model: nn.Module,
    path: Path,
    samples: Tensor | tuple[Tensor, ...],
    *,
    rtol: float,
    atol: float | None,
    shown: Path | None = None,
) -> VerificationReport:
    """:func:`verify` with a model that may be changed, and with a path for messages (``shown``)."""
    _require_tolerances(rtol, atol)
    graph = ExecutableGraph.load(path)
    inputs = as_inputs(samples, "samples")
    count = _count_samples(graph, inputs)
    comparator = Comparator(graph, model, rtol)
    tally = _Tally()
    for batch, comparison in _compare_all(comparator, inputs, count):
        if comparison.partings:
            raise ExportError(_parted(shown or path, comparison.partings))
        tally.add(comparison, batch)
    report = tally.report(shown or path, comparator)
    if atol is not None and not report.max_abs_diff <= atol:
        raise ExportError(_beyond(report, atol))
    return report


def _compare_all(
    comparator: Comparator, samples: tuple[Tensor, ...], count: int
) -> Iterator[tuple[int, Comparison]]:
    """Compare all samples, a batch at a time; yields how many samples each comparison is about.

    The first batch is of the graph's own size. The others go through a copy of the graph for larger batches,
    which saves most of the executor's time. A batch on which that copy disagrees is compared once more with
    the graph itself: shapes that do not scale with the batch may have broken the copy.
    """
    own = comparator.graph.shape(comparator.graph.inputs[0])[0]
    yield min(own, count), comparator.compare(_rows(samples, 0, own))
    large = max(own, min(LARGE_BATCH, count - own))
    widened = comparator.graph.with_batch_size(large) if large > own else None
    fast = None if widened is None else comparator.on(widened)
    start = own
    while start < count:
        stop = min(start + large, count)
        comparison = _compared_at_once(fast, _rows(samples, start, large))
        if comparison is not None:
            yield stop - start, comparison
        else:
            fast = None
            for first in range(start, stop, own):
                yield min(own, stop - first), comparator.compare(_rows(samples, first, own))
        start = stop


def _compared_at_once(fast: Comparator | None, batch: tuple[Tensor, ...]) -> Comparison | None:
    if fast is None:
        return None
    try:
        comparison = fast.compare(batch)
    except ExportError:
        return None
    return None if comparison.partings else comparison


def _rows(samples: tuple[Tensor, ...], start: int, size: int) -> tuple[Tensor, ...]:
    """``size`` samples from ``start``; past the end, the last one again."""
    return tuple(x[torch.arange(start, start + size).clamp(max=len(x) - 1)] for x in samples)


class _Tally:
    """Figures gathered batch by batch."""

    def __init__(self) -> None:
        self.samples = 0
        self.largest = 0.0
        self.agreements: list[Array] = []
        self.flips: Counter[str] = Counter()
        self.samples_with_flips = 0

    def add(self, comparison: Comparison, rows: int) -> None:
        """Add one batch of which the first ``rows`` samples count."""
        for computed, expected in zip(comparison.outputs, comparison.expected, strict=True):
            self.largest = max(self.largest, largest_difference(computed[:rows], expected[:rows]))
        first, expected = comparison.outputs[0][:rows], comparison.expected[0][:rows]
        if first.ndim > 1 and first.shape[1] > 1:
            self.agreements.append((first.argmax(axis=1) == expected.argmax(axis=1)).ravel())
        flipped: set[int] = set()
        for layer, mask in comparison.flips:
            per_sample = len(mask) == len(comparison.outputs[0])
            counted = mask[:rows] if per_sample else mask
            self.flips[layer] += int(counted.sum())
            flipped.update(np.argwhere(counted)[:, 0].tolist() if per_sample else range(rows))
        self.samples_with_flips += len(flipped)
        self.samples += rows

    def report(self, path: Path, comparator: Comparator) -> VerificationReport:
        """The figures of all batches."""
        graph = comparator.graph
        step, reason = output_step(graph, graph.outputs[0])
        return VerificationReport(
            path=str(path),
            samples=self.samples,
            max_abs_diff=self.largest,
            output_step=step,
            max_diff_steps=None if not step else self.largest / step,
            no_step_reason=reason,
            argmax_agreement=float(np.concatenate(self.agreements).mean()) if self.agreements else None,
            rounding_flips=self.flips.total(),
            flips_by_layer={layer: count for layer, count in self.flips.items() if count},
            samples_with_flips=self.samples_with_flips,
            layers_compared=len(comparator.compared),
            layers_not_compared=tuple(sorted(comparator.not_compared)),
            rtol=comparator.rtol,
        )


def _count_samples(graph: ExecutableGraph, samples: tuple[Tensor, ...]) -> int:
    """How many samples there are, after checking that they fit the inputs of the graph."""
    expected = [(graph.shape(name)[1:], graph.dtype(name)) for name in graph.inputs]
    given = [(tuple(x.shape[1:]), x[:0].numpy().dtype) for x in samples if x.dim()]
    if given != expected or len({len(x) for x in samples}) > 1:
        raise ConfigurationError(
            f"The samples must fit the inputs of the graph, {_described(expected)}; got {_described(given)}."
        )
    if not len(samples[0]):
        raise EmptyDataError("There are no samples to verify the graph on; give at least one.")
    return len(samples[0])


def _described(inputs: list[tuple[tuple[int, ...], Any]]) -> str:
    return ", ".join(f"{dtype} [samples{''.join(f', {n}' for n in shape)}]" for shape, dtype in inputs)


def _require_tolerances(rtol: float, atol: float | None) -> None:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not 0 <= value < float("inf"):
            raise ConfigurationError(f"`{name}` must be finite and not negative; got {value}.")


def _parted(path: Path, partings: list[Parting]) -> str:
    first = partings[0]
    where = f"at the layer {first.layer!r}" if first.layer else "at the model's output"
    others = ", ".join(dict.fromkeys(parting.layer or "the output" for parting in partings[1:]))
    return (
        f"{str(path)!r} does not compute what the model computes. They part first {where} "
        f"(node {first.node}): largest difference {first.largest_difference:.4g} among values up to "
        f"{first.largest_value:.4g}."
        + (f" Given equal inputs, these differ too: {others}." if others else "")
        + " If the model was changed after the export, export it again."
    )


def _beyond(report: VerificationReport, atol: float) -> str:
    flips = ", ".join(f"{layer} ({count})" for layer, count in report.flips_by_layer.items())
    return (
        f"The outputs of {report.path!r} may differ from the model's by at most atol = {atol:g}; they differ "
        f"by {report.max_abs_diff:.4g}. Every layer agrees on equal inputs; "
        + (f"values that rounded to the other side: {flips}." if flips else "the rest is float32 rounding.")
        + " Raise atol, or leave it out to accept rounding."
    )
