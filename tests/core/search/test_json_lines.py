from __future__ import annotations

from pathlib import Path

import pytest

from gfb_brevitas.search.json_lines import JsonLinesFile


def test_append_and_read(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log.jsonl"
    log = JsonLinesFile(path)
    assert log.read() == []
    log.append({"a": 1})
    log.append({"b": 0.1 + 0.2})
    assert JsonLinesFile(path).read() == [{"a": 1}, {"b": 0.1 + 0.2}]


@pytest.mark.parametrize("torn", ['{"c": 3', '{"c": 3}', '{"c": \n', "\x00\x00\n", "[1]\n"])
def test_an_unfinished_line_is_dropped_and_written_over(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.jsonl"
    JsonLinesFile(path).append({"a": 1})
    with path.open("a") as stream:
        stream.write(torn)
    log = JsonLinesFile(path)
    assert log.read() == [{"a": 1}]
    log.append({"b": 2})
    assert log.read() == [{"a": 1}, {"b": 2}]


def test_keep_cuts_the_rest(tmp_path: Path) -> None:
    log = JsonLinesFile(tmp_path / "log.jsonl")
    for n in range(4):
        log.append({"n": n})
    log.keep(2)
    log.append({"n": "new"})
    assert log.read() == [{"n": 0}, {"n": 1}, {"n": "new"}]


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        JsonLinesFile(tmp_path / "log.jsonl").append({"a": float("nan")})
