from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from tests.thorough import some_of
from tests.train.test_optimisation import ReadsNothing
from vidlat.errors import ConfigError
from vidlat.sample.sampler import Sampler, euler_step, heun_step, num_steps_for, sampling_noise
from vidlat.train.data.seeding import Draw, Stream, normal
from vidlat.train.objectives.objective import Epsilon, Flow, MeanFlow, VPrediction

OBJECTIVES = (Flow(), VPrediction(), Epsilon())
SAMPLERS = ("ddim", "euler", "heun")
EVERY = pytest.mark.parametrize(
    ("objective", "sampler"), [(objective, sampler) for objective in OBJECTIVES for sampler in SAMPLERS]
)
SHAPE = (2, 1, 1, 2)


def start_noise(seeds, shape=SHAPE):
    return torch.from_numpy(np.stack([normal((s, Stream.SAMPLING, 0, 0), Draw.NOISE, shape) for s in seeds]))


def toy_model(latents, timestep):
    return torch.tanh(latents) * timestep.view(-1, 1, 1, 1, 1) + 0.3 * latents


def as_model(objective, denoise):
    """A network that predicts what the best guess of x0 implies: denoise(x_t, alpha, sigma) -> x0."""

    def model(latents, timestep):
        alpha, sigma = objective.levels(timestep)
        x0 = denoise(latents, alpha, sigma)
        return objective.target(x0, (latents - alpha * x0) / sigma, alpha, sigma)

    return model


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_flow_steps_are_those_of_diffusers(sampler, shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 0.1, 10))
    latents = start_noise([7])
    for timestep in theirs.timesteps:
        latents = theirs.step(toy_model(latents, timestep[None] / 1000), timestep, latents).prev_sample
    ours = Sampler(objective=Flow(), method=sampler, num_steps=10, shift=shift).sample(
        toy_model, start_noise([7])
    )
    torch.testing.assert_close(ours, latents, atol=1e-5, rtol=1e-5)


def test_heun_steps_of_flow_are_those_of_diffusers():
    theirs = FlowMatchHeunDiscreteScheduler()
    theirs.set_timesteps(10)
    # Theirs are spaced between 1 and 1/1000; the same ones, and 0, are given to ours.
    spaced = torch.cat([theirs.sigmas[:1], theirs.sigmas[1:-1:2], torch.zeros(1)])
    latents = start_noise([7])
    for timestep in theirs.timesteps:
        latents = theirs.step(toy_model(latents, timestep[None] / 1000), timestep, latents).prev_sample
    ours = start_noise([7])
    for now, following in pairwise(spaced[:-1]):
        ours = heun_step(toy_model, Flow(), ours, now, following)
    ours = euler_step(toy_model, Flow(), ours, *spaced[-2:])
    torch.testing.assert_close(ours, latents, atol=1e-5, rtol=1e-5)


@EVERY
def test_no_step_reads_a_number_from_the_device(objective, sampler):
    """The host would wait for a GPU there."""
    noise = start_noise([7])
    with ReadsNothing():
        Sampler(objective=objective, method=sampler, num_steps=3).sample(toy_model, noise)


@pytest.mark.parametrize("objective", some_of(OBJECTIVES))
def test_heun_is_of_second_order_and_euler_of_first(objective):
    """The error against 512 steps falls by 4 and by 2 where the steps are twice as many.

    Down to timestep 0.1: the last step of a sample is Euler's.
    """
    model = as_model(objective, lambda x, alpha, sigma: alpha * x / (alpha**2 + sigma**2 / 4))

    def run(step, num_steps):
        latents = start_noise(range(20)).double()
        for now, following in pairwise(torch.linspace(1, 0.1, num_steps + 1, dtype=torch.float64)):
            latents = step(model, objective, latents, now, following)
        return latents

    for step, factor in ((euler_step, 2), (heun_step, 4)):
        exact = run(heun_step, 512)
        errors = [(run(step, num_steps) - exact).norm() for num_steps in (16, 32)]
        assert errors[0] / errors[1] == pytest.approx(factor, rel=0.15)


