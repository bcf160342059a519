"""The page of a cache has the figures of its records, hides names, and is written whole or not at all."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.html import Page
from tests.report.made import noise, quality
from tests.store.caches import failure_of
from tests.store.damage import write_latents
from tests.test_cli import is_one_line, vidlat
from tests.train.toys import CacheMaker, whole_file
from vidlat.errors import InputError, WeightsError
from vidlat.evaluate.reconstruction import EvaluationProgress, VideoComparison
from vidlat.report import cache as page, latent_shape
from vidlat.report.cache import report_cache
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer
from vidlat.types import InputVideo
from vidlat.video.writer import write_video

LENGTHS = {"s1/a.mp4": 17, "s1/b.mp4": 9, "s2/c.mp4": 23}
SECRET = "Zyxwvut"
MB = 1_000_000


def written(latents, out, **more):
    """The page, once all of its steps are done."""
    for step in report_cache(latents, out, **more):
        assert 0 <= step.num_done <= step.num_total
    return Page(out)


def add_records(path, failures=(), warnings=None):
    """Failures, and warnings by id of videos that are there."""
    with open_writer(path, "test") as writer:
        writer.record_failures(failures)
        records = open_cache(path, hold=False).records()
        writer.commit([replace(records[name], warnings=texts) for name, texts in (warnings or {}).items()])


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture(scope="module")
def encoded(videos, encode_here, tmp_path_factory):
    """A cache of the videos; no test writes to it."""
    return encode_here(videos, tmp_path_factory.mktemp("cache") / "l.zarr")


@pytest.fixture
def made(tmp_path):
    """A cache whose VAE is nowhere, with failures and warnings."""
    path = tmp_path / "l.zarr"
    sources = {name: whole_file(f"/data/{name}") for name in LENGTHS}
    CacheMaker(path).add(LENGTHS, fps=20.0, sources=sources)
    failures = [failure_of(f"{number}.mp4", kind="no-frames") for number in range(7)]
    blank = {"s1/a.mp4": ("3 frames are blank",), "s1/b.mp4": ("12 frames are blank", "truncated?")}
    add_records(path, [*failures, failure_of("x.mp4", kind="empty")], blank)
    return path


def test_steps_count_each_video_once_and_those_without_a_source_not_at_all(encoded, videos, tmp_path):
    steps = report_cache(encoded, tmp_path / "r.html", inputs=[f"{videos}/s?/[ab].mp4"])
    counts = [(step.doing, step.num_done, step.num_total) for step in steps if step.doing != "decoding"]
    assert counts == [
        *(("reading latents", number, 3) for number in (1, 2, 3)),
        *(("reading sources", number, 2) for number in (0, 1, 2)),
        *(("comparing", number, 2) for number in (1, 2)),
    ]


def test_a_page_is_of_the_cache_as_it_was_when_its_report_began(made, tmp_path):
    steps = report_cache(made, tmp_path / "r.html")
    next(steps)
    add_records(made, [failure_of("newcomer.mp4", kind="of a new kind")])
    CacheMaker(made).add(
        {"newcomer/d.mp4": 11}, sources={"newcomer/d.mp4": whole_file("/data/newcomer/d.mp4")}
    )
    list(steps)
    read = Page(tmp_path / "r.html")
    assert "videos 3 frames 49 duration" in read.text
    assert "newcomer" not in read.text
    assert "of a new kind" not in read.rows("Videos that could not be encoded")


def test_a_page_is_not_written_into_its_cache(made, tmp_path):
    (tmp_path / "link").symlink_to(made)
    for out in (made / "r.html", tmp_path / "link" / "more" / "r.html"):
        with pytest.raises(InputError, match=r"lies in the cache .*; give another --out"):
            report_cache(made, out)
    assert not (made / "more").exists()


def test_a_cache_of_failures_alone_is_refused_with_the_command_that_lists_them(tmp_path):
    CacheMaker(tmp_path / "l.zarr")
    add_records(tmp_path / "l.zarr", [failure_of("x.mp4", kind="empty")])
    with pytest.raises(InputError, match="no video to report on, failures alone, which `vidlat ls --failed`"):
        report_cache(tmp_path / "l.zarr", tmp_path / "r.html")


def test_contents_are_those_of_the_records(made, tmp_path):
    read = written(made, tmp_path / "r.html")
    assert "videos 3 frames 49 duration 2.5 s" in read.text
    failures = read.rows("Videos that could not be encoded")
    assert failures["no-frames"]["videos"] == "7"
    assert failures["no-frames"]["the first"] == "0.mp4, 1.mp4, 2.mp4, 3.mp4, 4.mp4"
    assert failures["empty"]["reason of the first"] == "no frame decodes"
    warnings = read.rows("Warnings while decoding")
    assert warnings["… frames are blank"] == {"videos": "2", "the first": "s1/a.mp4, s1/b.mp4"}
    settings = {name: row["value"] for name, row in read.rows("What made the latents").items()}
    schema = open_cache(made).schema
    assert settings["VAE hash"] == schema.vae_hash
    assert settings["stack"] == str(schema.settings.stack)
    assert settings["compression in time"] == "4 video frames per latent frame"
    assert settings["VAE licence"] == "none"
    assert {group: row["videos"] for group, row in groups(read).items()} == {"s1": "2", "s2": "1"}


def groups(read):
    return {row["source folder"]: row for row in read.rows("Groups").values()}


def test_figures_of_channels_are_those_of_the_latents(made, tmp_path):
    rows = written(made, tmp_path / "r.html").rows("Posterior means")
    cache = open_cache(made)
    values = [
        cache.read_latents(name).mean[:, : record.latents.count // 16].astype(float).reshape(2, -1)
        for name, record in cache.records().items()
    ]
    for number, expected in enumerate(np.concatenate(values, 1)):
        assert rows[str(number)]["mean"] == f"{expected.mean():.3f}"
        assert rows[str(number)]["spread"] == f"{expected.std():.3f}"


def test_without_its_vae_the_page_says_so_and_another_one_is_refused(made, tmp_path, small_vae):
    read = written(made, tmp_path / "r.html")
    assert read.count("video") == 0
    assert "the VAE test is not at hand" in read.text
    with pytest.raises(WeightsError, match="has another encoder"):
        report_cache(made, tmp_path / "other.html", vae=str(small_vae))
    assert not (tmp_path / "other.html").exists()


def test_clips_are_decoded_where_the_vae_is_at_hand(encoded, tmp_path):
    read = written(encoded, tmp_path / "r.html", device="cpu")
    shown = [attributes["aria-label"] for tag, attributes in read.tags if tag == "video"]
    assert shown == list(LENGTHS)
    assert "Reconstruction" not in read.text


def test_with_inputs_it_has_the_figures_of_an_evaluation(encoded, videos, tmp_path):
    read = written(encoded, tmp_path / "r.html", inputs=[videos], device="cpu")
    arguments = ("--latents", encoded, "--input", videos, "--json", tmp_path / "q.json", "--device", "cpu")
    assert vidlat("evaluate", *arguments)[0] == 0
    figures = json.loads((tmp_path / "q.json").read_text())
    assert "baselines without a network: 3 of 3 videos." in read.text
    overall = read.rows("Means of the videos")
    assert overall["this VAE"]["PSNR dB"] == f"{figures['overall']['vae']['psnr']:.2f}"
    assert overall["baseline: block averages"]["SSIM"] == f"{figures['overall']['averaging']['ssim']:.3f}"
    psnrs = {video["vae"]["video_id"]: video["vae"]["psnr"] for video in figures["videos"]}
    assert {name: row["PSNR dB"] for name, row in read.rows("Videos, the least").items()} == {
        name: f"{psnr:.2f}" for name, psnr in psnrs.items()
    }
    shown = [attributes["aria-label"] for tag, attributes in read.tags if tag == "video"]
    assert shown == sorted(psnrs, key=psnrs.get)


def test_a_dark_clip_is_shown_in_a_window_of_gray_levels(encode_here, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("vidlat.report.cache.moving_picture", lambda *given: shown.append(given[2]))
    write_video(tmp_path / "dark.mp4", noise(5, side=16) // 3, 25)
    encode_here(tmp_path / "dark.mp4", tmp_path / "l.zarr")
    list(report_cache(tmp_path / "l.zarr", tmp_path / "r.html", inputs=[tmp_path / "dark.mp4"]))
    ((first, *_),) = shown
    assert (first[:, 12:268] == 255).sum() > 256  # in the left tile, many times the line of text below it


def test_hidden_names_stand_nowhere_in_the_page(make_videos, encode_here, small_vae, tmp_path):
    folder = tmp_path / f"{SECRET}v"
    make_videos(folder / f"{SECRET}deep", {f"{SECRET}a.mp4": 6, f"{SECRET}b.mp4": 9, f"{SECRET}c.mp4": 5})
    (folder / f"{SECRET}broken.mp4").write_bytes(b"")
    latents = encode_here(folder, tmp_path / f"{SECRET}.zarr", ids="hash")
    source = folder / f"{SECRET}deep" / f"{SECRET}c.mp4"
    source.write_bytes(source.read_bytes()[:700])  # no longer what was encoded
    records = open_cache(latents, hold=False).records().values()
    (start,) = (record.start for record in records if record.num_frames == LENGTHS["s1/b.mp4"])
    write_latents(latents, slice(start, start + 1), 7)
    out = tmp_path / "r.html"
    read = written(latents, out, inputs=[folder], vae=str(small_vae), device="cpu")
    content = out.read_bytes()
    assert len(read.rows("Not compared")) == 2
    assert "latent frame 0 of mean is not as recorded" in read.text
    assert SECRET.lower().encode() not in content.lower()
    assert str(tmp_path).encode() not in content
    assert tmp_path.name.encode() not in content
    assert "nothing to group its videos by" in read.text


def test_where_names_are_not_hidden_they_are_shown(made, tmp_path):
    assert "Latents in l.zarr" in written(made, tmp_path / "r.html").text


def test_names_are_texts_and_nothing_else(tmp_path):
    evil = '<script>alert("1")</script>"><img src=x onerror=alert(2)>\x1b.mp4'
    path = tmp_path / "l.zarr"
    CacheMaker(path).add(
        {evil: 9, "b": 9}, sources={evil: whole_file(f"/d/{evil}/x"), "b": whole_file("/d/b")}
    )
    add_records(path, [failure_of(evil, reason=evil)], {"b": (evil,)})
    read = written(path, tmp_path / "r.html")
    assert read.count("script") == 1
    assert read.count("img") == 0
    assert '<script>alert("…")</script>' in read.text
    assert b"\x1b" not in (tmp_path / "r.html").read_bytes()


@pytest.mark.slow
def test_a_thousand_videos_with_moving_pictures_stay_below_20_mb(tmp_path, monkeypatch):
    names = [
        f"subject {number % 300}/a clip with a rather long name {number:04}.mp4" for number in range(1000)
    ]
    path = tmp_path / "l.zarr"
    sources = {name: whole_file(f"/data/{name}") for name in names}
    CacheMaker(path).add(dict.fromkeys(names, 4), sources=sources)
    events = [
        EvaluationProgress(
            video_id=name,
            comparison=VideoComparison(
                vae=quality(name, 30 + number / 100), averaging=quality(name, 20), pca=quality(name, 25)
            ),
        )
        for number, name in enumerate(names)
    ]
    found = [InputVideo(video_id=name, source=sources[name]) for name in names]
    monkeypatch.setattr(page, "evaluate_videos", lambda *_, **__: iter(events))
    monkeypatch.setattr(page, "discover_videos", lambda *_, **__: type("Found", (), {"videos": found}))
    monkeypatch.setattr(page, "load_vae_of", lambda *_, **__: object())
    monkeypatch.setattr(latent_shape, "MOST_VIDEOS", 50)
    many = {"source": noise(8, 128), "reconstruction": noise(8, 128, 1)}
    monkeypatch.setattr(page._Report, "_shown", lambda *_: many)
    monkeypatch.setattr(page, "MOST_BYTES", 4 * MB)
    read = written(path, tmp_path / "r.html", inputs=["/data"])
    pictures = sum(len(attributes["src"]) for tag, attributes in read.tags if tag == "video")
    assert 0 < pictures < 4 * 1.4 * MB
    assert (tmp_path / "r.html").stat().st_size - pictures < 3 * MB  # and 11 MB of pictures are 15 in base64
    assert len(read.rows("Videos, the least")) == 200
    assert "800 videos more" in read.text
    assert "Only the first 200 groups are shown" in read.text


def test_pictures_too_large_are_left_out_and_counted(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 300)
    read = written(encoded, tmp_path / "r.html", device="cpu")
    assert read.count("video") == 0
    assert "3 clips would take too much room, and are left out" in read.text


@pytest.mark.parametrize("num_steps", [1, 4])
def test_an_interrupted_report_leaves_nothing(encoded, tmp_path, num_steps):
    steps = report_cache(encoded, tmp_path / "r.html", device="cpu")
    for _ in range(num_steps):
        next(steps)
    steps.close()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_cache_is_refused(tmp_path):
    CacheMaker(tmp_path / "l.zarr")
    with pytest.raises(InputError, match="holds no video to report on"):
        report_cache(tmp_path / "l.zarr", tmp_path / "r.html")


def test_the_command_tells_where_the_page_is(encoded, tmp_path):
    code, out, err = vidlat("report", encoded, "--out", tmp_path / "r.html", "--device", "cpu")
    assert (code, err) == (0, "")
    assert re.search(rf"report, [\d.]+ kB -> {tmp_path}/r.html", out)


def test_the_command_tells_what_is_not_in_all_of_it(encoded, videos, tmp_path):
    given = ("--input", videos / "s1", "--device", "cpu")
    code, out, err = vidlat("report", encoded, "--out", tmp_path / "r.html", *given)
    assert (code, out) == (1, "")
    assert is_one_line(err)
    given = ("--input", videos / "s1" / "a.mp4", "--input", videos, "--max-videos", 2, "--device", "cpu")
    code, _, err = vidlat("report", encoded, "--out", Path("/dev/null/r.html"), *given)
    assert code == 1
    assert is_one_line(err)


def test_ctrl_c_leaves_nothing(encoded, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "moving_picture", interrupted)
    code, _, err = vidlat("report", encoded, "--out", tmp_path / "r.html", "--device", "cpu")
    assert (code, err) == (130, "Interrupted.\n")
    assert list(tmp_path.iterdir()) == []
