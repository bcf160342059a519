import math

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from vidlat.train.objective import masked_squared_error, target, to_noise, to_x0

OBJECTIVES = ("flow", "v", "epsilon")


def levels(objective, turn):
    """alpha and sigma by hand, `turn` of the way from data to noise."""
    if objective == "flow":
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
    wanted = target(objective, x0, noise, alpha, sigma)
    torch.testing.assert_close(to_x0(objective, wanted, x_t, alpha, sigma), x0, atol=1e-9, rtol=0)
    torch.testing.assert_close(to_noise(objective, wanted, x_t, alpha, sigma), noise, atol=1e-9, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(turn=st.floats(0.0, 0.99), prediction=st.floats(-5, 5), x_t=st.floats(-8, 8))
def test_any_prediction_is_the_target_of_the_data_and_noise_it_implies(objective, turn, prediction, x_t):
    alpha, sigma = levels(objective, turn)
    prediction, x_t = torch.tensor(prediction, dtype=torch.float64), torch.tensor(x_t, dtype=torch.float64)
    x0 = to_x0(objective, prediction, x_t, alpha, sigma)
    noise = to_noise(objective, prediction, x_t, alpha, sigma)
    torch.testing.assert_close(alpha * x0 + sigma * noise, x_t, atol=1e-9, rtol=0)
    torch.testing.assert_close(target(objective, x0, noise, alpha, sigma), prediction, atol=1e-9, rtol=0)


def test_v_is_that_of_diffusers():
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    timesteps = torch.tensor([100, 800])
    cumulative = theirs.alphas_cumprod[timesteps].view(2, 1, 1, 1)
    ours = target("v", x0, noise, cumulative.sqrt(), (1 - cumulative).sqrt())
    torch.testing.assert_close(ours, theirs.get_velocity(x0, noise, timesteps))


def test_the_flow_target_leads_diffusers_from_noised_latents_to_the_data():
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=[0.6])
    x0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    x_t = theirs.scale_noise(x0, theirs.timesteps, noise)
    torch.testing.assert_close(x_t, 0.4 * x0 + 0.6 * noise)
    velocity = target("flow", x0, noise, torch.tensor(0.4), torch.tensor(0.6))
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
