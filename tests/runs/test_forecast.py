"""Plans: closed forms of n and radius, the predicted time of a machine whose clock we are, and the command."""

import math

import pytest
from scipy import stats

from bench.runs import forecast
from bench.runs.forecast import Timing, interval_width, measure, samples_for_radius
from bench.smoothing.stats import largest_radius
from tests.support import synthetic_method
from tests.support.tiny import bench


@pytest.mark.parametrize(("n", "radius"), [(10**3, 2.46), (10**4, 3.20), (10**5, 3.81), (10**6, 4.35)])
def test_largest_radii_of_the_field_are_told(n, radius):
    [sentence, *_] = forecast.protocol_sentences(n, 0.001, (1.0,), 500, 1.0)
    exact = largest_radius(n, 0.001, 1.0)
    assert round(exact, 2) == radius
    assert f"{math.floor(100 * exact) / 100:.2f} σ" in sentence


@pytest.mark.parametrize("radius", [0.1, 1.0, 2.46, 3.2, 4.0, 5.5])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_n_for_a_radius_is_the_least(radius, alpha):
    n = samples_for_radius(radius, alpha)
    assert stats.norm.ppf(alpha ** (1 / n)) >= radius - 1e-9
    assert n == 1 or largest_radius(n - 1, alpha, 1.0) < radius


def test_width_of_the_interval_shrinks_with_images_and_is_the_exact_one():
    low = stats.beta.ppf(0.025, 250, 251)
    high = stats.beta.ppf(0.975, 251, 250)
    assert interval_width(500) == pytest.approx(high - low, rel=1e-9)
    widths = [interval_width(images) for images in (10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)


class Machine:
    """A clock that our own work moves on: `load` seconds once, then `image` + samples * `sample`."""

    def __init__(self, *, load, image, sample):
        self.now, self.parts, self.asked = 100.0, (load, image, sample), []

    def clock(self):
        return self.now

    def load(self):
        self.now += self.parts[0]

        def work(samples):
            self.asked.append(samples)
            self.now += self.parts[1] + samples * self.parts[2]

        return work


@pytest.mark.parametrize("sample", [1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("most", [128, 1000, 10**6])
def test_time_of_a_run_is_that_of_the_machine(sample, most):
    machine = Machine(load=7.0, image=0.25, sample=sample)
    timing = measure("m", machine.load, samples=(128, most), clock=machine.clock)
    truth = 3 * (7.0 + 50 * (0.25 + most * sample))
    assert timing.run_seconds(images=50, sigmas=3, samples=most) == pytest.approx(truth, rel=1e-6)
    assert max(machine.asked) <= most
    slowest = machine.parts[1] + max(machine.asked) * sample
    assert max(machine.asked) <= 256 or slowest < 2 * forecast.BUDGET_SECONDS


def test_workers_share_the_images_and_each_loads_its_own_model():
    timing = Timing(method="m", load_seconds=5.0, image_seconds=1.0, sample_seconds=0.01)
    assert timing.run_seconds(images=10, sigmas=2, samples=100, workers=4) == 2 * (5 + 3 * 2)
    assert timing.run_seconds(images=10, sigmas=2, samples=100) == 2 * (5 + 10 * 2)


def test_table_sums_methods_and_takes_the_largest_memory():
    timings = [
        Timing(method=name, load_seconds=0.0, image_seconds=0.0, sample_seconds=seconds, memory_bytes=memory)
        for name, seconds, memory in (("a", 0.01, 2**30), ("b", 0.02, 2**31))
    ]
    table = forecast.time_table(timings, images=36, sigmas=1, samples=1000, workers=4)
    rows = [list(row) for row in table.blocks[0].rows]
    assert rows[-1] == ["all", "72,000", "", "", "0.300", "0.0750", "2.00"]


def test_command_tells_protocol_times_and_what_is_still_to_be_trained(tmp_path, monkeypatch, capsys):
    synthetic_method.register(monkeypatch)
    arguments = [*synthetic_method.arguments(tmp_path), "--images", "40", "--workers", "2", "--radius", "0.5"]
    arguments.remove("--cost-repetitions")
    arguments.remove("1")
    arguments[arguments.index("--methods") + 1] = "brightness,gaussian"
    sequential = ("--estimation", "sequential", "--zoo", tmp_path / "zoo")
    assert bench(monkeypatch, "plan", *arguments, *sequential) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "Largest radius that n = 100 certifies at α = 0.001 (fixed estimation, Clopper-Pearson): 1.50 σ"
        in said
    )
    assert "40 images give a 95% interval" in said
    assert "17,600" in said  # 2 methods x 2 sigmas x 40 images x 110 samples
    assert (
        "With sequential estimation a run takes at most this. Sequential estimation certifies radii of"
        in said
    )
    assert "Still to be trained: gaussian at sigma 0.25, 0.5." in said


@pytest.mark.parametrize(("least", "most"), [(228, 230), (100, 101)])
def test_times_that_do_not_tell_a_sample_from_noise_give_a_positive_rate(least, most):
    now = [0.0]

    def work(samples):
        now[0] += 1.0 if samples == least else 0.99

    found = measure("a", lambda: work, samples=(least, most), clock=lambda: now[0])
    assert found.sample_seconds > 0
