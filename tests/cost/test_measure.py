"""bench cost on a device whose clock only the work moves: what is timed, in which order, written when, resumed how."""

import time
from dataclasses import replace

import pytest
import torch

from bench.cost.plan import TARGET_SECONDS, Step, check_settings, steps
from bench.cost.records import FILE_NAME, open_cost_file
from bench.cost.summary import BEST, rows
from bench.cost.workshop import Workshop
from bench.device.power import Load
from bench.errors import UsageError
from bench.runs import stream
from tests.support.fake_costs import (
    HEADER,
    LOAD,
    FakeDevice,
    Machine,
    Timed,
    architecture,
    cost_run,
    plan,
    repetitions,
)

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_seconds_are_those_of_the_samples_classified(machine):
    machine.measure(plan(machine.method("a", 2**-8, overhead=2**-6), batch_sizes=(8,)))
    assert len(machine.run.repetitions) == 3
    for one in machine.run.repetitions:
        assert one.seconds == one.samples / 8 * (2**-6 + 8 * 2**-8)
        assert 0.5 * TARGET_SECONDS < one.seconds < 2 * TARGET_SECONDS


@pytest.mark.parametrize("size", [1, 8, 200])
def test_the_noise_of_every_timed_sample_is_drawn_in_the_timed_part(machine, monkeypatch, size):
    def drawn(seed, index, stage, block, shape, device, samples):
        machine.device.now += 2**-7 * samples
        return torch.zeros((samples, *shape))

    monkeypatch.setattr(stream, "noise_block", drawn)
    machine.measure(plan(machine.method("a", 2**-6), batch_sizes=(size,)))
    assert [one.seconds / one.samples for one in machine.run.repetitions] == [2**-7 + 2**-6] * 3
    assert machine.run.splits[0].stages["noise"] == size * 2**-7


def test_each_round_times_every_pair_and_begins_with_another(machine):
    asked = plan(machine.method("a", 1.0), machine.method("b", 1.0), batch_sizes=(8,))
    done = machine.measure(asked)
    rounds = [(step.method, step.round) for step in done if step.kind == "repetition"]
    assert rounds == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_a_method_added_a_week_later_is_not_compared_with_dds_as_if_they_were_interleaved(machine):
    dds, added = machine.method("dds", 2**-4), machine.method("a", 2**-7)
    machine.measure(plan(dds, repetitions=10), created="2026-01-01T00:00:00+00:00")
    machine.device.now += 7 * 24 * 3600
    machine.measure(plan(dds, added, repetitions=10), created="2026-01-08T00:00:00+00:00")
    for row in rows(machine.run):
        is_new = row.size.method == "a"
        assert (row.speedup.rounds, row.verdict) == ((0, "INVALID") if is_new else (10, row.verdict))
        assert ("0 of 10 repetitions were timed in one call" in "; ".join(row.reasons)) == is_new


def test_chains_are_timed_three_times(machine):
    asked = plan(machine.method("a", 1.0), machine.method("c", 1.0, calls=10), repetitions=5)
    machine.measure(asked)
    counts = {name: sum(one.method == name for one in machine.run.repetitions) for name in "ac"}
    assert counts == {"a": 2 * 5, "c": 2 * 3}


def test_a_run_that_was_cut_off_ends_with_the_lines_of_one_that_was_not(machine, tmp_path):
    whole = Machine(tmp_path / "whole")
    for one in (machine, whole):
        one.asked = plan(one.method("a", 2**-5), one.method("b", 2**-4))
    everything = whole.measure(whole.asked)
    first = machine.measure(machine.asked, stop_after=5)
    path = machine.folder / FILE_NAME
    path.write_bytes(path.read_bytes() + b'{"kind":"repet')
    second = machine.measure(machine.asked)
    assert sorted(map(str, first + second)) == sorted(map(str, everything))
    timed = [{replace(one, warming=0.0) for one in each.run.repetitions} for each in (machine, whole)]
    assert timed[0] == timed[1]
    assert machine.measure(machine.asked) == []


def test_a_run_that_goes_on_keeps_the_samples_of_a_repetition(machine):
    asked = plan(machine.method("a", 2**-5), batch_sizes=(8,))
    machine.measure(asked, stop_after=1)
    machine.modules["a"].costs = 0.0, 2**-9
    machine.measure(asked)
    assert len({one.samples for one in machine.run.repetitions}) == 1


