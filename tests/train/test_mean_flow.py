"""The target of an average velocity, against data whose average velocity is known."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.train.mean_flows import MEAN, POINTS, STD, Gaussian, Points, column
from tests.train.test_optimisation import optimise
from vidlat.config import TrainConfig
from vidlat.errors import ConfigError
from vidlat.sample.sampler import Sampler
from vidlat.train.networks.unet import build_unet
from vidlat.train.objectives.mean_flow import total_derivative, with_adaptive_weight, with_average_target
from vidlat.train.objectives.noising import NoisedBatch, join_first_frames
from vidlat.train.objectives.objective import MeanFlow
from vidlat.train.objectives.timesteps import draw_times, validation_times


def noised_batch(inputs, timestep, span, velocity, **others):
    mask = torch.ones(len(inputs), 1, inputs.shape[2], 1, 1, dtype=inputs.dtype)
    return NoisedBatch(
        **dict(inputs=inputs, timestep=timestep, span=span, target=velocity, features=None, mask=mask)
        | {"has_span": tuple((span > 0).tolist()), "weight": torch.ones_like(column(timestep))}
        | others
    )


def expected_target(ideal, x_t, timestep, span, x0, weights):
    """The mean of the target over the data x0 (N, L, 1, 1, 1) that one x_t may be of, with their weights."""
    many, t, s = x_t.expand_as(x0), timestep.expand(len(x0)), span.expand(len(x0))
    noised = noised_batch(many, t, s, (many - x0) / column(t))  # noise - x0
    target = with_average_target(ideal.average_velocity, noised).target
    return (column(weights) * target).sum(0, keepdim=True)


TIMES = [(0.9, 0.5), (0.6, 0.1), (1.0, 1.0), (0.5, 0.0)]


@pytest.mark.parametrize(("timestep", "span"), TIMES)
def test_the_expected_target_of_a_gaussian_is_its_average_velocity(timestep, span):
    ideal, x_t = Gaussian(), torch.tensor(1.3, dtype=torch.float64).view(1, 1, 1, 1, 1)
    t, s = torch.tensor([timestep], dtype=torch.float64), torch.tensor([span], dtype=torch.float64)
    # The posterior of x0 is normal, and Gauss and Hermite's quadrature exact for it.
    places, weights = np.polynomial.hermite_e.hermegauss(5)
    mean = x_t - t * ideal.velocity(x_t, t)
    x0 = mean + STD * t / ideal.spread(t) * column(torch.from_numpy(places))
    target = expected_target(ideal, x_t, t, s, x0, torch.from_numpy(weights / weights.sum()))
    torch.testing.assert_close(target, ideal.average_velocity(x_t, t, None, s), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("timestep", "span"), [(0.9, 0.5), (0.6, 0.2)])
def test_the_expected_target_of_points_is_their_average_velocity(timestep, span):
    ideal, x_t = Points(), torch.tensor([0.4, -0.3], dtype=torch.float64).view(1, 2, 1, 1, 1)
    t, s = torch.tensor([timestep], dtype=torch.float64), torch.tensor([span], dtype=torch.float64)
    target = expected_target(ideal, x_t, t, s, POINTS.view(-1, 2, 1, 1, 1), ideal.weights(x_t, t)[0])
    torch.testing.assert_close(target, ideal.average_velocity(x_t, t, None, s), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_steps_by_the_ideal_average_velocity_of_a_gaussian_end_at_its_moments(num_steps):
    noise = torch.randn(6, 2, 3, 2, 2, dtype=torch.float64)
    sampler = Sampler(objective=MeanFlow(), num_steps=num_steps)
    samples = sampler.sample(lambda x, t, span: Gaussian().average_velocity(x, t, None, span).double(), noise)
    # The sampler computes in float32, as networks do.
    torch.testing.assert_close(samples, MEAN + STD * noise, rtol=0, atol=2e-6)


def test_one_step_by_the_ideal_average_velocity_of_points_ends_at_a_point():
    noise = torch.randn(20, 2, 1, 1, 1, dtype=torch.float64)
    almost = 1 - 1e-4  # at timestep 0 the velocity of points is not defined

    def denoiser(x, timestep, span):
        return Points().average_velocity(x, timestep, None, almost * span)

    samples = Sampler(objective=MeanFlow(), num_steps=1).sample(denoiser, noise)
    nearest = torch.cdist(samples.flatten(1).double(), POINTS).min(1)
    assert nearest.values.max() < 1e-3
    assert set(nearest.indices.tolist()) == {0, 1, 2}


def test_along_its_own_tangent_the_error_is_that_of_a_velocity_which_does_not_know_the_noise():
    """For the right u: that of the velocity of the data, whatever noise - x0 was."""
    ideal, x_t = Gaussian(), torch.randn(5, 2, 3, 1, 1, dtype=torch.float64)
    t = torch.linspace(0.3, 1, 5, dtype=torch.float64)
    for velocity in torch.randn(2, *x_t.shape, dtype=torch.float64):
        noised = noised_batch(x_t, t, 0.8 * t, velocity)
        target = with_average_target(ideal.average_velocity, noised, own_tangent=True).target
        error = ideal.average_velocity(x_t, t, None, 0.8 * t) - target
        torch.testing.assert_close(error, ideal.velocity(x_t, t) - velocity, rtol=1e-9, atol=1e-9)


def perturbed(network):
    """Without zero-initialised layers, so that everything has an effect."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def test_the_total_derivative_of_the_network_is_that_of_finite_differences():
    """Of inputs with a given first frame, of which only what is noised has a tangent."""
    torch.manual_seed(0)
    network = perturbed(build_unet("space-time", "tiny", 2, takes_first_frame=True, takes_span=True)).double()
    x, velocity, first = torch.randn(3, 2, 2, 3, 4, 4, dtype=torch.float64)
    inputs = join_first_frames(x, first[:, :, :1], torch.tensor([1.0, 0.0]))
    t, span = torch.tensor([0.6, 0.9], dtype=torch.float64), torch.tensor([0.6, 0.3], dtype=torch.float64)

    def average_velocity(inputs, timestep, span):
        return network(inputs, timestep, None, span)

    with torch.no_grad():
        derivative = total_derivative(average_velocity, inputs, t, span, velocity)
        tangent = torch.zeros_like(inputs)
        tangent[:, :2] = velocity
        tangent[0, :, 0] = 0
        step = 1e-5
        above, below = (
            average_velocity(inputs + way * tangent, t + way, span + way) for way in (step, -step)
        )
    assert not derivative.requires_grad
    torch.testing.assert_close(derivative, (above - below) / (2 * step), rtol=1e-5, atol=1e-6)


