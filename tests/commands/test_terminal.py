"""What is printed at 80 columns: whole numbers, lines that fit, JSON that a program reads, verdicts in words."""

import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.cells import cell_len

from bench.commands import progress
from bench.commands.printing import duration
from bench.commands.progress import Bars, _Counter
from bench.commands.terminal.help import completes
from bench.commands.terminal.lines import Task, line
from bench.commands.terminal.machine import json_value
from bench.commands.terminal.tables import fitted, lines, notes_of
from bench.records.file import write_run
from bench.report.markup import Block, Cell, Table, format_at_least, format_at_most, format_percent
from bench.runs.progress import Throughput
from tests.records.test_file import record
from tests.support.fake_runs import make_run
from tests.support.tiny import bench

ROOT = Path(__file__).parents[2]
RUN = ROOT / "results" / "mnist5k"


def numbers_table(columns, cell="1,234,567 [1,234,000, 1,235,000]"):
    text, _, interval = cell.partition(" ")
    low, high = interval.strip("[]").split(", ")
    row = ("a method of a long name", *(Cell(text=text, interval=(low, high)) for _ in range(columns)))
    return Table(
        headers=("method", *(f"a header {place}" for place in range(columns))),
        blocks=(Block(title="σ = 0.25", rows=(row,)),),
        notes=("Brackets: intervals.", "Bold."),
    )


@pytest.mark.parametrize("columns", [1, 3, 8, 30])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_number_is_cut_and_no_line_is_wider_than_the_terminal(columns, width):
    parts, has_intervals = fitted(numbers_table(columns), width, has_intervals=True)
    text = [str(one) for part in parts for one in lines(part, width, has_intervals=has_intervals)]
    assert max(map(cell_len, text)) <= width
    assert sum(one.count("1,234,567") for one in text) == columns
    assert "…" not in "".join(text)


def test_headers_are_folded_only_where_they_have_no_room():
    table = numbers_table(1)
    assert any("a header 0" in str(one) for one in lines(table, 80, has_intervals=False))
    assert not any("a header 0" in str(one) for one in lines(table, 33, has_intervals=False))


def test_intervals_go_before_the_table_is_split():
    assert fitted(numbers_table(2), 100, has_intervals=True)[1]
    parts, has_intervals = fitted(numbers_table(2), 60, has_intervals=True)
    assert (len(parts), has_intervals) == (1, False)
    assert notes_of(parts, has_intervals=has_intervals) == ["Bold."]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_line_of_progress_keeps_count_and_time_left(width):
    task = Task(
        name="consistency-model σ=0.25 of a long name",
        total=20000,
        done=1234,
        before=0,
        began=0.0,
        updated=1234.0,
    )
    task.detail = ("12,345 samples/s", "loss 0.123", "20% of the time waits for images: raise --workers")
    shown = line(task, 1234.0, width)
    assert cell_len(shown) <= width
    assert "1,234/20,000" in shown
    assert "5:12:46 left" in shown


def test_the_time_left_falls_between_two_steps():
    task = Task(name="dds", total=4, done=2, before=1, began=10.0, updated=20.0)
    assert [task.seconds_left(now) for now in (20.0, 25.0, 45.0)] == [20.0, 15.0, 0.0]
    assert Task(name="dds", total=4, done=1, before=1, began=10.0, updated=10.0).seconds_left(20.0) is None


def test_the_bar_is_last_and_full_at_the_end():
    task = Task(name="all", total=4, done=4, before=0, began=0.0, updated=9.0, detail=("9 samples/s",))
    assert re.fullmatch(r"all  4/4  0:00 left  9 samples/s  ━+", line(task, 9.0, 80))


def test_what_is_finished_is_one_line_where_there_is_no_terminal(capsys):
    times = iter(range(100))
    with Bars(clock=lambda: float(next(times))) as bars:
        bars.show("rrcm σ=0.25", done=0, total=2)
        bars.show("rrcm σ=0.25", done=1, total=2)
        [shown] = bars.lines(80)
        bars.show("rrcm σ=0.25", done=2, total=2, detail=("9 samples/s",))
        assert bars.lines(80) == []
    assert "1/2" in shown
    assert capsys.readouterr().err.splitlines() == ["rrcm σ=0.25  2/2  in 3 s  9 samples/s"]


@pytest.mark.parametrize(
    "command",
    [
        f"compare {RUN}",
        f"status {RUN}",
        "list presets",
        "list methods",
        "list models",
        "list recipes",
        "list options rrcm",
        "guide",
        "--help",
        "run --help",
        "run --preset cifar10 --dry-run",
    ],
)
def test_commands_fit_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert bench(monkeypatch, *command.split()) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(cell_len(one) for one in shown.splitlines() if str(ROOT) not in one) <= 80


def test_verdicts_are_words_with_all_radii_that_differ(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "900")
    assert bench(monkeypatch, "compare", RUN, "--methods", "rrcm,dds", "--out", tmp_path) == 0
    shown = capsys.readouterr().out.splitlines()[0]
    tests = pd.read_csv(tmp_path / "paired.csv")
    for sigma, rows in tests.groupby("sigma"):
        for word, sign in (("higher", 1), ("lower", -1)):
            told = rows[(rows["p_holm"] < 0.05) & (sign * rows["difference"] > 0)]
            points = " to ".join(
                dict.fromkeys(
                    f"{100 * abs(one):.1f}"
                    for one in sorted(told["difference"], key=abs)[:: max(1, len(told) - 1)]
                )
            )
            radii = ", ".join(f"{radius:g}" for radius in told["radius"])
            assert len(told) == 0 or f"{word} by {points} points at r = {radii}, significant" in shown
        if (rows["p_holm"] >= 0.05).all():
            assert f"{sigma:g}" in shown.rpartition("no significant difference at σ = ")[2]
    assert "times as fast as DDS. Its accuracy: " in shown


