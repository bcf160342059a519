"""Figures by hand, and a real encode."""

import pytest
from hypothesis import given, strategies as st

from vidlat.pipeline.estimate import (
    COMPRESSED_SHARE,
    EncodeEstimate,
    ExpectedFrames,
    Speed,
    estimate_encode,
    estimate_time,
    fill_in_headers,
)
from vidlat.pipeline.measure import headers_of, measure_size
from vidlat.pipeline.task import encode_batch, write_batch
from vidlat.store.reader import open_cache
from vidlat.store.schema import CacheSchema, CacheSettings
from vidlat.types import InputVideo, Source, VideoHeader

SCHEMA = CacheSchema(
    settings=CacheSettings(
        encoder_hash="", encoder_config={}, stack=8, size=24, fit="crop", precision="float32",
        preprocess_version=1,
    ),
    vae_name="", vae_hash="", vae_licence="", vae_path="",
    time_compression=4, space_compression=4, latent_dim=3, latent_height=6, latent_width=6, shard_frames=8,
)  # fmt: skip


def source(video_id, num_bytes=1):
    return InputVideo(video_id=video_id, source=Source(f"/v/{video_id}", num_bytes, 1))


def header(num_frames, seconds=None):
    return VideoHeader(num_frames=num_frames, seconds=seconds)


def test_size_of_an_encode_is_what_one_counts_by_hand():
    batches = [
        (source("a"), source("b")),
        (source("c"),),
        (source("d"), source("x"), source("y"), source("z")),
    ]
    headers = {"a": header(9, 0.9), "b": header(8), "c": header(40, 2.0), "d": header(1), "x": header(None)}
    headers |= {"y": None, "z": header(0)}
    size = estimate_encode(batches, headers, SCHEMA, stacks_per_call=2, num_batches_at_once=2)
    # stacks of 8 frames: a 2, b 1, c 5, d 1; one is 2 latent frames of 3 x 6 x 6 float16, mean and std
    stack_bytes = 2 * 108 * 2 * 2
    assert size == EncodeEstimate(
        num_headers=7,
        num_frames=58,
        seconds=2.9,
        calls_of_batches=(2, 3, 1),
        num_latent_frames=9 * 2,
        latent_bytes=round(9 * stack_bytes * COMPRESSED_SHARE),
        scratch_bytes=(5 + 3) * stack_bytes,
        unknown=("x",),
        broken=("y", "z"),
    )


def simulate(num_calls, frames_per_call, speed, num_readers, num_cores, dt=0.01):
    """The duration of one process, step by step: readers a few calls ahead of the VAE.

    Of `num_cores` the readers take one each, and the VAE what they leave, or half of one; 0: it needs none.
    """
    seconds, vae_left, num_ready, num_encoded = 0.0, 0.0, 0, 0
    reading_left = num_calls * frames_per_call * speed.frame_seconds
    while num_encoded < num_calls:
        if not vae_left and num_ready > 0.999:
            num_ready, vae_left = num_ready - 1, speed.call_seconds
        is_reading = reading_left > 0 and num_ready < 2 + num_readers
        readers, vae_share = num_readers, 1.0
        if num_cores and is_reading and vae_left:
            readers, vae_share = (0.5, 0.5) if num_cores == 1 else (1, 1 - 1 / num_cores)
        if is_reading:
            reading_left -= readers * dt
            num_ready += readers * dt / (frames_per_call * speed.frame_seconds)
        if vae_left:
            vae_left = max(0.0, vae_left - vae_share * dt)
            num_encoded += vae_left <= 1e-9
            vae_left = 0.0 if vae_left <= 1e-9 else vae_left
        seconds += dt
    return seconds


@pytest.mark.parametrize(
    ("num_readers", "num_cores"),
    [(1, 0), (4, 0), (1, 1), (1, 4)],
    ids=["GPU", "4 readers", "1 core", "4 cores"],
)
@pytest.mark.parametrize(("frame_seconds", "call_seconds"), [(0.02, 1.6), (0.1, 0.2), (0.05, 0.4)])
@pytest.mark.parametrize(
    ("calls_of_batches", "times"),
    [((10,) * 12, 1.0), ((90, 15, 15), 1.5), ((120,), 2.0), ((40, 40, 40), 4 / 3)],
)
def test_time_is_that_of_a_simulated_pipeline_of_two_stages(
    num_readers, num_cores, frame_seconds, call_seconds, calls_of_batches, times
):
    num_processes, num_calls, frames_per_call = 2, 60, 8
    speed = Speed(
        num_processes=num_processes,
        num_readers=num_readers,
        shared_cores=num_cores,
        frame_seconds=frame_seconds,
        call_seconds=call_seconds,
        start_seconds=7.0,
    )
    size = EncodeEstimate(
        num_headers=9,
        num_frames=num_processes * num_calls * frames_per_call,
        seconds=0,
        calls_of_batches=calls_of_batches,
        num_latent_frames=0,
        latent_bytes=0,
        scratch_bytes=0,
        unknown=(),
        broken=(),
    )
    time = estimate_time(size, speed)
    expected = simulate(num_calls, frames_per_call, speed, num_readers, num_cores)
    # The simulation also fills and drains the pipeline.
    assert time.seconds - time.start_seconds == pytest.approx(times * expected, rel=0.05)
    assert time.start_seconds == 7.0
    assert time.vae_seconds == pytest.approx(num_calls * call_seconds)


