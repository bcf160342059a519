import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from vidlat.sample.sampler import sampling_timesteps
from vidlat.train.timesteps import draw_timestep, shift_timestep


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
