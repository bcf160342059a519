"""The mapping between the frames of a video and latent frames, against brute force."""

import math

from hypothesis import given, strategies as st

from vidlat.timing import Timing


@st.composite
def timings(draw):
    compression, stretch = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 4))
    stack = draw(st.integers(1, 4)) * math.lcm(compression, stretch)
    return Timing(stack=stack, compression=compression, stretch=stretch)


def calls_of(num_frames, timing):
    """What each VAE call is shown: the number of a frame, or None for padding."""
    shown = [frame for frame in range(num_frames) for _ in range(timing.stretch)]
    shown += [None] * (-len(shown) % timing.stack)
    return [shown[first : first + timing.stack] for first in range(0, len(shown), timing.stack)]


@given(num_frames=st.integers(1, 50), timing=timings())
def test_numbers_are_those_of_the_calls_written_out(num_frames, timing):
    calls = calls_of(num_frames, timing)
    assert timing.num_calls(num_frames) == len(calls)
    assert {len({frame for frame in call if frame is not None}) for call in calls[:-1]} <= {
        timing.frames_per_call
    }
    latents = [
        call[first : first + timing.compression]
        for call in calls
        for first in range(0, timing.stack, timing.compression)
    ]
    assert timing.num_latent_frames(num_frames) == len(latents)
    assert timing.num_valid(num_frames) == sum(set(latent) != {None} for latent in latents)
    whole = [call for call in calls if None not in call]
    unpadded = len(whole) * timing.latents_per_call or timing.num_valid(num_frames)
    assert timing.num_unpadded(num_frames) == unpadded


def test_slow_motion_of_four_gives_every_frame_a_latent_frame():
    timing = Timing(stack=4, compression=4, stretch=4)
    assert [timing.num_latent_frames(num_frames) for num_frames in (1, 2, 17)] == [1, 2, 17]
    assert (timing.frames_per_latent, Timing(stack=8, compression=4, stretch=2).frames_per_latent) == (1, 2)
