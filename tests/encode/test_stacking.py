"""Folding frames into stacks loses and mixes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from vidlat.encode.cutting import cut_calls, split_calls, stretch_video
from vidlat.encode.stacking import (
    fold_frames,
    join_calls,
    unfold_frames,
)
from vidlat.timing import Timing

sizes = st.integers(1, 3)


def starts_of(num_frames, length, step):
    starts = [0]
    while starts[-1] + length < num_frames:
        starts.append(starts[-1] + step)
    return starts


@given(
    batch=sizes, channels=sizes, num_frames=st.integers(1, 21), length=st.integers(1, 8), data=st.data()
)  # fmt: skip
def test_every_call_is_a_run_of_one_videos_frames_and_of_its_last(batch, channels, num_frames, length, data):
    step = data.draw(st.integers(1, length))
    video = torch.rand(batch, channels, num_frames, 2, 3)
    calls = cut_calls(video, length, step)
    starts = starts_of(num_frames, length, step)
    assert calls.shape == (batch * len(starts), channels, length, 2, 3)
    for index, (owner, start) in enumerate((b, start) for b in range(batch) for start in starts):
        places = [min(start + place, num_frames - 1) for place in range(length)]
        assert torch.equal(calls[index], video[owner][:, places])


@given(batch=sizes, channels=sizes, num_frames=st.integers(1, 21), length=st.integers(1, 8))
def test_joining_inverts_cutting_and_padding_repeats_the_last_frame(batch, channels, num_frames, length):
    video = torch.rand(batch, channels, num_frames, 2, 3)
    calls = split_calls(cut_calls(video, length, length), batch)
    back = torch.stack(list(join_calls(calls, length, "average")), 2)
    assert torch.equal(back[:, :, :num_frames], video)
    last = video[:, :, -1:].expand(-1, -1, back.shape[2] - num_frames, -1, -1)
    assert torch.equal(back[:, :, num_frames:], last)


def test_a_plain_reshape_is_told_apart():
    video = torch.rand(2, 3, 8, 2, 2)
    assert not torch.equal(video.reshape(4, 3, 4, 2, 2), cut_calls(video, 4, 4))
    latents = torch.rand(2 * 3, 4, 1, 2, 2)  # two videos of three calls, four latent channels
    assert torch.equal(list(split_calls(latents, 2))[2][0][1], latents[5, :, 0])


def test_no_frames_and_uneven_calls_are_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        cut_calls(torch.zeros(1, 1, 0, 4, 4), 4, 4)
    with pytest.raises(ValueError, match="5 calls cannot belong to 2 videos"):
        next(split_calls(torch.zeros(5, 4, 1, 2, 2), 2))


def blended(values, weights, blend):
    """Brute force, in float64: of the values of one time, in the order of their calls, and their weights."""
    if blend == "center":
        return values[int(np.argmax(weights))]
    return np.average(values, weights=None if blend == "average" else weights)


@given(
    num_calls=st.integers(1, 6),
    length=st.integers(1, 8),
    blend=st.sampled_from(["average", "center", "cross-fade"]),
    data=st.data(),
)
def test_calls_that_share_frames_are_joined_as_brute_force_does(num_calls, length, blend, data):
    step = data.draw(st.integers(1, length))
    calls = np.random.default_rng(num_calls).random((num_calls, length))
    joined = list(join_calls(calls, step, blend))
    num_frames = (num_calls - 1) * step + length
    expected = []
    for time in range(num_frames):
        held = [(n, time - n * step) for n in range(num_calls) if 0 <= time - n * step < length]
        weights = [min(place + 1, length - place) for _, place in held]
        expected.append(blended([calls[n, place] for n, place in held], weights, blend))
    np.testing.assert_allclose(joined, expected, rtol=0, atol=1e-12)


def test_a_cross_fade_falls_linearly_from_one_call_to_the_next():
    calls = np.array([[0.0] * 8, [1.0] * 8])
    joined = list(join_calls(calls, 5, "cross-fade"))
    assert joined == pytest.approx([0] * 5 + [1 / 4, 2 / 4, 3 / 4] + [1] * 5)


@st.composite
def timings(draw):
    stack, stretch = draw(st.sampled_from([4, 8, 12])), draw(st.sampled_from([1, 2, 4]))
    return Timing(
        stack=stack,
        compression=4,
        overlap=draw(st.integers(0, stack // stretch - 1)) * stretch,
        stretch=stretch,
        stretch_by=draw(st.sampled_from(["repeat", "linear"])),
    )


@given(num_frames=st.integers(1, 21), timing=timings())
def test_a_stream_of_frames_is_folded_as_the_whole_video_is(num_frames, timing):
    video = np.random.default_rng(num_frames).random((num_frames, 2, 3), np.float32)
    shown = stretch_video(torch.from_numpy(video)[None, None], timing)
    whole = cut_calls(shown, timing.stack, timing.stack - timing.overlap)[:, 0].numpy()
    stacks = np.stack(list(fold_frames(iter(video), timing)))
    np.testing.assert_allclose(stacks, whole, rtol=0, atol=1e-6)
    assert len(stacks) == timing.num_calls(num_frames)


@given(num_frames=st.integers(1, 21), timing=timings())
def test_each_frame_is_shown_as_often_as_asked_with_blends_of_it_and_the_next(num_frames, timing):
    """Brute force, in float64: frame t is at time t, what is shown at times 0, 1/R, 2/R and so on."""
    video = np.random.default_rng(num_frames).random((num_frames, 2, 3))
    shown = stretch_video(torch.from_numpy(video)[None, None], timing)[0, 0].numpy()
    for index in range(num_frames * timing.stretch):
        frame, part = divmod(index, timing.stretch)
        share = part / timing.stretch if timing.stretch_by == "linear" else 0
        after = video[min(frame + 1, num_frames - 1)]
        np.testing.assert_allclose(shown[index], (1 - share) * video[frame] + share * after, atol=1e-12)


@given(num_frames=st.integers(1, 21), timing=timings())
def test_unfolding_undoes_folding(num_frames, timing):
    video = np.random.default_rng(num_frames).random((num_frames, 2, 3))
    again = np.stack(list(unfold_frames(fold_frames(video, timing), timing)))
    np.testing.assert_allclose(again[:num_frames], video, rtol=0, atol=1e-6)
    last = np.broadcast_to(video[-1], again[num_frames:].shape)
    np.testing.assert_allclose(again[num_frames:], last, rtol=0, atol=1e-6)


def test_a_frame_is_the_mean_of_its_copies():
    shown = np.array([[1.0, 2.0, 10.0, 30.0]])
    assert list(unfold_frames(shown, Timing(stack=4, compression=4, stretch=2))) == [1.5, 20.0]


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
