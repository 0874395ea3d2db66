"""Diffusion models as denoisers: the optimal denoiser of Gaussian data, and reverse chains."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines.networks.diffusion import Chain, DiffusionDenoiser
from bench.errors import UsageError
from bench.smoothing.noise import keyed_noise
from bench.smoothing.sigma import cosine_alphas_cumprod, linear_alphas_cumprod, timestep_of_sigma

MEAN, DEVIATION = 0.1, 0.2
SCHEDULES = {
    "cosine": cosine_alphas_cumprod(1000),
    "linear": linear_alphas_cumprod(500),
    "other": torch.linspace(0.999, 0.01, 300, dtype=torch.float64),
}


class Optimal(nn.Module):
    """E[prediction | x_t] for data N(MEAN, DEVIATION^2) in model units, and a variance channel of nonsense."""

    def __init__(self, alphas_cumprod, prediction):
        super().__init__()
        self.alphas_cumprod, self.prediction = alphas_cumprod, prediction

    def forward(self, x_t, timesteps):
        abar = self.alphas_cumprod[timesteps].float().view(-1, 1, 1, 1)
        gap = (x_t - abar.sqrt() * MEAN) / (abar * DEVIATION**2 + 1 - abar)
        eps, x = (1 - abar).sqrt() * gap, MEAN + abar.sqrt() * DEVIATION**2 * gap
        v = abar.sqrt() * eps - (1 - abar).sqrt() * x
        wanted = {"epsilon": eps, "v_prediction": v, "sample": x}[self.prediction]
        return type("Output", (), {"sample": torch.cat([wanted, torch.full_like(wanted, 9.0)], dim=1)})


def optimal(schedule="cosine", prediction="epsilon", **chain):
    abar = SCHEDULES[schedule]
    denoiser = DiffusionDenoiser(Optimal(abar, prediction), abar, prediction=prediction)
    denoiser.chain = Chain(**chain)
    return denoiser


def noisy(batch=4, seed=0):
    return MEAN + torch.randn((batch, 1, 8, 8), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_optimal_network_gives_the_optimal_denoiser(schedule, prediction):
    denoiser, x_noisy = optimal(schedule, prediction), noisy()
    abar = float(denoiser.alphas_cumprod[timestep_of_sigma(0.5, denoiser.alphas_cumprod)])
    level = (1 - abar) / abar
    expected = (DEVIATION**2 * x_noisy + level * MEAN) / (DEVIATION**2 + level)
    torch.testing.assert_close(denoiser(x_noisy, 1.0), expected, rtol=1e-4, atol=1e-5)


def test_a_time_step_is_fed_rescaled():
    seen = []
    echo = type("Echo", (nn.Module,), {"forward": lambda self, x, t: seen.append(t) or Sample(x)})()
    DiffusionDenoiser(echo, cosine_alphas_cumprod(4000), time_scale=0.25)(noisy(2), 1.0)
    assert seen[0].tolist() == [timestep_of_sigma(0.5, cosine_alphas_cumprod(4000)) / 4] * 2


class SeesFloat64(TorchDispatchMode):
    """Notes the operations on float64 tensors, which is what schedules are."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, found)) if isinstance(one, torch.Tensor)]
        self.operations += [str(func)] * any(one.dtype == torch.float64 for one in tensors)
        return found


def test_the_time_steps_of_a_sigma_are_computed_once_for_a_schedule():
    echo = type("Echo", (nn.Module,), {"forward": lambda self, x, t: Sample(x)})()
    denoiser = DiffusionDenoiser(echo, SCHEDULES["cosine"])
    denoiser.chain = Chain(steps=3, eta=0.0)
    first = denoiser(noisy(2), 1.0)
    with SeesFloat64() as seen:
        assert torch.equal(denoiser(noisy(2), 1.0), first)
    assert seen.operations == []
    denoiser.alphas_cumprod = SCHEDULES["linear"]
    other = DiffusionDenoiser(echo, SCHEDULES["linear"])
    other.chain = denoiser.chain
    assert torch.equal(denoiser(noisy(2), 1.0), other(noisy(2), 1.0))


class Sample:
    def __init__(self, sample):
        self.sample = sample


def test_chain_visits_evenly_spaced_time_steps_from_the_first():
    assert Chain(steps=1).times(9) == [9]
    assert Chain(steps=5).times(9) == [9, 7, 5, 3, 1]
    assert Chain(steps=10).times(9) == list(range(9, -1, -1))


def test_ancestral_chain_of_all_steps_draws_from_gaussian_data():
    # From pure noise at the schedule's end; 16384 pixels of N(MEAN, DEVIATION^2): both errors are below
    # 6 standard errors (6 x 0.2 / 128 and 6 x 0.2 / sqrt(2 x 16384)), false alarm 4e-9, plus discretisation.
    denoiser = optimal(steps=90)
    x_noisy = MEAN + 20 * torch.randn((256, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    x = denoiser(x_noisy, 20.0, torch.arange(256))
    assert abs(float(x.mean()) - MEAN) < 0.01
    assert abs(float(x.std()) - DEVIATION) < 0.02


def test_deterministic_chain_of_many_steps_solves_the_probability_flow():
    # For Gaussian data the flow from noise level s is x -> MEAN + (x - MEAN) DEVIATION / sqrt(DEVIATION^2 + s^2).
    denoiser, x_noisy = optimal(steps=300, eta=0.0), noisy()
    expected = MEAN + (x_noisy - MEAN) * DEVIATION / (DEVIATION**2 + 1) ** 0.5
    torch.testing.assert_close(denoiser(x_noisy, 1.0), expected.clamp(-1, 1), rtol=0, atol=0.02)


def test_a_samples_chain_does_not_depend_on_its_batch():
    denoiser, x_noisy, keys = optimal(steps=4), noisy(), torch.tensor([7, 5, 7, 9])
    together = denoiser(x_noisy, 1.0, keys)
    alone = torch.cat([denoiser(x_noisy[i : i + 1], 1.0, keys[i : i + 1]) for i in (3, 1)])
    assert torch.equal(together[[3, 1]], alone)
    assert not torch.equal(denoiser(x_noisy, 1.0, keys + 1), together)


def test_keyed_noise_differs_by_key_and_by_step():
    first = keyed_noise(torch.tensor([1, 2, 1]), 5, (3,), torch.device("cpu"))
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, keyed_noise(torch.tensor([1, 2, 1]), 6, (3,), torch.device("cpu")))


def test_chain_that_draws_noise_needs_keys():
    with pytest.raises(UsageError, match="pass keys, or set reverse_eta 0"):
        optimal(steps=2)(noisy(), 1.0)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ({"steps": 0}, "reverse_steps is 0, expected at least 1"),
        ({"eta": 1.5}, "reverse_eta is 1.5, expected 0 <= reverse_eta <= 1"),
    ],
)
def test_chain_out_of_range_is_refused(chain, message):
    with pytest.raises(UsageError, match=message):
        Chain(**chain)


def test_more_calls_than_time_steps_are_refused():
    with pytest.raises(UsageError, match="reverse_steps is 11, but this sigma has 10 time steps"):
        Chain(steps=11).times(9)
