import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, strategies as st

from vidlat.errors import ConfigError
from vidlat.train.objectives.objective import Epsilon, Flow, VPrediction, masked_squared_error

OBJECTIVES = (Flow(), VPrediction(), Epsilon())


def levels(objective, turn):
    """alpha and sigma by hand, `turn` of the way from data to noise."""
    if isinstance(objective, Flow):
        return torch.tensor(1 - turn, dtype=torch.float64), torch.tensor(turn, dtype=torch.float64)
    angle = torch.tensor(turn * math.pi / 2, dtype=torch.float64)
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(
    turn=st.floats(0.0, 0.99),
    x0=st.floats(-8, 8),
    noise=st.floats(-5, 5),
)
def test_the_target_implies_the_data_and_the_noise_it_was_made_of(objective, turn, x0, noise):
    alpha, sigma = levels(objective, turn)
    x0, noise = torch.tensor(x0, dtype=torch.float64), torch.tensor(noise, dtype=torch.float64)
    x_t = alpha * x0 + sigma * noise
    wanted = objective.target(x0, noise, alpha, sigma)
    torch.testing.assert_close(objective.to_x0(wanted, x_t, alpha, sigma), x0, atol=1e-9, rtol=0)
    torch.testing.assert_close(objective.to_noise(wanted, x_t, alpha, sigma), noise, atol=1e-9, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(turn=st.floats(0.0, 0.99), prediction=st.floats(-5, 5), x_t=st.floats(-8, 8))
def test_any_prediction_is_the_target_of_the_data_and_noise_it_implies(objective, turn, prediction, x_t):
    alpha, sigma = levels(objective, turn)
    prediction, x_t = torch.tensor(prediction, dtype=torch.float64), torch.tensor(x_t, dtype=torch.float64)
    x0 = objective.to_x0(prediction, x_t, alpha, sigma)
    noise = objective.to_noise(prediction, x_t, alpha, sigma)
    torch.testing.assert_close(alpha * x0 + sigma * noise, x_t, atol=1e-9, rtol=0)
    torch.testing.assert_close(objective.target(x0, noise, alpha, sigma), prediction, atol=1e-9, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(turn=st.floats(0.01, 0.98), x0=st.floats(-8, 8), noise=st.floats(-5, 5))
def test_the_velocity_is_the_slope_of_the_path(objective, turn, x0, noise):
    """Against a central difference of x_t along the path: the timestep for flow, the angle for the others."""
    step = 1e-6
    unit = 1.0 if isinstance(objective, Flow) else math.pi / 2

    def x_at(turn):
        alpha, sigma = levels(objective, turn)
        return alpha * x0 + sigma * noise

    alpha, sigma = levels(objective, turn)
    x0, noise = torch.tensor(x0, dtype=torch.float64), torch.tensor(noise, dtype=torch.float64)
    slope = (x_at(turn + step) - x_at(turn - step)) / (2 * step * unit)
    prediction = objective.target(x0, noise, alpha, sigma)
    velocity = objective.to_velocity(prediction, x_at(turn), alpha, sigma)
    torch.testing.assert_close(velocity, slope, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(turn=st.floats(0.0, 0.99), prediction=st.floats(-5, 5), x_t=st.floats(-8, 8))
def test_every_conversion_agrees_with_the_velocity_of_the_data_and_noise_it_implies(
    objective, turn, prediction, x_t
):
    alpha, sigma = levels(objective, turn)
    prediction, x_t = torch.tensor(prediction, dtype=torch.float64), torch.tensor(x_t, dtype=torch.float64)
    x0 = objective.to_x0(prediction, x_t, alpha, sigma)
    noise = objective.to_noise(prediction, x_t, alpha, sigma)
    velocity = noise - x0 if isinstance(objective, Flow) else alpha * noise - sigma * x0
    converted = objective.to_velocity(prediction, x_t, alpha, sigma)
    torch.testing.assert_close(converted, velocity, atol=1e-8, rtol=1e-9)


@pytest.mark.parametrize("objective", [VPrediction(), Epsilon()])
@given(turn=st.floats(0.01, 0.99), gamma=st.floats(0.1, 20), off=st.floats(-3, 3))
def test_min_snr_weighs_an_error_as_that_of_x0_by_the_smaller_of_snr_and_gamma(objective, turn, gamma, off):
    """The error of x0 that a wrong prediction implies, weighed by min(SNR, gamma), is the same loss."""
    alpha, sigma = levels(objective, turn)
    x_t, right = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    x0 = [objective.to_x0(prediction, x_t, alpha, sigma) for prediction in (right, right + off)]
    wanted = min((alpha / sigma) ** 2, torch.tensor(gamma, dtype=torch.float64)) * (x0[1] - x0[0]) ** 2
    weight = objective.min_snr_weight(alpha, sigma, gamma)
    torch.testing.assert_close(weight * off**2, wanted, rtol=1e-9, atol=1e-12)


def test_v_is_that_of_diffusers():
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    timesteps = torch.tensor([100, 800])
    cumulative = theirs.alphas_cumprod[timesteps].view(2, 1, 1, 1)
    ours = VPrediction().target(x0, noise, cumulative.sqrt(), (1 - cumulative).sqrt())
    torch.testing.assert_close(ours, theirs.get_velocity(x0, noise, timesteps))


def test_the_flow_target_leads_diffusers_from_noised_latents_to_the_data():
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=[0.6])
    x0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    x_t = theirs.scale_noise(x0, theirs.timesteps, noise)
    torch.testing.assert_close(x_t, 0.4 * x0 + 0.6 * noise)
    velocity = Flow().target(x0, noise, torch.tensor(0.4), torch.tensor(0.6))
    torch.testing.assert_close(theirs.step(velocity, theirs.timesteps[0], x_t).prev_sample, x0)


def test_frames_that_do_not_count_do_not_influence_the_loss():
    prediction = torch.randn(2, 3, 4, 2, 2, requires_grad=True)
    wanted, mask = torch.randn(2, 3, 4, 2, 2), torch.ones(2, 1, 4, 1, 1)
    mask[1, :, 2:] = 0
    error, count = masked_squared_error(prediction, wanted, mask)
    error.backward()
    assert (prediction.grad[1, :, 2:] == 0).all()
    changed = wanted.clone()
    changed[1, :, 2:] = 1e6
    assert masked_squared_error(prediction, changed, mask) == (error, count)


def test_the_loss_weighs_every_value_that_counts_alike():
    prediction, wanted = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    mask = torch.ones(2, 1, 4, 1, 1)
    mask[1, :, 1:] = 0
    counted = [(0, t) for t in range(4)] + [(1, 0)]
    squares = [((prediction[b, :, t] - wanted[b, :, t]) ** 2).flatten() for b, t in counted]
    error, count = masked_squared_error(prediction, wanted, mask)
    assert count == torch.cat(squares).numel()
    torch.testing.assert_close(error / count, torch.cat(squares).mean())


def test_a_weight_scales_the_errors_of_its_item_and_not_their_number():
    prediction, wanted = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    mask = torch.ones(2, 1, 4, 1, 1)
    weight = torch.tensor([2.0, 0.5]).view(2, 1, 1, 1, 1)
    error, count = masked_squared_error(prediction, wanted, mask, weight)
    squares = (prediction - wanted).square()
    torch.testing.assert_close(error, 2 * squares[0].sum() + 0.5 * squares[1].sum())
    assert count == wanted.numel()


@pytest.mark.parametrize("objective", [VPrediction(), Epsilon()])
def test_the_cosine_is_that_of_diffusers(objective):
    theirs = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod[:999]
    timestep = torch.arange(1, 1000, dtype=torch.float64) / 999
    alpha, sigma = (level.flatten() for level in objective.levels(timestep))
    # Theirs is a product of 999 float32 factors.
    torch.testing.assert_close(alpha.float() ** 2, theirs, rtol=2e-3, atol=1e-7)
    torch.testing.assert_close(sigma.float() ** 2, 1 - theirs, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("objective", [VPrediction(), Epsilon()])
def test_v_and_epsilon_preserve_variance(objective):
    timestep = torch.linspace(0, 1, 1001)
    alpha, sigma = objective.levels(timestep)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))


def test_sigma_is_exact_close_to_the_data():
    timestep = torch.logspace(-6, -1, 20)
    exact = []
    for t in timestep.double().numpy().astype(np.longdouble):
        first, now = (np.longdouble(math.pi) / 2 * (0.999 * u + 0.008) / 1.008 for u in (0, t))
        exact.append(float(np.sqrt(1 - (np.cos(now) / np.cos(first)) ** 2)))
    _, sigma = VPrediction().levels(timestep)
    np.testing.assert_allclose(sigma.flatten(), exact, rtol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_timestep_0_is_data_and_timestep_1_noise(objective):
    ends = torch.tensor([0.0, 1.0])
    alpha, sigma = (level.flatten() for level in objective.levels(ends))
    torch.testing.assert_close(alpha, torch.tensor([1.0, 0.0]), atol=2e-3, rtol=0)
    torch.testing.assert_close(sigma, torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
    assert (objective.levels(torch.linspace(0, 1, 100))[0].flatten().diff() < 0).all()


def test_flow_mixes_as_diffusers_does():
    theirs = FlowMatchEulerDiscreteScheduler()
    x0, noise = torch.randn(3, 1, 1, 1, 1), torch.randn(3, 1, 1, 1, 1)
    timesteps = theirs.timesteps[[0, 400, 999]]
    alpha, sigma = Flow().levels(timesteps / 1000)
    torch.testing.assert_close(alpha * x0 + sigma * noise, theirs.scale_noise(x0, timesteps, noise))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_alpha_and_sigma_follow_from_the_position(objective):
    timesteps = torch.linspace(0, 1, 100, dtype=torch.float64)
    position = objective.position(timesteps)
    share = (1 - position, position) if isinstance(objective, Flow) else (position.cos(), position.sin())
    torch.testing.assert_close(objective.levels(timesteps), share, atol=1e-9, rtol=0)


def test_flow_has_no_min_snr_weight():
    with pytest.raises(ConfigError, match="min_snr: got 5"):
        Flow().min_snr_weight(torch.tensor(0.5), torch.tensor(0.5), 5.0)
