import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from vidlat.train.scheduler import NoiseScheduler, draw_timestep, sampling_timesteps, shift_timestep


@pytest.mark.parametrize("objective", ["v", "epsilon"])
def test_the_cosine_is_that_of_diffusers(objective):
    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod[:999]
    timestep = torch.arange(1, 1000, dtype=torch.float64) / 999
    scheduler = NoiseScheduler(objective)
    ours = scheduler.alpha(timestep) ** 2
    # Theirs is a product of 999 float32 factors.
    torch.testing.assert_close(ours.float(), theirs, rtol=2e-3, atol=1e-7)
    torch.testing.assert_close(scheduler.sigma(timestep).float() ** 2, 1 - theirs, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("objective", ["v", "epsilon"])
def test_v_and_epsilon_preserve_variance(objective):
    timestep = torch.linspace(0, 1, 1001)
    scheduler = NoiseScheduler(objective)
    total = scheduler.alpha(timestep) ** 2 + scheduler.sigma(timestep) ** 2
    torch.testing.assert_close(total, torch.ones_like(total))


def test_sigma_is_exact_close_to_the_data():
    timestep = torch.logspace(-6, -1, 20)
    exact = []
    for t in timestep.double().numpy().astype(np.longdouble):
        first, now = (np.longdouble(math.pi) / 2 * (0.999 * u + 0.008) / 1.008 for u in (0, t))
        exact.append(float(np.sqrt(1 - (np.cos(now) / np.cos(first)) ** 2)))
    sigma = NoiseScheduler("v").sigma(timestep)
    np.testing.assert_allclose(sigma, exact, rtol=1e-5)


@pytest.mark.parametrize("objective", ["flow", "v", "epsilon"])
def test_timestep_0_is_data_and_timestep_1_noise(objective):
    scheduler, ends = NoiseScheduler(objective), torch.tensor([0.0, 1.0])
    torch.testing.assert_close(scheduler.alpha(ends), torch.tensor([1.0, 0.0]), atol=2e-3, rtol=0)
    torch.testing.assert_close(scheduler.sigma(ends), torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
    assert (scheduler.alpha(torch.linspace(0, 1, 100)).diff() < 0).all()


def test_flow_mixes_as_diffusers_does():
    theirs = FlowMatchEulerDiscreteScheduler()
    x0, noise = torch.randn(3, 1, 1, 1, 1), torch.randn(3, 1, 1, 1, 1)
    timesteps = theirs.timesteps[[0, 400, 999]]
    alpha, sigma = NoiseScheduler("flow").levels(timesteps / 1000)
    torch.testing.assert_close(alpha * x0 + sigma * noise, theirs.scale_noise(x0, timesteps, noise))


def test_sampling_runs_from_noise_to_data_in_equal_steps():
    torch.testing.assert_close(sampling_timesteps(4), torch.tensor([1, 0.75, 0.5, 0.25, 0]))


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_shifted_timesteps_are_those_of_diffusers(shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 0.1, 10))
    torch.testing.assert_close(sampling_timesteps(10, shift), theirs.sigmas)


def test_a_shift_and_its_reciprocal_undo_each_other_and_1_changes_nothing():
    timesteps = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(shift_timestep(shift_timestep(timesteps, 3.0), 1 / 3), timesteps)
    assert torch.equal(shift_timestep(timesteps, 1.0), timesteps)


@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_drawn_timesteps_have_their_distribution(shift):
    """Kolmogorov and Smirnov's distance to the distribution function, at the 0.1 % level."""
    draws = {
        how: np.sort([draw_timestep(np.random.default_rng(n), how, shift) for n in range(4000)])
        for how in ("uniform", "logit-normal")
    }
    for how, drawn in draws.items():
        unshifted = shift_timestep(drawn, 1 / shift)
        logit = np.log(unshifted / (1 - unshifted))
        exact = unshifted if how == "uniform" else [(1 + math.erf(x / math.sqrt(2))) / 2 for x in logit]
        distance = np.abs(np.asarray(exact) - (np.arange(4000) + 0.5) / 4000).max()
        assert distance < 1.95 / math.sqrt(4000)


@pytest.mark.parametrize("objective", ["flow", "v", "epsilon"])
def test_alpha_and_sigma_follow_from_the_position(objective):
    scheduler, timesteps = NoiseScheduler(objective), torch.linspace(0, 1, 100, dtype=torch.float64)
    position = scheduler.position(timesteps)
    share = (1 - position, position) if objective == "flow" else (position.cos(), position.sin())
    torch.testing.assert_close(scheduler.alpha(timesteps), share[0], atol=1e-9, rtol=0)
    torch.testing.assert_close(scheduler.sigma(timesteps), share[1], atol=1e-9, rtol=0)
