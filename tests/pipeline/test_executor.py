"""The executor of this process: what it leaves behind, and what it does not touch."""

from dataclasses import replace

import pytest
import torch

from tests.thorough import some_of
from vidlat.errors import WeightsError
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.executor import InProcessExecutor

LENGTHS = {"a.mp4": 5, "b.mp4": 9}


@pytest.fixture
def prepared(make_videos, prepare, tmp_path):
    return prepare(make_videos(tmp_path / "v", LENGTHS), tmp_path / "l.zarr", workers=1)


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_frames_are_reported_before_the_videos_are_committed(prepared, scratch):
    with InProcessExecutor(scratch) as executor, prepared.open_writer() as writer:
        events = list(run_encode(prepared.plan, prepared.job, writer, executor))
    assert sum(event.num_frames for event in events) == 5 + 9
    assert events[0].num_frames
    assert sorted(record.video_id for event in events for record in event.records) == sorted(LENGTHS)


def test_threads_of_this_process_are_as_before_and_no_scratch_is_left(prepared, scratch):
    before = torch.get_num_threads()
    job = replace(prepared.job, num_threads=before + 1)
    with InProcessExecutor(scratch) as executor, prepared.open_writer() as writer:
        list(run_encode(prepared.plan, job, writer, executor))
    assert torch.get_num_threads() == before
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("num_events", some_of([1, 2, 3, 4]))
def test_encode_that_is_left_half_way_leaves_no_scratch_and_the_executor_can_go_on(
    prepared, scratch, num_events
):
    executor = InProcessExecutor(scratch)
    with prepared.open_writer() as writer:
        with executor:
            events = run_encode(prepared.plan, prepared.job, writer, executor)
            for _ in range(num_events):
                next(events)
            assert len(list(scratch.iterdir())) == 1
        assert list(scratch.iterdir()) == []
        with executor:
            events = list(run_encode(prepared.plan, prepared.job, writer, executor))
    assert sorted(record.video_id for event in events for record in event.records) == sorted(LENGTHS)


def test_error_of_a_task_is_raised_as_it_is(prepared, scratch):
    job = replace(prepared.job, vae_hash="f" * 64)
    with (
        pytest.raises(WeightsError, match="other weights here"),
        InProcessExecutor(scratch) as executor,
        prepared.open_writer() as writer,
    ):
        list(run_encode(prepared.plan, job, writer, executor))
    assert list(scratch.iterdir()) == []
