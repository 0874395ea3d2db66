"""How networks are laid out in memory on a GPU: by measurement, once for each method and setting, on record."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.cost.plan import steps
from bench.cost.records import FILE_NAME, read_cost_run
from bench.cost.request import Request, opened
from bench.cost.tables import comparison_table
from bench.errors import RecordsError
from tests.cost.test_measure import Machine
from tests.support.fake_costs import FakeDevice, Timed, architecture, plan


class Convolution(Timed):
    """A network whose seconds for a sample depend on how its weights lie."""

    def __init__(self, device, contiguous, channels_last, *, limits=(None, None), seen=None):
        super().__init__(device, 0.0)
        self.layer = nn.Conv2d(2, 2, 3, padding=1)
        self.layouts, self.limits, self.seen = (contiguous, channels_last), limits, seen

    def forward(self, x_noisy, sigma, keys=None):
        is_last = self.layer.weight.is_contiguous(memory_format=torch.channels_last)
        self.costs, self.limit = (0.0, self.layouts[is_last]), self.limits[is_last]
        if x_noisy.device.type != "meta" and self.seen is not None:
            self.seen.append(is_last)
        return super().forward(x_noisy, sigma, keys)


def machine_with(folder, **asked):
    """Return a machine and a plan of methods, name -> (seconds contiguous, seconds channels last, further options)."""
    machine = Machine(folder)
    made = []
    for name, (contiguous, channels_last, options) in asked.items():

        def build(make, contiguous=contiguous, channels_last=channels_last, options=options, name=name):
            return make(name, lambda: Convolution(machine.device, contiguous, channels_last, **options))

        made.append(replace(architecture(name, Timed(machine.device, 1.0)), build=build))
    settings = ("float32", "bfloat16")
    return machine, plan(*made, settings=settings, layouts=True, batch_sizes=(8,), repetitions=2)


def test_the_faster_layout_is_kept_and_everything_after_has_it(tmp_path):
    seen = {"a": [], "b": []}
    machine, asked = machine_with(
        tmp_path, a=(0.125, 0.25, {"seen": seen["a"]}), b=(0.25, 0.125, {"seen": seen["b"]})
    )
    done = machine.measure(asked)
    kinds = [step.kind for step in done if step.setting == "float32"]
    assert kinds[:3] == ["layouts", "layouts", "repetition"]
    tried = {(one.method, one.setting): one for one in machine.run.layouts}
    assert tried["a", "float32"].batch == pytest.approx({"contiguous": 1.0, "channels-last": 2.0})
    assert {pair: one.fastest for pair, one in tried.items()} == {
        ("a", "float32"): "contiguous",
        ("a", "bfloat16"): "contiguous",
        ("b", "float32"): "channels-last",
        ("b", "bfloat16"): "channels-last",
    }
    assert {one.seconds / one.samples for one in machine.run.repetitions} == {0.125}
    assert "by one trial on the device: a float32 contiguous, b float32 channels-last" in str(
        comparison_table(machine.run).notes
    )


def test_a_trial_is_made_once_and_a_later_call_takes_its_layout(tmp_path):
    machine, asked = machine_with(tmp_path, a=(0.125, 0.25, {}))
    machine.measure(asked, stop_after=1)
    later, asked = machine_with(tmp_path, a=(0.5, 0.375, {}))  # channels last would win now
    done = later.measure(asked)
    assert [step.setting for step in done if step.kind == "layouts"] == ["bfloat16"]
    [first, *_] = later.run.repetitions
    assert first.seconds / first.samples == pytest.approx(0.5)


def test_records_without_a_trial_stay_with_the_rule(tmp_path):
    machine, asked = machine_with(tmp_path, a=(0.125, 0.25, {}))
    machine.measure(replace(asked, layouts=False), stop_after=1)
    done = machine.measure(asked)
    assert [step.setting for step in done if step.kind == "layouts"] == ["bfloat16"]
    in_float32 = [one for one in machine.run.repetitions if one.setting == "float32"]
    assert {one.seconds / one.samples for one in in_float32} == {0.25}


def test_without_time_for_a_trial_no_repetition_is_made_that_would_decide_it(tmp_path, monkeypatch):
    machine, asked = machine_with(tmp_path, a=(0.25, 0.25, {}))
    machine.measure(asked, max_seconds=0.0)
    of_a_batch = 8 * machine.run.sizes[0].flops
    monkeypatch.setattr("bench.cost.measure.trial_flops", lambda *_: of_a_batch / 2.0)
    assert machine.measure(asked, max_seconds=7.0) == []  # a trial would take 8 s, a repetition 4.4


def test_a_layout_that_does_not_fit_is_left_out_and_without_any_the_size_is_not_measured(tmp_path):
    machine, asked = machine_with(
        tmp_path, a=(0.125, 0.0625, {"limits": (None, 4)}), b=(0.125, 0.125, {"limits": (4, 4)})
    )
    machine.measure(asked)
    assert {tuple(one.batch) for one in machine.run.layouts} == {("contiguous",)}
    assert {(one.method, one.reason) for one in machine.run.failures} == {("b", "out of memory")}
    assert {one.method for one in machine.run.repetitions} == {"a"}


def test_networks_under_torch_compile_have_the_layout_of_the_setting_without(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    seen = []
    machine, asked = machine_with(tmp_path, a=(0.125, 0.25, {"seen": seen}))
    machine.measure(replace(asked, settings=("bfloat16", "bfloat16-compiled"), repetitions=1))
    compiled = [one for one in machine.run.repetitions if one.setting == "bfloat16-compiled"]
    assert [one.seconds / one.samples for one in compiled] == [pytest.approx(0.125)]


def test_the_batch_of_a_trial_takes_about_a_second(tmp_path):
    machine, asked = machine_with(tmp_path, a=(0.125, 0.25, {}))
    machine.measure(asked, stop_after=1)
    for flops, expected in ((10**9, 512), (10**12, 40), (10**15, 1)):
        sized = replace(machine.run.sizes[0], flops=flops)
        run = replace(machine.run, sizes=(sized,), layouts=())
        [first, *_] = steps(replace(asked, batch_sizes=(512,)), lambda run=run: run, is_forecast=True)
        assert (first.kind, first.batch_size) == ("layouts", expected)


@pytest.mark.parametrize("batch", ["{}", '{"contiguous":0.0}', '{"sideways":1.0}'])
def test_a_trial_that_no_measurement_gives_is_refused(tmp_path, batch):
    machine, asked = machine_with(tmp_path, a=(0.125, 0.25, {}))
    machine.measure(asked, stop_after=1)
    path = tmp_path / FILE_NAME
    text = path.read_text()
    whole = '{"contiguous":1.0,"channels-last":2.0}'
    assert whole in text
    path.write_text(text.replace(whole, batch))
    with pytest.raises(RecordsError, match="expected seconds above 0 of contiguous or channels-last"):
        read_cost_run(tmp_path)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_layouts_are_measured_on_cuda_alone(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("bench.cost.request.instruments", lambda device: FakeDevice().instruments(type=kind))
    request = Request(
        preset="reduced-cifar10",
        config=None,
        command="bench cost",
        sigma=0.5,
        methods="resnet8",
        device="cpu",
        n=None,
        n0=None,
        precision="float32",
        batch_sizes="auto",
        repetitions=1,
        steps=2,
        votes=2,
        folder=tmp_path,
    )
    with opened(request) as measurement:
        assert (measurement.left()[0].kind == "layouts") == (kind == "cuda")


def test_memory_in_bfloat16_is_also_that_of_the_weights_that_were_cast_once(tmp_path):
    machine = Machine(tmp_path)

    class Layered(Timed):
        def __init__(self, *args, **limits):
            super().__init__(*args, **limits)
            self.layer = nn.Linear(16, 3, bias=False)

    layered, settings = Layered(machine.device, 1.0), ("float32", "bfloat16")
    machine.measure(plan(architecture("a", layered), settings=settings, batch_sizes=(8,), repetitions=1))
    found = {one.setting: one.peak_memory_bytes for one in machine.run.repetitions}
    assert found["bfloat16"] - found["float32"] == 2 * 48
