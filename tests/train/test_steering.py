"""A network as the sampler asks it: guided, from a given start, in windows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidlat.train.latents import Whitening
from vidlat.train.sampler import sample_latents
from vidlat.train.steering import steer, window_starts

IDENTITY = Whitening(mean=(0.0, 0.0), scale=(1.0, 1.0))
TIMESTEP = torch.tensor([0.5, 0.5])


def plain(latents, timestep, features):
    """Depends on everything; the condition adds itself."""
    answer = latents[:, :2] * timestep.view(-1, 1, 1, 1, 1)
    return answer if features is None else answer + features.sum(1).view(-1, 1, 1, 1, 1)


def test_guidance_goes_from_the_free_answer_through_the_conditioned_one_and_beyond():
    latents, features = torch.randn(2, 2, 4, 3, 3), torch.tensor([1.0, 0.5])
    free, asked = (
        plain(latents, TIMESTEP, torch.zeros(2, 2)),
        plain(latents, TIMESTEP, features.expand(2, -1)),
    )
    for guidance, expected in ((0.0, free), (1.0, asked), (3.0, 3 * asked - 2 * free)):
        model = steer(plain, window=4, stride=2, features=features, guidance=guidance)
        torch.testing.assert_close(model(latents, TIMESTEP), expected)


def test_without_a_condition_the_network_is_asked_once_and_for_nothing():
    calls = []

    def network(latents, timestep, features):
        calls.append(features)
        return latents

    steer(network, window=4, stride=2)(torch.randn(1, 2, 4, 3, 3), TIMESTEP[:1])
    assert calls == [None]


@given(window=st.integers(1, 6), stride=st.integers(1, 6), more=st.integers(1, 20))
def test_windows_cover_every_frame_and_end_at_the_end(window, stride, more):
    stride = min(stride, window)
    starts = list(window_starts(window + more, window, stride))
    covered = {start + place for start in starts for place in range(window)}
    assert covered == set(range(window + more))
    assert starts == sorted(set(starts))


@given(length=st.integers(1, 15))
def test_a_network_that_sees_each_frame_alone_answers_the_same_in_windows(length):
    latents = torch.randn(2, 2, length, 3, 3)
    model = steer(plain, window=4, stride=2)
    torch.testing.assert_close(model(latents, TIMESTEP), plain(latents, TIMESTEP, None))


def test_answers_of_windows_fade_into_each_other():
    def by_window(latents, timestep, features):
        return torch.full_like(latents, latents[0, 0, 0, 0, 0])

    latents = torch.arange(6.0).view(1, 1, 6, 1, 1)
    answer = steer(by_window, window=4, stride=2)(latents, TIMESTEP[:1]).flatten()
    # Windows from 0 and from 2; shares 1 2 2 1.
    expected = [0, 0, (2 * 0 + 1 * 2) / 3, (1 * 0 + 2 * 2) / 3, 2, 2]
    torch.testing.assert_close(answer, torch.tensor(expected))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun"])
def test_a_given_start_is_shown_at_every_step_and_kept_to_the_bit(sampler):
    start, shown = torch.randn(3, 2, 3, 3), []

    def network(inputs, timestep, features):
        shown.append((inputs[:, 2:4], inputs[:, 4]))
        return torch.ones_like(inputs[:, :2])

    model = steer(network, window=4, stride=2, takes_given=True, is_given=True)
    options = {"objective": "flow", "whitening": IDENTITY, "shape": (2, 6, 3, 3), "num_steps": 2, "batch": 2}
    samples = sample_latents(model, seeds=[1, 2, 3], given=start, sampler=sampler, **options)
    assert {known.shape[2] for known, _ in shown} == {6}  # whole: in windows each would begin with it
    for number, (known, which) in enumerate(shown):
        is_last_batch = number >= len(shown) // 2
        assert torch.equal(known[:, :, 0], start[[2, 2]] if is_last_batch else start[:2])  # filled up
        assert (which[:, 0] == 1).all()
        assert not known[:, :, 1:].any()
        assert not which[:, 1:].any()
    assert torch.equal(samples[:, :, 0], start)


def test_a_network_that_may_be_given_a_start_is_told_when_there_is_none():
    def network(inputs, timestep, features):
        assert inputs.shape[1] == 5
        assert not inputs[:, 2:].any()
        return inputs[:, :2]

    steer(network, window=4, stride=2, takes_given=True)(torch.randn(1, 2, 4, 3, 3), TIMESTEP[:1])


@pytest.mark.parametrize("batch", [1, 3])
def test_long_conditioned_samples_do_not_depend_on_the_batch_size(batch):
    model = steer(plain, window=4, stride=2, features=torch.tensor([0.3]), guidance=2.0)
    options = {"objective": "flow", "whitening": IDENTITY, "shape": (2, 9, 3, 3), "num_steps": 4}
    together = sample_latents(model, seeds=[3, 1, 4], batch=3, **options)
    torch.testing.assert_close(sample_latents(model, seeds=[3, 1, 4], batch=batch, **options), together)
