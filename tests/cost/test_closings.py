"""bench cost: what is measured of each method once, behind its repetitions."""

from dataclasses import replace

import pytest

from bench.cost.plan import splits_of_fastest
from bench.cost.records import open_cost_file
from bench.device.power import UnreadError
from tests.support.fake_costs import HEADER, LOAD, Machine, Timed, architecture, plan


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_what_was_measured_at_a_batch_that_is_no_longer_the_fastest_is_measured_again(machine):
    asked = plan(machine.method("a", 2**-4), batch_sizes=(8,), repetitions=1, energy=True)
    machine.measure(asked, read_load=lambda: LOAD)
    with open_cost_file(machine.folder, HEADER) as file:
        file.append(replace(machine.run.repetitions[0], batch_size=16, samples=10**6))
    machine.measure(asked, read_load=lambda: LOAD)
    run = machine.run
    for lines in (run.splits, run.energies, run.images):
        assert [one.batch_size for one in lines] == [8, 16]
    assert [one.batch_size for one in splits_of_fastest(run)] == [16]
    slower = replace(run.repetitions[-1], samples=1)
    assert [
        one.batch_size for one in splits_of_fastest(replace(run, repetitions=(*run.repetitions[:-1], slower)))
    ] == [8]


def test_an_energy_that_was_not_read_is_left_to_a_later_call(machine):
    def unread():
        raise UnreadError

    asked = plan(machine.method("a", 2**-4), batch_sizes=(8,), repetitions=1, energy=True)
    for counter in (unread, lambda: 7.0):
        machine.measure(asked, used_joules=counter)
        assert (machine.run.energies, len(machine.run.splits), len(machine.run.images)) == ((), 1, 1)
    machine.measure(asked, used_joules=lambda: machine.device.now)
    assert len(machine.run.energies) == 1


def test_whole_images_of_moments_contain_no_first_call_at_a_size(machine):
    class Cold(Timed):
        """Its first call at each size takes a second more."""

        seen = frozenset()

        def forward(self, x_noisy, sigma, keys=None):
            if len(x_noisy) not in self.seen:
                self.device.now += 1.0
                self.seen |= {len(x_noisy)}
            return super().forward(x_noisy, sigma, keys)

    machine.measure(plan(architecture("a", Cold(machine.device, 2**-9)), batch_sizes=(7,)))
    (image,) = machine.run.images
    assert image.samples % 7
    assert image.seconds == image.samples * 2**-9
