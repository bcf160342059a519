"""A preview shows the right frames of the right videos beside what was decoded of them."""

import math

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.store.caches import writer_of
from tests.store.damage import rewrite
from tests.thorough import some_of
from vidlat.cli import commands
from vidlat.errors import InputError, StoreError
from vidlat.evaluate import moving_preview, preview
from vidlat.evaluate.moving_preview import Moving, write_moving
from vidlat.evaluate.preview import write_preview
from vidlat.pipeline.decode_videos import decode_video, load_vae_of
from vidlat.store.reader import open_cache
from vidlat.types import WHOLE
from vidlat.video.contact_sheet import Row, contact_sheet, frames_to_show
from vidlat.video.reader import read_prepared

LENGTHS = {f"{number:02d}.mp4": length for number, length in enumerate([9, 1, 30, 4, 11, 6, 2, 50, 3, 8])}


@pytest.fixture(scope="module")
def made(make_videos, encode_here, tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)
    return folder, encode_here(folder, tmp_path_factory.mktemp("cache") / "l.zarr")


@pytest.fixture(scope="module")
def vae(made):
    return load_vae_of(open_cache(made[1]).schema, device="cpu", batch=1)


@pytest.fixture
def own(made, tmp_path, encode_here, make_videos):
    """Three videos that a test may spoil, and their cache."""
    folder = make_videos(tmp_path / "v", {"a.mp4": 9, "b.mp4": 20, "c.mp4": 5})
    return folder, encode_here(folder, tmp_path / "l.zarr")


@pytest.fixture
def rows(monkeypatch):
    """The rows of the last sheet, which is written all the same."""
    seen = []

    def spy(rows, *arguments, **options):
        seen[:] = rows
        return contact_sheet(rows, *arguments, **options)

    monkeypatch.setattr(preview, "contact_sheet", spy)
    return seen


@pytest.mark.parametrize(
    ("num_videos", "expected"),
    some_of([(1, [0]), (2, [0, 9]), (99, range(10)), (4, [0, 3, 6, 9]), (10, range(10))]),
)
def test_videos_are_spread_evenly_over_the_sorted_ids(made, vae, tmp_path, num_videos, expected):
    read = []
    shown = write_preview(open_cache(made[1]), vae, tmp_path / "p.png", num_videos, read.append)
    assert shown.shown == read == [sorted(LENGTHS)[index] for index in expected]
    assert (shown.without_source, shown.damaged) == ({}, {})


def test_frames_are_those_of_the_source_and_of_the_whole_video_decoded(made, vae, tmp_path, rows):
    folder, path = made
    cache = open_cache(path)
    write_preview(cache, vae, tmp_path / "p.png", 10)
    assert [row.label for row in rows] == sorted(LENGTHS)
    for row in rows:
        prepared = read_prepared(folder / row.label, WHOLE, cache.schema.settings)
        source = np.stack([frame.pixels for frame in prepared])
        decoded = np.stack(list(decode_video(cache, vae, row.label)))
        numbers = list(row.numbers)
        assert numbers == frames_to_show(LENGTHS[row.label], cache.schema.timing.frame_step)
        np.testing.assert_array_equal(row.frames, source[numbers])
        np.testing.assert_allclose(row.below, decoded[numbers], atol=1e-5)
        mse = np.mean((source[numbers].astype(np.float64) - decoded[numbers]) ** 2)
        assert f"PSNR {10 * math.log10(1 / mse):.1f} dB" in row.note
        assert row.note.startswith("1 frame," if len(source) == 1 else f"{len(source)} frames,")


@pytest.mark.parametrize(
    "times", some_of([{"overlap": 3}, {"overlap": 2}, {"stack": 12, "overlap": 8}]), ids=str
)
def test_frames_that_calls_share_are_shown_as_in_the_whole_video(made, encode_here, tmp_path, rows, times):
    cache = open_cache(encode_here(made[0], tmp_path / "l.zarr", **times))
    vae = load_vae_of(cache.schema, device="cpu", batch=1)
    write_preview(cache, vae, tmp_path / "p.png", 10)
    for row in rows:
        decoded = np.stack(list(decode_video(cache, vae, row.label)))
        np.testing.assert_allclose(row.below, decoded[list(row.numbers)], atol=1e-5)


