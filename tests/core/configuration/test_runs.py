"""Runs of configuration files, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch

import gfb_brevitas as gfb
from gfb_brevitas.search.run_lock import exclusive
from tests.core.configuration.conftest import NETWORK, SEARCH
from tests.core.test_cli import assert_one_line
from tests.core.test_cli import gfb as command


def test_a_run_is_what_fit_gives(folder: Path) -> None:
    result = command("run", "search.yaml", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["run_folder"] == "run"
    recorded = gfb.RecordedRun.load("run")
    assert recorded.allocation is not None
    assert printed["allocation"] == dict(recorded.allocation)
    assert recorded.allocation["0.weight_quant"] == 6
    bits = {info.name: (info.min_bits, info.max_bits) for info in recorded.quantizers}
    assert bits["2.act_quant"] == (2, 5)
    assert recorded.configuration["search"]["population_size"] == 4
    assert [len(recorded.history.rounds), len(recorded.history.epochs)] == [2, 2]
    assert all(row["use"] <= 1 for row in printed["costs"])


def test_repeating_the_command_or_resuming_changes_nothing(folder: Path) -> None:
    first = json.loads(command("run", "search.yaml", "--json").stdout)
    history = Path("run/history.jsonl").read_bytes()
    for again in (command("run", "search.yaml", "--json"), command("resume", "run", "--json")):
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout)["allocation"] == first["allocation"]
        assert Path("run/history.jsonl").read_bytes() == history


def test_a_stopped_run_is_resumed_from_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.loads(command("run", "search.yaml", "--json", "run_folder=whole").stdout)
    stopping = NETWORK + (
        "\nfrom pathlib import Path\nhistory, stops = Path('run/history.jsonl'), [KeyboardInterrupt]\n"
        "def metric(model):\n"
        '    if stops and \'"kind":"epoch"\' in history.read_text():\n        raise stops.pop()\n'
        "    return small_problem.accuracy(model)\n"
    )
    (folder / "configured_network.py").write_text(stopping)
    sys.modules.pop("configured_network", None)
    stopped = command("run", "search.yaml", "metric=configured_network:metric")
    assert stopped.exit_code == 130
    assert len(gfb.RecordedRun.load("run").history.epochs) == 1
    monkeypatch.chdir(Path("/"))
    result = command("resume", folder / "run", "--json")
    assert result.exit_code == 0, result.output
    assert len(gfb.RecordedRun.load(folder / "run").history.epochs) == 2
    assert json.loads(result.stdout)["evaluations"] == whole["evaluations"]


def test_settings_change_on_the_command_line(folder: Path) -> None:
    result = command("run", "search.yaml", "search.rounds=1", "run_folder=other", "rules.0.bits=3", "-q")
    assert (result.exit_code, result.stdout) == (0, "")
    recorded = gfb.RecordedRun.load("other")
    assert len(recorded.history.rounds) == 1
    assert recorded.allocation is not None and recorded.allocation["0.weight_quant"] == 3
    # Kept with the run, so that it is resumed with the same.
    assert command("resume", "other", "-q").exit_code == 0


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        (["search.round=1"], ["search.round on the command line: there is no setting 'round'", "'rounds'"]),
        (["seed=7"], ["seed on the command line: there is no setting 'seed'. Did you mean 'search.seed'?"]),
        (["search.rounds=0"], ["search.rounds on the command line: `rounds` must be a whole number"]),
        (["model=configured_network:none"], ["model on the command line", "has no 'none'"]),
        (["model=configured_netwerk:make"], ["there is no module 'configured_netwerk'"]),
        (["model=configured_network:nothing"], ["returns no example inputs"]),
        (["loss=hinge"], ["There is no loss 'hinge'", "cross_entropy, mean_squared_error"]),
        (["metric=recall"], ["There is no metric 'recall'", "accuracy"]),
        (["validation_batches=null"], ["The metric 'accuracy' needs `validation_batches`"]),
        (["budgets.0.cost=weigth_size"], ["line 10", "There is no cost 'weigth_size'"]),
        (["budgets.0.limit=3"], ["line 10", "takes either `uniform_bits`"]),
        (["rules.1.bits=[5, 2]"], ["line 8", "1 <= min <= max"]),
        (["rules.0.fix=nothing.*"], ["line 7: ", "nothing.*"]),
        (["rules=[{fix: '0.*', bits: 6}, {fix: nothing.*, bits: 3}]"], ["rules.1 on the command line", "no"]),
        (["bits=[8, 2]"], ["bits on the command line: ", "8 to 2"]),
        (["budgets=[{cost: weigth_size, limit: 1}]"], ["budgets.0 on the command line", "'weigth_size'"]),
    ],
)
def test_errors_name_the_setting_and_leave_no_run(
    folder: Path, changes: list[str], pieces: list[str]
) -> None:
    assert_one_line(command("run", "search.yaml", *changes), *pieces)
    assert not Path("run/config.json").exists()


def test_budgets_that_cannot_be_met(folder: Path) -> None:
    result = command("run", "search.yaml", "budgets.0.beta=0.01")
    assert result.exit_code == 1
    assert "weight_size CANNOT BE MET" in result.stderr
    assert not Path("run/config.json").exists()


def test_a_uniform_width_that_no_quantizer_may_take_is_pointed_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert command("run", "search.yaml", "budgets.0.uniform_bits=30", "-q").exit_code == 0
    assert "No quantizer may take the uniform 30 bits" in caplog.text


def test_the_configuration_of_a_run_is_one_for_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("run", "search.yaml", "-q").exit_code == 0
    monkeypatch.chdir("/")
    again = command("run", folder / "run/run.yaml", f"run_folder={folder}/again", "search.rounds=1", "--json")
    assert again.exit_code == 0, again.output
    assert len(gfb.RecordedRun.load(folder / "again").history.rounds) == 1


def test_another_configuration_in_the_folder_of_a_run(folder: Path) -> None:
    assert command("run", "search.yaml", "-q").exit_code == 0
    before = Path("run/run.yaml").read_bytes()
    assert_one_line(command("run", "search.yaml", "search.rounds=3"), "search.rounds was 2 and is 3")
    assert Path("run/run.yaml").read_bytes() == before


def test_a_folder_that_is_not_there(folder: Path) -> None:
    assert_one_line(command("resume", "none"), "There is no folder 'none'")
    assert_one_line(command("export", "none"), "There is no folder 'none'")


def test_a_section_that_may_be_true_or_false(folder: Path) -> None:
    result = command("run", "search.yaml", "mlflow={experimnt: x}")
    assert_one_line(result, "there is no setting 'experimnt'. Did you mean 'experiment'")


def test_resume_of_a_run_without_a_configuration(folder: Path) -> None:
    Path("empty").mkdir()
    assert_one_line(command("resume", "empty"), "was not made from a configuration file")


def test_apply_makes_the_model_of_an_allocation(folder: Path) -> None:
    assert command("run", "search.yaml", "-q").exit_code == 0
    arguments = ("apply", "run/allocation.json", "--model", "configured_network:make", "--save", "weights.pt")
    result = command(*arguments)
    assert result.exit_code == 0, result.output
    state = torch.load("weights.pt", weights_only=True)
    again = command(*arguments[:-2], "--weights", "weights.pt", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["allocation"] == dict(gfb.BitAllocation.load("run/allocation.json"))
    assert "0.weight" in state
    assert command("apply", "run", *arguments[2:]).exit_code == 0  # a run's folder
    assert "The weights are those that configured_network:make makes" in result.stderr
    other = command(*arguments[:-2], "--weights", "run/checkpoints/best.pt")
    assert_one_line(other, "best.pt' does not hold the weights of this model", "gfb export RUN --weights")
    Path("bad.pt").write_bytes(b"not weights")
    assert_one_line(command(*arguments[:-2], "--weights", "bad.pt"), "bad.pt")


def test_inspect_says_what_a_search_would_find(folder: Path) -> None:
    result = command("inspect", "configured_network:make", "--bits", "2", "4", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = [info["name"] for info in found["quantizers"]]
    assert names == ["0.weight_quant", "2.act_quant", "4.weight_quant"]
    (weights,) = (cost for cost in found["costs"] if cost["name"] == "weight_size")
    elements = sum(info["elements"] for info in found["quantizers"] if info["kind"] == "weight")
    assert weights["at_uniform_bits"] == {str(b): float(elements * b) for b in (2, 3, 4)}
    assert weights["smallest"] == 2.0 * elements
    text = command("inspect", "configured_network:make", "--bits", "2", "4").stdout
    assert "weight_size (bits)" in text and "smallest" in text


def test_inspect_for_a_board(folder: Path) -> None:
    result = command("inspect", "configured_network:make", "--board", "Pynq-Z9")
    assert_one_line(result, "Pynq-Z9")


def test_runs_side_by_side(folder: Path) -> None:
    for seed in (0, 1):
        assert (
            command("run", "search.yaml", f"search.seed={seed}", f"run_folder=run{seed}", "-q").exit_code == 0
        )
    rows = json.loads(command("compare", "run0", "run1", "--json").stdout)
    assert [row["seed"] for row in rows] == [0, 1]
    assert rows[1]["allocation"] == dict(gfb.BitAllocation.load("run1/allocation.json"))
    text = command("compare", "run0", "run1").stdout
    assert "run0" in text and "run1" in text and "weight" in text and "100.0%" not in text
    assert_one_line(command("compare", "run0", "none"), "There is no folder 'none'")


def test_a_configuration_in_the_place_of_the_run_s_own_is_left_alone(folder: Path) -> None:
    Path("mine").mkdir()
    own = "# not to be lost\n" + SEARCH.replace("run_folder: run", "run_folder: mine")
    Path("mine/run.yaml").write_text(own)
    (folder / "configured_network.py").rename("mine/configured_network.py")
    result = command("run", "mine/run.yaml")
    assert_one_line(result, "it is a file of yours")
    assert Path("mine/run.yaml").read_text() == own
    assert not Path("mine/config.json").exists()


def test_who_loses_a_folder_leaves_the_configuration_of_the_run_there(folder: Path) -> None:
    assert command("run", "search.yaml", "--json").exit_code == 0
    kept = Path("run/run.yaml").read_text()
    Path("run/config.json").rename("config.json")  # as before the other one has begun
    Path("run/run.yaml").unlink()
    with exclusive(Path("run/run.lock")):
        assert_one_line(command("run", "search.yaml", "search.seed=1"), "in use by another run")
    assert not Path("run/run.yaml").exists()
    Path("config.json").rename("run/config.json")
    assert command("run", "search.yaml", "--json").exit_code == 0
    assert Path("run/run.yaml").read_text() == kept


def test_uniform_widths_are_trained_beside_the_search(folder: Path) -> None:
    result = command("run", "search.yaml", "--json", "baselines=[3, [4, 5], 3]")
    assert result.exit_code == 0, result.output
    summary = gfb.RecordedRun.load("run").summary
    assert summary is not None
    rows = summary["comparison"]
    assert json.loads(result.stdout)["comparison"] == rows
    assert [row["name"] for row in rows] == ["uniform 3", "uniform 4 and 5", "searched"]
    assert {row["measured"] for row in rows} == {"validation accuracy"}
    assert [row["epochs"] for row in rows] == [2, 2, 2]
    assert rows[-1]["accuracy"] == summary["metric"] and rows[-1]["allocation"] == summary["allocation"]
    kept = gfb.RecordedRun.load("run/baselines/uniform-4-5")
    assert kept.allocation is not None and kept.summary is not None
    # The rules stay: the first layer's weights are fixed.
    assert dict(kept.allocation) == {"0.weight_quant": 6, "2.act_quant": 5, "4.weight_quant": 4}
    assert kept.summary["metric"] == rows[1]["accuracy"]
    assert kept.configuration["training"] == gfb.RecordedRun.load("run").configuration["training"]
    shown = command("show", "run").stdout
    assert "uniform 4 and 5" in shown and "validation accuracy" in shown


def test_uniform_widths_of_a_run_that_has_ended_or_was_stopped(folder: Path) -> None:
    assert command("run", "search.yaml", "-q").exit_code == 0
    history = Path("run/history.jsonl").read_bytes()
    assert command("run", "search.yaml", "-q", "baselines=[2]").exit_code == 0
    assert Path("run/history.jsonl").read_bytes() == history
    trained = Path("run/baselines/uniform-2/history.jsonl").read_bytes()
    again = command("run", "search.yaml", "baselines=[2]")
    assert again.exit_code == 0 and "uniform 2" in again.stdout
    assert Path("run/baselines/uniform-2/history.jsonl").read_bytes() == trained


@pytest.mark.parametrize("value", ["[0]", "[33]", "widest", "[[2, 3, 4]]"])
def test_uniform_widths_that_are_none(folder: Path, value: str) -> None:
    result = command("run", "search.yaml", f"baselines={value}")
    assert result.exit_code == 1 and "`baselines" in result.stderr
    assert not Path("run").exists()


def test_the_test_metric_is_reported_and_chooses_nothing(folder: Path) -> None:
    Path("configured_network.py").write_text(
        f"{NETWORK}\ntested = []\n\ndef test():\n    return list(small_problem.loader(seed=2))\n\n"
        "def on_test_data(model):\n    tested.append(model)\n    return 12.5\n"
    )
    without = command("run", "search.yaml", "--json", "run_folder=without", "baselines=[]")
    named = command("run", "search.yaml", "--json", "test_batches=configured_network:test", "baselines=[2]")
    own = ["test_metric=configured_network:on_test_data", "run_folder=own", "baselines=[]"]
    function = command("run", "search.yaml", "--json", *own)
    results = [json.loads(result.stdout) for result in (without, named, function)]
    assert "test_metric" not in results[0] and results[2]["test_metric"] == 12.5
    assert len(sys.modules["configured_network"].tested) == 1  # once, at the end
    same = ("metric", "allocation", "best_epoch")
    assert [[result[key] for key in same] for result in results[1:]] == [
        [results[0][key] for key in same],
    ] * 2
    assert 0 <= results[1]["test_metric"] <= 1
    rows = results[1]["comparison"]
    assert rows[-1]["test"] == results[1]["test_metric"] and rows[0]["test"] is not None
    shown = command("show", "run").stdout
    assert "test" in shown and f"{rows[0]['test']:.2%}" in shown and "On the test data: " in shown
    assert "test" in command("compare", "run", "without").stdout


def test_test_data_given_to_a_run_that_has_ended_is_measured(folder: Path) -> None:
    assert command("run", "search.yaml", "-q", "baselines=[]").exit_code == 0
    asked = ["test_batches=configured_network:validation", "baselines=[]", "-q"]
    assert command("run", "search.yaml", *asked).exit_code == 0
    summary = gfb.RecordedRun.load("run").summary
    assert summary is not None and summary["test_metric"] == summary["metric"]


def test_a_fault_of_the_test_data_is_named_as_its_own(folder: Path) -> None:
    Path("configured_network.py").write_text(f"{NETWORK}\ndef broken():\n    yield 1 / 0\n")
    result = command("run", "search.yaml", "test_batches=configured_network:broken", "baselines=[]")
    assert result.exit_code == 1 and "ZeroDivisionError in `test_batches`" in result.stderr


def test_the_widest_uniform_widths_are_trained_without_being_named(folder: Path) -> None:
    Path("search.yaml").write_text(Path("search.yaml").read_text().replace("baselines: []\n", ""))
    result = command("run", "search.yaml", "budgets.0.beta=0.99")
    assert result.exit_code == 0, result.output
    assert "to compare with: uniform 3 and 5; 2 epochs like the search's" in " ".join(result.stdout.split())
    assert "Best uniform widths within the budget (uniform 3 and 5): " in " ".join(result.stdout.split())
    rows = json.loads(command("show", "run", "--json").stdout)["comparison"]
    assert [row["name"] for row in rows] == ["uniform 3 and 5", "searched"]
    assert all(use["feasible"] for row in rows for use in row["costs"])
    assert [row["searched"] for row in rows] == [False, True]


def test_a_budget_that_no_uniform_widths_keep_is_said(folder: Path) -> None:
    rules = "rules=[{fix: '0.*', bits: 8, kind: weight}, {range: '4.*', bits: [1, 8]}]"
    names = ["baselines=[auto, by_hand]", rules, "search.initial_bits=1", "run_folder=tight"]
    smallest = 8 * 96 + 48
    result = command("run", "search.yaml", f"budgets=[{{cost: weight_size, limit: {smallest + 1}}}]", *names)
    assert result.exit_code == 0, result.output
    assert Path("tight/baselines").exists()  # uniform 1 keeps it, and 8 bits at both ends do not
    assert "With 8 bits for the input, the first and the last layer nothing keeps the budgets." in " ".join(
        result.stdout.split()
    )


def test_runs_of_several_seeds_are_kept_apart_and_shown_together(folder: Path) -> None:
    search = [
        "run",
        "search.yaml",
        "seeds=3",
        "baselines=[auto]",
        "search.seed=5",
        "storage=sqlite:///studies.db",
    ]
    first = command(*search)
    assert first.exit_code == 0, first.output
    assert "seed 6, 2 of 3" in first.stdout
    runs = [gfb.RecordedRun.load(f"run/seed-{seed}") for seed in (5, 6, 7)]
    assert [run.configuration["search"]["seed"] for run in runs] == [5, 6, 7]
    metrics = [run.summary["metric"] for run in runs if run.summary is not None]
    folded = json.loads(command("show", "run", "--json").stdout)
    assert folded["metric"] == pytest.approx(fmean(metrics))
    assert folded["metric_spread"] == pytest.approx(stdev(metrics))
    assert [row["metric"] for row in folded["seeds"]] == metrics and folded["state"] == "ended"
    assert max(row["costs"][0]["use"] for row in folded["seeds"]) == folded["costs"][0]["use"]
    shown = " ".join(command("show", "run").stdout.split())
    assert f"{fmean(metrics):.4g} ± {stdev(metrics):.2g}" in shown and "seed-7" in shown
    rows = [row["accuracy"] for run in runs for row in (run.summary or {})["comparison"][:1]]
    assert f"{fmean(rows):.2%} ± {100 * stdev(rows):.2f}" in shown
    assert "run" in command("compare", "run", "run/seed-5").stdout
    # The same command, or the folder, goes on with what is not done; more seeds may be asked.
    before = [Path(f"run/seed-{seed}/history.jsonl").read_bytes() for seed in (5, 6, 7)]
    again = [*search, "-q", "seeds=4"]
    assert command(*again).exit_code == 0
    assert command("resume", "run", "-q").exit_code == 0
    assert [Path(f"run/seed-{seed}/history.jsonl").read_bytes() for seed in (5, 6, 7)] == before
    assert len(gfb.search.RecordedSeeds.load("run").runs) == 4
    assert_one_line(command(*search, "bits=[2, 5]"), "holds runs of several seeds whose bits differ")


def test_a_folder_of_a_run_takes_no_runs_of_several_seeds(folder: Path) -> None:
    assert command("run", "search.yaml", "-q", "baselines=[]").exit_code == 0
    assert_one_line(command("run", "search.yaml", "seeds=2"), "holds a run already", "`run_folder`")
    assert command("run", "search.yaml", "seeds=0").exit_code == 1
