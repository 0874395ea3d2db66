"""Runs over processes and Ray clusters end with the records of a local one, whoever is killed amid them."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.records.file import FILE_NAME, read_run
from bench.runs.engines.ray import RayEngine
from tests.methods.test_registry import install
from tests.support import killed_run, synthetic_method
from tests.support.spread_work import Loader, Waiting, single_jobs, until
from tests.support.tiny import bench

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's warnings are not ours

ROOT = Path(__file__).parents[2]


@pytest.fixture
def method(tmp_path, monkeypatch, undrawn):
    """The synthetic method as an installed package; return the options of a run."""
    install(tmp_path, monkeypatch, name="brightness", source=synthetic_method.SOURCE)
    return synthetic_method.arguments(tmp_path, "--cost-repetitions", 0, "--n", 5000)


RAY_SETTINGS = {
    "worker_niceness": "0",  # 15 by default: beside other work such workers hardly run
    "worker_register_timeout_seconds": "600",
    "agent_register_timeout_ms": "600000",
    "AUTH_MODE": "disabled",  # or a Ray that is started here sets it for this process, after the cluster's
}


class Patient:
    """Ray's clock while it starts a node: its 30 seconds are a minute, for machines that do other work."""

    sleep, time = time.sleep, time.time

    @staticmethod
    def monotonic():
        return time.monotonic() / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the method as an installed package; every Ray that is begun knows it, and has our settings."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        install(folder, patch, name="brightness", source=synthetic_method.SOURCE)
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, ROOT))))
        for name, value in RAY_SETTINGS.items():
            patch.setenv(f"RAY_{name}", value)
        patch.setattr("ray._private.node.time", Patient)
        yield folder


def add_node(cluster, **options):
    """Return a new node of one processor; a busy machine may miss a limit of Ray's, and is given more chances."""
    for _ in range(9):
        with contextlib.suppress(Exception):  # Ray's own class for this is Exception
            return cluster.add_node(num_cpus=1, **options)
    return cluster.add_node(num_cpus=1, **options)


@pytest.fixture(scope="module")
def cluster(folder):
    """A Ray cluster of one node and one processor, begun in another folder than the runs."""
    from ray.cluster_utils import Cluster

    started = Cluster()
    with contextlib.chdir(folder):
        add_node(started, include_dashboard=False)
    yield started
    started.shutdown()


def sorted_records(folder):
    """Return what equal runs share, in one order."""
    made = synthetic_method.without_times(read_run(folder))
    return sorted(made, key=lambda one: (one["sigma"], one["index"]))


def assert_all_made(records, images):
    assert sorted(record.index for record in records) == list(range(images))
    assert all(record == killed_run.certify("a", 0.5, record.index) for record in records)


def test_a_run_in_processes_has_the_records_of_a_local_one(tmp_path, monkeypatch, method):
    assert bench(monkeypatch, "run", *method, "--out", tmp_path / "local") == 0
    spread = ["--engine", "processes", "--workers", 2, "--out", tmp_path / "spread"]
    assert bench(monkeypatch, "run", *method, *spread) == 0
    assert sorted_records(tmp_path / "spread") == sorted_records(tmp_path / "local")


def test_a_ray_worker_killed_amid_an_image_costs_nothing(tmp_path, folder):
    results = RayEngine(cpus=2).results(Loader(tmp_path), iter(single_jobs(*range(8))))
    assert_all_made([record for records in results for record in records], images=8)
    assert (tmp_path / "killed").exists()


def test_a_node_lost_amid_its_image_costs_nothing_and_records_come_before_that(tmp_path, cluster):
    node, received = add_node(cluster), []

    def begun():
        return list(tmp_path.glob("begun-*"))

    def lose_the_node():
        until(lambda: len(received) == 2 and len(begun()) == 2)
        workers = [int(path.name.rpartition("-")[2]) for path in begun()]
        cluster.remove_node(node, allow_graceful=False)
        until(
            lambda: not all(Path(f"/proc/{worker}").exists() for worker in workers)
        )  # it outlives its node a little
        (tmp_path / "go").touch()

    loss = threading.Thread(target=lose_the_node)
    loss.start()
    for records in RayEngine(address=cluster.address).results(
        Waiting(tmp_path), iter(single_jobs(*range(6)))
    ):
        received += records
    loss.join()
    assert_all_made(received, images=6)
    assert len(begun()) == 4 + 1


DRIVER = "from bench.cli import main; main()"
"""A program for `python -c` that is `bench`."""


def test_a_killed_driver_resumes_to_the_records_of_a_local_run(tmp_path, monkeypatch, cluster, method):
    assert bench(monkeypatch, "run", *method, "--out", tmp_path / "local") == 0
    place = os.path.relpath(tmp_path / "data", tmp_path)
    method[method.index("--data-dir") + 1] = place
    ray = ["--engine", "ray", "--address", cluster.address, "--out", "spread"]
    command, spread = (
        [sys.executable, "-P", "-c", DRIVER, "run", *method, *ray],
        tmp_path / "spread" / FILE_NAME,
    )
    with subprocess.Popen(command, cwd=tmp_path) as driver:
        until(
            lambda: driver.poll() is not None or (spread.exists() and spread.read_bytes().count(b"\n") >= 4)
        )
        driver.kill()
    kept = read_run(spread).records
    assert 3 <= len(kept) < 16
    subprocess.run(command, cwd=tmp_path, check=True)
    assert read_run(spread).records[: len(kept)] == kept
    assert sorted_records(spread) == sorted_records(tmp_path / "local")
