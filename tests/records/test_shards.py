"""A run in shards: nothing missing, nothing twice, and the same records as a run in one piece."""

import dataclasses
import json
from pathlib import Path

import pytest

from bench.errors import ProtocolError, RecordsError, UsageError
from bench.records import shards
from bench.records.file import RecordsFile, read_run, write_run
from bench.records.shards import Shard, merge, parse_shard
from tests.support import synthetic_method
from tests.support.fake_runs import make_run
from tests.support.tiny import bench

COMPLETE = make_run(methods=("rrcm", "dds"), sigmas=(0.25, 0.5), images=5)


def write_shards(folder, count=3, drop=(), run=COMPLETE, **changes):
    """Write a run as shards but for the positions `drop`; `changes` are the last shard's header's."""
    for number in range(1, count + 1):
        shard = Shard(number=number, count=count)
        header = run.header
        if number == count:
            header = dataclasses.replace(header, **changes)
        with RecordsFile.create_or_resume(folder, header, shard.file_name) as file:
            mine = shard.part(run.header.indices)
            kept = [record for position, record in enumerate(run.records) if position not in drop]
            file.append(*(record for record in reversed(kept) if record.index in mine))
            if number == 1:
                file.append(*run.costs)


def test_a_shard_under_another_ones_name_is_refused_and_odd_names_are_no_shards(tmp_path):
    write_shards(tmp_path, count=2)
    (tmp_path / "records-01-of-02.jsonl").write_text("")
    (tmp_path / "records-3-of-2.jsonl").write_text("")
    assert len(shards.shards_in(tmp_path)) == 2
    with pytest.raises(RecordsError, match="holds shards of a run: join them with `bench merge"):
        read_run(tmp_path)
    (tmp_path / "records-2-of-2.jsonl").write_bytes((tmp_path / "records-1-of-2.jsonl").read_bytes())
    with pytest.raises(RecordsError, match=r"records-2-of-2.jsonl holds image \d+, which belongs to another"):
        shards.read_status(tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_hold_each_image_once(count):
    indices = tuple(range(0, 100, 7))
    parts = [Shard(number=number, count=count).part(indices) for number in range(1, count + 1)]
    assert sorted(index for part in parts for index in part) == list(indices)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1", "1/2/3", "a/b", "-1/2", "1/0", "1 /2", "١/٢"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="expected i/k with 1 <= i <= k, such as 1/4"):
        parse_shard(text)


def test_merged_shards_are_the_run_in_the_order_of_one_process(tmp_path):
    write_shards(
        tmp_path,
        command="bench run --shard 3/3",
        created="later",
        batch_sizes=dict.fromkeys(("rrcm", "dds"), 9),
    )
    run = merge(tmp_path)
    order = sorted(COMPLETE.records, key=lambda r: (r.sigma, ["rrcm", "dds"].index(r.method), r.index))
    assert read_run(tmp_path) == run
    assert run.records == tuple(order)
    assert run.costs == COMPLETE.costs
    assert run.header == COMPLETE.header


def test_merged_header_names_the_hardware_of_other_shards_and_no_shard_in_its_command(tmp_path):
    write_shards(tmp_path, hardware={"device": "other"})
    path = tmp_path / Shard(number=1, count=3).file_name
    header, rest = path.read_text().split("\n", 1)
    edited = json.loads(header) | {"command": "bench run --shard 1/3 --n 5"}
    path.write_text(json.dumps(edited) + "\n" + rest)
    header = merge(tmp_path).header
    assert header.hardware["other_shards"] == [{"device": "other"}]
    assert header.command == "bench run --n 5"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n": 5}, "n"),
        ({"sigmas": (0.25,)}, "sigmas"),
        ({"checkpoints": {"rrcm/0.25": "aa"}}, "checkpoints"),
        ({"config": {"options": {"rrcm": {"depth": 2}}}}, "options of the methods"),
    ],
)
def test_shards_of_other_protocols_are_not_joined(tmp_path, changes, field):
    write_shards(tmp_path, drop=range(20), **changes)
    with pytest.raises(
        ProtocolError, match=rf"shards 1 and 3 of .* differ in {field} \(.*same command but for"
    ):
        merge(tmp_path)


