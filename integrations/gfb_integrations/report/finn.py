"""What FINN said of the exported model, as the run's folder holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.search import RecordedRun
from gfb_integrations._documents import digest_of, read_document
from gfb_integrations.finn.estimate import UNKNOWN_LOGIC, logic_of, lut_in_words
from gfb_integrations.plots.data.table import Cell, DataTable, counted, listed, number_text

# FINN's package is not imported: a report is written where it is not installed, too.
_MODEL = "model.qonnx.onnx"
_RESOURCES = {"lut": "LUT", "bram_18k": "BRAM18", "uram": "URAM", "dsp": "DSP"}
_FOLDED_BY = {
    "nothing": "without parallelism: every layer has one unit",
    "finn": "with FINN's own parallelism for the frame rate, which may take more than the search's",
    "file": "with the parallelism of a folding file",
    "search": "with the parallelism that the search counted with",
}


@dataclass(frozen=True, kw_only=True)
class FinnSection:
    """A section on FINN.

    Attributes:
        key: Name in links.
        title: Heading.
        lead: The result in a sentence.
        good: Whether that is good news.
        sentences: What else is to be said.
        tables: Tables with their headings.
        folded: Long tables, which come folded.
    """

    key: str
    title: str
    lead: str
    good: bool
    sentences: tuple[str, ...]
    tables: tuple[tuple[str, DataTable], ...]
    folded: tuple[tuple[str, DataTable], ...] = ()


def finn_sections(run: RecordedRun) -> Iterator[FinnSection]:
    """FINN's estimate and its proof, where the folder holds them.

    Raises:
        CheckpointError: Naming the file that is damaged.
    """
    for kind, made in (("finn_estimate", _estimate), ("finn_verification", _verification)):
        path = run.path / f"{kind}.json"
        if path.is_file():
            document = read_document(path, kind)
            try:
                yield made(run, document)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise CheckpointError(f"{str(path)!r} is damaged: {error!r}.") from error


def _estimate(run: RecordedRun, found: Mapping[str, Any]) -> FinnSection:
    nodes: list[Mapping[str, Any]] = found["nodes"]
    cycles = max((int(node["cycles"]) for node in nodes), default=0)
    costs = {name: sum(float(node[name]) for node in nodes) for name in _RESOURCES}
    costs |= {"cycles": float(cycles), "latency": found["critical_path_cycles"] / found["clock_mhz"]}
    budgets = _budget_rows(run, costs)
    over = [str(row[0]).partition(" (")[0] for row in budgets if row[-1] is False]
    rate = f"{1e6 * found['clock_mhz'] / cycles:,.0f} samples per second" if cycles else "no cycles"
    totals = [f"{costs[name]:,.0f} {word}" for name, word in _RESOURCES.items() if costs[name]]
    lead = f"FINN estimates {listed(totals, 4)} at {rate}"
    if budgets:
        lead += f": above the budget of {listed(over)}" if over else ": within the budgets"
    sentences = [
        f"{found['board']} ({found['part']}) at {found['clock_mhz']:g} MHz, thresholds "
        f"{'in layers of their own' if found['standalone_thresholds'] else 'fused into products'}, "
        f"{_FOLDED_BY[found['folded_by']]}. Without FIFOs and data width converters, which come later."
    ]
    if found["host_nodes"]:
        sentences.append(f"Outside the FPGA, and in no number: {listed(found['host_nodes'], 8)}.")
    if any(logic_of(node["kind"], node["lut"]) == "unknown" for node in nodes):
        sentences.append(UNKNOWN_LOGIC)
    compared = ("FINN, the search and the budgets", _table_of_budgets(budgets))
    return FinnSection(
        key="finn-estimate",
        title="FINN's estimate",
        lead=f"{lead}.",
        good=not over,
        sentences=(*sentences, *_about(run, found)),
        tables=(compared,) if budgets else (),
        folded=(("Every hardware layer", _table_of_nodes(nodes, found["layers"])),),
    )


def _budget_rows(run: RecordedRun, costs: Mapping[str, float]) -> list[tuple[Cell, ...]]:
    """Name, the search's number, FINN's, their difference, the limit, and whether FINN's is within it."""
    searched = {row["name"]: row["value"] for row in (run.summary or {}).get("costs", [])}
    rows: list[tuple[Cell, ...]] = []
    for budget in run.budgets:
        if budget.name in costs and budget.name in searched:
            ours, theirs = float(searched[budget.name]), costs[budget.name]
            apart = (
                f"{(theirs - ours) / ours:+.2%}" if ours and theirs != ours else number_text(theirs - ours)
            )
            numbers = (_plain(ours), _plain(theirs), apart, _plain(budget.limit))
            name = budget.name if budget.unit == budget.name else f"{budget.name} ({budget.unit})"
            rows.append((name, *numbers, theirs <= budget.limit))
    return rows


