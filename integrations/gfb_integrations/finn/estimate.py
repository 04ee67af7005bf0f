"""FINN's own estimates of a QONNX file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from gfb_brevitas.errors import CheckpointError, ConfigurationError, ExportError
from gfb_integrations._documents import digest_of, read_document, write_document
from gfb_integrations.finn.client import FinnProcess, in_process
from gfb_integrations.finn.folding_files import read_folding_file
from gfb_integrations.finn.model_files import model_file
from gfb_integrations.finn.settings import build_settings

_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_HARDWARE_PRODUCTS = ("MVAU", "VVAU")
FoldedBy = Literal["nothing", "finn", "file", "search"]
"""Who chose the parallelism: nobody, FINN for a frame rate, a folding file, or the search of a run."""
_KIND = "finn_estimate"


Logic = Literal["counted", "in DSPs", "free", "unknown"]
"""What FINN's number of look-up tables means.

An estimate (``"counted"``); products in DSP blocks, beside which FINN counts no tables (``"in DSPs"``);
another shape of the same stream, for which nothing is built (``"free"``); or a 0 because FINN has no
formula, though it builds logic (``"unknown"``).
"""


def logic_of(kind: str, lut: float) -> Logic:
    """What a number of look-up tables in FINN's estimate means.

    Args:
        kind: FINN's operator, e.g. ``"Pool_hls"``.
        lut: FINN's number.
    """
    if lut:
        return "counted"
    if kind == "Reshape":
        return "free"
    return "in DSPs" if kind.startswith(_HARDWARE_PRODUCTS) and kind.endswith("_rtl") else "unknown"


UNKNOWN_LOGIC = (
    "?: FINN has no formula for the look-up tables of these layers and counts 0; they are not free. "
    "Synthesis tells, or a board budget with room."
)
"""What a ``?`` in a table of look-up tables stands for."""


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

    @property
    def logic(self) -> Logic:
        """Whether :attr:`lut` is an estimate, or 0 because FINN has none."""
        return logic_of(self.kind, self.lut)


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
        standalone_thresholds: Whether activations are layers of their own.
        folded_by: Who chose the parallelism: ``"nothing"``, ``"finn"`` (for a frame rate), ``"file"`` (a
            folding file) or ``"search"`` (the run's, see :func:`~gfb_integrations.finn.estimate_run`).
        model_sha256: Digest of the QONNX file.
        layers: Where it is known, the layer of the model that each hardware layer comes from, by the latter's
            name.
    """

    board: str
    part: str
    clock_mhz: float
    nodes: tuple[FinnNode, ...]
    host_nodes: tuple[str, ...]
    critical_path_cycles: int
    versions: Mapping[str, str]
    standalone_thresholds: bool = False
    folded_by: FoldedBy = "nothing"
    model_sha256: str = ""
    layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def host_products(self) -> tuple[str, ...]:
        """The matrix products and convolutions among :attr:`host_nodes`: work that no number here counts."""
        # FINN names nodes after their operators.
        return tuple(name for name in self.host_nodes if name.rpartition("_")[0] in _PRODUCTS)

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

    def cost(self, budget: str) -> float | None:
        """What a budget on hardware, by its name, comes to in the estimate; ``None`` for others.

        Example:
            >>> found.cost("lut"), found.cost("cycles"), found.cost("weight_size")  # doctest: +SKIP
            (7867.0, 3008.0, None)
        """
        if budget in ("lut", "bram_18k", "uram", "dsp"):
            return self.total(budget)
        return {"cycles": float(self.max_cycles), "latency": self.latency_us}.get(budget)

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
            "standalone_thresholds": self.standalone_thresholds,
            "folded_by": self.folded_by,
            "fps": self.fps,
            "latency_us": self.latency_us,
            **{name: self.total(name) for name in ("lut", "bram_18k", "uram", "dsp")},
            "nodes": [
                {
                    name: getattr(n, name)
                    for name in ("name", "kind", "cycles", "lut", "bram_18k", "uram", "dsp", "logic")
                }
                for n in self.nodes
            ],
            "host_nodes": list(self.host_nodes),
            "host_products": list(self.host_products),
            "versions": dict(self.versions),
        }

    def save(self, path: str | Path) -> None:
        """Write the estimate to a JSON file with a checksum, whole or not at all.

        Raises:
            CheckpointError: If it cannot be written.
        """
        write_document(Path(path), _KIND, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> FinnEstimate:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: Naming the file, if it cannot be read, is damaged or holds something else.
        """
        document = read_document(Path(path), _KIND)
        try:
            document["nodes"] = tuple(_node(entry) for entry in document["nodes"])
            document["host_nodes"] = tuple(document["host_nodes"])
            if document["folded_by"] not in get_args(FoldedBy):
                raise ValueError(f"nothing is folded by {document['folded_by']!r}")
            return cls(**{item.name: document[item.name] for item in fields(cls)})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{str(path)!r} is damaged: it is no estimate ({error}).") from error

    def __str__(self) -> str:
        lines = [f"WARNING: {self.warning}"] if self.warning else []
        lines += [
            f"{self.board} ({self.part}), {self.clock_mhz:g} MHz: {self.fps:,.0f} samples per second, "
            f"latency {self.latency_us:,.0f} us",
            f"{len(self.nodes)} layers: {self.total('lut'):,.0f} LUT, {self.total('bram_18k'):,.0f} BRAM18, "
            f"{self.total('uram'):,.0f} URAM, {self.total('dsp'):,.0f} DSP",
        ]
        lines += [
            f"  {node.name}: {node.cycles:,} cycles, {lut_in_words(node.kind, node.lut)} LUT, "
            f"{node.bram_18k:,.0f} BRAM18, {node.uram:,.0f} URAM, {node.dsp:,.0f} DSP"
            for node in self.nodes
        ]
        if any(node.logic == "unknown" for node in self.nodes):
            lines.append(UNKNOWN_LOGIC)
        if self.host_nodes:
            lines.append(f"Outside the FPGA, and in no number: {', '.join(self.host_nodes)}")
        return "\n".join(lines)

    @property
    def warning(self) -> str:
        """What is missing in the numbers, or ``""``."""
        if not self.host_products:
            return ""
        return (
            "FINN leaves products outside the FPGA, and none of these numbers counts them: "
            f"{', '.join(self.host_products)}. Quantize what they read and their weights."
        )


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
        board: Name of the board, e.g. ``"Pynq-Z1"``, as in :meth:`gfb_brevitas.Budget.board`, or one that
            only FINN knows.
        fps: Samples per second that the folding is to reach; without it every layer has one unit.
        clock_mhz: Clock frequency.
        standalone_thresholds: Whether activations become layers of their own, which lets products use DSPs.
        folding_file: FINN's folding file, instead of or on top of ``fps``.
        output: Folder for the graph that FINN arrives at, ``model.onnx``, and for FINN's own reports
            (``report/*.json``); by default they are not kept.
        process: A process to use; by default one is started for this call.
        timeout_s: Longest time for FINN, in seconds.

    Raises:
        MissingExtraError: If there is no FINN.
        FinnBuildError: If FINN refuses the model; names the stage and the layer.
        FinnError: If FINN's process fails.
        ExportError: If there is no such file, it holds no model, or FINN leaves all its products outside the
            FPGA.
        ConfigurationError: If a setting is not valid, or the folding file is of another network.
    """
    source = model_file(path).path
    settings = build_settings(
        board,
        fps=fps,
        clock_mhz=clock_mhz,
        standalone_thresholds=standalone_thresholds,
        folding_file=folding_file,
    )
    named = read_folding_file(folding_file)
    kept = None if output is None else _made(output)
    with (
        in_process(process, timeout_s) as used,
        TemporaryDirectory(dir=used.folder) as temporary,
    ):
        result = used.call(
            *("estimate",),
            model=str(source),
            output=temporary if kept is None else str(kept),
            settings=settings,
            reports=kept is not None,
            timeout_s=timeout_s,
        )
        named.require_in(result["nodes"])
        found = FinnEstimate(
            board=settings["board"],
            part=result["part"],
            clock_mhz=float(clock_mhz),
            nodes=tuple(_node(entry) for entry in result["nodes"]),
            host_nodes=tuple(result["host_nodes"]),
            critical_path_cycles=result["critical_path_cycles"],
            versions=used.versions,
            standalone_thresholds=settings["standalone_thresholds"],
            folded_by="file" if folding_file is not None else "nothing" if fps is None else "finn",
            model_sha256=digest_of(source),
        )
    if found.host_products and not any(node.kind.startswith(_HARDWARE_PRODUCTS) for node in found.nodes):
        raise ExportError(
            f"FINN leaves all products outside the FPGA: {', '.join(found.host_products)}. Is it "
            "a model of floats? Export a Brevitas model whose input, weights and activations are quantized; "
            "`gfb finn check` names the layers."
        )
    return found


def lut_in_words(kind: str, lut: float) -> str:
    """FINN's number of look-up tables, ``?`` where it has none, and why it is 0."""
    logic = logic_of(kind, lut)
    return {"counted": f"{lut:,.0f}", "unknown": "?"}.get(logic, f"0 ({logic})")


def _made(folder: str | Path) -> Path:
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {str(folder)!r} for FINN's graph cannot be made ({error.strerror}). Name another."
        ) from error
    return path


def _node(entry: dict[str, Any]) -> FinnNode:
    for name in ("inputs", "input_types", "output_types"):
        entry[name] = tuple(entry[name])
    entry["input_shapes"] = tuple(tuple(shape) for shape in entry["input_shapes"])
    return FinnNode(**entry)