def test_items_without_a_span_keep_their_target_and_are_not_computed():
    calls = []

    def forward(inputs, timestep, features, span):
        calls.append((len(inputs), features.tolist()))
        return inputs * column(timestep) + column(span)

    x, velocity = torch.randn(2, 3, 2, 1, 1, 1)
    t, span, features = torch.tensor([0.5, 0.6, 0.7]), torch.tensor([0.0, 0.2, 0.0]), torch.eye(3)
    noised = noised_batch(x, t, span, velocity, features=features)
    target = with_average_target(forward, noised).target
    assert calls == [(1, [[0.0, 1.0, 0.0]])]
    torch.testing.assert_close(target[[0, 2]], velocity[[0, 2]], rtol=0, atol=0)
    torch.testing.assert_close(target[1], velocity[1] - 0.2 * (0.6 * velocity[1] + x[1] + 1))
    assert len(calls) == 1
    (plain,) = dataclasses.replace(noised, span=span * 0, has_span=(False,) * 3).split(1)
    assert with_average_target(forward, plain) is plain


def test_adaptive_weights_divide_an_item_by_its_own_error_over_the_frames_that_count():
    prediction, target = torch.randn(2, 3, 2, 4, 2, 2)
    noised = noised_batch(torch.zeros(3, 2, 4, 2, 2), torch.ones(3), torch.zeros(3), target)
    noised.mask[1, :, 1:] = 0
    noised.mask[2] = 0
    errors = [(prediction[0] - target[0]).square().mean(), (prediction[1] - target[1])[:, :1].square().mean()]
    weighted = with_adaptive_weight(noised, prediction)
    expected = [number * error / (error + 1e-3) ** 0.5 for number, error in zip((32, 8), errors, strict=True)]
    torch.testing.assert_close(weighted.squared_error(prediction), sum(expected))
    assert weighted.num_counted == 40


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_a_step_gives_every_weight_of_the_network_a_finite_gradient(precision, checkpoint_activations):
    torch.manual_seed(0)
    network = perturbed(build_unet("space-time", "tiny", 2, takes_span=True))
    settings = {"precision": precision, "checkpoint_activations": checkpoint_activations}
    optimisation = optimise(network, objective="mean-flow", **settings)
    x, velocity = torch.randn(2, 2, 2, 2, 4, 4)
    noised = noised_batch(x, torch.tensor([0.9, 0.5]), torch.tensor([0.7, 0.0]), velocity)
    figures = optimisation.compute_gradients(noised)
    assert figures.isfinite().all()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    if precision == "float32":  # the loss that is shown is not weighted
        with torch.no_grad():
            target = with_average_target(network, noised).target
            error = (network(*noised.arguments) - target).square().mean()
        torch.testing.assert_close(figures[0], error, rtol=1e-4, atol=0)


def test_a_network_is_told_the_span_if_and_only_if_it_takes_one():
    x, t = torch.randn(1, 2, 2, 4, 4), torch.tensor([0.5])
    with pytest.raises(ValueError, match="span: expected for a network that was built with takes_span"):
        build_unet("space-time", "tiny", 2, takes_span=True)(x, t)
    with pytest.raises(ValueError, match="and for no other"):
        build_unet("space-time", "tiny", 2)(x, t, None, torch.zeros(1))


