"""Readers of files that people write: whatever is in them, an object or an error that names the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gfb_brevitas.allocation import MAX_BITS, BitAllocation
from gfb_brevitas.configuration.document import read_document
from gfb_brevitas.configuration.running import ConfiguredRun
from gfb_brevitas.costs import LatencyTable
from gfb_brevitas.errors import AllocationError, CheckpointError, ConfigurationError, GfbError
from gfb_brevitas.files import sealed, unsealed
from gfb_brevitas.samplers import CmaState
from gfb_brevitas.search.history import Record
from gfb_brevitas.search.json_lines import JsonLinesFile

pytestmark = pytest.mark.filterwarnings("error")

# One file, written again by every example.
of_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

names = st.text(min_size=1, max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)
allocations = st.dictionaries(names, st.integers(1, MAX_BITS), max_size=8)
pairs = st.tuples(st.integers(1, MAX_BITS), st.integers(1, MAX_BITS))
costs = st.floats(0.0, 1e12, allow_nan=False)
tables = st.builds(
    LatencyTable,
    name=names,
    unit=names,
    layers=st.dictionaries(names, st.dictionaries(pairs, costs, max_size=5), max_size=4),
    constant=costs,
)

CONFIGURATION = """
model: module:make
train_batches: module:train
validation_batches: module:validation
loss: cross_entropy
metric: accuracy
budgets:
  - {cost: weight_size, beta: 0.9, uniform_bits: 3, rho: 20.0}