def test_a_limit_of_time_is_never_passed_not_even_by_the_first_task(machine):
    asked = plan(machine.method("a", 1.0), batch_sizes=(8,), repetitions=10)
    start = machine.device.now
    done = machine.measure(asked, max_seconds=60.0)
    assert 0 < len(done) < 10
    assert machine.device.now - start <= 60.0
    assert machine.measure(asked, max_seconds=0.1) == []


def test_a_batch_that_does_not_fit_is_recorded_and_larger_ones_are_not_tried(machine):
    asked = plan(machine.method("a", 0.5, limit=8), batch_sizes=(4, 8, 16, 32), repetitions=2)
    machine.measure(asked)
    assert [(one.batch_size, one.reason) for one in machine.run.failures] == [(16, "out of memory")]
    assert {one.batch_size for one in machine.run.repetitions} == {4, 8}


def test_networks_are_compiled_for_each_shape_or_it_is_recorded_that_they_are_not(machine, monkeypatch):
    asked = []

    def compiler(network, **options):
        asked.append(options)
        if len(asked) > 1:
            raise ValueError("no compiler")
        return network

    monkeypatch.setattr(torch, "compile", compiler)
    modules = {name: Timed(machine.device, 0.5) for name in "ab"}
    made = [
        replace(architecture(name, one), build=lambda make, name=name, one=one: make(name, one.fresh))
        for name, one in modules.items()
    ]
    changes = {"settings": ("float32-compiled",), "batch_sizes": (8,), "repetitions": 2}
    machine.measure(plan(*made, **changes))
    assert asked[0] == {"dynamic": False}
    assert {one.method for one in machine.run.repetitions} == {"a"}
    assert [(one.method, one.reason) for one in machine.run.failures] == [
        ("b", "torch.compile failed (ValueError: no compiler)")
    ]
    assert machine.run.splits == ()


def test_compiling_that_failed_is_tried_again_in_another_call(machine, monkeypatch):
    fails = [ValueError("no compiler")]

    def compiler(network, **options):
        if fails:
            raise fails.pop()
        return network

    monkeypatch.setattr(torch, "compile", compiler)
    one = Timed(machine.device, 0.5)
    made = replace(architecture("a", one), build=lambda make: make("a", one.fresh))
    asked = plan(made, settings=("float32-compiled",), batch_sizes=(8,), repetitions=2)
    machine.measure(asked, created="first")
    assert [one.reason for one in machine.run.standing_failures] == [
        "torch.compile failed (ValueError: no compiler)"
    ]
    machine.measure(asked, created="second")
    assert len(machine.run.repetitions) == 2
    assert machine.run.standing_failures == ()


def test_another_error_is_not_hidden(machine):
    class Broken(Timed):
        def forward(self, x_noisy, sigma, keys=None):
            if x_noisy.device.type == "cpu":
                raise RuntimeError("shapes differ")
            return x_noisy

    with pytest.raises(RuntimeError, match="shapes differ"):
        machine.measure(plan(architecture("a", Broken(machine.device, 1.0))))


def test_memory_is_that_of_the_weights_and_what_a_batch_needs_beside(machine):
    machine.device.memory = 10**9  # weights of all methods together
    machine.measure(plan(machine.method("a", 1.0), batch_sizes=(8,)))
    assert {one.peak_memory_bytes for one in machine.run.repetitions} == {500 + 32 * 4}


def test_stages_sum_to_the_time_of_a_batch(machine):
    class Staged(Timed):
        def __init__(self, *args, **limits):
            super().__init__(*args, **limits)
            self.inner = Timed(machine.device, 0.5)

        def stages(self):
            return {"classifier": self.inner}

        def forward(self, x_noisy, sigma, keys=None):
            self.device.now += 2.0  # units and launching
            return self.inner(x_noisy, sigma, keys)

    staged = Staged(machine.device, 0.0)
    machine.measure(plan(architecture("a", staged), batch_sizes=(8,), repetitions=1))
    (split,) = machine.run.splits
    assert split.stages == {"noise": 0.0, "classifier": 4.0, "counting": 0.0, "host": 2.0}


