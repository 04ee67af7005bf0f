"""Proof, on real samples, that FINN's graphs compute what the model computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from gfb_brevitas.errors import CheckpointError, ConfigurationError, ExportError
from gfb_integrations._documents import digest_of, read_document, write_document
from gfb_integrations.finn.client import FinnProcess, in_process
from gfb_integrations.finn.model_files import model_file
from gfb_integrations.finn.samples import outputs_of, samples_of
from gfb_integrations.finn.settings import build_settings

if TYPE_CHECKING:
    from torch import Tensor, nn

_FLOAT_ROUNDING = 1e-5
"""Largest difference that is float32 rounding, relative to the largest output."""
_KIND = "finn_verification"


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
        exact: Whether the outputs differ by float32 rounding at most, but for samples with a rounding flip.
        rounding_flips: Values within a float32 rounding error of the middle between two integers that went to
            the other side: of the QONNX graph against the model, of the other stages against the QONNX graph.
            What differs behind them is nobody's mistake; see :func:`gfb_integrations.qonnx.verify`.
    """

    stage: str
    max_abs_diff: float
    max_diff_steps: int | None
    argmax_agreement: float | None
    node: str | None
    quantizer: str | None
    differing_values: int
    exact: bool
    rounding_flips: int = 0


@dataclass(frozen=True, kw_only=True)
class FinnVerification:
    """How FINN's graphs compare with the model.

    Attributes:
        path: The QONNX file.
        samples: Samples that were run.
        output_step: Smallest step between values of the output; ``None`` where it has none.
        stages: The comparison after every stage that FINN can execute.
        compared_with: ``"PyTorch"``, ``"the outputs given"`` or ``"the file"`` itself.
        board: Board of the build.
        standalone_thresholds: Whether activations are layers of their own.
        model_sha256: Digest of the QONNX file.
        versions: Versions of FINN and of what it runs on.
    """

    path: str
    samples: int
    output_step: float | None
    stages: tuple[StageComparison, ...]
    compared_with: str = "the file"
    board: str = ""
    standalone_thresholds: bool = False
    model_sha256: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

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

    def save(self, path: str | Path) -> None:
        """Write the comparison to a JSON file with a checksum, whole or not at all.

        Raises:
            CheckpointError: If it cannot be written.
        """
        write_document(Path(path), _KIND, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> FinnVerification:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: Naming the file, if it cannot be read, is damaged or holds something else.
        """
        document = read_document(Path(path), _KIND)
        try:
            document["stages"] = tuple(StageComparison(**stage) for stage in document["stages"])
            return cls(**{item.name: document[item.name] for item in fields(cls)})
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{str(path)!r} is damaged: it is no verification ({error}).") from error

    def __str__(self) -> str:
        verdict = "every stage computes the same" if self.exact else "NOT the same"
        lines = [f"{self.samples} samples: {verdict}"]
        for stage in self.stages:
            node = "" if stage.node is None else f", first at {stage.node} ({stage.differing_values} values)"
            same = "exact" if stage.exact else "DIFFERENT"
            lines.append(f"  {stage.stage}: {same}, largest difference {stage.max_abs_diff:.3g}{node}")
        return "\n".join(lines)


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
        board: Board of the build, by a name that :func:`~gfb_integrations.finn.estimate` takes.
        standalone_thresholds: Whether activations become layers of their own.
        process: A process to use; by default one is started for this call.
        timeout_s: Longest time for FINN, in seconds.

    Raises:
        MissingExtraError: If there is no FINN.
        FinnBuildError: If FINN refuses the model; names the stage and the layer.
        FinnError: If FINN's process fails.
        ExportError: If there is no such file, or it holds no model.
        ConfigurationError: If both ``model`` and ``outputs`` are given, shapes do not fit, samples are not
            finite, or the model puts out more than one tensor.
        EmptyDataError: If there are no samples.
    """
    file = model_file(path)
    settings = build_settings(board, standalone_thresholds=standalone_thresholds)
    inputs = samples_of(samples)
    expected = _expected(inputs, model, outputs, file.output_shape)
    arrays: dict[str, Any] = {"inputs": inputs} | ({} if expected is None else {"outputs": expected})
    with in_process(process, timeout_s) as used, TemporaryDirectory(dir=used.folder) as folder:
        path_of_samples = Path(folder) / "samples.npz"
        np.savez(path_of_samples, **arrays)
        result = used.call(
            *("verify",),
            model=str(file.path),
            samples=str(path_of_samples),
            output=folder,
            settings=settings,
            timeout_s=timeout_s,
        )
        versions = used.versions
    given = "the file" if outputs is None else "the outputs given"
    return replace(
        _verification(file.path, inputs, model, result),
        compared_with=given if model is None else "PyTorch",
        board=settings["board"],
        standalone_thresholds=settings["standalone_thresholds"],
        model_sha256=digest_of(file.path),
        versions=versions,
    )


def _expected(
    inputs: np.ndarray[Any, Any],
    model: nn.Module | None,
    outputs: np.ndarray[Any, Any] | None,
    shape: tuple[int, ...] | None,
) -> np.ndarray[Any, Any] | None:
    if model is not None and outputs is not None:
        raise ConfigurationError("Give the model or what it puts out, not both.")
    if model is not None:
        outputs = _run(model, inputs)
    return None if outputs is None else outputs_of(outputs, len(inputs), shape)


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


def _verification(
    source: Path, inputs: np.ndarray[Any, Any], model: nn.Module | None, result: Mapping[str, Any]
) -> FinnVerification:
    step = _output_step(source)
    allowed = _FLOAT_ROUNDING * result["largest"]
    first, *rest = result["stages"]
    stages = [_stage(first, step, allowed)]
    if not stages[0].exact and model is not None:
        flips = _flips(model, source, inputs)
        stages[0] = replace(stages[0], exact=bool(flips), rounding_flips=flips or 0)
    stages += [_stage(entry, step, allowed, qonnx_is_right=stages[0].exact) for entry in rest]
    return FinnVerification(path=str(source), samples=len(inputs), output_step=step, stages=tuple(stages))


def _flips(model: nn.Module, source: Path, inputs: np.ndarray[Any, Any]) -> int | None:
    """Values that the QONNX graph rounds to the other side; ``None`` where that explains no difference."""
    import torch

    from gfb_integrations.qonnx import verify as verify_layers

    try:
        return verify_layers(model, source, torch.from_numpy(inputs)).rounding_flips
    except ExportError:
        return None


def _stage(
    entry: Mapping[str, Any], step: float | None, allowed: float, *, qonnx_is_right: bool = False
) -> StageComparison:
    """A stage is exact where every sample is, or differs by values that flipped.

    Args:
        entry: What FINN's process says of it.
        step: Step of the output.
        allowed: Largest difference that is float32 rounding.
        qonnx_is_right: Whether the QONNX graph computes what the model does, but for flips.
    """

    def steps_of(difference: float) -> int | None:
        return None if step is None or not math.isfinite(difference) else round(difference / step)

    def is_exact(difference: float, flips: int | None, as_qonnx: bool) -> bool:
        # Not the other way round: what is no number is no small difference.
        if difference <= allowed and not steps_of(difference):
            return step is not None or flips is not None
        return bool(flips) or (as_qonnx and qonnx_is_right)

    samples = zip(entry["differences"], entry["flips"], entry["as_qonnx"], strict=True)
    fields = ("stage", "max_abs_diff", "argmax_agreement", "node", "quantizer", "differing_values")
    return StageComparison(
        **{name: entry[name] for name in fields},
        max_diff_steps=steps_of(entry["max_abs_diff"]),
        exact=all(is_exact(*sample) for sample in samples),
        rounding_flips=sum(flips or 0 for flips in entry["flips"]),
    )


def _output_step(source: Path) -> float | None:
    """The step of the file's output, where QONNX is installed here to read it."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.util.cleanup import cleanup_model

    from gfb_integrations.qonnx._execution import ExecutableGraph
    from gfb_integrations.qonnx._output_step import output_step

    graph = ExecutableGraph(cleanup_model(ModelWrapper(str(source))))
    step, _ = output_step(graph, graph.outputs[0])
    return step