@pytest.mark.parametrize("is_steady", [True, False])
def test_a_speed_of_unsteady_repetitions_is_said_not_to_be_quoted(tmp_path, monkeypatch, capsys, is_steady):
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5])
    seconds = (1.0, 1.01, 1.02) if is_steady else (1.0, 1.2, 1.4)
    write_run(tmp_path, replace(run, costs=[replace(one, repetition_seconds=seconds) for one in run.costs]))
    assert bench(monkeypatch, "compare", tmp_path) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "times as fast as DDS" in shown or "times as long as DDS" in shown
    assert ("Speeds rest on repetitions with quartiles up to" in shown) != is_steady


def test_costs_are_json_in_every_mode(tmp_path, monkeypatch, capsys):
    fixed = ROOT / "tests" / "records" / "old"
    assert bench(monkeypatch, "cost", "--run", fixed, "--out", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"]


@pytest.mark.parametrize("command", ["report", "compare", "status"])
def test_json_is_one_object_with_the_numbers(command, tmp_path, monkeypatch, capsys, undrawn):
    options = [] if command == "status" else ["--out", tmp_path]
    assert bench(monkeypatch, command, RUN, *options, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    if command == "report":
        assert made["certified_accuracy"][0]["images"] == 500
        assert json.loads((tmp_path / "results.json").read_text())["acr"] == made["acr"]
    if command == "status":
        assert made["curves"][0]["left"] == "0"


def test_lists_are_json_too(monkeypatch, capsys):
    assert bench(monkeypatch, "list", "datasets", "--json") == 0
    assert json.loads(capsys.readouterr().out)["datasets"][0]["data set"] == "mnist5k"


def test_no_number_of_json_is_not_finite():
    assert json_value({"a": float("nan"), "b": [1.5, float("inf")], "c": None}) == {
        "a": None,
        "b": [1.5, None],
        "c": None,
    }


def test_values_are_completed_also_behind_a_comma():
    complete = completes("cpu|cuda|mps")
    assert [one.value for one in complete(None, None, "c")] == ["cpu", "cuda"]
    assert [one.value for one in complete(None, None, "mps,cu")] == ["mps,cuda"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_a_script(shell, monkeypatch, capsys):
    assert bench(monkeypatch, "completion", shell) == 0
    assert "_BENCH_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"), [(41, "41 s"), (720, "12 min"), (12600, "3.5 h"), (864000, "10 days")]
)
def test_durations_have_the_unit_that_reads_best(seconds, text):
    assert duration(seconds) == text


def test_where_there_is_no_terminal_a_line_comes_at_intervals(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.001)
    shown = ""
    with Bars(clock=lambda: 0.0) as bars:
        bars.show("dds σ=0.25", done=1, total=4, detail="58 samples/s")
        for _ in range(10_000):
            if shown := capsys.readouterr().err:
                break
            time.sleep(0.001)
    assert shown.startswith("dds σ=0.25  1/4  0:00  58 samples/s")


def test_a_terminal_that_moves_no_cursor_gets_lines_at_intervals(monkeypatch):
    for name, value in {"TERM": "dumb", "FORCE_COLOR": "1"}.items():  # rich takes it for a terminal
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress, "EVERY", 0.001)
    told = threading.Event()
    monkeypatch.setattr(Bars, "say", lambda self, text: told.set())
    with Bars(clock=lambda: 0.0) as bars:
        bars.show("dds σ=0.25", done=1, total=4)
        assert told.wait(60)


def test_a_quiet_command_shows_nothing_of_its_progress(capsys):
    with Bars(is_shown=False) as bars:
        bars.show("dds", done=1, total=1)
        bars.say("note: something")
    assert capsys.readouterr().err == ""


def test_no_command_prints_the_help_line_by_line(monkeypatch, capsys):
    assert bench(monkeypatch) == 2
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Usage: ")
    assert any(line.strip().startswith("run ") for line in shown)


@pytest.mark.parametrize(
    ("share", "low", "near", "high"),
    [(2 / 3, 66.6, 66.7, 66.7), (0.5, 50, 50, 50), (0.08943, 8.9, 8.9, 9.0)],
)
def test_a_bound_is_rounded_to_its_safe_side(share, low, near, high):
    made = (format_at_least(share), format_percent(share), format_at_most(share))
    assert made == tuple(f"{value:.1f}" for value in (low, near, high))


def test_the_samples_per_second_of_a_curve_are_those_of_all_workers():
    """Two workers bring 1,100 samples every 5 s between them, each after 10 s of work."""
    moments = iter((0.0, 5.0, 10.0))
    counter = _Counter(total=3, throughput=Throughput(clock=lambda: next(moments)))
    for index in range(3):
        counter.add(replace(record(index), seconds=10.0))
    assert counter.detail()[0] == "220 samples/s"
