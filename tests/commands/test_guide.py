"""The guide: its pages are listed, shown and true to the commands and the file formats."""

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest

from bench.cli import cli
from bench.commands.terminal import pages
from bench.commands.terminal.help import SECTIONS
from bench.commands.terminal.machine import results
from bench.records.file import read_run
from bench.report.comparison import compare
from bench.types import CostRecord, Record, RunHeader
from tests.support.tiny import bench

ROOT = Path(__file__).parents[2]
FORMATS = pages.read("file-formats")


def test_the_index_lists_every_page_and_every_page_is_shown(monkeypatch, capsys):
    files = {path.stem for path in (ROOT / "bench" / "guide").glob("*.md")} - {"README"}
    assert files == set(pages.topics())
    assert bench(monkeypatch, "guide") == 0
    listed = capsys.readouterr().out
    assert all(topic in listed for topic in files)
    for topic in files:
        assert bench(monkeypatch, "guide", topic) == 0
        assert capsys.readouterr().out.startswith("# ")


def test_an_unknown_topic_gets_the_nearest_one(monkeypatch, capsys):
    assert bench(monkeypatch, "guide", "estimate") == 2
    assert "did you mean 'estimation'?" in capsys.readouterr().err


def test_the_page_of_commands_is_what_the_commands_say():
    assert pages.read("commands") == pages.commands_page(cli)


def test_every_command_is_in_a_section_with_a_whole_summary():
    listed = [name for names in SECTIONS.values() for name in names]
    visible = [name for name, command in cli.commands.items() if not command.hidden]
    assert sorted(listed) == sorted(visible)
    assert all(len(cli.commands[name].short_help) <= 56 for name in listed)


@pytest.mark.parametrize("stored", [RunHeader, Record, CostRecord], ids=lambda kind: kind.__name__)
def test_every_key_of_the_records_is_described(stored):
    for field in dataclasses.fields(stored):
        assert f"`{field.name}`" in FORMATS


TABLES = sorted((ROOT / "results").rglob("*.csv"))
OF_COST = "cost.csv of `bench cost`"
DESCRIBED_BESIDE = ("cifar10.csv", "imagenet.csv", "mnist.csv", "claims.csv", "images.csv")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_column_of_the_tables_is_described(path):
    if path.name in DESCRIBED_BESIDE:
        return
    title = OF_COST if (path.parent / "sweep.csv").exists() and path.name == "cost.csv" else path.name
    section = FORMATS.split(f"### {title}\n")[1].split("\n### ")[0]
    described = [
        re.escape(name).replace("N", r"\d+").replace(r"\*", r"\w+") for name in NAMES.findall(section)
    ]
    for column in pd.read_csv(path, nrows=0).columns:
        assert any(re.fullmatch(name, column) for name in described), column


NAMES = re.compile(r"`([\w*]+)`")


def test_the_keys_of_results_json_are_described():
    comparison = compare([read_run(ROOT / "results" / "mnist5k")])
    made = results(comparison)
    assert set(made) <= set(re.findall(r"`(\w+)`", FORMATS))
    shown = {"label"}
    for name in ("certified_accuracy", "acr"):
        assert all(f"`{column}`" in FORMATS for column in set(made[name][0]) - shown)