def test_energy_is_that_of_the_method_alone(machine):
    asked = plan(machine.method("a", 0.25), batch_sizes=(8,), repetitions=1, energy=True)
    machine.measure(asked, read_load=lambda: LOAD)
    (energy,) = machine.run.energies
    assert energy.joules == pytest.approx(500.0 * energy.seconds)
    assert energy.seconds == energy.samples * 0.25
    assert machine.run.repetitions[0].watts == 500.0


def test_a_whole_image_takes_the_samples_of_its_certificate_where_it_is_short(machine):
    asked = plan(machine.method("fast", 2**-4), machine.method("slow", 20.0), batch_sizes=(8,))
    machine.measure(asked)
    (image,) = machine.run.images
    assert (image.method, image.images, image.samples, image.seconds) == ("fast", 12, 480, 480 * 2**-4)


def test_whole_images_fill_batches_far_larger_than_one_of_them(machine):
    """Launching takes longer than a certificate's samples: alone, its two batches would take 1.9 times as long."""
    launch, each = 2**-8, 2**-18
    asked = plan(
        machine.method("a", each, overhead=launch), batch_sizes=(2048,), repetitions=10, n0=100, n=(1000,)
    )
    machine.measure(asked)
    (found,) = (row for row in rows(machine.run) if row.comparison == BEST)
    assert abs(found.image_ratio - 1) < 0.05
    assert machine.run.images[0].images > 50


def test_whole_images_take_a_second_however_fast_they_are(machine):
    machine.measure(plan(machine.method("a", 2**-20), batch_sizes=(16,), n0=100, n=(1000,)))
    (image,) = machine.run.images
    assert 1.0 <= image.seconds < 1.01


def test_throttling_is_noted_with_the_repetition(machine):
    hot = Load(
        watts=1.0, temperature=90.0, clock_mhz=900.0, throttling=("hardware slowdown",), other_processes=2
    )
    machine.measure(plan(machine.method("a", 1.0), repetitions=1), read_load=lambda: hot)
    one = machine.run.repetitions[0]
    assert (one.throttling, one.temperature, one.other_processes) == (("hardware slowdown",), 90.0, 2)


def test_published_settings_take_the_programs_batch_size_and_others_the_sweep(tmp_path):
    device = FakeDevice()
    asked = plan(
        architecture("a", Timed(device, 1.0), batch_size=1000),
        architecture("c", Timed(device, 1.0), batch_size=16, calls=5),
        batch_sizes=None,
        sweep=(1, 32, 64),
    )
    fast = repetitions("a", [1.0], setting="bfloat16", batch_size=32)
    slow = repetitions("a", [2.0], setting="bfloat16", batch_size=64)
    run = cost_run(tmp_path, sizes=[], timed=fast + slow)
    assert asked.pairs("float32", run) == [("a", 1), ("a", 1000), ("c", 1), ("c", 16)]
    assert asked.pairs("bfloat16", run) == [("a", 1), ("a", 32), ("a", 64), ("c", 1), ("c", 16)]
    assert asked.pairs("bfloat16-compiled", run) == [("a", 32), ("c", 16)]


def test_a_forecast_lists_every_task_but_whole_images(machine):
    asked = plan(machine.method("a", 1.0, overhead=20.0), repetitions=2)
    with open_cost_file(machine.folder, HEADER) as file:
        forecast = list(steps(asked, lambda: file.run, is_forecast=True))
    assert forecast == machine.measure(asked)
    assert forecast[-1] == Step(kind="stages", method="a", setting="float32", batch_size=8)


def test_networks_are_made_once_and_shared():
    made = []

    def function():
        made.append(1)
        return torch.nn.Linear(2, 2)

    workshop = Workshop(CPU)
    assert workshop.plain("a", function) is workshop.plain("a", function)
    assert made == [1]


def test_an_unknown_arithmetic_is_refused():
    with pytest.raises(
        UsageError, match=r"--precision is 'float16', expected a list of float32, tf32, bfloat16"
    ):
        check_settings(["float32", "float16"])


