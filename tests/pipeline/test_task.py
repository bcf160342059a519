"""What a worker does with a batch, without an executor."""

import os
import weakref
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from tests.pipeline.opened import frames_of, reading
from tests.thorough import some_of
from vidlat.errors import DecodeError, ScratchError, WeightsError
from vidlat.pipeline import read_video
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.job import EncodeJob
from vidlat.pipeline.read_video import frame_rate
from vidlat.pipeline.scratch import ScratchLatents
from vidlat.pipeline.task import encode_batch, write_batch
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer
from vidlat.types import Frame

LENGTHS = {"1.mp4": 1, "17.mp4": 17, "3.mp4": 3, "4.mp4": 4, "5.mp4": 5}


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture
def job(small_vae, prepare, videos, tmp_path):
    return prepare(videos, tmp_path / "latents.zarr").job


@pytest.fixture
def scratch(tmp_path):
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def sources_of(folder, *names):
    found = {source.video_id: source for source in discover_videos([str(folder)]).videos}
    return [found[name] for name in names or found]


def store(batch, path):
    """Write a batch and make it part of the cache, as the driver does."""
    with open_writer(path, "test") as writer:
        start = writer.reserve(writer.schema.num_shards(batch.num_latent_frames))
        writer.commit(write_batch(batch, path, start))
    return open_cache(path)


def test_encoded_videos_equal_the_vae_run_on_each_whole_video(
    videos, job, tmp_path, scratch, expected_latents
):
    batch = encode_batch(sources_of(videos), job, scratch_parent=scratch)
    assert batch.failures == []
    cache = store(batch, tmp_path / "latents.zarr")
    assert {name: record.num_frames for name, record in cache.records().items()} == LENGTHS
    for name in LENGTHS:
        mean, std = expected_latents(videos / name, job)
        posterior = cache.read_latents(name)
        np.testing.assert_array_equal(posterior.mean, mean)
        np.testing.assert_array_equal(posterior.std, std)


def test_latents_do_not_depend_on_companions(videos, job, scratch):
    together = encode_batch(sources_of(videos, "17.mp4", "3.mp4", "5.mp4"), job, scratch_parent=scratch)
    for video in together.videos:
        (alone,) = encode_batch(sources_of(videos, video.record.video_id), job, scratch_parent=scratch).videos
        assert alone.record == video.record
        np.testing.assert_array_equal(alone.posterior().mean, video.posterior().mean)
        np.testing.assert_array_equal(alone.posterior().std, video.posterior().std)


def test_latents_of_fewer_bits_are_the_same_ones_rounded(videos, prepare, tmp_path, expected_latents):
    job = prepare(videos, tmp_path / "latents.zarr", keepbits=6).job
    cache = store(encode_batch(sources_of(videos, "17.mp4"), job), tmp_path / "latents.zarr")
    posterior = cache.read_latents("17.mp4")  # the checksum is of the rounded ones
    for rounded, whole in zip(
        (posterior.mean, posterior.std), expected_latents(videos / "17.mp4", job), strict=True
    ):
        np.testing.assert_allclose(rounded, whole.astype(np.float16), rtol=2**-7)
        assert not (rounded.view(np.uint16) % 2**4).any()
        assert rounded.view(np.uint16).any()
    (record,) = cache.records().values()
    exact = posterior.mean[:, :4].astype(np.float64)
    np.testing.assert_allclose(record.latents.sum_mean, exact.sum((1, 2, 3)), rtol=1e-12)


def test_record_tells_where_the_latents_came_from(videos, job, tmp_path, scratch):
    (source,) = sources_of(videos, "5.mp4")
    cache = store(encode_batch([source], job, scratch_parent=scratch), tmp_path / "latents.zarr")
    record = cache.records()["5.mp4"]
    assert (record.height, record.width) == (20, 24)
    assert record.source._replace(sha256="") == source.source
    assert record.fps == pytest.approx(25)
    assert record.pts_seconds is None
    assert record.stop - record.start == 2
    # The second latent frame stands for frame 5 and padding, so it is in no sum.
    posterior = cache.read_latents("5.mp4")
    assert record.latents.count == 1 * 4 * 4
    exact = posterior.mean[:, :1].astype(np.float64)
    np.testing.assert_allclose(record.latents.sum_mean, exact.sum((1, 2, 3)), rtol=1e-12)
    assert record.device == "cpu"
    assert record.batch == 3
    assert {"vidlat", "torch", "monai", "av"} <= set(record.versions)


class Poison:
    """Frames of files, but one video breaks after some frames with the given error."""

    def __init__(self, name, after, error):
        self.name, self.after, self.error = name, after, error

    def __call__(self, path, warn):
        for index, frame in enumerate(frames_of(path, warn)):
            if path.name == self.name and index == self.after:
                raise self.error
            yield frame