def _plain(value: float) -> Cell:
    return int(value) if value == int(value) else value


def _table_of_budgets(rows: Sequence[tuple[Cell, ...]]) -> DataTable:
    columns = ("cost", "the search", "FINN", "difference", "at most", "within")
    return DataTable(columns=columns, rows=tuple(rows))


def _table_of_nodes(nodes: Sequence[Mapping[str, Any]], layers: Mapping[str, str]) -> DataTable:
    resources = [name for name in _RESOURCES if any(node[name] for node in nodes)]
    rows: list[tuple[Cell, ...]] = []
    for node in nodes:
        of = (layers.get(node["name"]),) if layers else ()
        folding = (node["attributes"].get("PE"), node["attributes"].get("SIMD"))
        numbers = (int(node["cycles"]), *(_amount(node, name) for name in resources))
        rows.append((node["name"], *of, *folding, *numbers))
    cycles = max((int(node["cycles"]) for node in nodes), default=0)
    totals = (cycles, *(int(sum(node[name] for node in nodes)) for name in resources))
    rows.append(("together (cycles: the slowest)", *(("",) if layers else ()), None, None, *totals))
    of_columns = ("layer of the model",) if layers else ()
    columns = ("FINN's layer", *of_columns, "PE", "SIMD", "cycles", *(_RESOURCES[n] for n in resources))
    return DataTable(columns=columns, rows=tuple(rows))


def _amount(node: Mapping[str, Any], resource: str) -> Cell:
    if resource != "lut" or node["lut"]:
        return int(node[resource])
    return lut_in_words(node["kind"], node["lut"])


def _verification(run: RecordedRun, found: Mapping[str, Any]) -> FinnSection:
    stages: list[Mapping[str, Any]] = found["stages"]
    samples = counted(found["samples"], "sample")
    compared = {"the file": "the exported file", "the outputs given": "the outputs that were given"}
    with_what = compared.get(found["compared_with"], found["compared_with"])
    different = next((stage for stage in stages if not stage["exact"]), None)
    if different is None:
        lead = f"Every stage of FINN's flow computes the same as {with_what} on {samples}."
    else:
        node = f", first at {different['node']}" if different["node"] else ""
        lead = (
            f"FINN's flow does not compute the same as {with_what} on {samples}: they part at the stage "
            f"“{different['stage']}”{node}."
        )
    sentences = [
        f"{counted(len(stages), 'stage')} executed in Python for {found['board']}, up to the hardware layers "
        "with minimised widths; nothing was synthesised."
    ]
    flips = sum(stage["rounding_flips"] for stage in stages)
    if flips:
        sentences.append(
            f"{counted(flips, 'value')} within a float32 rounding error of the middle between two integers "
            "went to the other side; what differs behind them is nobody's mistake."
        )
    return FinnSection(
        key="finn-proof",
        title="FINN's proof",
        lead=lead,
        good=different is None,
        sentences=(*sentences, *_about(run, found)),
        tables=(("Every stage", _table_of_stages(stages)),),
    )


def _table_of_stages(stages: Sequence[Mapping[str, Any]]) -> DataTable:
    rows: list[tuple[Cell, ...]] = []
    for stage in stages:
        agreement = stage["argmax_agreement"]
        row: tuple[Cell, ...] = (
            stage["stage"],
            bool(stage["exact"]),
            number_text(float(stage["max_abs_diff"]), 3),
            stage["max_diff_steps"],
            None if agreement is None else f"{agreement:.2%}",
            stage["node"],
            stage["rounding_flips"],
        )
        rows.append(row)
    columns = ("stage", "the same", "largest difference", "in steps", "same class", "first node", "flips")
    return DataTable(columns=columns, rows=tuple(rows))


def _about(run: RecordedRun, found: Mapping[str, Any]) -> Iterator[str]:
    """The versions, and whether the exported file is still the one that FINN read."""
    versions = [f"{name} {version}" for name, version in found["versions"].items()]
    if versions:
        yield f"With {listed(versions, 8)}."
    if not _is_current(run.path / _MODEL, found["model_sha256"]):
        yield f"{_MODEL} is not the file that FINN read: it was exported again since, or removed."


def _is_current(model: Path, sha256: str) -> bool:
    try:
        return digest_of(model) == sha256
    except OSError:
        return False