def test_long_video_is_decoded_a_stack_at_a_time_and_only_what_is_shown(made, vae, tmp_path, monkeypatch):
    decoded, real_decode = [], preview.decode_latents

    def decode(vae, latents, num_frames):
        decoded.append(num_frames)
        return real_decode(vae, latents, num_frames)

    monkeypatch.setattr(preview, "decode_latents", decode)
    cache = open_cache(made[1])
    cache.records = lambda: {"07.mp4": open_cache(made[1]).records()["07.mp4"]}
    write_preview(cache, vae, tmp_path / "p.png")
    assert len(decoded) == 7
    assert max(decoded) <= vae.timing.frames_per_call


def test_same_cache_gives_the_same_picture(made, vae, tmp_path):
    for name in ("a.png", "b.png"):
        write_preview(open_cache(made[1]), vae, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_page_is_as_wide_for_one_video_as_for_six(made, vae, tmp_path):
    sizes = {}
    for count in (1, 6):
        write_preview(open_cache(made[1]), vae, tmp_path / "p.png", count)
        with Image.open(tmp_path / "p.png") as image:
            sizes[count] = image.size
    assert sizes[1][0] == sizes[6][0] <= 1920
    assert sizes[6][1] > 5 * sizes[1][1]


def test_picked_frames_look_as_if_the_sheet_had_picked_them(tmp_path):
    video = np.random.default_rng(0).integers(0, 256, (50, 20, 20), np.uint8)
    numbers = frames_to_show(50)
    contact_sheet([("a.mp4", video)], tmp_path / "whole.png")
    contact_sheet([Row("a.mp4", video[numbers], note="50 frames", numbers=numbers)], tmp_path / "picked.png")
    assert (tmp_path / "picked.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    contact_sheet([Row("a.mp4", video[numbers], note="50 frames")], tmp_path / "other.png")
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "whole.png").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    some_of(
        [
            (lambda file: file.unlink(), "is gone"),
            (lambda file: file.write_bytes(file.read_bytes()[:-1]), "has changed"),
            (lambda file: file.write_bytes(file.read_bytes()[::-1]), "has changed"),
        ]
    ),
    ids=some_of(["gone", "other size", "other bytes"]),
)
def test_source_that_is_not_what_was_encoded_leaves_its_strip_out(own, vae, tmp_path, rows, spoil, reason):
    folder, path = own
    spoil(folder / "b.mp4")
    shown = write_preview(open_cache(path), vae, tmp_path / "p.png")
    assert shown.shown == ["a.mp4", "b.mp4", "c.mp4"]
    assert list(shown.without_source) == ["b.mp4"]
    assert reason in shown.without_source["b.mp4"]
    assert [row.below is None for row in rows] == [False, True, False]
    assert "no source" in rows[1].note
    expected = np.stack(list(decode_video(open_cache(path), vae, "b.mp4")))[list(rows[1].numbers)]
    np.testing.assert_allclose(rows[1].frames, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("num_frames", "reason"), [(None, "cannot be decoded; it was readable"), (3, "decodes to fewer frames")]
)
def test_source_that_no_longer_decodes_leaves_its_strip_out(
    own, vae, tmp_path, monkeypatch, num_frames, reason
):
    from vidlat.errors import DecodeError

    def fails(*source):
        if num_frames is None:
            raise DecodeError("cannot be decoded")
        yield from list(read_prepared(*source))[:num_frames]

    monkeypatch.setattr("vidlat.pipeline.source_frames.read_prepared", fails)
    shown = write_preview(open_cache(own[1]), vae, tmp_path / "p.png")
    assert list(shown.without_source) == ["a.mp4", "b.mp4", "c.mp4"]
    assert all(reason in why for why in shown.without_source.values())


def test_a_moving_preview_shows_each_beside_its_source_and_shorter_ones_again(own, vae, tmp_path):
    folder, path = own
    cache = open_cache(path)
    (folder / "a.mp4").unlink()
    shown = write_preview(cache, vae, None, video=tmp_path / "p.mp4")
    assert (shown.shown, list(shown.without_source)) == (["a.mp4", "b.mp4", "c.mp4"], ["a.mp4"])
    with av.open(tmp_path / "p.mp4") as container:
        frames = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    assert len(frames) == 20  # of the longest
    side = cache.schema.settings.size
    scale = 256 // side
    height = 22 + scale * side + 12
    prepared = read_prepared(folder / "c.mp4", WHOLE, cache.schema.settings)
    source = np.stack([frame.pixels for frame in prepared])
    decoded = np.stack(list(decode_video(cache, vae, "c.mp4")))
    for left, video in ((12, source), (12 + 256 + 12, decoded)):  # 3 pairs: 2 in the first row, then this
        tile = frames[:, 12 + height + 22 :, left : left + 256][:, : scale * side].astype(float)
        tile = tile.reshape(20, side, scale, side, scale).mean((2, 4))
        assert np.abs(tile - 255 * np.take(video, range(20), axis=0, mode="wrap")).max() < 9
    assert frames[:, 12 + 22 : height, 12 : 12 + 256].max() < 30  # the source that is gone


