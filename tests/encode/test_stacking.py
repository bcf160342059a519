"""Folding frames into stacks loses and mixes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from vidlat.encode.stacking import (
    fold_frames,
    shrink_video,
    stack_frames,
    stretch_video,
    unstack_frames,
)
from vidlat.timing import Timing

sizes = st.integers(1, 3)


@given(batch=sizes, channels=sizes, num_frames=st.integers(1, 21), stack=st.integers(1, 8))
def test_unstack_inverts_stack_and_padding_repeats_the_last_frame(batch, channels, num_frames, stack):
    video = torch.rand(batch, channels, num_frames, 2, 3)
    stacks = stack_frames(video, stack)
    back = unstack_frames(stacks, batch)
    assert stacks.shape == (batch * -(-num_frames // stack), channels, stack, 2, 3)
    assert torch.equal(back[:, :, :num_frames], video)
    last = video[:, :, -1:].expand(-1, -1, back.shape[2] - num_frames, -1, -1)
    assert torch.equal(back[:, :, num_frames:], last)


@given(batch=sizes, channels=sizes, num_stacks=sizes, stack=st.integers(1, 5))
def test_every_stack_is_a_run_of_one_videos_frames(batch, channels, num_stacks, stack):
    video = torch.rand(batch, channels, num_stacks * stack, 2, 2)
    stacks = stack_frames(video, stack)
    for index, (owner, position) in enumerate((b, n) for b in range(batch) for n in range(num_stacks)):
        expected = video[owner, :, position * stack : (position + 1) * stack]
        assert torch.equal(stacks[index], expected)


def plain_reshape(video, stack):
    """The tempting one-liner, which mixes channels and time."""
    batch, channels, num_frames, height, width = video.shape
    return video.reshape(batch * num_frames // stack, channels, stack, height, width)


def test_a_plain_reshape_is_told_apart():
    video = torch.rand(2, 3, 8, 2, 2)
    assert not torch.equal(plain_reshape(video, 4), stack_frames(video, 4))
    latents = torch.rand(2 * 3, 4, 1, 2, 2)  # two videos of three stacks, four latent channels
    assert not torch.equal(latents.reshape(2, 4, 3, 2, 2), unstack_frames(latents, 2))
    assert torch.equal(unstack_frames(latents, 2)[1, :, 2], latents[5, :, 0])


def test_no_frames_and_uneven_stacks_are_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        stack_frames(torch.zeros(1, 1, 0, 4, 4), 4)
    with pytest.raises(ValueError, match="5 stacks cannot belong to 2 videos"):
        unstack_frames(torch.zeros(5, 4, 1, 2, 2), 2)


timings = st.builds(
    Timing,
    stack=st.sampled_from([4, 8, 12]),
    compression=st.just(4),
    stretch=st.sampled_from([1, 2, 4]),
    stretch_by=st.sampled_from(["repeat", "linear"]),
)


@given(num_frames=st.integers(1, 21), timing=timings)
def test_a_stream_of_frames_is_folded_as_the_whole_video_is(num_frames, timing):
    video = np.random.default_rng(num_frames).random((num_frames, 2, 3), np.float32)
    shown = stretch_video(torch.from_numpy(video)[None, None], timing)
    whole = stack_frames(shown, timing.stack)[:, 0].numpy()
    stacks = np.stack(list(fold_frames(iter(video), timing)))
    np.testing.assert_allclose(stacks, whole, rtol=0, atol=1e-6)
    assert len(stacks) == timing.num_calls(num_frames)


@given(num_frames=st.integers(1, 21), timing=timings)
def test_each_frame_is_shown_as_often_as_asked_with_blends_of_it_and_the_next(num_frames, timing):
    """Brute force, in float64: frame t is at time t, what is shown at times 0, 1/R, 2/R and so on."""
    video = np.random.default_rng(num_frames).random((num_frames, 2, 3))
    shown = stretch_video(torch.from_numpy(video)[None, None], timing)[0, 0].numpy()
    for index in range(num_frames * timing.stretch):
        frame, part = divmod(index, timing.stretch)
        share = part / timing.stretch if timing.stretch_by == "linear" else 0
        after = video[min(frame + 1, num_frames - 1)]
        np.testing.assert_allclose(shown[index], (1 - share) * video[frame] + share * after, atol=1e-12)


@given(num_frames=st.integers(1, 21), timing=timings)
def test_shrinking_undoes_stretching(num_frames, timing):
    video = torch.from_numpy(np.random.default_rng(num_frames).random((1, 2, num_frames, 2, 3)))
    again = shrink_video(stretch_video(video, timing), timing)
    torch.testing.assert_close(again, video, rtol=0, atol=1e-12)


def test_a_frame_is_the_mean_of_its_copies():
    timing = Timing(stack=4, compression=4, stretch=2)
    shown = torch.tensor([1.0, 2.0, 10.0, 30.0]).reshape(1, 1, 4, 1, 1)
    assert shrink_video(shown, timing).flatten().tolist() == [1.5, 20.0]


def test_a_stream_is_folded_as_it_comes_and_breaks_off_without_a_part_of_a_stack():
    read = []

    def frames():
        for index in range(7):
            read.append(index)
            yield np.zeros((2, 3), np.float32)
        raise KeyError("broken")

    stacks = fold_frames(frames(), Timing(stack=3, compression=1))
    assert next(stacks).shape == (3, 2, 3)
    assert len(read) == 3
    assert next(stacks).shape == (3, 2, 3)
    with pytest.raises(KeyError, match="broken"):
        next(stacks)
    assert list(fold_frames(iter([]), Timing(stack=3, compression=1))) == []