@pytest.mark.parametrize("after", some_of([0, 2, 6, 16]))
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DecodeError("breaks off", "truncated"), "truncated"),
        (MemoryError(), "decoder-error"),
        (KeyError("a library's bug"), "decoder-error"),
    ],
)
def test_video_that_fails_on_the_way_leaves_the_others_untouched(videos, job, scratch, after, error, kind):
    names = ["5.mp4", "17.mp4", "3.mp4"]
    untouched = encode_batch(sources_of(videos, "5.mp4", "3.mp4"), job, scratch_parent=scratch)
    read = reading(Poison("17.mp4", after, error))
    batch = encode_batch(sources_of(videos, *names), job, scratch_parent=scratch, read=read)
    (failure,) = batch.failures
    assert (failure.video_id, failure.kind) == ("17.mp4", kind)
    assert failure.reason
    assert ("Traceback" in failure.traceback) == (kind == "decoder-error")
    assert [video.record for video in batch.videos] == [video.record for video in untouched.videos]
    for video, alone in zip(batch.videos, untouched.videos, strict=True):
        np.testing.assert_array_equal(video.posterior().mean, alone.posterior().mean)
        np.testing.assert_array_equal(video.posterior().std, alone.posterior().std)


def test_latents_that_cannot_be_stored_are_a_failure_of_their_video_alone(videos, job, scratch):
    white = Frame(pixels=np.full((20, 24), np.nan, np.float32), pts_seconds=None)
    read = reading(lambda path, warn: [white] * 9 if path.name == "3.mp4" else frames_of(path, warn))
    sources = sources_of(videos, "5.mp4", "3.mp4", "4.mp4")
    batch = encode_batch(sources, job, scratch_parent=scratch, read=read)
    assert [video.record.video_id for video in batch.videos] == ["5.mp4", "4.mp4"]
    assert [(failure.video_id, failure.kind) for failure in batch.failures] == [("3.mp4", "not-storable")]


def test_video_that_vanishes_while_it_is_encoded_is_a_failure(videos, job, scratch, tmp_path):
    (source,) = sources_of(videos, "5.mp4")

    def vanish(path, warn):
        yield from list(frames_of(videos / "5.mp4"))

    gone = replace(source, source=source.source._replace(path=str(tmp_path / "gone.mp4")))
    batch = encode_batch([gone], job, scratch_parent=scratch, read=reading(vanish))
    assert batch.videos == []
    assert "No such file" in batch.failures[0].reason


def test_damaged_frames_become_a_warning(videos, job, scratch):

    def damaged(path, warn):
        for index, frame in enumerate(frames_of(path)):
            yield frame._replace(is_damaged=index % 2 == 1)
        warn("ends too soon")

    sources = sources_of(videos, "5.mp4")
    (video,) = encode_batch(sources, job, scratch_parent=scratch, read=reading(damaged)).videos
    assert video.record.warnings == ("ends too soon", "damaged frames: 2 of 5")


def test_long_video_streams_through_bounded_memory(videos, job, scratch, monkeypatch):
    class Pixels(np.ndarray):
        __hash__ = object.__hash__

    alive, most_alive = weakref.WeakSet(), 0

    def endless(path, warn):
        nonlocal most_alive
        for index in range(500):
            pixels = np.full((20, 24), index % 256, np.uint8).view(Pixels)
            alive.add(pixels)
            most_alive = max(most_alive, len(alive))
            yield Frame(pixels=pixels, pts_seconds=index / 50)

    prepared, most_prepared = weakref.WeakSet(), 0
    real = read_video.prepare_video

    def counting(*arguments):
        video = real(*arguments)

        def frames():
            nonlocal most_prepared
            for frame in video.frames():
                pixels = frame.pixels.view(Pixels)
                prepared.add(pixels)
                most_prepared = max(most_prepared, len(prepared))
                yield replace(frame, pixels=pixels)
                del frame, pixels

        return replace(video, frames=frames)

    monkeypatch.setattr(read_video, "prepare_video", counting)
    sources = sources_of(videos, "5.mp4")
    (video,) = encode_batch(sources, job, scratch_parent=scratch, read=reading(endless)).videos
    assert video.shape == (125, 4, 4, 4)
    assert most_alive <= 3
    assert most_prepared <= 2 * job.settings.stack


@pytest.mark.parametrize(
    "times", [{}, {"overlap": 2}, {"stretch": 4}, {"stretch": 2, "stretch_by": "linear"}], ids=str
)
def test_progress_counts_every_frame_once(videos, job, scratch, times):
    reported = []
    job = replace(job, settings=replace(job.settings, **times))
    encode_batch(sources_of(videos), job, reported.append, scratch_parent=scratch)
    assert sum(reported) == sum(LENGTHS.values())
    assert max(reported) <= (job.settings.stack + 1) * job.batch  # a blend needs the frame after