def test_a_slow_first_call_of_a_process_does_not_shorten_repetitions_for_ever(machine):
    asked, slow = plan(machine.method("a", 2**-9), batch_sizes=(8,)), iter([30.0])
    network = machine.modules["a"]
    whole = type(network).forward

    def first_slow(self, x_noisy, sigma, keys=None):
        if x_noisy.device.type != "meta":
            machine.device.now += next(slow, 0.0)
        return whole(self, x_noisy, sigma, keys)

    network.fresh = lambda: type("Slow", (type(network),), {"forward": first_slow})(machine.device, 2**-9)
    machine.measure(asked)
    assert min(one.seconds for one in machine.run.repetitions) > 0.2


def test_repetitions_too_short_for_a_verdict_are_not_taken_for_the_next_calls_length(machine):
    asked = plan(machine.method("a", 2**-9), batch_sizes=(8,), repetitions=2)
    machine.measure(asked, stop_after=1)
    path = machine.folder / FILE_NAME
    [first] = machine.run.repetitions
    short = replace(first, samples=8, seconds=2**-6)
    path.write_bytes(
        path.read_bytes().replace(
            *(f'"samples":{one.samples},"seconds":{one.seconds}'.encode() for one in (first, short))
        )
    )
    assert machine.run.repetitions == (short,)
    machine.measure(asked)
    assert machine.run.repetitions[1].seconds > 0.2


def test_memory_that_others_held_is_tried_again_in_another_call(machine, monkeypatch):
    asked = plan(machine.method("a", 0.5, limit=8), batch_sizes=(8, 16), repetitions=1)
    monkeypatch.setattr("bench.cost.measure.hardware.memory_of_others", lambda device: 40 * 2**30)
    machine.measure(asked, created="first")
    assert machine.run.failures[0].may_pass
    machine.modules["a"].limit = None
    machine.measure(asked, created="second")
    assert {one.batch_size for one in machine.run.repetitions} == {8, 16}


def test_load_is_read_while_the_repetition_lasts(machine):
    working = []

    class Throttled(Timed):
        def forward(self, x_noisy, sigma, keys=None):
            if x_noisy.device.type != "meta":
                working.append(1)
                time.sleep(0.12)
                working.pop()
            return super().forward(x_noisy, sigma, keys)

    def read():
        return replace(LOAD, throttling=("hardware slowdown",) if working else ())

    asked = plan(architecture("a", Throttled(machine.device, 1.0)), batch_sizes=(8,), repetitions=1)
    machine.measure(asked, read_load=read)
    assert machine.run.repetitions[0].throttling == ("hardware slowdown",)


def test_energy_is_the_difference_of_the_devices_own_counter_where_it_has_one(machine):
    asked = plan(machine.method("a", 0.25), batch_sizes=(8,), repetitions=1, energy=True)
    machine.measure(asked, used_joules=lambda: 7.0 + 300.0 * machine.device.now)
    (energy,) = machine.run.energies
    assert energy.joules == pytest.approx(300.0 * energy.seconds)


def test_a_compiled_network_sees_one_batch_size_alone(machine, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    module = Timed(machine.device, 2**-8)
    one = replace(architecture("a", module), build=lambda make: make("a", module.fresh))
    machine.measure(plan(one, settings=("float32-compiled",), batch_sizes=(8,), repetitions=2))
    assert machine.run.images
    assert set(module.batches) == {8}


def test_an_error_in_building_a_compiled_setting_is_not_the_compilers(machine, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)

    def build(make):
        if build.calls:
            raise TypeError("no len()")
        build.calls += 1  # the first is the count of operations
        return Timed(machine.device, 1.0)

    build.calls = 0
    asked = plan(
        replace(architecture("a", Timed(machine.device, 1.0)), build=build), settings=("float32-compiled",)
    )
    with pytest.raises(TypeError, match="no len"):
        machine.measure(asked)


def test_on_a_gpu_a_batch_runs_untimed_before_each_repetition_but_for_slow_ones(machine):
    def ran(kind, seconds):
        machine.folder = machine.folder.with_name(f"{kind}-{seconds}")
        asked = plan(machine.method("a", seconds), batch_sizes=(8,), repetitions=2)
        machine.measure(asked, type=kind, stop_after=2)
        return len(machine.modules["a"].batches)

    assert ran("cuda", 0.125) == ran("cpu", 0.125) + 1  # the first one has just been warmed up
    assert ran("cuda", 10.0) == ran("cpu", 10.0)
