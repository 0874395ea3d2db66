"""`bench run --dry-run`: it tells what the run then does, and refuses what the run refuses, in the same words."""

import json

import pytest

from tests.support import synthetic_method
from tests.support.tiny import bench


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return what a `bench run` of 8 images prints, with its exit code; the method needs no checkpoint."""
    synthetic_method.register(monkeypatch)
    monkeypatch.chdir(tmp_path)
    words = [*synthetic_method.arguments(tmp_path, "--limit", 8), "--cost-repetitions", "0", "--out", "run"]

    def told(*more):
        code = bench(monkeypatch, "run", *words, *more)
        return code, *capsys.readouterr()

    return told


def test_a_folder_of_another_protocol_is_refused_before_anything_is_told(run, undrawn):
    assert run("--limit", "2")[0] == 0
    dry, wet = (run("--limit", "2", "--n", "50", *more) for more in (["--dry-run"], []))
    assert "run/records.jsonl was made under another n" in dry[2]
    assert dry == wet
    assert run("--shard", "1/2", "--dry-run") == run("--shard", "1/2")


@pytest.mark.parametrize(("shard", "images"), [("2/4", 2), ("3/3", 2), ("9/9", 0)])
def test_a_shard_tells_its_own_certificates(run, shard, images):
    code, out, _ = run("--shard", shard, "--dry-run", "--json")
    assert (code, json.loads(out)["estimate"]["certificates"]) == (0, 2 * images)


def test_a_shard_without_its_checkpoint_is_refused_as_the_shard_is(run, tmp_path):
    (tmp_path / "zoo").mkdir()
    words = ("--methods", "gaussian", "--zoo", "zoo", "--shard", "1/2")
    dry, wet = run(*words, "--dry-run"), run(*words)
    assert "train it first with `bench train gaussian" in dry[2]
    assert dry == wet
