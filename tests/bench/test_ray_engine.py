"""Ray: the records of a local run, though a worker is killed amid an image; what is asked of it in vain is said."""

import sys

import pytest

from bench import registry
from bench.engine import Job
from bench.errors import EngineError
from bench.process_engine import ProcessEngine
from bench.ray_engine import RayEngine
from bench.records import read_run
from tests import synthetic_method
from tests.bench import killed_run
from tests.bench.test_dispatch import Loader
from tests.tiny import bench

JOBS = [Job(method="a", sigma=0.5, indices=(index,)) for index in range(8)]


@pytest.fixture
def ray():
    """Ray, or no test; its own warnings are not ours."""
    return pytest.importorskip("ray")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_killed_amid_an_image_costs_nothing(tmp_path, ray):
    results = RayEngine(cpus=2).results(Loader(tmp_path), iter(JOBS))
    records = [record for records in results for record in records]
    assert sorted(record.index for record in records) == list(range(8))
    assert all(record == killed_run.certify("a", 0.5, record.index) for record in records)
    assert (tmp_path / "killed").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_without_room_is_named(tmp_path, ray):
    with pytest.raises(
        EngineError, match=r"a worker takes .*, but the cluster has .* lower --cpus-per-worker"
    ):
        list(RayEngine(cpus=1, cpus_per_worker=2.0).results(Loader(tmp_path), iter(JOBS)))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:port"])
def test_a_cluster_that_does_not_answer_is_named(tmp_path, monkeypatch, address):
    monkeypatch.setattr("bench.ray_engine._import_ray", lambda: None)
    with pytest.raises(EngineError, match=rf"no Ray cluster answers at '{address}' .*`ray start --head`"):
        list(RayEngine(address=address).results(Loader(tmp_path), iter(JOBS)))


def test_without_ray_the_option_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        EngineError, match=r"needs Ray: pip install 'rrcm-bench\[ray\]', or leave --engine out"
    ):
        list(RayEngine().results(Loader(tmp_path), iter(JOBS)))


class Registering:
    """An engine whose workers know the synthetic method."""

    def __init__(self, engine):
        self.engine = engine

    def results(self, load, jobs):
        return self.engine.results(Knowing(load), jobs)


class Knowing:
    """A loader that adds the synthetic method to the registry of its own process."""

    def __init__(self, load):
        self.load = load

    def __call__(self, method, sigma):
        registry._BUILT_IN.update(synthetic_method.ENTRY)
        return self.load(method, sigma)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["processes", "ray"])
def test_a_run_on_workers_has_the_records_of_a_local_one(tmp_path, monkeypatch, name):
    if name == "ray":
        pytest.importorskip("ray")
    synthetic_method.register(monkeypatch)
    monkeypatch.setattr("bench.commands.compare.report_runs", lambda *_: None)
    run = [*synthetic_method.arguments(tmp_path), "--cost-repetitions", "0"]
    assert bench(monkeypatch, "run", *run, "--out", tmp_path / "local") == 0
    engine = Registering(RayEngine(cpus=2) if name == "ray" else ProcessEngine(workers=2))
    monkeypatch.setattr("bench.commands.compare.make_engine", lambda config, **_: engine)
    assert bench(monkeypatch, "run", *run, "--out", tmp_path / name) == 0
    local, spread = read_run(tmp_path / "local"), read_run(tmp_path / name)

    def sorted_records(run):
        return sorted(synthetic_method.without_times(run), key=lambda one: (one["sigma"], one["index"]))

    assert sorted_records(spread) == sorted_records(local)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "--workers is 2, but --engine is local: only processes takes it"),
        (["--address", "auto"], "--address is auto, but --engine is local: only ray takes it"),
        (
            ["--engine", "ray", "--cpus-per-worker", "0", "--device", "cpu"],
            "are both 0, expected one of them above 0",
        ),
    ],
)
def test_options_of_another_engine_are_refused(monkeypatch, capsys, options, message):
    assert bench(monkeypatch, "run", "--methods", "gaussian", *options) == 2
    assert message in capsys.readouterr().err
