"""The driver, on an executor whose worker dies, loses results and hangs on cue."""

import json
from collections import deque
from functools import partial
from itertools import product
from typing import NamedTuple

import pytest

from tests.pipeline.ten_videos import LENGTHS, videos_in
from tests.thorough import some_of
from vidlat.errors import ScratchError, StoreError
from vidlat.pipeline.attempts import MAX_DEATHS_ALONE
from vidlat.pipeline.driver import run_encode
from vidlat.pipeline.executor import (
    BatchEncoded,
    BatchWritten,
    DecoderHangs,
    InProcessExecutor,
    TaskLost,
)
from vidlat.store.layout import LEASE
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer


class Step(NamedTuple):
    kind: str
    task: int
    video_ids: list[str]
    arguments: tuple


class ScriptedExecutor:
    """One worker that holds all tasks it was given and works on them when the driver waits.

    before_step(executor, step): events that come instead of the step's result; None to run the step.
    """

    def __init__(self, before_step=lambda executor, step: None, capacity=2):
        self.before_step, self._capacity = before_step, capacity
        self.in_process = InProcessExecutor()
        self.steps, self.events, self.submitted, self.num_deaths = deque(), deque(), [], 0
        self.most_held = 0

    def __enter__(self):
        self.in_process.__enter__()
        return self

    def __exit__(self, *error):
        self.in_process.__exit__(*error)

    dashboard = ""

    def capacity(self):
        return self._capacity

    def encode(self, task, videos, *rest):
        self.submitted.append([video.video_id for video in videos])
        self._add(Step("encode", task, self.submitted[-1], (videos, *rest)))

    def write(self, task, batch, *rest):
        self._add(Step("write", task, [video.record.video_id for video in batch.videos], (batch, *rest)))

    def _add(self, step):
        self.steps.append(step)
        self.most_held = max(self.most_held, len(self.steps))

    def next_event(self):
        if not self.events:
            step = self.steps[0]
            events = self.before_step(self, step)
            if events is None:
                self.steps.popleft()
                events = self.run(step)
            self.events.extend(events)
        return self.events.popleft()

    def run(self, step):
        getattr(self.in_process, step.kind)(step.task, *step.arguments)
        events = []
        while not events or not isinstance(events[-1], BatchEncoded | BatchWritten):
            events.append(self.in_process.next_event())
        return events

    def die(self, is_explained=False):
        """The worker dies, and all of its tasks with it."""
        self.num_deaths += 1
        dying, self.steps = self.steps, deque()
        return [TaskLost(step.task, is_explained) for step in dying]

    def lose(self, step):
        """The result of this step never arrives."""
        self.steps.remove(step)
        return [TaskLost(step.task)]


def encode_on(executor, prepared, cache_path, commit=None):
    """commit: takes the place of the writer's, which it is given before the records."""
    with executor, open_writer(cache_path, "test") as writer:
        writer.commit = partial(commit, writer.commit) if commit else writer.commit
        return list(run_encode(prepared.plan, prepared.job, writer, executor))


def dies_encoding(*names):
    """A script: the worker dies when it comes to encode one of these videos, alone or with others."""

    def before_step(executor, step):
        return executor.die() if step.kind == "encode" and {*names} & {*step.video_ids} else None

    return before_step


@pytest.mark.parametrize("capacity", some_of([1, 2, 4]))
def test_no_more_tasks_are_submitted_than_the_executor_has_capacity_for(
    videos, prepare, tmp_path, read_all, undisturbed, capacity
):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    assert len(prepared.plan.batches) >= 4
    executor = ScriptedExecutor(capacity=capacity)
    encode_on(executor, prepared, tmp_path / "l.zarr")
    assert executor.most_held == capacity
    assert read_all(tmp_path / "l.zarr") == undisturbed


