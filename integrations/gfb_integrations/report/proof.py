"""What the summary holds about exported files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from gfb_brevitas.search import RecordedRun
from gfb_integrations.plots.data.table import Cell, DataTable, listed, number_text


def verification_table(run: RecordedRun) -> DataTable | None:
    """The export to QONNX and the comparison with PyTorch, as the run's summary holds them."""
    exported = (run.summary or {}).get("qonnx")
    if not isinstance(exported, Mapping):
        return None
    rows: list[tuple[Cell, ...]] = []
    if "path" in exported:
        rows.append(("file", PurePath(str(exported["path"])).name))
    if isinstance(exported.get("size_bytes"), int):
        rows.append(("size", f"{exported['size_bytes'] / 1000:,.1f} kB"))
    if isinstance(exported.get("operators"), Mapping):
        counts = [f"{count} {name}" for name, count in exported["operators"].items()]
        rows.append(("operators", listed(counts, 12)))
    rows += _proof(exported.get("verification"))
    return DataTable(columns=("QONNX", "value"), rows=tuple(rows))


def _proof(proof: Any) -> list[tuple[Cell, ...]]:
    if not isinstance(proof, Mapping):
        return [("compared with PyTorch", "no")]
    rows: list[tuple[Cell, ...]] = [("compared with PyTorch", f"on {proof.get('samples', '–')} samples")]
    if isinstance(proof.get("max_abs_diff"), int | float):
        rows.append(("largest difference of an output", number_text(proof["max_abs_diff"], 3)))
    if isinstance(proof.get("max_diff_steps"), int | float):
        rows.append(("the same in steps of the output's grid", number_text(proof["max_diff_steps"], 3)))
    if isinstance(proof.get("argmax_agreement"), int | float):
        rows.append(("same class", f"{proof['argmax_agreement']:.2%} of the samples"))
    if isinstance(proof.get("layers_compared"), int):
        rows.append(("layers compared", proof["layers_compared"]))
    if isinstance(proof.get("rounding_flips"), int):
        rows.append(("values that rounding moved to the next integer", proof["rounding_flips"]))
    return rows


def proven(run: RecordedRun) -> bool | None:
    """Whether the file computes what the model does; ``None`` where that was not looked at."""
    exported = (run.summary or {}).get("qonnx")
    proof = exported.get("verification") if isinstance(exported, Mapping) else None
    if not isinstance(proof, Mapping) or not isinstance(proof.get("argmax_agreement"), int | float):
        return None
    return float(proof["argmax_agreement"]) == 1.0
