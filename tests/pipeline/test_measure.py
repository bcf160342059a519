"""What is measured, with a clock that the test moves, and that measuring ends in time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch

from vidlat.config import LatentSettings, Reading
from vidlat.errors import DecodeError, NotEnoughMemoryError
from vidlat.pipeline import measure
from vidlat.store.storage import filesystem
from vidlat.timing import Timing
from vidlat.types import InputVideo, Source, VideoHeader

LENGTHS = {f"{number}.mp4": 4 for number in range(5)}


@pytest.fixture(scope="module")
def prepared(make_videos, prepare_only, tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)
    return prepare_only(folder, folder / "l.zarr", workers=1)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def sources(*names):
    return [InputVideo(video_id=name, source=Source(name, 1, 1)) for name in names]


@pytest.fixture
def videos(monkeypatch, clock):
    """Videos without end: each frame of one called `0.5` takes half a second. A list of what was read."""
    read = []

    def read_prepared(path, selection, how):
        if path.name == "broken":
            clock.now += 100
            raise DecodeError("is broken")
        for _ in count():
            clock.now += float(path.name)
            read.append(path.name)
            yield None

    monkeypatch.setattr(measure, "read_prepared", read_prepared)
    return read


def test_videos_that_are_decoded_lie_at_both_ends_and_in_the_middle(videos, prepared):
    names = ["0.01", "9", "0.02", "9", "0.03"]
    assert measure.time_decoding(measure.spread_by_size(sources(*names)), prepared.job) == pytest.approx(0.02)
    assert videos == [name for name in ("0.01", "0.02", "0.03") for _ in range(measure.FRAMES_DECODED)]


def test_headers_are_read_until_the_time_is_up(clock, monkeypatch):
    how = Reading(axes="HWT")

    def probe_video(path, selection, told):
        clock.now += 1
        assert told is how
        return VideoHeader(num_frames=int(path.name), seconds=None)

    monkeypatch.setattr(measure, "probe_video", probe_video)
    names = [str(number) for number in range(100)]
    every = {name: VideoHeader(num_frames=int(name), seconds=None) for name in names}
    assert measure.read_headers(sources(*names), how, 100) == every
    some = measure.read_headers(sources(*names), how, 20)
    assert len(some) == 21
    assert some.items() <= every.items()
    assert 20 < sum(map(int, some)) / len(some) < 80  # not the largest alone, which come first


def test_slow_video_is_left_after_a_while(videos, prepared):
    assert measure.time_decoding(sources("0.5"), prepared.job) == pytest.approx(0.5)
    assert 0.5 * len(videos) == pytest.approx(measure.SECONDS_DECODED, abs=0.5)


def test_video_that_does_not_decode_counts_for_nothing(videos, prepared):
    assert measure.time_decoding(sources("broken", "0.25"), prepared.job) == pytest.approx(0.25)
    assert measure.time_decoding(sources("broken"), prepared.job) is None


@dataclass
class ScriptedVAE:
    """A VAE whose calls do as `call` says of their stacks."""

    batch: int
    call: Callable[[torch.Tensor], None]
    timing: Timing = field(default_factory=lambda: Timing(stack=8, compression=4))

    def with_batch(self, batch):
        return replace(self, batch=batch)

    def encode_stacks(self, stacks):
        self.call(stacks)
        return torch.zeros(1), torch.zeros(1)


@pytest.mark.parametrize(("seconds", "num_calls"), [(0.3, 8), (20.0, 2)])
def test_a_vae_call_has_the_real_shape_and_the_first_is_not_timed(clock, seconds, num_calls):
    shapes = []

    def call(stacks):
        clock.now += seconds if shapes else 1000
        shapes.append(tuple(stacks.shape))

    settings = LatentSettings(size=12)
    assert measure.time_vae(ScriptedVAE(3, call), settings) == pytest.approx(seconds)
    assert shapes == [(3, 1, 8, 12, 12)] * num_calls


def test_vae_call_that_needs_too_much_memory_is_halved_as_in_the_encode(clock):
    def call(stacks):
        if len(stacks) > 2:
            raise NotEnoughMemoryError("not enough memory")
        clock.now += len(stacks)

    assert measure.time_vae(ScriptedVAE(8, call), LatentSettings(size=8)) == 8


def test_the_processes_of_the_encode_measure_with_the_threads_of_a_worker(prepared, scheduler, monkeypatch):
    threads = []
    real = measure.time_decoding  # the worker is this process
    monkeypatch.setattr(
        measure, "time_decoding", lambda *a: threads.append(torch.get_num_threads()) or real(*a)
    )
    before = torch.get_num_threads()
    job = replace(prepared.job, num_threads=before + 1)
    speed = measure.measure_speed(replace(prepared, job=job, scheduler=scheduler))
    assert (threads, torch.get_num_threads()) == ([before + 1], before)
    assert (speed.num_processes, speed.num_readers, speed.shared_cores) == (1, 1, before + 1)
    assert min(speed.frame_seconds, speed.call_seconds, speed.start_seconds) > 0


def test_free_space_is_that_of_the_folder_that_will_hold_it(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        filesystem.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=7)
    )
    assert filesystem.free_bytes(tmp_path / "not" / "yet.zarr") == 7
    assert asked == [tmp_path]
