"""The stages of FINN's flow, from a QONNX file to folded hardware layers, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from itertools import takewhile
from typing import Any

from finn.builder import build_dataflow_config as config
from finn.builder import build_dataflow_steps as steps
from finn.util.basic import part_map
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.cleanup import cleanup_model

from .failures import StageError, failing_as
from .streamlining import streamline

Step = Callable[[Any, Any], Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        name: Its name in messages and results.
        steps: FINN's build steps that it consists of.
        executable: Whether FINN can execute its result in Python.
        configured: Whether its result depends on the configuration.
    """

    name: str
    steps: tuple[Step, ...]
    executable: bool = True
    configured: bool = True


def _read_qonnx(model: Any, _: Any) -> Any:
    return cleanup_model(model).transform(InferShapes()).transform(InferDataTypes())


STAGES = (
    Stage(name="qonnx", steps=(_read_qonnx,), configured=False),
    Stage(name="finn dialect", steps=(steps.step_qonnx_to_finn, steps.step_tidy_up), configured=False),
    Stage(name="streamlined", steps=(streamline,), configured=False),
    Stage(name="hardware layers", steps=(steps.step_convert_to_hw,)),
    Stage(name="minimised widths", steps=(steps.step_minimize_bit_width_initial,)),
    Stage(name="dataflow partition", steps=(steps.step_create_dataflow_partition,), executable=False),
    Stage(name="specialised layers", steps=(steps.step_specialize_layers,), executable=False),
    Stage(
        name="folded",
        steps=(steps.step_target_fps_parallelization, steps.step_apply_folding_config),
        executable=False,
    ),
    Stage(name="final widths", steps=(steps.step_minimize_bit_width,), executable=False),
)


def make_config(output: str, settings: dict[str, Any]) -> Any:
    """FINN's configuration of a build that ends with estimates.

    Args:
        output: Folder for what FINN writes.
        settings: ``board``, ``fps`` (or ``None``), ``clock_mhz``, ``standalone_thresholds`` and
            ``folding_file`` (or ``None``).
    """
    with failing_as("configuration"):
        _require_board(settings["board"])
        return config.DataflowBuildConfig(
            output_dir=output,
            synth_clk_period_ns=1000.0 / settings["clock_mhz"],
            board=settings["board"],
            target_fps=settings["fps"],
            folding_config_file=settings["folding_file"],
            standalone_thresholds=settings["standalone_thresholds"],
            generate_outputs=[config.DataflowOutputType.ESTIMATE_REPORTS],
        )


def _require_board(board: str) -> None:
    if board not in part_map:
        raise StageError(
            "configuration", f"There is no board {board!r}. There are: {', '.join(sorted(part_map))}."
        )


def _require_one_sample(model: Any) -> None:
    for tensor in model.graph.input:
        shape = tuple(model.get_tensor_shape(tensor.name) or ())
        if model.get_initializer(tensor.name) is None and shape[:1] != (1,):
            raise StageError(
                "reading",
                f"The input {tensor.name} has shape {shape}. FINN takes one sample at a time: export with "
                "one.",
            )


def run_stages(path: str, configuration: Any, last: str | None = None) -> Iterator[tuple[Stage, Any]]:
    """Run the flow; yields every stage with the model that it results in.

    Raises:
        StageError: At the stage that FINN refuses.
    """
    prepared = _unconfigured(path, _digest(path))
    for stage, model in prepared:
        yield stage, deepcopy(model)
        if stage.name == last:
            return
    _, model = deepcopy(prepared[-1])
    for stage in STAGES[len(prepared) :]:
        model = _run(stage, model, configuration)
        yield stage, model
        if stage.name == last:
            return


@lru_cache(maxsize=1)
def _unconfigured(path: str, digest: str) -> tuple[tuple[Stage, Any], ...]:  # noqa: ARG001 - part of the key
    """The first stages, kept for the next request: most of the time goes there."""
    with failing_as("reading"):
        model = ModelWrapper(path)
        _require_one_sample(model)
    any_configuration = config.DataflowBuildConfig(
        output_dir="", synth_clk_period_ns=10.0, board="Pynq-Z1", generate_outputs=[]
    )
    found = []
    for stage in takewhile(lambda stage: not stage.configured, STAGES):
        model = _run(stage, deepcopy(model), any_configuration)
        found.append((stage, model))
    return tuple(found)


def _run(stage: Stage, model: Any, configuration: Any) -> Any:
    with failing_as(stage.name):
        for step in stage.steps:
            model = step(model, configuration)
    return model


def _digest(path: str) -> str:
    with failing_as("reading"), open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()
