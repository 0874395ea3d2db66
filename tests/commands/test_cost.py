"""bench cost as a user types it: a real measurement of reduced networks, resuming, one line per mistake."""

import itertools
import shutil
import time

import pytest

from bench.commands import cost
from bench.cost.measure import Measurement
from bench.cost.records import read_cost_run
from bench.device import timing
from bench.device.power import UnreadError
from tests.support.tiny import bench

SMALL = ("--preset", "reduced-cifar10", "--methods", "rrcm-b,resnet8", "--n", "20", "--n0", "4")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder in which two reduced methods were measured on this machine's CPU, in two calls."""
    folder = tmp_path_factory.mktemp("cost")
    options = (*SMALL, "--repetitions", "1", "--batch-sizes", "1,8", "--device", "cpu", "--out", folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert bench(monkeypatch, "cost", *options, "--max-seconds", "0.001") == 2
        with pytest.MonkeyPatch.context() as stopped:
            whole = Measurement.steps
            stopped.setattr(Measurement, "steps", lambda *given: itertools.islice(whole(*given), 1))
            assert bench(monkeypatch, "cost", *options) == 0
        assert len(read_cost_run(folder).repetitions) == 1
        assert bench(monkeypatch, "cost", *options) == 0
    return folder


def test_reduced_networks_are_measured_for_real_in_calls_that_go_on(measured):
    run = read_cost_run(measured)
    assert {(one.method, one.batch_size) for one in run.repetitions} == {
        (name, size) for name in ("rrcm-b", "resnet8") for size in (1, 8)
    }
    assert all(one.seconds > 0 for one in run.repetitions)
    assert {one.method for one in run.splits} == {one.method for one in run.images} == {"rrcm-b", "resnet8"}
    assert len(run.sessions) == 3
    shown = measured.glob("[!.]*")  # without the lock
    assert {path.suffix for path in shown} == {".jsonl", ".csv", ".md", ".tex", ".png", ".pdf"}


@pytest.mark.gpu
def test_a_gpu_is_measured_by_its_events_and_its_own_memory(tmp_path, monkeypatch):
    options = (
        *SMALL,
        "--precision",
        "bfloat16",
        "--batch-sizes",
        "8",
        "--repetitions",
        "1",
        "--device",
        "cuda",
    )
    assert bench(monkeypatch, "cost", *options, "--max-seconds", "60", "--out", tmp_path) == 0
    run = read_cost_run(tmp_path)
    assert all(one.seconds > 0 and one.peak_memory_bytes > 0 for one in run.repetitions)
    assert [split.stages["classifier"] > 0 for split in run.splits] == [True, True]


def test_tables_are_made_again_from_the_records_alone(measured, tmp_path, monkeypatch, capsys):
    (tmp_path / "records.jsonl").write_bytes((measured / "records.jsonl").read_bytes())
    assert bench(monkeypatch, "cost", "--report", "--out", tmp_path) == 0
    assert (tmp_path / "cost.csv").read_bytes() == (measured / "cost.csv").read_bytes()
    shown = capsys.readouterr().out
    assert "These are CPU numbers" in shown
    assert "INVALID: rrcm-b as published: 1 repetitions, not 10" in shown


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--report",), 2, "--report needs --out DIR"),
        (("--preset", "paper-imagenet", "--methods", "ddss"), 2, "unknown method 'ddss' of paper-imagenet"),
        (("--preset", "paper-imagenet", "--alpha", "0.1"), 2, "--alpha has no meaning for the cost of"),
        (("--preset", "paper-imagenet", "--set", "rrcm.depth=2"), 2, "--set has no meaning for the cost of"),
        (
            ("--preset", "imagenet", "--geometry", "short-side"),
            2,
            "--geometry has no meaning for the cost of imagenet",
        ),
        (("--certifier", "--geometry", "short-side"), 2, "geometry is short-side, but only 'imagenet' takes"),
        (
            ("--preset", "mnist5k", "--batch-size", "8"),
            2,
            "--batch-size has no meaning for the cost of mnist5k",
        ),
        (
            ("--preset", "paper-imagenet", "--batch-sizes", "1,x"),
            2,
            "--batch-sizes is '1,x', expected integers",
        ),
        (("--preset", "paper-imagenet", "--n0", "1,2"), 2, "--n0 is '1,2', expected one integer >= 1"),
        (("--preset", "paper-imagenet", "--sigma", "0"), 2, "--sigma is '0', expected one number > 0"),
        (("--preset", "reduced-cifar10", "--precision", "half"), 2, "--precision is 'half', expected a list"),
        (("--preset", "paper-imagenet", "--device", "tpu"), 2, "device 'tpu' is not available here"),
        (("--preset", "paper-imagenett"), 2, "did you mean 'paper-imagenet'?"),
        (("--run", "nowhere"), 1, "no records at nowhere"),
        (
            ("--run", "r", "--methods", "a", "--n", "9", "--repetitions", "10", "--batch-sizes", "8"),
            2,
            "--run does not take --methods, --n, --batch-sizes, --repetitions: leave them out",
        ),
        (("--report", "--out", "r", "--n", "9"), 2, "--report does not take --n: leave it out"),
        (("--report", "--run", "r"), 2, "--run does not take --report: leave it out"),
        (
            ("--certifier", "--batch-sizes", "8", "--steps", "2", "--votes", "2", "--max-seconds", "1"),
            2,
            "--certifier does not take --batch-sizes, --steps, --votes, --max-seconds: leave them out",
        ),
        (
            ("--reference-precision", "tf32"),
            2,
            "bench cost without --run or --certifier does not take --reference-precision: leave it out",
        ),
    ],
)
def test_mistakes_are_one_line(options, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, "cost", *options) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_certifier_is_timed_on_images_of_the_geometry_that_is_asked_for(monkeypatch):
    configs = []
    monkeypatch.setattr(cost, "_certifier", lambda config, *rest: configs.append(config))
    assert bench(monkeypatch, "cost", "--certifier", "--preset", "imagenet", "--geometry", "short-side") == 0
    assert [one.geometry for one in configs] == ["short-side"]


def test_a_limit_too_short_for_anything_is_said(tmp_path, monkeypatch, capsys):
    options = (*SMALL, "--batch-sizes", "1", "--device", "cpu", "--out", tmp_path, "--max-seconds", "0.001")
    assert bench(monkeypatch, "cost", *options) == 2
    assert "--max-seconds is 0.001, too few for any of the" in capsys.readouterr().err


def test_energies_that_are_not_read_end_a_call_in_words(measured, tmp_path, monkeypatch, capsys):
    def unread():
        raise UnreadError

    folder = shutil.copytree(measured, tmp_path / "run")
    monkeypatch.setattr(timing, "energy_counter", lambda device: unread)
    options = (*SMALL, "--repetitions", "1", "--batch-sizes", "1,8", "--device", "cpu", "--out", folder)
    assert bench(monkeypatch, "cost", *options) == 0
    assert "The energy of 2 settings was not read" in "".join(capsys.readouterr())


def test_the_limit_of_time_counts_from_before_torch_is_imported(monkeypatch):
    moments = []
    monkeypatch.setattr("bench.commands.cost._request", lambda given: moments.append(time.perf_counter()))
    monkeypatch.setattr(
        "bench.commands.cost._measure", lambda request, limit, started: moments.append(started)
    )
    assert bench(monkeypatch, "cost") == 0
    asked, started = moments
    assert started < asked