def test_headers_that_were_not_read_are_filled_in_by_size():
    sources = [source("a", 100), source("b", 300), source("c", 50), source("broken", 200)]
    headers = {"a": header(10, 1.0), "b": header(50, 3.0), "broken": header(None)}
    filled = fill_in_headers(sources, headers)
    assert filled == headers | {"c": header(5, pytest.approx(50 * 4.0 / 600))}  # 60 frames in 600 bytes


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 10**6), st.sampled_from("read unread"))))
def test_expected_frames_become_those_that_are_there_whatever_headers_have_said(videos):
    sources = [source(str(index), num_bytes) for index, (_, num_bytes, _) in enumerate(videos)]
    headers = {
        each.video_id: VideoHeader(num_frames=3, seconds=None)
        for each, (_, _, state) in zip(sources, videos, strict=True)
        if state == "read"
    }
    expected = ExpectedFrames(sources, headers)
    for each, (num_frames, _, _) in zip(sources, videos, strict=True):
        expected.learn(each.video_id, num_frames)
        expected.learn(each.video_id, num_frames)
    assert expected.num_frames == sum(num_frames for num_frames, _, _ in videos)


def test_videos_that_have_not_said_their_frames_are_expected_to_hold_as_many_per_byte():
    sources = [source("a", 100), source("b", 300), source("unknown", 400), source("broken", 200)]
    expected = ExpectedFrames(sources, {"unknown": header(None)})
    assert expected.num_frames is None
    expected = ExpectedFrames(sources, {"a": header(10), "unknown": header(None), "broken": None})
    assert expected.num_frames == pytest.approx(10 + 10 / 300 * 700)
    expected.learn("b", 50)
    assert expected.num_frames == pytest.approx(60 + 60 / 600 * 400)


def test_videos_whose_header_was_not_read_count_like_the_others():
    batches = [(source("a", 100), source("b", 300)), (source("c", 400),)]
    size = estimate_encode(
        batches, {"a": header(8, 1), "b": header(24, 3)}, SCHEMA, stacks_per_call=2, num_batches_at_once=1
    )
    assert (size.num_headers, size.num_frames, size.seconds, size.unknown) == (2, 64, 8, ())
    assert size.scratch_bytes == 4 * 2 * 108 * 2 * 2


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(1, 30))
def test_filled_in_videos_as_dense_as_the_others_are_exact(sizes, num_read):
    sources = [source(str(number), size) for number, size in enumerate(sizes)]
    read = {source.video_id: header(3 * source.source.num_bytes) for source in sources[:num_read]}
    filled = fill_in_headers(sources, read)
    assert list(filled) == [source.video_id for source in sources]
    if sum(sizes[:num_read]):
        assert [filled[s.video_id].num_frames for s in sources] == [3 * s.source.num_bytes for s in sources]


@pytest.mark.slow
def test_estimate_is_close_to_what_a_real_encode_takes(make_videos, prepare_only, tmp_path):
    lengths = {"a.mp4": 201, "b.mp4": 400, "c.avi": 35, "d.mkv": 3}
    folder = make_videos(tmp_path / "v", lengths, height=64, width=72)
    (folder / "broken.mp4").write_bytes(b"")
    path = tmp_path / "l.zarr"
    prepared = prepare_only(folder, path, size=64)
    size = measure_size(prepared, headers_of(prepared))
    assert (size.num_frames, size.broken) == (sum(lengths.values()), ("broken.mp4",))
    assert size.seconds == pytest.approx(sum(lengths.values()) / 25, rel=0.02)

    scratch_bytes, num_calls = [], 0
    (tmp_path / "scratch").mkdir()
    with prepared.open_writer() as writer:
        for batch in prepared.plan.batches:
            reports = []
            encoded = encode_batch(batch, prepared.job, reports.append, scratch_parent=tmp_path / "scratch")
            num_calls += len(reports)
            files = [file for file in (tmp_path / "scratch").rglob("*") if file.is_file()]
            scratch_bytes.append(sum(file.stat().st_size for file in files))
            start = writer.reserve(writer.schema.num_shards(encoded.num_latent_frames or [1]))
            writer.commit(write_batch(encoded, path, start))
    assert size.num_calls == num_calls
    # As many batches are in flight as two workers hold.
    assert size.scratch_bytes == sum(sorted(scratch_bytes)[-4:])
    assert size.latent_bytes == pytest.approx(bytes_below(path), rel=0.25)
    assert len(open_cache(path)) == len(lengths)


def bytes_below(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
