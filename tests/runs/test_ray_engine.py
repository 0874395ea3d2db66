"""Connecting to Ray: what is asked of it in vain is said; runs on a cluster are in test_spread_runs.py."""

import signal
import sys

import pytest

from bench.errors import EngineError
from bench.runs.engines.ray import RayEngine
from bench.runs.termination import Termination
from tests.support.spread_work import Loader, single_jobs
from tests.support.tiny import bench

JOBS = single_jobs(*range(8))


class FakeRay:
    """Ray as far as a run connects to it: a cluster of one processor; it takes SIGTERM for itself."""

    options, error = None, None

    def init(self, **options):
        if self.error is not None:
            raise self.error
        self.options = options
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def cluster_resources(self):
        return {"CPU": 1.0}

    def shutdown(self):
        self.options = None


@pytest.fixture
def ray():
    """A fake Ray, to be given in the place of the library."""
    return FakeRay()


def test_a_cluster_without_room_is_named(tmp_path, ray):
    message = (
        r"a worker takes .*, but the cluster has .* in all: lower --cpus-per-worker or --gpus-per-worker"
    )
    with pytest.raises(EngineError, match=message):
        list(RayEngine(gpus_per_worker=1, library=lambda: ray).results(Loader(tmp_path), iter(JOBS)))
    assert ray.options is None


def test_a_cluster_that_ray_refuses_is_named_with_the_reason(tmp_path, ray):
    ray.error = RuntimeError("Version mismatch: the cluster was started with Ray 2.9")
    with pytest.raises(
        EngineError, match=r"no Ray cluster answers at 'auto' \(Version mismatch: .* Ray 2.9\)"
    ):
        list(RayEngine(address="auto", library=lambda: ray).results(Loader(tmp_path), iter(JOBS)))


def test_workers_may_be_more_than_there_is_room_for_now():
    assert RayEngine(workers=16).worker_count({"CPU": 1.0}) == 16
    assert RayEngine().worker_count({"CPU": 1.0}) == 1


def test_sigterm_stays_the_runs_matter(tmp_path, ray):
    with Termination():
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(EngineError):
            list(RayEngine(cpus_per_worker=2, library=lambda: ray).results(Loader(tmp_path), iter(JOBS)))
        assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:port"])
def test_a_cluster_that_does_not_answer_is_named(tmp_path, ray, address):
    with pytest.raises(EngineError, match=rf"no Ray cluster answers at '{address}' .*`ray start --head`"):
        list(RayEngine(address=address, library=lambda: ray).results(Loader(tmp_path), iter(JOBS)))


def test_without_ray_the_option_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        EngineError, match=r"needs Ray: pip install 'rrcm-bench\[ray\]', or leave --engine out"
    ):
        list(RayEngine().results(Loader(tmp_path), iter(JOBS)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--engine", "local", "--workers", "2"],
            "--workers is 2, but --engine is local: only processes and ray take it",
        ),
        (["--address", "auto"], "--address is auto, but --engine is auto: only ray takes it"),
        (
            ["--engine", "ray", "--cpus-per-worker", "0", "--device", "cpu"],
            "are both 0, expected one of them above 0",
        ),
    ],
)
def test_options_of_another_engine_are_refused(monkeypatch, capsys, options, message):
    assert bench(monkeypatch, "run", "--methods", "gaussian", *options) == 2
    assert message in capsys.readouterr().err