search: {rounds: 2, evaluations_per_step: 64, seed: 3}
training: {optimizer: adam, learning_rate: 1e-3}
run_folder: runs/first
"""
ALLOCATION = BitAllocation({"conv.weight_quant": 3, "relu.act_quant": 4}).to_json()


def changed(text: str, data: st.DataObject) -> str:
    """Text with a few pieces taken out, doubled, or replaced."""
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 12)))
        text = (
            text[:begin]
            + data.draw(st.just("") | st.just(2 * text[begin:end]) | st.text(max_size=6))
            + text[end:]
        )
    return text


def deep(text: str) -> str:
    return 100_000 * text


STRANGE = [
    "",
    " ",
    "\ufeff{}",
    "null",
    "NaN",
    "[]",
    '"x"',
    "1" * 5000,
    "-" * 5000,
    deep("["),
    deep('{"a":'),
    '{"format": NaN}',
    '{"a": 1, "a": 2}',
    '{"\\ud800": 1}',
    "\x00",
    "!!python/object/apply:os.system ['touch executed']",
    "a: &x [1]\nb: *x",
    "? [1, 2]\n: 3",
    "a: !!binary x",
    "{a: 0x" + "f" * 5000 + "}",
    "a: 1e999999999",
    "a: 2024-99-99",
    "%YAML 9.9\n---\na: 1",
    "--- 1\n--- 2",
    "a:\n\t- b",
]


def load_allocation(path: Path) -> object:
    return BitAllocation.load(path)


def load_table(path: Path) -> object:
    return LatencyTable.load(path)


def load_configuration(path: Path) -> object:
    return ConfiguredRun.of(read_document(path))


READERS: list[tuple[Callable[[Path], object], type[GfbError]]] = [
    (load_allocation, AllocationError),
    (load_table, ConfigurationError),
    (load_configuration, ConfigurationError),
]


def read_or_refused(reader: Callable[[Path], object], error: type[GfbError], path: Path, data: bytes) -> None:
    path.write_bytes(data)
    refusals = []
    try:
        reader(path)
    except error as refused:
        refusals.append(str(refused))
    assert all(path.name in refusal for refusal in refusals)
    "".join(refusals).encode()  # can be printed
    assert path.read_bytes() == data


@pytest.mark.parametrize(("reader", "error"), READERS)
@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_strange_files(
    reader: Callable[[Path], object],
    error: type[GfbError],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    read_or_refused(reader, error, tmp_path / "file.json", text.encode("utf-8", "surrogatepass"))
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize(("reader", "error"), READERS)
@of_files
@given(data=st.binary(max_size=200))
def test_any_bytes(
    reader: Callable[[Path], object], error: type[GfbError], tmp_path: Path, data: bytes
) -> None:
    read_or_refused(reader, error, tmp_path / "file.json", data)


@pytest.mark.parametrize(("reader", "error"), READERS)
@of_files
@given(document=plain)
def test_any_document(
    reader: Callable[[Path], object], error: type[GfbError], tmp_path: Path, document: Any
) -> None:
    read_or_refused(reader, error, tmp_path / "file.json", json.dumps(document).encode())


@of_files
@given(data=st.data())
def test_changed_allocations(tmp_path: Path, data: st.DataObject) -> None:
    text = changed(ALLOCATION, data).encode("utf-8", "replace")
    path = tmp_path / "file.json"
    read_or_refused(load_allocation, AllocationError, path, text)


@of_files
@given(data=st.data(), table=tables)
def test_changed_tables(tmp_path: Path, data: st.DataObject, table: LatencyTable) -> None:
    path = tmp_path / "file.json"
    table.save(path)
    read_or_refused(
        load_table, ConfigurationError, path, changed(path.read_text(), data).encode("utf-8", "replace")
    )


@settings(of_files, max_examples=25)
@given(data=st.data())
def test_changed_configurations(tmp_path: Path, data: st.DataObject) -> None:
    text = changed(CONFIGURATION, data).encode("utf-8", "replace")
    read_or_refused(load_configuration, ConfigurationError, tmp_path / "file.json", text)


@settings(of_files, max_examples=25)
@given(key=st.sampled_from(sorted(yaml.safe_load(CONFIGURATION))), value=plain, data=st.data())
def test_configurations_with_another_value(tmp_path: Path, key: str, value: Any, data: st.DataObject) -> None:
    document = yaml.safe_load(CONFIGURATION)
    inner = document[key]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        inner[data.draw(st.sampled_from(sorted(inner)) | names)] = value
    else:
        document[key] = value
    text = yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace")
    read_or_refused(load_configuration, ConfigurationError, tmp_path / "file.json", text)


def test_the_configuration_that_is_changed_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(CONFIGURATION)
    load_configuration(path)


@pytest.mark.parametrize("value", [{"a": 1}, ["module:name"], 3, None, {"module:name": 1}])
@pytest.mark.parametrize("name", ["optimizer", "schedule"])
def test_a_function_of_the_training_that_is_none(tmp_path: Path, name: str, value: Any) -> None:
    document = yaml.safe_load(CONFIGURATION)
    document["training"][name] = value
    text = yaml.safe_dump(document).encode()
    read_or_refused(load_configuration, ConfigurationError, tmp_path / "file.json", text)


@of_files
@given(bits=allocations)
def test_allocations_come_back(tmp_path: Path, bits: dict[str, int]) -> None:
    allocation = BitAllocation(bits)
    allocation.save(tmp_path / "file.json")
    assert BitAllocation.load(tmp_path / "file.json") == allocation


@of_files
@given(table=tables)
def test_tables_come_back(tmp_path: Path, table: LatencyTable) -> None:
    table.save(tmp_path / "file.json")
    assert LatencyTable.load(tmp_path / "file.json") == table


@given(document=st.dictionaries(names, plain, max_size=5))
def test_records(document: dict[str, Any]) -> None:
    for kind in ("calibration", "generation", "step", "epoch", "round", None):
        try:
            Record.from_dict(document if kind is None else {**document, "kind": kind})
        except CheckpointError:
            continue


@given(text=st.text(max_size=50) | plain.map(json.dumps))
def test_states_of_the_sampler(text: str) -> None:
    with suppress(GfbError):
        CmaState.from_json(text)


@given(document=st.dictionaries(names, plain, max_size=5), data=st.data())
def test_a_sealed_document_with_one_change_is_refused(document: dict[str, Any], data: st.DataObject) -> None:
    document.pop("checksum", None)
    text = json.dumps(sealed(document))
    assert json.dumps(unsealed(json.loads(text))) == json.dumps(document)  # NaN is not NaN
    place = data.draw(st.integers(0, len(text) - 1))
    other = text[:place] + chr(data.draw(st.integers(32, 126))) + text[place + 1 :]
    try:
        found = unsealed(json.loads(other))
    except (ValueError, RecursionError):
        return
    assert same(found, json.loads(json.dumps(document)))


def same(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return first == second or (math.isnan(first) and math.isnan(second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@of_files
@given(
    documents=st.lists(st.dictionaries(names, st.integers(), max_size=3), min_size=1, max_size=4),
    data=st.data(),
)
def test_lines_up_to_the_damage(tmp_path: Path, documents: list[dict[str, int]], data: st.DataObject) -> None:
    path = tmp_path / "log.jsonl"
    path.unlink(missing_ok=True)
    log = JsonLinesFile(path)
    contents = [{k: v for k, v in document.items() if k != "checksum"} for document in documents]
    for document in contents:
        log.append(document)
    written = path.read_bytes()
    place = data.draw(st.integers(0, len(written) - 1))
    path.write_bytes(written[:place] + bytes([data.draw(st.integers(0, 255))]) + written[place + 1 :])
    found = JsonLinesFile(path).read()
    assert found == contents[: len(found)]
    whole = written[:place].count(b"\n")
    assert len(found) >= whole
    path.write_bytes(written[:place])
    assert JsonLinesFile(path).read() == contents[:whole]
