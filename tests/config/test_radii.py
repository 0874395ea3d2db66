"""Radii that are chosen where nobody names any: all of them reachable, few, and those of a preset left alone."""

import dataclasses

import pytest

from bench.config.radii import MOST_STEPS, chosen_radii, reached
from bench.config.run import RunConfig, list_presets, load_preset, with_radii
from bench.smoothing.estimation import largest_radius
from bench.types import Protocol

GRID = RunConfig().radii


@pytest.mark.parametrize("sigma", [0.03, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("n", [10, 100, 1000, 100_000, 2**40])
@pytest.mark.parametrize("alpha", [1e-9, 0.001, 0.05])
def test_chosen_radii_can_be_reached_and_the_next_step_cannot(sigma, n, alpha):
    protocol = Protocol(n=n, alpha=alpha)
    radii = chosen_radii(protocol, (sigma, sigma / 2))
    most = max(0.0, largest_radius(protocol, sigma))
    assert reached(protocol, sigma) == pytest.approx(most, rel=1e-6, abs=1e-12)
    assert radii[0] == 0.0
    assert radii[-1] <= most
    assert len(radii) <= MOST_STEPS + 1
    assert len(radii) >= 4 or most < 0.04
    if len(radii) > 1:
        assert radii[-1] + radii[1] > most * (1 - 1e-9)
        assert [float(f"{radius:.2f}") for radius in radii] == list(radii)


def test_the_defaults_are_what_would_be_chosen_for_them():
    assert chosen_radii(Protocol(), RunConfig().sigmas) == GRID


@pytest.mark.parametrize("preset", [one.name for one in list_presets()])
def test_a_preset_keeps_its_radii_at_its_own_noise(preset):
    config = load_preset(preset)
    assert with_radii(config, preset) == config


def test_radii_follow_noise_that_a_preset_was_not_written_for_unless_certificates_rest_on_them():
    own = load_preset("mnist5k")
    low = dataclasses.replace(own, sigmas=(0.12,))
    assert with_radii(low, "mnist5k").radii == (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
    high = dataclasses.replace(own, sigmas=(1.0,))
    assert with_radii(high, "mnist5k") == high
    stopping = dataclasses.replace(low, estimation="sequential")
    assert with_radii(stopping, "mnist5k") == stopping


def test_radii_are_chosen_where_a_preset_lists_none(tmp_path):
    (tmp_path / "mine.toml").write_text("sigmas = [0.25]\n")
    mine = str(tmp_path / "mine.toml")
    assert load_preset(mine).radii == GRID
    assert with_radii(load_preset(mine), mine).radii == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    stopping = dataclasses.replace(load_preset(mine), estimation="sequential")
    assert with_radii(stopping, mine).radii == GRID
