"""Proof, on real samples, that FINN's graphs compute what the model computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from gfb_brevitas.errors import ConfigurationError, EmptyDataError, ExportError
from gfb_integrations.finn.client import FinnProcess

if TYPE_CHECKING:
    from torch import Tensor, nn

_FLOAT_ROUNDING = 1e-5
"""Largest difference that is float32 rounding, relative to the largest output."""


@dataclass(frozen=True, kw_only=True)
class StageComparison:
    """How the graph after one stage of FINN's flow compares with the model.

    Attributes:
        stage: ``"qonnx"``, ``"finn dialect"``, ``"streamlined"``, ``"hardware layers"`` or
            ``"minimised widths"``.
        max_abs_diff: Largest absolute difference of the outputs.
        max_diff_steps: The same in steps of the output, rounded to whole ones; ``None`` where it has no step.
        argmax_agreement: Share of samples whose largest output is the same; ``None`` for other outputs.
        node: First node that puts out other integers than the QONNX graph; ``None`` when there is none.
        quantizer: Node of the QONNX graph that it comes closest to.
        differing_values: Values in which these two differ.
        exact: Whether the outputs differ by float32 rounding at most, and by no step.
    """

    stage: str
    max_abs_diff: float
    max_diff_steps: int | None
    argmax_agreement: float | None
    node: str | None
    quantizer: str | None
    differing_values: int
    exact: bool


@dataclass(frozen=True, kw_only=True)
class FinnVerification:
    """How FINN's graphs compare with the model.

    Attributes:
        path: The QONNX file.
        samples: Samples that were run.
        output_step: Smallest step between values of the output; ``None`` where it has none.
        stages: The comparison after every stage that FINN can execute.
    """

    path: str
    samples: int
    output_step: float | None
    stages: tuple[StageComparison, ...]

    @property
    def exact(self) -> bool:
        """Whether no stage differs by more than float32 rounding."""
        return all(stage.exact for stage in self.stages)

    @property
    def first_difference(self) -> StageComparison | None:
        """The first stage that computes something else, or ``None``."""
        return next((stage for stage in self.stages if not stage.exact), None)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data."""
        return asdict(self) | {"exact": self.exact}


def verify(
    path: str | Path,
    samples: Tensor | np.ndarray[Any, Any],
    *,
    model: nn.Module | None = None,
    outputs: np.ndarray[Any, Any] | None = None,
    board: str = "Pynq-Z1",
    standalone_thresholds: bool = False,
    process: FinnProcess | None = None,
    timeout_s: float | None = None,
) -> FinnVerification:
    """Execute the graph after every stage of FINN's flow and compare it with the model.

    The stages are the QONNX graph, FINN's dialect, the streamlined graph, the hardware layers, and these with
    minimised widths. FINN's hardware layers are executed in Python; synthesis is not part of it.

    Example:
        >>> found = verify("model.onnx", images, model=model)  # doctest: +SKIP
        >>> found.exact  # doctest: +SKIP
        True

    Args:
        path: QONNX file, exported with one sample.
        samples: Inputs, shape ``(samples, ...)``.
        model: The model that was exported, to compare with.
        outputs: What the model puts out, instead of the model. Without both, every stage is compared with the
            QONNX graph.
        board: Board of the build.
        standalone_thresholds: Whether activations become layers of their own.
        process: A process to use; by default one is started for this call.
        timeout_s: Longest time for FINN, in seconds.

    Raises:
        MissingExtraError: If there is no FINN.
        FinnBuildError: If FINN refuses the model; names the stage and the layer.
        FinnError: If FINN's process fails.
        ExportError: If there is no such file.
        ConfigurationError: If both ``model`` and ``outputs`` are given, shapes do not fit, samples are not
            finite, or the model puts out more than one tensor.
        EmptyDataError: If there are no samples.
    """
    source = Path(path).absolute()
    if not source.is_file():
        raise ExportError(f"There is no file {str(path)!r}. Give a QONNX file.")
    inputs = np.asarray(samples, dtype=np.float32)
    if not len(inputs):
        raise EmptyDataError("There are no samples to verify the graph on; give at least one.")
    if not np.isfinite(inputs).all():
        raise ConfigurationError("Samples must be finite numbers; there are NaN or infinities among them.")
    settings = {
        "board": board,
        "fps": None,
        "clock_mhz": 100.0,
        "standalone_thresholds": standalone_thresholds,
        "folding_file": None,
    }
    with (
        TemporaryDirectory() as folder,
        nullcontext(process) if process is not None else FinnProcess() as used,
    ):
        file = Path(folder) / "samples.npz"
        expected = _expected(inputs, model, outputs)
        arrays: dict[str, Any] = {"inputs": inputs} | ({} if expected is None else {"outputs": expected})
        np.savez(file, **arrays)
        result = used.call(
            *("verify",),
            model=str(source),
            samples=str(file),
            output=folder,
            settings=settings,
            timeout_s=timeout_s,
        )
    return _verification(source, len(inputs), result)


def _expected(
    inputs: np.ndarray[Any, Any], model: nn.Module | None, outputs: np.ndarray[Any, Any] | None
) -> np.ndarray[Any, Any] | None:
    if model is not None and outputs is not None:
        raise ConfigurationError("Give the model or what it puts out, not both.")
    if model is not None:
        outputs = _run(model, inputs)
    if outputs is None:
        return None
    found = np.asarray(outputs)
    if len(found) != len(inputs):
        raise ConfigurationError(
            f"There must be as many outputs as samples; got {len(found)} and {len(inputs)}."
        )
    return found


def _run(model: nn.Module, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import torch

    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            found = model(torch.from_numpy(inputs).to(device))
    finally:
        for module, training in flags:
            module.training = training
    tensor = getattr(found, "value", found)
    if not isinstance(tensor, torch.Tensor):
        raise ConfigurationError(
            f"The model must put out one tensor to be compared; it put out a {type(found).__name__}."
        )
    value: np.ndarray[Any, Any] = tensor.cpu().numpy()
    return value


def _verification(source: Path, count: int, result: Mapping[str, Any]) -> FinnVerification:
    step = _output_step(source)
    allowed = _FLOAT_ROUNDING * result["largest"]
    return FinnVerification(
        path=str(source),
        samples=count,
        output_step=step,
        stages=tuple(_stage(entry, step, allowed) for entry in result["stages"]),
    )


def _stage(entry: Mapping[str, Any], step: float | None, allowed: float) -> StageComparison:
    difference = entry["max_abs_diff"]
    steps = None if step is None or not math.isfinite(difference) else round(difference / step)
    # Not the other way round: what is no number is no small difference.
    exact = difference <= allowed and not steps and (step is not None or entry["node"] is None)
    return StageComparison(**entry, max_diff_steps=steps, exact=exact)


def _output_step(source: Path) -> float | None:
    """The step of the file's output, where QONNX is installed here to read it."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    from gfb_integrations.qonnx._execution import ExecutableGraph
    from gfb_integrations.qonnx._output_step import output_step

    graph = ExecutableGraph(cleanup_model(ModelWrapper(str(source))))
    step, _ = output_step(graph, graph.outputs[0])
    return step