@pytest.mark.parametrize("poison", some_of(["04.mp4", "00.mp4", "09.mp4"]))
def test_video_that_kills_its_worker_fails_alone_and_every_other_video_is_encoded(
    videos, prepare, tmp_path, read_all, undisturbed, poison
):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    executor = ScriptedExecutor(dies_encoding(poison))
    events = encode_on(executor, prepared, tmp_path / "l.zarr")
    # With others, alone, and alone with one stack per call instead of three.
    assert executor.num_deaths == 3 > MAX_DEATHS_ALONE
    assert videos_in(events, "failures") == sorted(["broken.mp4", poison])
    failures = open_cache(tmp_path / "l.zarr").failures()
    assert failures[poison].kind == "worker-died"
    assert "died 2 times" in failures[poison].reason
    assert "out of memory?" in failures[poison].reason
    assert {**read_all(tmp_path / "l.zarr"), poison: undisturbed[poison]} == undisturbed


def test_two_poisonous_videos_do_not_drag_others_along(videos, prepare, tmp_path):
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    executor = ScriptedExecutor(dies_encoding("01.mp4", "07.mp4"))
    events = encode_on(executor, prepared, tmp_path / "l.zarr")
    assert videos_in(events, "failures") == ["01.mp4", "07.mp4", "broken.mp4"]
    assert videos_in(events, "records") == sorted(set(LENGTHS) - {"01.mp4", "07.mp4"})


@pytest.mark.parametrize("everything", [True, False])
def test_lost_write_costs_nothing_but_another_attempt(
    videos, prepare, tmp_path, read_all, undisturbed, everything
):
    lost = []

    def before_step(executor, step):
        if step.kind == "write" and not lost:
            lost.append(step)
            return executor.die() if everything else executor.lose(step)
        return None

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    events = encode_on(ScriptedExecutor(before_step), prepared, tmp_path / "l.zarr")
    assert lost
    assert videos_in(events, "records") == sorted(LENGTHS)
    assert read_all(tmp_path / "l.zarr") == undisturbed


@pytest.mark.parametrize("kind", ["encode", "write"])
def test_error_that_concerns_everything_ends_the_encode_with_it(videos, prepare, tmp_path, kind):
    def before_step(executor, step):
        if step.kind == kind:
            raise ScratchError("the disk is full")

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    with pytest.raises(ScratchError, match="the disk is full"):
        encode_on(ScriptedExecutor(before_step), prepared, tmp_path / "l.zarr")
    assert len(open_cache(tmp_path / "l.zarr")) == 0


@pytest.mark.parametrize(("hanging", "capacity"), some_of(product(["00.mp4", "04.mp4"], [2, 4])))
def test_video_that_hangs_is_recorded_at_once_and_the_others_go_on_as_before(
    videos, prepare, tmp_path, read_all, undisturbed, hanging, capacity
):
    lost, before = [], []

    def before_step(executor, step):
        if step.kind == "write" or hanging not in step.video_ids:
            return None
        before.extend(executor.submitted)
        lost.extend(step.video_ids for step in executor.steps if step.video_ids != [hanging])
        return [DecoderHangs(hanging, 4), *executor.die(is_explained=True)]

    executor = ScriptedExecutor(before_step, capacity)
    prepared = prepare(videos, tmp_path / "l.zarr", workers=1, time_limit_seconds=60)
    encode_on(executor, prepared, tmp_path / "l.zarr")
    assert executor.submitted.count([hanging]) == 1
    # It is known which video ended the process: the others need not run alone, after everything else.
    assert lost
    next_ones = executor.submitted[len(before) :][: len(lost) + capacity - 1]
    assert all(batch in next_ones for batch in lost)
    failure = open_cache(tmp_path / "l.zarr").failures()[hanging]
    assert failure.kind == "time-limit"
    assert "within the 60 seconds" in failure.reason
    assert "after 4 frames" in failure.reason
    assert executor.num_deaths == 1
    assert {**read_all(tmp_path / "l.zarr"), hanging: undisturbed[hanging]} == undisturbed