@pytest.mark.parametrize(
    ("objective", "their_name"), [(VPrediction(), "v_prediction"), (Epsilon(), "epsilon")]
)
def test_v_and_epsilon_steps_are_those_of_diffusers_ddim(objective, their_name):
    # Our timestep 1 is their 999th of 1000; 27 steps divide the 999 evenly.
    betas = DDIMScheduler(beta_schedule="squaredcos_cap_v2").betas[:999]
    theirs = DDIMScheduler(
        num_train_timesteps=999,
        trained_betas=betas.double().numpy(),
        clip_sample=False,
        timestep_spacing="trailing",
        prediction_type=their_name,
    )
    theirs.set_timesteps(27)
    latents = start_noise([7])
    for index in theirs.timesteps:
        timestep = (index + 1)[None] / 999
        latents = theirs.step(toy_model(latents, timestep), int(index), latents).prev_sample
    ours = Sampler(objective=objective, num_steps=27).sample(toy_model, start_noise([7]))
    torch.testing.assert_close(ours, latents, atol=1e-3, rtol=1e-3)


@EVERY
def test_an_ideal_denoiser_of_a_finite_set_returns_its_members_as_often_as_they_occur(objective, sampler):
    members = torch.tensor([[4.0, -4.0, 1.0, 0.0], [-3.0, 0.5, -4.0, 2.0], [0.0, 3.0, 4.0, -1.0]])
    weights = torch.tensor([0.5, 0.3, 0.2])

    def denoise(latents, alpha, sigma):
        flat = latents.flatten(1)[:, None]  # (B, 1, 4) against members (3, 4)
        distance = (flat - alpha.flatten() * members).square().sum(-1)
        likely = torch.softmax(weights.log() - distance / (2 * sigma.flatten() ** 2), dim=1)
        return (likely @ members).view_as(latents)

    samples = Sampler(objective=objective, method=sampler, num_steps=100).sample(
        as_model(objective, lambda x, a, s: denoise(x, a[:1], s[:1])), start_noise(range(600))
    )
    distances = torch.cdist(samples.flatten(1), members)
    assert distances.min(dim=1).values.max() < 0.05
    shares = distances.argmin(dim=1).bincount(minlength=3) / 600
    # 3.3 standard deviations of a share of 600.
    torch.testing.assert_close(shares, weights, atol=0.067, rtol=0)


@EVERY
def test_an_ideal_denoiser_of_a_gaussian_returns_its_mean_and_covariance(objective, sampler):
    mean = torch.tensor([3.0, -4.0, 0.0, 1.0])
    root = torch.tensor([[1.5, 0, 0, 0], [1.0, 0.5, 0, 0], [0, -0.5, 0.8, 0], [0.2, 0, 0.4, 0.3]])
    covariance = root @ root.T

    def denoise(latents, alpha, sigma):
        alpha, sigma = alpha.flatten()[0], sigma.flatten()[0]
        noised = alpha**2 * covariance + sigma**2 * torch.eye(4)
        gain = alpha * torch.linalg.solve(noised, covariance).T
        return (mean + (latents.flatten(1) - alpha * mean) @ gain.T).view_as(latents)

    sampler = Sampler(objective=objective, method=sampler, num_steps=200)
    samples = sampler.sample(as_model(objective, denoise), start_noise(range(4000))).flatten(1)
    torch.testing.assert_close(samples.mean(0), mean, atol=0.12, rtol=0)
    torch.testing.assert_close(samples.T.cov(), covariance, atol=0.15, rtol=0)


def test_the_noise_of_a_sample_depends_on_its_seed_and_clip_alone():
    assert torch.equal(sampling_noise([3, 1, 4], SHAPE), start_noise([3, 1, 4]))
    noise = [sampling_noise([3], SHAPE, clip) for clip in (0, 1)]
    assert not torch.equal(*noise)


def test_each_step_is_reported():
    taken = []
    Sampler(objective=Flow(), num_steps=3).sample(toy_model, start_noise([1]), lambda: taken.append(1))
    assert taken == [1, 1, 1]


def test_an_unknown_method_is_refused_by_name():
    with pytest.raises(ConfigError, match="sampler: got 'ddpm'; expected one of ddim, euler, heun"):
        Sampler(objective=Flow(), method="ddpm")


def test_a_mean_flow_takes_four_steps_whose_spans_add_up_and_refuses_heun():
    times = []

    def denoiser(latents, timestep, span):
        times.append((float(timestep[0]), float(span[0])))
        return latents * 0

    num_steps = num_steps_for(MeanFlow(), None)
    Sampler(objective=MeanFlow(), shift=3.0, num_steps=num_steps).sample(denoiser, start_noise([0]))
    assert len(times) == 4
    assert times[0][0] == 1
    for (now, span), (following, _) in pairwise([*times, (0.0, 0.0)]):
        assert now - span == pytest.approx(following, abs=1e-6)
    with pytest.raises(ConfigError, match="sampler: got heun, which averages velocities; a mean flow"):
        Sampler(objective=MeanFlow(), method="heun")
