from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tests.train.toys import CacheMaker
from vidlat.errors import TrainError
from vidlat.timing import Timing
from vidlat.train.data.windows import (
    WindowShape,
    training_windows,
    validation_windows,
)
from vidlat.types import LatentPosterior

STACKS_OF_4 = Timing(stack=4, compression=4)


def make_records(all_num_frames, timing):
    """Records one after the other, each on a boundary of 4 latent frames."""
    tiny = np.ones((2, 1, 1, 1), np.float16)
    first = CacheMaker._record("", 1, LatentPosterior(mean=tiny, std=tiny), 0, 1, 30.0)
    records, start = [], 0
    for number, num_frames in enumerate(all_num_frames):
        stop = start + timing.num_latent_frames(num_frames)
        records.append(
            replace(first, video_id=f"{number}.mp4", start=start, stop=stop, num_frames=num_frames)
        )
        start = -(-stop // 4) * 4
    return records


@pytest.mark.parametrize(("frames", "nearest"), [(7, 8), (5, 4), (1, 4), (17, 16)])
def test_clips_that_are_not_whole_stacks_are_refused_with_the_nearest_length(frames, nearest):
    with pytest.raises(TrainError, match=rf"got {frames};.* nearest is {nearest}$"):
        WindowShape.of_clip(frames, STACKS_OF_4)


@given(num_videos=st.integers(1, 9), batch=st.integers(1, 7), seed=st.integers(0, 2**40))
def test_every_video_comes_exactly_once_per_epoch(num_videos, batch, seed):
    records = make_records([16] * num_videos, STACKS_OF_4)
    shape = WindowShape.of_clip(8, STACKS_OF_4)
    num_epochs = 3
    num_steps = -(-num_epochs * num_videos // batch)
    seen = [
        window.video_id
        for step in range(num_steps)
        for window in training_windows(records, shape, seed=seed, step=step, batch=batch)
    ]
    for epoch in range(num_epochs):
        counts = Counter(seen[epoch * num_videos : (epoch + 1) * num_videos])
        assert counts == {record.video_id: 1 for record in records}


def test_epochs_come_in_different_orders_and_seeds_too():
    records, shape = make_records([16] * 20, STACKS_OF_4), WindowShape.of_clip(8, STACKS_OF_4)
    orders = {
        tuple(w.video_id for w in training_windows(records, shape, seed=seed, step=epoch, batch=20))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4


@settings(max_examples=200)
@given(
    all_num_frames=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    stack=st.sampled_from([4, 8, 16]),
    num_stacks=st.integers(1, 4),
    step=st.integers(0, 1000),
)
def test_windows_are_whole_stacks_of_one_video(all_num_frames, stack, num_stacks, step):
    timing = Timing(stack=stack, compression=4)
    records = make_records(all_num_frames, timing)
    shape = WindowShape.of_clip(num_stacks * stack, timing)
    by_id = {record.video_id: record for record in records}
    for window in training_windows(records, shape, seed=1, step=step, batch=4):
        record = by_id[window.video_id]
        # Brute force: the latent frames that hold a real frame, and the boundaries of the stacks.
        boundaries = range(record.start, record.stop, stack // 4)
        holds_a_frame = [4 * (frame - record.start) < record.num_frames for frame in range(record.stop)]
        stacks = boundaries[boundaries.index(window.start) :][:num_stacks]
        assert len(stacks) == min(len(boundaries), num_stacks), "a video that is long enough fills the window"
        frames = [frame for start in stacks for frame in range(start, start + stack // 4)]
        assert window.num_valid == sum(holds_a_frame[frame] for frame in frames)
        assert window.num_valid >= 1
        # A still end is no motion: no window has padding where stacks without any fill it.
        if record.num_frames // stack >= num_stacks:
            assert (window.start - record.start) * 4 + num_stacks * stack <= record.num_frames


@pytest.mark.parametrize(
    ("frames", "overlap", "message"),
    [
        (17, 2, "got 17; expected whole stacks of this cache, 4, 6, 8 and so on: the nearest is 16$"),
        (1, 3, "nearest is 4$"),
    ],
)  # fmt: skip
def test_clips_that_are_not_whole_overlapping_stacks_are_refused(frames, overlap, message):
    with pytest.raises(TrainError, match=message):
        WindowShape.of_clip(frames, Timing(stack=4, compression=4, overlap=overlap))


@settings(max_examples=200)
@given(
    num_frames=st.integers(1, 70),
    stack=st.sampled_from([4, 8, 16]),
    num_stacks=st.integers(1, 4),
    step=st.integers(0, 1000),
    data=st.data(),
)
def test_windows_of_overlapping_stacks_are_those_of_a_clip_encoded_alone(
    num_frames, stack, num_stacks, step, data
):
    timing = Timing(stack=stack, compression=4, overlap=data.draw(st.integers(0, stack - 1)))
    frames = stack + (num_stacks - 1) * timing.frame_step
    shape = WindowShape.of_clip(frames, timing)
    assert shape.num_latent_frames == timing.num_latent_frames(frames)
    (record,) = make_records([num_frames], timing)
    (window,) = training_windows([record], shape, seed=1, step=step, batch=1)
    number, rest = divmod(window.start - record.start, timing.latent_step)
    assert rest == 0
    first_frame = number * timing.frame_step
    if num_frames >= frames:
        assert first_frame + frames <= num_frames
        assert window.num_valid == shape.num_latent_frames
    else:
        assert (first_frame, window.num_valid) == (0, timing.num_valid(num_frames))


def test_every_window_of_a_video_is_drawn():
    records = make_records([40], STACKS_OF_4)
    shape = WindowShape.of_clip(16, STACKS_OF_4)
    drawn = {
        window.start
        for step in range(100)
        for window in training_windows(records, shape, seed=0, step=step, batch=1)
    }
    assert drawn == set(range(7))


def test_validation_windows_are_always_the_same_and_cycle_through_the_videos():
    records = make_records([40, 40, 40], STACKS_OF_4)
    shape = WindowShape.of_clip(16, STACKS_OF_4)
    windows = validation_windows(records, shape, seed=0, num_windows=6)
    assert windows == validation_windows(records, shape, seed=0, num_windows=6)
    names = [window.video_id for window in windows]
    assert sorted(names[:3]) == sorted(names[3:]) == ["0.mp4", "1.mp4", "2.mp4"]


def test_fewer_validation_windows_than_videos_are_of_all_kinds():
    """Ids sort by site, so the first ones would all be of one site."""
    records = make_records([8] * 1000, STACKS_OF_4)
    shape = WindowShape.of_clip(8, STACKS_OF_4)
    windows = validation_windows(records, shape, seed=0, num_windows=64)
    places = sorted(int(window.video_id.removesuffix(".mp4")) for window in windows)
    assert len(set(places)) == 64
    assert all(sum(first <= place < first + 250 for place in places) > 5 for first in range(0, 1000, 250))