def test_the_weights_of_a_flow_network_give_the_same_function_at_any_span_with_blurred_timesteps():
    torch.manual_seed(0)
    flow = perturbed(build_unet("space-time", "tiny", 2)).eval()
    ours = build_unet("space-time", "tiny", 2, takes_span=True).eval()
    missing, unexpected = ours.load_state_dict(flow.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("embedding.span.") for name in missing)
    x, t = torch.randn(1, 2, 2, 4, 4), torch.tensor([0.5])
    embedded = []
    for network in (ours, flow):
        network.embedding.timestep.register_forward_hook(lambda *args: embedded.append(args[-1]))
    with torch.no_grad():
        one, *others = (ours(x, t, None, torch.tensor([span])) for span in (0.0, 0.2, 0.5))
        for other in others:
            torch.testing.assert_close(other, one, rtol=0, atol=0)
        # What flow's first layer gives, averaged over timesteps around 0.5.
        offsets = torch.linspace(-0.15, 0.15, 3001, dtype=torch.float64)
        flow.double().embedding(0.5 + offsets, None, None)
    weights = torch.softmax(-((offsets / 0.03) ** 2) / 2, dim=0)
    torch.testing.assert_close(embedded[0][0].double(), weights @ embedded[-1], rtol=0, atol=1e-5)


def test_monais_network_is_refused_for_a_mean_flow():
    with pytest.raises(ConfigError, match="mean-flow is not available in MONAI's network; use space-time"):
        TrainConfig(objective="mean-flow", network="monai")


def test_times_are_of_plain_flow_for_their_share_and_two_sorted_draws_for_the_rest():
    settings = TrainConfig(objective="mean-flow", plain_flow=0.6, shift=2.0)
    times = [draw_times((0, 0, step, step % 8), settings) for step in range(3000)]
    assert all(0 <= t.timestep - t.span < 1 for t in times)
    spans = np.sort([t.span for t in times if t.span])
    assert len(spans) / 3000 == pytest.approx(0.4, abs=4 * math.sqrt(0.24 / 3000))
    flow = TrainConfig(objective="flow", shift=2.0)
    drawn = [draw_times((0, 0, step, step % 8), flow).timestep for step in range(3000)]
    assert all(t.timestep == d for t, d in zip(times, drawn, strict=True) if not t.span)
    # The difference of two uniform draws exceeds s in a share (1 - s)^2 of all pairs; shift 1 leaves them.
    settings = dataclasses.replace(settings, shift=1.0, plain_flow=0.0)
    spans = np.sort([draw_times((0, 0, step, step % 8), settings).span for step in range(3000)])
    distance = np.abs(1 - (1 - spans) ** 2 - (np.arange(3000) + 0.5) / 3000).max()
    assert distance < 1.95 / math.sqrt(3000)


def test_the_times_of_a_validation_cover_timesteps_and_spans_evenly():
    times = validation_times(64, TrainConfig(objective="mean-flow"))
    assert [t.timestep for t in times] == [t.timestep for t in validation_times(64, TrainConfig())]
    assert [t.span for t in times[::2]] == [0.0] * 32
    shares = np.sort([t.span / t.timestep for t in times[1::2]])
    assert np.abs(shares - np.arange(32) / 32).max() < 2 / 32


class PointwiseNetwork(nn.Module):
    """The same small network for each value, told t, t - r and r as sinusoids."""

    def __init__(self):
        super().__init__()
        hidden = nn.SiLU(), nn.Linear(64, 64), nn.SiLU()
        self.layers = nn.Sequential(nn.Linear(19, 64), *hidden, nn.Linear(64, 1))

    def forward(self, latents, timestep, features=None, span=None):
        times = torch.stack([timestep, span, timestep - span], dim=1)
        angles = (times[..., None] * torch.tensor([2.0, 4.0, 6.0])).flatten(1)
        told = torch.cat([angles.sin(), angles.cos()], dim=1)[:, None, None, None, None]
        return self.layers(torch.cat([latents[..., None], told.expand(*latents.shape, 18)], dim=-1))[..., 0]


@pytest.mark.slow
def test_a_network_trained_on_a_gaussian_draws_it_in_one_step():
    torch.manual_seed(0)
    optimisation = optimise(
        PointwiseNetwork(), objective="mean-flow", steps=800, learning_rate=1e-2, ema_decay=0.99
    )
    for _ in range(800):
        x0, noise = MEAN + STD * torch.randn(64, 1, 1, 4, 4), torch.randn(64, 1, 1, 4, 4)
        one, other = torch.rand(2, 64)
        is_flow = torch.rand(64) < 0.25
        t = torch.where(is_flow, one, torch.maximum(one, other))
        span = torch.where(is_flow, 0.0, (one - other).abs())
        noised = noised_batch((1 - column(t)) * x0 + column(t) * noise, t, span, noise - x0)
        optimisation.apply_gradients(optimisation.compute_gradients(noised))
    noise = torch.randn(200, 1, 1, 4, 4)
    network = optimisation.state.ema
    sampler = Sampler(objective=MeanFlow(), num_steps=1)
    samples = sampler.sample(lambda x, t, span: network(x, t, None, span), noise)
    # A step of plain flow would give MEAN alone.
    assert float((samples - MEAN - STD * noise).square().mean().sqrt()) < 0.3 * STD
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.06)
    assert float(samples.std()) == pytest.approx(STD, rel=0.2)
