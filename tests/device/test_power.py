"""Power and energy with an NVML that a test makes up."""

import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bench.device.hardware import peak_flops
from bench.device.power import (
    Load,
    driver_version,
    energy_counter,
    joules,
    load_of,
    nvml_reader,
    read_load,
    while_reading,
)
from bench.errors import BenchError


def drawing(watts):
    return Load(watts=watts, temperature=1.0, clock_mhz=1000.0, throttling=(), other_processes=0)


def fake_nvml(reasons=0x0, processes=1):
    return SimpleNamespace(
        NVML_TEMPERATURE_GPU=0,
        NVML_CLOCK_SM=1,
        nvmlDeviceGetPowerUsage=lambda handle: 350_500,
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        nvmlDeviceGetClockInfo=lambda handle, clock: 1755,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: reasons,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [object()] * processes,
    )


def test_a_ramp_of_power_integrates_to_its_area():
    readings = [(0.0, drawing(100.0)), (2.0, drawing(300.0)), (3.0, drawing(300.0))]
    assert joules(readings) == 400.0 + 300.0


def test_a_load_over_a_while_keeps_whatever_was_once_amiss():
    hot = Load(
        watts=10.0, temperature=90.0, clock_mhz=900.0, throttling=("hardware slowdown",), other_processes=1
    )
    assert load_of([drawing(5.0), hot, drawing(15.0)]) == replace(hot, watts=10.0)


def test_load_is_in_watts_and_this_process_is_no_company():
    assert read_load(fake_nvml(), None) == Load(
        watts=350.5, temperature=61.0, clock_mhz=1755.0, throttling=(), other_processes=0
    )


def test_reasons_for_lower_clocks_are_named_and_an_idle_device_is_not_throttled():
    load = read_load(fake_nvml(reasons=0x1 | 0x8 | 0x40, processes=3), None)
    assert load.throttling == ("hardware slowdown", "hardware thermal slowdown")
    assert load.other_processes == 2


def test_a_partition_is_found_by_its_own_kind_of_name(monkeypatch):
    library = fake_nvml()
    library.NVMLError = LookupError
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByUUID = lambda name: {"MIG-7": "handle"}[name]
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: {"handle": 1000}[handle]
    monkeypatch.setitem(sys.modules, "fake_nvml", library)
    for uuid in ("7", "MIG-7"):
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda _, uuid=uuid: SimpleNamespace(uuid=uuid)
        )
        assert energy_counter(torch.device("cuda"), "fake_nvml")() == 1.0
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="8"))
    assert energy_counter(torch.device("cuda"), "fake_nvml") is None


def test_a_reading_that_fails_is_left_out(monkeypatch):
    library = fake_nvml()
    library.NVMLError = OSError
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByUUID = lambda name: name
    monkeypatch.setitem(sys.modules, "fake_nvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="7"))
    read = nvml_reader(torch.device("cuda"), "fake_nvml")
    assert read().watts == 350.5

    def refuse(handle):
        raise OSError

    library.nvmlDeviceGetPowerUsage = refuse
    assert read() is None
    known = [(1.0, drawing(100.0)), (2.0, None), (3.0, drawing(300.0))]
    assert joules([(0.0, None), *known, (4.0, None)]) == 4 * 200.0
    with pytest.raises(BenchError, match="NVML gave no power"):
        joules([(0.0, drawing(1.0)), (1.0, None)])


def test_readings_cover_the_work_and_go_on_during_it():
    read_often = threading.Event()
    seen = []

    def read():
        seen.append(1)
        if len(seen) >= 4:
            read_often.set()
        return Load(watts=5.0, temperature=1.0, clock_mhz=1.0, throttling=(), other_processes=0)

    ticks = iter(range(1000))
    readings = while_reading(lambda: read_often.wait(10), read, lambda: float(next(ticks)))
    assert len(readings) >= 5
    assert [load.watts for _, load in readings] == [5.0] * len(readings)
    assert [second for second, _ in readings] == sorted(second for second, _ in readings)


def test_without_cuda_or_without_nvml_there_is_no_reader():
    assert nvml_reader(torch.device("cpu")) is None
    assert nvml_reader(torch.device("cuda"), library="no_such_library") is None


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16", None),
        ("NVIDIA H200", "bfloat16", 989.4e12),
        ("NVIDIA H100 80GB HBM3", "float32", 66.9e12),
        ("NVIDIA H100 PCIe", "tf32", 378.0e12),
        ("AMD EPYC, 2 threads", "float32", None),
    ],
)
def test_peaks_are_those_of_the_board(device, precision, expected):
    assert peak_flops(device, precision) == expected


def test_a_device_that_counts_its_energy_tells_it_in_joules_and_its_driver(monkeypatch):
    library = fake_nvml()
    library.NVMLError = OSError
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetHandleByUUID = lambda name: name
    library.nvmlDeviceGetTotalEnergyConsumption = lambda handle: {"GPU-7": 2500}[handle]
    library.nvmlSystemGetDriverVersion = lambda: "570.1"
    monkeypatch.setitem(sys.modules, "fake_nvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="7"))
    counter = energy_counter(torch.device("cuda"), "fake_nvml")
    assert (counter(), driver_version("fake_nvml")) == (2.5, "570.1")

    def refuse(handle):
        raise OSError

    library.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert energy_counter(torch.device("cuda"), "fake_nvml") is None