def test_a_missing_certificate_is_named_with_its_shard(tmp_path):
    write_shards(tmp_path, drop=(7, 8))
    message = r"lacks 2 certificates, the first being image 40 of rrcm at sigma 0.5: .* command of shard 3/3"
    with pytest.raises(RecordsError, match=message):
        merge(tmp_path)
    assert not (tmp_path / "records.jsonl").exists()


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "records-2-of-3.jsonl").unlink()
    with pytest.raises(
        RecordsError, match="lacks 1 shard of 3, such as 2: repeat the command with --shard 2/3"
    ):
        merge(tmp_path)


def test_status_counts_what_the_shards_hold(tmp_path, monkeypatch, capsys):
    write_shards(tmp_path, drop=(7, 8))
    assert bench(monkeypatch, "status", tmp_path) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 images left, about" in said
    assert "repeat the commands of shards 1/3 (1 left), 3/3 (1 left)" in said
    (tmp_path / "records-2-of-3.jsonl").unlink()
    run, lacks = shards.read_status(tmp_path)
    assert {str(shard): left for shard, left in lacks.items()} == {"1/3": 1, "2/3": 8, "3/3": 1}
    assert len(run.records) == 20 - 8 - 2


def test_status_of_complete_shards_says_to_merge_and_then_is_that_of_the_run(tmp_path, monkeypatch, capsys):
    write_shards(tmp_path)
    assert bench(monkeypatch, "status", tmp_path) == 0
    assert f"All images are certified; join the shards with `bench merge {tmp_path}`." in " ".join(
        capsys.readouterr().out.split()
    )
    merge(tmp_path)
    assert shards.read_status(tmp_path) == (read_run(tmp_path), {})


def test_status_names_eight_unfinished_shards_at_most():
    lacks = {Shard(number=number, count=9): 1 for number in range(1, 10)}
    assert shards.what_to_do(COMPLETE, lacks).endswith("8/9 (1 left) and 1 more")
    assert shards.what_to_do(COMPLETE, {}) == ""


def test_a_missing_cost_is_named_by_status_and_merge(tmp_path, monkeypatch, capsys):
    header = dataclasses.replace(COMPLETE.header, config={"cost_repetitions": 2})
    write_shards(tmp_path, run=dataclasses.replace(COMPLETE, header=header, costs=()))
    assert bench(monkeypatch, "status", tmp_path) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "cost of rrcm, dds is not measured; repeat the commands of shards 1/3 (costs left)" in said
    with pytest.raises(RecordsError, match="lacks the cost of rrcm, dds: repeat the command of shard 1/3"):
        merge(tmp_path)


def test_status_of_a_whole_run_without_its_costs_has_the_command_repeated(tmp_path, monkeypatch, capsys):
    header = dataclasses.replace(COMPLETE.header, command="bench run --n 5", config={"cost_repetitions": 2})
    measured = tuple(cost for cost in COMPLETE.costs if cost.method == "rrcm")
    write_run(tmp_path, dataclasses.replace(COMPLETE, header=header, costs=measured))
    assert bench(monkeypatch, "status", tmp_path) == 0
    said = "All images are certified, and the cost of dds is not measured; continue with: bench run --n 5\n"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("name", "typed"), [("my run", "'my run'"), ("-x", "./-x")])
