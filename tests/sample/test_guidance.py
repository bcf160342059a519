"""A trained network as a denoiser: guided, with a first frame, in windows."""

import pytest
import torch
from hypothesis import given, strategies as st

from vidlat.sample.guidance import GuidedDenoiser, window_starts
from vidlat.sample.sampler import Sampler, sampling_noise
from vidlat.train.objectives.objective import Flow

TIMESTEP = torch.tensor([0.5, 0.5])


def denoiser(network, **options):
    return GuidedDenoiser(network=network, window=4, stride=2, **options)


def plain(latents, timestep, features):
    """Depends on everything; the condition adds itself."""
    prediction = latents[:, :2] * timestep.view(-1, 1, 1, 1, 1)
    return prediction if features is None else prediction + features.sum(1).view(-1, 1, 1, 1, 1)


def test_guidance_extrapolates_from_the_unconditional_prediction_through_the_conditional_one():
    latents, features = torch.randn(2, 2, 4, 3, 3), torch.tensor([1.0, 0.5])
    unconditional, conditional = (
        plain(latents, TIMESTEP, torch.zeros(2, 2)),
        plain(latents, TIMESTEP, features.expand(2, -1)),
    )
    for guidance, expected in (
        (0.0, unconditional),
        (1.0, conditional),
        (3.0, 3 * conditional - 2 * unconditional),
    ):
        model = denoiser(plain, features=features, guidance=guidance)
        torch.testing.assert_close(model(latents, TIMESTEP), expected)


def test_without_a_condition_the_network_is_called_once_without_features():
    calls = []

    def network(latents, timestep, features):
        calls.append(features)
        return latents

    denoiser(network)(torch.randn(1, 2, 4, 3, 3), TIMESTEP[:1])
    assert calls == [None]


@given(window=st.integers(1, 6), stride=st.integers(1, 6), more=st.integers(1, 20))
def test_windows_cover_every_frame_and_end_at_the_end(window, stride, more):
    stride = min(stride, window)
    starts = list(window_starts(window + more, window, stride))
    covered = {start + place for start in starts for place in range(window)}
    assert covered == set(range(window + more))
    assert starts == sorted(set(starts))


@given(length=st.integers(1, 15))
def test_a_network_that_sees_each_frame_alone_predicts_the_same_in_windows(length):
    latents = torch.randn(2, 2, length, 3, 3)
    model = denoiser(plain)
    torch.testing.assert_close(model(latents, TIMESTEP), plain(latents, TIMESTEP, None))


def test_predictions_of_windows_fade_into_each_other():
    def by_window(latents, timestep, features):
        return torch.full_like(latents, latents[0, 0, 0, 0, 0])

    latents = torch.arange(6.0).view(1, 1, 6, 1, 1)
    prediction = denoiser(by_window)(latents, TIMESTEP[:1]).flatten()
    # Windows from 0 and from 2; shares 1 2 2 1.
    expected = [0, 0, (2 * 0 + 1 * 2) / 3, (1 * 0 + 2 * 2) / 3, 2, 2]
    torch.testing.assert_close(prediction, torch.tensor(expected))


@pytest.mark.parametrize("method", ["ddim", "euler", "heun"])
def test_a_first_frame_is_shown_at_every_step_and_nothing_else_is(method):
    first_frame, shown = torch.randn(3, 2, 1, 3, 3), []

    def network(inputs, timestep, features):
        shown.append(inputs)
        return torch.ones_like(inputs[:, :2])

    model = denoiser(network, takes_first_frame=True, first_frames=first_frame)
    noise = sampling_noise([1, 2, 3], (2, 6, 3, 3))
    Sampler(objective=Flow(), method=method, num_steps=2).sample(model, noise)
    assert len(shown) == (3 if method == "heun" else 2)
    for inputs in shown:
        noised, known, which = inputs.split([2, 2, 1], dim=1)
        assert known.shape[2] == 6  # the whole clip: each window would begin with the first frame
        assert torch.equal(noised[:, :, :1], first_frame)
        assert torch.equal(known[:, :, :1], first_frame)
        assert (which[:, :, 0] == 1).all()
        assert not known[:, :, 1:].any()
        assert not which[:, :, 1:].any()


def test_a_network_that_takes_a_first_frame_is_told_when_there_is_none():
    def network(inputs, timestep, features):
        assert inputs.shape[1] == 5
        assert not inputs[:, 2:].any()
        return inputs[:, :2]

    denoiser(network, takes_first_frame=True)(torch.randn(1, 2, 4, 3, 3), TIMESTEP[:1])


@pytest.mark.parametrize("batch", [1, 3])
def test_long_conditioned_samples_do_not_depend_on_the_batch_size(batch):
    model, sampler = (
        denoiser(plain, features=torch.tensor([0.3]), guidance=2.0),
        Sampler(objective=Flow(), num_steps=4),
    )
    noise = sampling_noise([3, 1, 4], (2, 9, 3, 3))
    apart = torch.cat([sampler.sample(model, part) for part in noise.split(batch)])
    torch.testing.assert_close(apart, sampler.sample(model, noise))


@pytest.mark.parametrize(("timestep", "is_guided"), [(0.1, False), (0.2, True), (0.5, True), (0.9, False)])
def test_guidance_is_limited_to_its_interval_of_timesteps(timestep, is_guided):
    calls = []

    def network(latents, timestep, features):
        calls.append(len(latents))
        return plain(latents, timestep, features)

    latents, features = torch.randn(2, 2, 4, 3, 3), torch.tensor([1.0, 0.5])
    times = torch.full((2,), timestep)
    model = denoiser(network, features=features, guidance=3.0, guidance_interval=(0.2, 0.8))
    guidance = 3.0 if is_guided else 1.0
    unconditional, conditional = (plain(latents, times, each) for each in (torch.zeros(2, 2), features[None]))
    expected = unconditional + guidance * (conditional - unconditional)
    torch.testing.assert_close(model(latents, times), expected)
    assert calls == [4 if is_guided else 2]


def test_a_mean_flow_is_guided_in_one_call_that_knows_every_span():
    calls = []

    def network(latents, timestep, features, span):
        calls.append(span.tolist())
        return plain(latents, timestep, features) * (1 + span.view(-1, 1, 1, 1, 1))

    latents, features, span = torch.randn(2, 2, 4, 3, 3), torch.tensor([1.0, 0.5]), torch.tensor([0.3, 0.3])
    model = denoiser(network, features=features, guidance=2.0)
    expected = denoiser(plain, features=features, guidance=2.0)(latents, TIMESTEP) * 1.3
    torch.testing.assert_close(model(latents, TIMESTEP, span), expected)
    assert calls == [pytest.approx([0.3] * 4)]
