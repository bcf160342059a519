"""The mapping between the frames of a video and latent frames, against brute force."""

import math

import pytest
from hypothesis import given, strategies as st

from vidlat.errors import TimingError
from vidlat.timing import Timing


@st.composite
def timings(draw):
    compression, stretch = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 4))
    stack = draw(st.integers(1, 4)) * math.lcm(compression, stretch)
    overlap = draw(st.integers(0, stack // stretch - 1)) * stretch
    return Timing(stack=stack, compression=compression, overlap=overlap, stretch=stretch)


def calls_of(num_frames, timing):
    """What each VAE call is shown: the number of what is shown, those after the last frame being padding."""
    num_shown, step = num_frames * timing.stretch, timing.stack - timing.overlap
    calls = [range(timing.stack)]
    while calls[-1].stop < num_shown:
        calls.append(range(calls[-1].start + step, calls[-1].stop + step))
    return calls


def latents_of(calls, timing):
    """The latent frames that are kept of calls, each as what it stands for."""
    every = [
        call[first : first + timing.compression]
        for call in calls
        for first in range(0, timing.stack, timing.compression)
    ]
    return sorted(set(every), key=every.index) if timing.overlap % timing.compression == 0 else every


@given(num_frames=st.integers(1, 50), timing=timings())
def test_numbers_are_those_of_the_calls_written_out(num_frames, timing):
    num_shown, calls = num_frames * timing.stretch, calls_of(num_frames, timing)
    latents = latents_of(calls, timing)
    assert timing.num_calls(num_frames) == len(calls)
    assert timing.num_latent_frames(num_frames) == len(latents)
    assert timing.num_valid(num_frames) == sum(latent.start < num_shown for latent in latents)
    whole = [call for call in calls if call.stop <= num_shown]
    assert timing.num_whole_calls(num_frames) == len(whole)
    unpadded = len(latents_of(whole, timing)) or timing.num_valid(num_frames)
    assert timing.num_unpadded(num_frames) == unpadded


@given(num_frames=st.integers(1, 50), timing=timings())
def test_calls_start_at_the_steps_of_frames_and_of_latent_frames(num_frames, timing):
    calls = calls_of(num_frames, timing)
    latents = latents_of(calls, timing)
    for number, call in enumerate(calls):
        assert call.start == number * timing.frame_step * timing.stretch
        first = number * timing.latent_step
        held = latents[first : first + timing.latents_per_call]
        assert [place for latent in held for place in latent] == list(call)


@given(stack=st.integers(1, 20), overlap=st.integers(0, 20), stretch=st.integers(1, 4))
def test_what_does_not_fit_is_refused_with_what_would(stack, overlap, stretch):
    fits = stack % 4 == 0 and stack % stretch == 0 and overlap < stack and overlap % stretch == 0
    if fits:
        Timing(stack=stack, compression=4, overlap=overlap, stretch=stretch)
        return
    with pytest.raises(TimingError, match=r"^(stack|overlap|stretch): got \d+; expected .*\d"):
        Timing(stack=stack, compression=4, overlap=overlap, stretch=stretch)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"overlap": 4}, "overlap: got 4; expected less than the stack of 4 frames: 3 at most"),
        ({"overlap": 3, "stretch": 2}, "overlap: got 3; expected a multiple of the stretch of 2"),
        ({"blend": "center"}, "blend: got center; it needs calls that share latent frames"),
        ({"stack": 8, "overlap": 2, "blend": "center"}, "an overlap of a multiple of 4 frames"),
    ],
)
def test_combinations_without_sense_are_refused(values, message):
    with pytest.raises(TimingError, match=message):
        Timing(**{"stack": 4, "compression": 4} | values)


def test_slow_motion_of_four_gives_every_frame_a_latent_frame():
    timing = Timing(stack=4, compression=4, stretch=4)
    assert [timing.num_latent_frames(num_frames) for num_frames in (1, 2, 17)] == [1, 2, 17]
    assert (timing.frames_per_latent, Timing(stack=8, compression=4, stretch=2).frames_per_latent) == (1, 2)


@given(timing=timings())
def test_frames_per_stored_latent_are_those_of_a_long_video(timing):
    num_frames = timing.frames_of(10_000)
    ratio = num_frames / timing.num_latent_frames(num_frames)
    assert timing.frames_per_stored_latent == pytest.approx(ratio, rel=0.01)


def test_calls_that_share_whole_latent_frames_need_no_more_of_them():
    plain, shared = (Timing(stack=16, compression=4, overlap=overlap) for overlap in (0, 8))
    assert [timing.num_latent_frames(64) for timing in (plain, shared)] == [16, 16]
    assert [timing.num_calls(64) for timing in (plain, shared)] == [4, 7]
    every_second = Timing(stack=4, compression=4, overlap=2)
    assert (every_second.num_latent_frames(64), every_second.frames_per_latent) == (31, 2)