def test_a_dark_video_moves_brighter_as_what_is_decoded_of_it_and_its_labels_say_so(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(moving_preview, "side_by_side", lambda videos, _: shown.update(videos))
    monkeypatch.setattr(moving_preview, "write_video", lambda *_: None)
    gray = {level: np.full((2, 8, 8), level, np.uint8) for level in (40, 80, 100, 250)}
    videos = [
        Moving("dark", 25.0, gray[100], gray[40]),
        Moving("bright", 25.0, gray[250], gray[40]),
        Moving("gone", 25.0, None, gray[80]),
    ]
    write_moving(videos, tmp_path / "p.mp4")
    assert {label: int(frames.max()) for label, frames in shown.items()} == {
        "dark: source; gray levels 0 to 100 shown as 0 to 255": 255,
        "dark: decoded; gray levels 0 to 100 shown as 0 to 255": 102,
        "bright: source": 250,
        "bright: decoded": 40,
        "gone: no source; gray levels 0 to 80 shown as 0 to 255": 0,
        "gone: decoded; gray levels 0 to 80 shown as 0 to 255": 255,
    }


def damage(path, *video_ids):
    cache = open_cache(path)
    for video_id in video_ids:
        shard = cache.records()[video_id].start // cache.schema.shard_frames
        (path / f"mean/c/0/{shard}/0/0").unlink()


def test_damaged_video_is_left_out_and_named(own, vae, tmp_path):
    damage(own[1], "b.mp4")
    shown = write_preview(open_cache(own[1]), vae, tmp_path / "p.png")
    assert shown.shown == ["a.mp4", "c.mp4"]
    assert list(shown.damaged) == ["b.mp4"]
    damage(own[1], "a.mp4", "c.mp4")
    with pytest.raises(StoreError, match="missing"):
        write_preview(open_cache(own[1]), vae, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_cache_without_videos_is_refused(own, vae, tmp_path):
    writer_of(own[1]).remove(list(open_cache(own[1]).records()))
    with pytest.raises(InputError, match="holds no video"):
        write_preview(open_cache(own[1]), vae, tmp_path / "p.png")


def vidlat_preview(*arguments):
    answer = CliRunner().invoke(commands, ["preview", *map(str, arguments), "--device", "cpu"])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


def test_command_writes_the_picture_and_names_what_it_lacks(own, tmp_path):
    folder, path = own
    code, out, err = vidlat_preview(path, "--out", tmp_path / "new/p.png")
    assert (code, err) == (0, "")
    assert "3 videos -> " in out
    with Image.open(tmp_path / "new/p.png") as image:
        assert image.format == "PNG"
    (folder / "a.mp4").unlink()
    code, out, _ = vidlat_preview(path, "--out", tmp_path / "p.png", "--videos", "1")
    assert code == 0
    assert "1 video -> " in out
    assert "is gone" in out
    damage(path, "b.mp4")
    code, out, _ = vidlat_preview(path, "--out", tmp_path / "p.png")
    assert code == 3
    assert "Left out" in out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [([], "what is to be written? --out"), (["--video", "p.png"], "is written as .mp4")],
)
def test_flags_that_write_nothing_are_refused(made, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    code, _, err = vidlat_preview(made[1], *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert reason in err


def test_records_with_negative_ranges_are_one_clear_line(own, tmp_path):
    for file in (own[1] / "videos/records").glob("*.parquet"):
        num_rows = pq.ParquetFile(file).metadata.num_rows
        rewrite(file, start=[-4] * num_rows, stop=[-1] * num_rows)
    code, _, err = vidlat_preview(own[1], "--out", tmp_path / "p.png")
    assert (code, err.count("\n")) == (1, 1)
    assert "a.mp4: its record names latent frames -4--1" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["CACHE", "--out", "FOLDER"], "is a folder"),
        (["CACHE", "--out", "p.png", "--vae", "tiny"], "another encoder"),
        (["nowhere.zarr", "--out", "p.png"], "not a vidlat cache"),
    ],
)
def test_command_that_cannot_be_done_is_one_clear_line(made, tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.png").mkdir()
    names = {"CACHE": made[1], "FOLDER": tmp_path / "f.png"}
    code, _, err = vidlat_preview(*(names.get(argument, argument) for argument in arguments))
    assert (code, err.count("\n")) == (1, 1)
    assert reason in err
