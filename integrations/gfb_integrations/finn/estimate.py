"""FINN's own estimates of a QONNX file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gfb_brevitas.errors import ConfigurationError, ExportError
from gfb_integrations.finn.client import FinnProcess


@dataclass(frozen=True, kw_only=True)
class FinnNode:
    """A hardware layer.

    Attributes:
        name: FINN's name, e.g. ``"MVAU_hls_0"``.
        kind: FINN's operator, e.g. ``"MVAU_hls"``.
        inputs: Names of the layers that feed it.
        cycles: Clock cycles per sample.
        lut: Look-up tables.
        bram_18k: Block RAMs of 18 kbit.
        uram: UltraRAMs.
        dsp: DSP slices.
        attributes: FINN's attributes of the node (``MW``, ``PE``, ``SIMD``, ``accDataType``, ...).
        input_types: FINN's names of the data types of its inputs; parameters included.
        output_types: Those of its outputs.
        input_shapes: Shapes of its inputs, parameters included.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    cycles: int
    lut: float
    bram_18k: float
    uram: float
    dsp: float
    attributes: Mapping[str, Any] = field(repr=False)
    input_types: tuple[str, ...]
    output_types: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class FinnEstimate:
    """What FINN estimates for a model.

    Attributes:
        board: The board.
        part: Its FPGA.
        clock_mhz: Clock frequency.
        nodes: The hardware layers, in the order of the data.
        host_nodes: Names of the nodes that stay outside the FPGA, before and behind these; in no number.
        critical_path_cycles: Latency of one sample through the empty network, in clock cycles.
        versions: Versions of FINN and of what it runs on.
    """

    board: str
    part: str
    clock_mhz: float
    nodes: tuple[FinnNode, ...]
    host_nodes: tuple[str, ...]
    critical_path_cycles: int
    versions: Mapping[str, str]

    @property
    def max_cycles(self) -> int:
        """Clock cycles per sample of the slowest layer."""
        return max((node.cycles for node in self.nodes), default=0)

    @property
    def fps(self) -> float:
        """Samples per second."""
        return self.clock_mhz * 1e6 / self.max_cycles if self.max_cycles else math.inf

    @property
    def latency_us(self) -> float:
        """Latency of one sample through the empty network, in microseconds."""
        return self.critical_path_cycles / self.clock_mhz

    def total(self, resource: str) -> float:
        """Sum of ``"lut"``, ``"bram_18k"``, ``"uram"`` or ``"dsp"`` over the layers."""
        return float(sum(getattr(node, resource) for node in self.nodes))

    def folding(self) -> dict[str, dict[str, Any]]:
        """The parallelisation of every layer, in the form of FINN's folding files."""
        keys = ("PE", "SIMD", "parallel_window", "ram_style", "resType", "mem_mode")
        return {n.name: {key: n.attributes[key] for key in keys if key in n.attributes} for n in self.nodes}

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain data."""
        return {
            "board": self.board,
            "part": self.part,
            "clock_mhz": self.clock_mhz,
            "fps": self.fps,
            "latency_us": self.latency_us,
            **{name: self.total(name) for name in ("lut", "bram_18k", "uram", "dsp")},
            "nodes": [
                {
                    name: getattr(n, name)
                    for name in ("name", "kind", "cycles", "lut", "bram_18k", "uram", "dsp")
                }
                for n in self.nodes
            ],
            "host_nodes": list(self.host_nodes),
            "versions": dict(self.versions),
        }


def estimate(
    path: str | Path,
    *,
    board: str,
    fps: float | None = None,
    clock_mhz: float = 100.0,
    standalone_thresholds: bool = False,
    folding_file: str | Path | None = None,
    output: str | Path | None = None,
    process: FinnProcess | None = None,
    timeout_s: float | None = None,
) -> FinnEstimate:
    """Run FINN's flow on a QONNX file up to its estimates; no Vivado is needed.

    Residual networks are streamlined as well as plain ones.

    Example:
        >>> found = estimate("model.onnx", board="Pynq-Z1", fps=30_000)  # doctest: +SKIP
        >>> found.total("lut"), found.fps  # doctest: +SKIP
        (14210.0, 30788.2)

    Args:
        path: QONNX file, as :func:`gfb_integrations.qonnx.export_qonnx` writes it.
        board: FINN's name of the board, e.g. ``"Pynq-Z1"``.
        fps: Samples per second that the folding is to reach; without it every layer has one unit.
        clock_mhz: Clock frequency.
        standalone_thresholds: Whether activations become layers of their own, which lets products use DSPs.
        folding_file: FINN's folding file, instead of or on top of ``fps``.
        output: Folder for the graph that FINN arrives at, ``model.onnx``; by default it is not kept.
        process: A process to use; by default one is started for this call.
        timeout_s: Longest time for FINN, in seconds.

    Raises:
        MissingExtraError: If there is no FINN.
        FinnBuildError: If FINN refuses the model; names the stage and the layer.
        FinnError: If FINN's process fails.
        ExportError: If there is no such file.
        ConfigurationError: If a setting is not valid, or the folding file is of another network.
    """
    source = Path(path).absolute()
    if not source.is_file():
        raise ExportError(f"There is no file {str(path)!r}. Give a QONNX file.")
    _require_positive("fps", fps)
    _require_positive("clock_mhz", clock_mhz)
    named = _layers_named_in(folding_file)
    settings = {
        "board": board,
        "fps": None if fps is None else math.ceil(fps),
        "clock_mhz": float(clock_mhz),
        "standalone_thresholds": standalone_thresholds,
        "folding_file": None if folding_file is None else str(Path(folding_file).absolute()),
    }
    with (
        TemporaryDirectory() as temporary,
        nullcontext(process) if process is not None else FinnProcess() as used,
    ):
        folder = Path(temporary if output is None else output).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        result = used.call(
            "estimate", model=str(source), output=str(folder), settings=settings, timeout_s=timeout_s
        )
        _require_layers(named, result["nodes"])
        return FinnEstimate(
            board=board,
            part=result["part"],
            clock_mhz=float(clock_mhz),
            nodes=tuple(_node(entry) for entry in result["nodes"]),
            host_nodes=tuple(result["host_nodes"]),
            critical_path_cycles=result["critical_path_cycles"],
            versions=used.versions,
        )


def _layers_named_in(folding_file: str | Path | None) -> set[str]:
    if folding_file is None:
        return set()
    try:
        folding = json.loads(Path(folding_file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The folding file {str(folding_file)!r} cannot be read: {error}."
        ) from error
    if not isinstance(folding, dict) or not all(isinstance(entry, dict) for entry in folding.values()):
        raise ConfigurationError(
            f"The folding file {str(folding_file)!r} must hold one object per layer, under its name."
        )
    return {name for name in folding if name != "Defaults"}


def _require_layers(named: set[str], nodes: Sequence[Mapping[str, Any]]) -> None:
    """FINN passes over names that it has no layer for; a file of another model would do nothing."""
    there = {node["name"] for node in nodes}
    # Converters and buffers are put in after the estimates.
    missing = sorted(name for name in named - there if not name.startswith("Streaming"))
    if missing:
        raise ConfigurationError(
            f"The folding file names layers that the network has not: {', '.join(missing)}. It has: "
            f"{', '.join(sorted(there))}. `FinnEstimate.folding` gives a file to begin with."
        )


def _node(entry: dict[str, Any]) -> FinnNode:
    for name in ("inputs", "input_types", "output_types"):
        entry[name] = tuple(entry[name])
    entry["input_shapes"] = tuple(tuple(shape) for shape in entry["input_shapes"])
    return FinnNode(**entry)


def _require_positive(name: str, value: float | None) -> None:
    if value is not None and not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise ConfigurationError(f"`{name}` must be a finite number above zero; got {value!r}.")
