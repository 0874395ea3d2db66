"""Committed runs give the committed tables again, and their certificates replay."""

from pathlib import Path

import pytest

from bench.methods.weights import fingerprint
from bench.records.file import read_run
from bench.report.compared import compare_runs
from bench.report.comparison import compare
from bench.report.write import write_tables
from bench.runs.rebuild import rebuild
from bench.runs.workbench import entrant
from bench.types import NOISE_VERSION
from tests.support.tiny import bench

RESULTS = Path(__file__).parents[2] / "results"
RUNS = ("mnist5k", "mnist5k-dds-finetuned")

pytestmark = pytest.mark.skipif(not RESULTS.is_dir(), reason="a source distribution holds no results")


@pytest.mark.parametrize("run", RUNS)
def test_tables_are_made_again_byte_for_byte(run, tmp_path):
    _, files = write_tables(compare([read_run(RESULTS / run)]), tmp_path)
    committed = [path for path in files if (RESULTS / run / path.name).exists()]
    assert len(committed) >= 5
    for path in committed:
        assert path.read_bytes() == (RESULTS / run / path.name).read_bytes(), path.name


def test_paired_comparisons_are_made_again_byte_for_byte(tmp_path):
    _, files, _ = compare_runs([read_run(RESULTS / "mnist5k")], methods=None, sigmas=None, out=tmp_path)
    check_same(files, "mnist5k", 6)


def check_same(files, folder, count):
    assert len(files) == count
    for path in files:
        assert path.read_bytes() == (RESULTS / folder / path.name).read_bytes(), path.name


@pytest.mark.parametrize("run", RUNS)
def test_committed_checkpoints_are_the_weights_of_the_header_on_every_machine(run):
    run = read_run(RESULTS / run)
    setup = rebuild(run, zoo=RESULTS / "zoo").setup
    keys = [(method, sigma) for method in run.header.methods for sigma in run.header.sigmas]
    found = {
        f"{method}/{sigma:g}": fingerprint(entrant(setup, method, sigma).build()) for method, sigma in keys
    }
    assert found == run.header.weights


@pytest.mark.slow
def test_certificates_of_a_committed_run_replay_equal_unless_their_noise_is_another(monkeypatch, capsys):
    header = read_run(RESULTS / "mnist5k").header
    is_current = header.noise_version == NOISE_VERSION
    status = bench(monkeypatch, "replay", RESULTS / "mnist5k", "--index", header.indices[0])
    out, err = capsys.readouterr()
    curves = len(header.methods) * len(header.sigmas)
    assert (status, out.count(": equal")) == ((0, curves) if is_current else (1, 0))
    assert is_current or "was made with version 1 of the noise, and this program draws version 2" in err