def test_commands_to_copy_are_quoted(name, typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(Path(name), count=2)
    run, lacks = shards.read_status(Path(name))
    assert shards.what_to_do(run, lacks) == f"join the shards with `bench merge {typed}`"
    with pytest.raises(RecordsError, match=f"`bench merge {typed}`"):
        read_run(Path(name))
    with pytest.raises(RecordsError, match=f"`bench merge {typed}`, or give another --out"):
        shards.check_folder(Path(name), None)
    merge(Path(name))
    with pytest.raises(RecordsError, match=f"`bench report {typed}`"):
        merge(Path(name))


def test_a_certificate_of_another_shard_is_refused(tmp_path):
    write_shards(tmp_path)
    first, second = (tmp_path / f"records-{number}-of-3.jsonl" for number in (1, 2))
    second.write_text(second.read_text() + first.read_text().splitlines()[1] + "\n")
    with pytest.raises(RecordsError, match="holds image 60, which belongs to another shard: remove its line"):
        merge(tmp_path)


def test_a_folder_is_merged_once_and_an_empty_one_never(tmp_path):
    with pytest.raises(RecordsError, match="holds no shards: make them with `bench run --shard i/k`"):
        merge(tmp_path)
    write_shards(tmp_path)
    write_shards(tmp_path, count=2)
    with pytest.raises(RecordsError, match="holds shards of 2 and of 3: keep the files of one of them only"):
        merge(tmp_path)
    for number in (1, 2):
        (tmp_path / f"records-{number}-of-2.jsonl").unlink()
    merge(tmp_path)
    with pytest.raises(RecordsError, match="is merged already: make its tables again with `bench report"):
        merge(tmp_path)


def test_whole_runs_and_shards_are_not_mixed_in_a_folder(tmp_path):
    write_shards(tmp_path, count=2)
    with pytest.raises(RecordsError, match="holds shards of a run: join them with `bench merge"):
        shards.check_folder(tmp_path, None)
    with pytest.raises(
        RecordsError, match=r"records-1-of-2.jsonl, so --shard 1/3 does not fit: split .* into 2"
    ):
        shards.check_folder(tmp_path, Shard(number=1, count=3))
    shards.check_folder(tmp_path, Shard(number=2, count=2))
    merge(tmp_path)
    shards.check_folder(tmp_path, None)
    with pytest.raises(RecordsError, match="holds a whole run: leave --shard out, or give another --out"):
        shards.check_folder(tmp_path, Shard(number=2, count=2))


def test_shards_run_and_merged_equal_a_run_in_one_piece(tmp_path, monkeypatch, capsys, undrawn):
    synthetic_method.register(monkeypatch)
    run = synthetic_method.arguments(tmp_path)
    assert bench(monkeypatch, "run", *run, "--out", tmp_path / "whole") == 0
    for number in (2, 1, 3):
        assert bench(monkeypatch, "run", *run, "--out", tmp_path / "parts", "--shard", f"{number}/3") == 0
    assert "When all 3 shards are done: bench merge" in capsys.readouterr().out
    assert bench(monkeypatch, "merge", tmp_path / "parts") == 0
    whole, merged = read_run(tmp_path / "whole"), read_run(tmp_path / "parts")
    assert synthetic_method.without_times(merged) == synthetic_method.without_times(whole)
    assert [cost.method for cost in merged.costs] == ["brightness"]
    assert (tmp_path / "whole" / "acr.csv").exists()
    assert (tmp_path / "parts" / "acr.csv").exists()
    assert "16 certificates joined" in capsys.readouterr().out


def test_a_shard_is_told_as_json_or_by_its_file_alone(tmp_path, monkeypatch, capsys):
    synthetic_method.register(monkeypatch)
    folder, file = tmp_path / "two parts", tmp_path / "two parts" / "records-1-of-2.jsonl"
    run = [*synthetic_method.arguments(tmp_path, "--limit", 2), "--out", folder, "--shard", "1/2"]
    assert bench(monkeypatch, "run", *run, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder),
        "file": str(file),
        "shard": "1/2",
        "next": f"bench merge '{folder}'",
    }
    assert bench(monkeypatch, "run", *run, "-q") == 0
    assert capsys.readouterr().out == f"{file}\n"


def test_a_shard_trains_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "zoo").mkdir()
    run = [*synthetic_method.arguments(tmp_path, "--zoo", tmp_path / "zoo"), "--methods", "gaussian"]
    assert bench(monkeypatch, "run", *run, "--out", tmp_path / "run", "--shard", "1/2") == 1
    assert "train it first with `bench train gaussian" in capsys.readouterr().err
