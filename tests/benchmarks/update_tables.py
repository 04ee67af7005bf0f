"""Write the tables of the documentation from the benchmarks' JSON files.

    make tables

reads bench/*.json, writes their sections of docs/results.md (those of other benchmarks stay), and replaces
what stands between the markers
``<!-- table NAME -->`` and ``<!-- end -->`` in README.md and the other documents. The marker
``<!-- table NAME.KEY: COLUMN, COLUMN -->`` takes one table of a benchmark, and these columns of it only.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DETAILS = "runs"
HEAD = """# Measured results

Written by `make tables` from what `make bench` measured; do not edit. Each table is one script in
`tests/benchmarks`, which runs alone and takes `--quick` and `--json FILE`.
"""


def markdown_table(rows: Sequence[Mapping[str, Any]], chosen: Sequence[str] = ()) -> str:
    """Rows (column to value) as a Markdown table, of chosen columns or of all."""
    columns = list(chosen) or list(dict.fromkeys(column for row in rows for column in row))
    lines = ["| " + " | ".join(column.replace("_", " ") for column in columns) + " |"]
    lines.append("|" + "---|" * len(columns))
    lines += ["| " + " | ".join(_text(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def section(document: Mapping[str, Any], *, details: bool) -> str:
    """One benchmark: what was set, and its tables."""
    settings = {k: v for k, v in document["settings"].items() if k not in ("versions", "data")}
    versions = document["settings"].get("versions", {})
    parts = [
        "Settings: " + ", ".join(f"{name} {value}" for name, value in {**settings, **versions}.items()) + "."
    ]
    for name, value in document["figures"].items():
        is_table = isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
        if is_table and (details or name != DETAILS):
            parts.append(markdown_table(value))
        elif not isinstance(value, list | Mapping):
            parts.append(f"{name.replace('_', ' ')}: {_text(value)}")
    return "\n\n".join(parts)


def _sections(path: Path) -> dict[str, str]:
    """What a document says of each benchmark so far."""
    _, *parts = path.read_text(encoding="utf-8").split("\n## ") if path.exists() else [""]
    return {name: text.strip() for name, _, text in (part.partition("\n") for part in parts)}


def _tables(figures: Mapping[str, Any]) -> list[Any]:
    return [v for k, v in figures.items() if isinstance(v, list) and k != DETAILS]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def main() -> None:
    """Read every JSON file and write the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=ROOT / "bench", help="folder of the JSON files")
    files = sorted(parser.parse_args().bench.glob("*.json"))
    documents = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    results = ROOT / "docs" / "results.md"
    sections = _sections(results) | {name: section(d, details=True) for name, d in documents.items()}
    written = [f"## {name}\n\n{text}" for name, text in sorted(sections.items())]
    results.write_text("\n\n".join([HEAD, *written]) + "\n", encoding="utf-8")

    def fill(match: re.Match[str]) -> str:
        if match["name"] not in documents:
            return match[0]
        figures = documents[match["name"]]["figures"]
        tables = [figures[match["key"]]] if match["key"] else _tables(figures)
        columns = re.split(r",\s*", match["columns"]) if match["columns"] else ()
        written = "\n\n".join(markdown_table(table, columns) for table in tables)
        return f"{match['marker']}\n\n{written}\n\n<!-- end -->"

    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        pattern = (
            r"(?P<marker><!-- table (?P<name>\w+)(\.(?P<key>\w+))?(:\s*(?P<columns>[\w, \n]+?))? -->)"
            r".*?<!-- end -->"
        )
        path.write_text(re.sub(pattern, fill, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