def test_scratch_is_gone_when_the_batch_is_written(videos, job, tmp_path, scratch):
    batch = encode_batch(sources_of(videos), job, scratch_parent=scratch)
    assert [path.name for path in scratch.iterdir()] == [batch.scratch.name]
    store(batch, tmp_path / "latents.zarr")
    assert list(scratch.iterdir()) == []


def test_scratch_is_gone_when_writing_fails(videos, job, tmp_path, scratch):
    batch = encode_batch(sources_of(videos), job, scratch_parent=scratch)
    with pytest.raises(Exception, match="nowhere"):
        write_batch(batch, tmp_path / "nowhere.zarr", 0)
    assert list(scratch.iterdir()) == []


def test_scratch_is_gone_when_nothing_could_be_encoded(videos, job, scratch):
    read = reading(Poison("5.mp4", 4, DecodeError("breaks off")))
    assert encode_batch(sources_of(videos, "5.mp4"), job, scratch_parent=scratch, read=read).videos == []
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, os.strerror(28)), ScratchError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_scratch_is_gone_when_the_whole_batch_ends(videos, job, scratch, monkeypatch, error, raised):
    def fails(*_):
        raise error

    monkeypatch.setattr(ScratchLatents, "append", fails)
    with pytest.raises(raised):
        encode_batch(sources_of(videos), job, scratch_parent=scratch)
    assert list(scratch.iterdir()) == []


class FullDisk(BytesIO):
    """A file on a disk with room for some bytes: beyond that, writing and closing fail."""

    def __init__(self, room):
        super().__init__()
        self.room, self.was_closed = room, False

    def write(self, content):
        self.room -= content.nbytes
        self._refuse()
        return content.nbytes

    def close(self):
        self.was_closed = True
        super().close()
        self._refuse()

    def _refuse(self):
        if self.room < 0:
            raise OSError(28, os.strerror(28))


@pytest.mark.parametrize("room", [0, 300])
def test_full_scratch_disk_ends_the_encode_naming_the_folder_and_a_way_out(
    videos, job, scratch, monkeypatch, room
):
    files, real = [], Path.open

    def open_full(path, mode="r", *arguments, **options):
        if mode != "wb":
            return real(path, mode, *arguments, **options)
        files.append(FullDisk(room))
        return files[-1]

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(ScratchError) as refusal:
        encode_batch(sources_of(videos), job, scratch_parent=scratch)
    message = str(refusal.value)
    assert message.startswith(f"{scratch}: cannot keep there")
    assert "No space left on device" in message
    assert "TMPDIR" in message
    assert "temporary-directory" in message
    assert "\n" not in message
    assert files
    assert all(file.was_closed for file in files)
    assert list(scratch.iterdir()) == []


def test_scratch_folder_that_is_not_there_is_named(videos, job, tmp_path):
    with pytest.raises(ScratchError, match=r"missing: cannot keep there .*No such file"):
        encode_batch(sources_of(videos), job, scratch_parent=tmp_path / "missing")


def test_worker_with_other_weights_refuses_to_encode(videos, job, scratch):
    other = replace(job, vae_hash="f" * 64)
    with pytest.raises(WeightsError, match="other weights here"):
        encode_batch(sources_of(videos), other, scratch_parent=scratch)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.04, 0.08, 0.12], (25, False)),
        ([0, 0.033, 0.067, 0.1], (1 / 0.033, False)),  # rounded to milliseconds
        ([0, 0.04, 0.08, 0.13, 0.18], (1 / 0.045, True)),
        ([0, 0.04, 0.08, 0.5], (25, True)),
        ([0, 0.04, 0.02, 0.06], (25, True)),  # not in order
        ([0, None, 0.08], (0.0, False)),
        ([None, None], (0.0, False)),
        ([0], (0.0, False)),
        ([0, 0, 0], (0.0, False)),
        ([0.2, 0.1, 0], (0.0, False)),
    ],
)
def test_frame_rate_is_the_median_and_says_whether_it_varies(times, expected):
    fps, varies = frame_rate(times)
    assert fps == pytest.approx(expected[0])
    assert varies == expected[1]


def test_times_are_kept_where_the_rate_varies(job, scratch, tmp_path):
    path = tmp_path / "v" / "a.mkv"
    path.parent.mkdir()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.pix_fmt, stream.height, stream.width = "gray", 16, 16
        for milliseconds in (500, 540, 580, 700):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16), np.uint8), format="gray")
            frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    (video,) = encode_batch(sources_of(path.parent), job, scratch_parent=scratch).videos
    assert video.record.pts_seconds == pytest.approx((0, 0.04, 0.08, 0.2))
    assert video.record.fps == pytest.approx(25)


def test_job_travels_between_processes(job):
    import pickle

    assert isinstance(job, EncodeJob)
    assert pickle.loads(pickle.dumps(job)) == job
    assert isinstance(job.vae_path, Path)
