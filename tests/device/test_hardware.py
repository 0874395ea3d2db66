"""Devices by name, on a machine with two GPUs that a test makes up; what a run says of a GPU."""

import subprocess
from types import SimpleNamespace

import pytest
import torch

from bench.commands.options import make_engine
from bench.config.run import RunConfig
from bench.device import hardware
from bench.errors import UsageError
from bench.runs.engines.base import LocalEngine
from bench.runs.engines.processes import VISIBLE, ProcessEngine, ProcessPool


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs, and a list of those that were made the current one."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv(VISIBLE, raising=False)
    return chosen


def engine(device, name="processes", **options):
    options = {"workers": None, "address": None, "cpus_per_worker": None, "gpus_per_worker": None} | options
    return make_engine(RunConfig(device=device), engine=name, **options)


def test_a_gpu_by_its_number_becomes_the_current_one(two_gpus):
    assert hardware.resolve_device("cuda:1") == torch.device("cuda", 1)
    assert two_gpus == [1]
    assert hardware.resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:2", "'cuda:2' is not available here: this process sees 2 GPUs, cuda:0 to cuda:1"),
        ("cuda:", "'cuda:' is not available here; use --device auto or cpu"),
        ("cuda:one", "'cuda:one' is not available here"),
        ("tpu", "'tpu' is not available here"),
    ],
)
def test_a_device_that_is_not_there_is_refused_in_words(two_gpus, name, message):
    with pytest.raises(UsageError, match=message):
        hardware.resolve_device(name)


def test_processes_are_one_for_each_gpu_unless_more_are_asked_for(two_gpus, monkeypatch):
    assert engine("auto") == ProcessEngine(workers=2, threads=engine("auto").threads, gpus=("0", "1"))
    assert engine("cuda:1").gpus == ("1",)
    assert engine("cuda:1").workers == 1
    assert engine("cuda", workers=6).workers == 6
    monkeypatch.setenv(VISIBLE, "GPU-aa, GPU-bb")
    assert engine("cuda").gpus == ("GPU-aa", "GPU-bb")


@pytest.mark.parametrize(
    ("listed", "count", "seen"),
    [
        ("MIG-a, MIG-b,MIG-c", 1, ("MIG-a", "MIG-b", "MIG-c")),
        ("GPU-a,GPU-b", 2, ("GPU-a", "GPU-b")),
        ("0,7", 1, ("0",)),
        ("MIG-a", 0, ()),
    ],
)
def test_partitions_are_all_there_though_one_process_sees_one(monkeypatch, listed, count, seen):
    monkeypatch.setenv(VISIBLE, listed)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert hardware.visible_gpus() == seen


def test_the_revision_is_that_of_this_project_s_checkout_only(monkeypatch, tmp_path):
    for command in ("init -q", "-c user.name=a -c user.email=a@b commit -qm mine --allow-empty"):
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    installed = tmp_path / ".venv" / "site-packages" / "bench" / "device" / "hardware.py"
    installed.parent.mkdir(parents=True)
    for file, is_known in ((installed, False), (tmp_path / "bench" / "device" / "hardware.py", True)):
        file.parent.mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(hardware, "__file__", str(file))
        assert (hardware.git_revision() != "unknown") == is_known


def test_ray_gives_its_workers_their_gpus(two_gpus):
    with pytest.raises(
        UsageError, match="--device is cuda:1, but Ray gives each worker its GPUs: --device cuda"
    ):
        engine("cuda:1", "ray")


def test_each_process_sees_a_gpu_of_its_own_and_the_next_one_that_of_the_dead(two_gpus, monkeypatch):
    pool, seen = ProcessPool(1, ("GPU-aa", "GPU-bb")), []
    fake = SimpleNamespace(start=lambda: seen.append(hardware.os.environ[VISIBLE]))
    monkeypatch.setattr(pool._context, "Process", lambda **options: fake)
    for _ in range(3):
        pool.start(None)
    del pool._workers[1]
    pool.start(None)
    assert seen == ["GPU-aa", "GPU-bb", "GPU-aa", "GPU-bb"]
    assert VISIBLE not in hardware.os.environ


def test_apples_device_has_its_float64_on_the_cpu():
    asked = []

    class Apple:
        device = torch.device("mps")

        def cpu(self):
            asked.append("cpu")
            return torch.ones(2)

    assert hardware.as_float64(Apple()).dtype == torch.float64
    assert asked == ["cpu"]


def test_a_gpus_memory_and_libraries_are_described(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=7, major=9, minor=0)
    )
    found = hardware.describe(torch.device("cuda"))
    assert found["gpu_memory_bytes"] == 7
    assert {"driver", "cuda", "cudnn", "triton"} <= found.keys()


def test_memory_of_others_is_what_this_process_does_not_hold(two_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 25)
    assert hardware.memory_of_others(torch.device("cuda")) == 45
    assert hardware.memory_of_others(torch.device("cpu")) is None


def on_cpu(monkeypatch, cores, gibibytes, **config):
    monkeypatch.setattr("bench.commands.options.cores", lambda: cores)
    monkeypatch.setattr("bench.commands.options.available_memory", lambda: gibibytes * 2**30)
    options = {"workers": None, "address": None, "cpus_per_worker": None, "gpus_per_worker": None}
    return make_engine(RunConfig(device="cpu", **{"methods": ("a",)} | config), engine="auto", **options)


def test_a_long_run_has_a_worker_for_each_core_as_far_as_memory_goes(monkeypatch):
    assert on_cpu(monkeypatch, 4, 100) == ProcessEngine(workers=4, threads=1)
    assert on_cpu(monkeypatch, 4, 3) == ProcessEngine(workers=2, threads=1)
    default = {"methods": ("rrcm", "gaussian", "consistency", "dds"), "limit": 40}
    assert on_cpu(monkeypatch, 2, 24, **default) == ProcessEngine(workers=2, threads=1)
    for cores, gibibytes, config in ((1, 100, {}), (4, 1, {}), (4, 100, {"limit": 5})):
        assert isinstance(on_cpu(monkeypatch, cores, gibibytes, **config), LocalEngine)


def test_several_gpus_have_a_worker_each_and_one_has_none(two_gpus):
    assert engine("auto", "auto").gpus == ("0", "1")
    assert isinstance(engine("cuda:0", "auto"), LocalEngine)
