"""YAML with lines: what is read, and what errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfb_brevitas.configuration import Document, RunConfiguration, read_document
from gfb_brevitas.configuration.validation import validated
from gfb_brevitas.errors import ConfigurationError, GfbError

COMPLETE = """\
model: mynetwork:make
loss: cross_entropy
train_batches: mynetwork:train
budgets:
  - paper: 3
    rho: 20
  - cost: weight_size
    limit: 1e4
search:
  rounds: 2
training: {learning_rate: 2e-3}
run_folder: runs/first
"""


def document(tmp_path: Path, text: str) -> Document:
    path = tmp_path / "search.yaml"
    path.write_text(text, encoding="utf-8")
    return read_document(path)


def test_numbers_are_numbers_and_words_are_words(tmp_path: Path) -> None:
    read = document(
        tmp_path,
        "a: 2e-3\nb: 0.*\nc: on\nd: true\ne: 1_0\nf: -.5\ng: 2024-01-01\nh: 1.2.3\n"
        "i: 1:30\nj: 010\nk: 0x1f\nl: -08\nm: 0o17\nn: 1:30.5\n",
    ).content
    assert read == {
        "a": 2e-3,
        "b": "0.*",
        "c": "on",
        "d": True,
        "e": 10,
        "f": -0.5,
        "g": "2024-01-01",
        "h": "1.2.3",
        "i": "1:30",
        "j": 10,
        "k": 31,
        "l": -8,
        "m": 15,
        "n": "1:30.5",
    }


def test_everything_knows_its_line(tmp_path: Path) -> None:
    read = document(tmp_path, COMPLETE)
    assert read.place(("budgets", 1, "limit")).endswith("line 8")
    assert read.place(("search", "rounds")).endswith("line 10")
    assert read.place(("training", "learning_rate")).endswith("line 11")
    assert read.place(("training", "none")).endswith("line 11")  # what is around it
    assert read.place(("none",)) == str(read.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", r"^\S+search\.yaml, line 2: 'a' is given again, first on line 1\.$"),
        ("a: {b: 1, b: 2}\n", r"line 1: 'b' is given again"),
        ("a: [1\nb: 2\n", r"line 2"),
        ("a: &x 1\nb: *x\n", r"line 2: aliases"),
        ("- 1\n", r"must hold settings, `name: value`; it holds \[1\]"),
        ("", r"must hold settings"),
        ("a: !!python/object/apply:os.system ['true']\n", r"line 1: could not determine a constructor"),
        ("a: \x00\n", r"cannot be read"),
    ],
)
def test_what_is_not_such_a_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        document(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_document(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("search.rounds=3", ("search", "rounds"), 3),
        ("budgets.0.rho=1e-1", ("budgets", 0, "rho"), 0.1),
        ("training.optimizer=adam", ("training", "optimizer"), "adam"),
        ("mlflow.experiment=a=b", ("mlflow", "experiment"), "a=b"),
        ("bits=[2, 4]", ("bits",), [2, 4]),
    ],
)
def test_settings_are_changed(tmp_path: Path, assignment: str, path: tuple[Any, ...], value: Any) -> None:
    before = document(tmp_path, COMPLETE)
    after = before.with_override(assignment)
    found: Any = after.content
    for key in path:
        found = found[key]
    assert found == value
    assert after.place(path) == f"{'.'.join(map(str, path))} on the command line"
    assert before.content == document(tmp_path, COMPLETE).content


def test_what_is_changed_is_on_the_command_line_and_the_rest_in_the_file(tmp_path: Path) -> None:
    changed = document(tmp_path, COMPLETE).with_override(
        "budgets=[{paper: 3}, {cost: weight_size, limit: x}]"
    )
    assert changed.place(("budgets", 1, "limit")) == "budgets.1.limit on the command line"
    assert changed.place(("budgets", 1, "rho")) == "budgets.1 on the command line"
    assert changed.place(("search", "rounds")).endswith("line 10")
    with pytest.raises(
        ConfigurationError, match=r"^budgets\.1\.limit on the command line: `budgets\.1\.limit`: .*got 'x'\.$"
    ):
        validated(changed)
    again = changed.with_override("budgets=[{paper: 3}]")
    assert again.place(("budgets", 1, "limit")) == "budgets on the command line"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("rounds", "changed as name=value"),
        ("=3", "changed as name=value"),
        ("budgets.7.rho=3", "the list has 2 items"),
        ("model.x=3", "which has no settings"),
        ("search.rounds=[", "cannot be read: "),
        ("search={rounds: 1, rounds: 2}", r"'rounds' is given again"),
        ("search=" + 3000 * "[", "nested too deeply"),
        ("budgets.²=1", "which has no settings"),
        ("budgets." + 5000 * "1" + "=1", "which has no settings"),
        ("search.rounds=" + 5000 * "1", "cannot be read: "),
    ],
)
def test_assignments_that_are_none(tmp_path: Path, assignment: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        document(tmp_path, COMPLETE).with_override(assignment)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("loss: cross_entropy\n", "", r"search\.yaml: `loss` is missing"),
        ("model: mynetwork:make", "model: mynetwork", r"line 1: `model` names user code as module:function"),
        ("loss:", "los:", r"line 2: there is no setting 'los'. Did you mean 'loss'"),
        ("rho: 20", "rh: 20", r"line 6: there is no setting 'rh'. Did you mean 'rho'"),
        ("rho: 20", "rho: much", r"line 6: `budgets\.0\.rho`: .*valid number.*got 'much'"),
        (
            "paper: 3",
            "papers: 3",
            r"line 5: `budgets\.0`: an entry has one of the keys 'paper' or 'cost' or 'board'",
        ),
        ("run_folder: runs/first", "bits: [1, 2, 3]\nrun_folder: x", r"line 12: `bits`"),
        ("run_folder: runs/first", "bits: [1:30, 8]\nrun_folder: x", r"line 12: `bits\.0`: .*got '1:30'"),
        ("run_folder: runs/first", "run_folder: ''", r"line 12: `run_folder`: .*at least 1 character"),
    ],
)
def test_the_schema_names_what_is_wrong_and_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in COMPLETE
    with pytest.raises(ConfigurationError, match=message):
        validated(document(tmp_path, COMPLETE.replace(old, new)))


def test_every_error_is_named_at_once(tmp_path: Path) -> None:
    text = COMPLETE.replace("loss:", "los:").replace("rho: 20", "rho: much").replace("rounds:", "rouns:")
    with pytest.raises(ConfigurationError) as caught:
        validated(document(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 4  # two unknown ones, the missing one and the number


def test_the_schema_is_one_for_editors() -> None:
    schema = RunConfiguration.model_json_schema()
    assert "rounds" in schema["properties"]["search"]["properties"]
    assert schema["additionalProperties"] is False


_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(sorted(RunConfiguration.model_fields)), _VALUES))
def test_any_content_is_a_configuration_or_a_clear_error(content: dict[str, Any]) -> None:
    try:
        validated(Document(path=Path("x.yaml"), content=content, lines={}))
    except ConfigurationError as error:
        assert str(error)  # noqa: PT017


@given(st.text())
def test_any_text_is_a_document_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        read_document(path)
    except GfbError as error:
        assert str(error)  # noqa: PT017