def test_result_of_a_process_that_ends_itself_is_discarded(videos, prepare, tmp_path, read_all, undisturbed):
    """Its decoder came back within the last second: the video is a failure all the same, and only that."""
    late = "04.mp4"

    def before_step(executor, step):
        if step.kind == "encode" and late in step.video_ids:
            executor.steps.remove(step)
            return [DecoderHangs(late, 4), *executor.run(step)]
        return None

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    events = encode_on(ScriptedExecutor(before_step), prepared, tmp_path / "l.zarr")
    assert videos_in(events, "failures") == [late, "broken.mp4"]
    assert videos_in(events, "records") == sorted(set(LENGTHS) - {late})
    assert {**read_all(tmp_path / "l.zarr"), late: undisturbed[late]} == undisturbed


def test_late_message_of_a_hang_does_no_harm_to_a_video_that_is_being_written(
    videos, prepare, tmp_path, read_all, undisturbed
):
    told = []

    def before_step(executor, step):
        if step.kind == "write" and not told:
            told.append(step)
            return [DecoderHangs(step.video_ids[0], 4), *executor.die(is_explained=True)]
        return None

    prepared = prepare(videos, tmp_path / "l.zarr", workers=1)
    encode_on(ScriptedExecutor(before_step), prepared, tmp_path / "l.zarr")
    assert told
    assert read_all(tmp_path / "l.zarr") == undisturbed


def test_encode_ends_when_another_process_takes_the_cache_over_and_what_it_committed_stays(
    videos, prepare, tmp_path, read_all, undisturbed
):
    path, committed = tmp_path / "l.zarr", []

    def commit_and_lose(commit, records):
        commit(records)
        committed.extend(record.video_id for record in records)
        lease = json.loads((path / LEASE).read_text())
        (path / LEASE).write_text(json.dumps(lease | {"token": "of another"}))

    prepared = prepare(videos, path, workers=1)
    with pytest.raises(StoreError, match="another process has taken it over"):
        encode_on(ScriptedExecutor(), prepared, path, commit_and_lose)
    assert 0 < len(committed) < len(LENGTHS)
    assert read_all(path) == {name: undisturbed[name] for name in committed}


def test_driver_that_dies_anywhere_between_write_and_commit_resumes_to_the_same_cache(
    videos, prepare, tmp_path, read_all, undisturbed
):
    class Death(BaseException):
        pass

    path, num_deaths = tmp_path / "l.zarr", 0

    def dies(commit, records):
        if num_commits:
            raise Death
        num_commits.append(1)
        commit(records)

    while True:
        num_commits = []
        prepared = prepare(videos, path, workers=1)
        before = read_all(path)
        try:
            encode_on(ScriptedExecutor(), prepared, path, dies)
            break
        except Death:
            num_deaths += 1
            after = read_all(path)
            assert before.items() < after.items()
    assert num_deaths >= 3
    assert read_all(path) == undisturbed
    assert open_cache(path).num_hole_frames > 0
    assert prepare(videos, path, workers=1).plan.num_videos == 0


def test_second_encode_has_nothing_to_do_and_a_changed_file_is_encoded_anew(
    make_videos, prepare, tmp_path, read_all
):
    folder, path = make_videos(tmp_path / "v", {"a.mp4": 5, "b.mp4": 9}), tmp_path / "l.zarr"
    encode_on(InProcessExecutor(), prepare(folder, path), path)
    first = read_all(path)
    assert prepare(folder, path).plan.num_videos == 0
    make_videos(folder, {"a.mp4": 13})
    plan = prepare(folder, path).plan
    assert [source.video_id for batch in plan.batches for source in batch] == ["a.mp4"]
    encode_on(InProcessExecutor(), prepare(folder, path), path)
    second = read_all(path)
    assert second["b.mp4"] == first["b.mp4"]
    assert open_cache(path).records()["a.mp4"].num_frames == 13
