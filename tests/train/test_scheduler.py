import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from vidlat.train.scheduler import NoiseScheduler, sampling_timesteps


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
