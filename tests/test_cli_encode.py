"""`vidlat encode`: dry runs, changed, moved and lost sources, drivers that meet."""

import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom.data import get_testdata_file

from vidlat.cli import commands
from vidlat.commands import display
from vidlat.encode.weights import resolve_weights
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer

pytestmark = pytest.mark.usefixtures("short_measurements")

LENGTHS = {"a.mp4": 5, "b.mp4": 9, "deep/c.mp4": 16}


@pytest.fixture
def videos(make_videos, tmp_path):
    return make_videos(tmp_path / "videos", LENGTHS)


@pytest.fixture
def encode(small_vae, scheduler, videos, tmp_path):
    """encode(*flags) into l.zarr: exit code, standard output in one line, standard error."""
    fixed = ("--vae", small_vae, "--size", 16, "--batch", 3, "--device", "cpu", "--out", tmp_path / "l.zarr")

    def encode(*more, on_cluster=True, inputs=videos):
        cluster = ("--scheduler", scheduler) if on_cluster else ()
        arguments = ("encode", "--input", inputs, *fixed, *cluster, *more)
        answer = CliRunner().invoke(commands, [str(argument) for argument in arguments])
        assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
        return answer.exit_code, " ".join(answer.stdout.split()), answer.stderr

    return encode


def forbid_work(monkeypatch):
    """Makes writing and starting workers an error from here on."""
    for name in ("open_dask_executor", "open_writer", "create_cache"):
        monkeypatch.setattr(f"vidlat.pipeline.encode_videos.{name}", None)


def cell(out, name):
    """The text of a table in the row of that name."""
    return re.search(rf"│ {re.escape(name)} +│ (.*?) +│", out)[1]


def names_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.slow
def test_dry_run_tells_what_slow_motion_costs_and_stacks_that_the_weights_have_not_seen(videos, tmp_path):
    def dry_run(*flags):
        fixed = ("--input", videos, "--out", tmp_path / "l.zarr", "--vae", "tiny", "--size", 16, "--dry-run")
        answer = CliRunner().invoke(commands, ["encode", *map(str, (*fixed, *flags))])
        assert answer.exit_code == 0, answer.output
        return " ".join(answer.stdout.split())

    once, out = dry_run("--stretch", 1), dry_run("--stretch", 4, "--stack", 20)
    assert "Warning" not in once
    assert "Warning: tiny was trained on stacks of 4, 8 and 16 frames, and is shown 20 at a time" in out
    # 2 + 3 + 4 stacks at once; of 20 that hold 5 frames each, 1 + 2 + 4, each five latent frames.
    assert cell(once, "latents").startswith(f"about {round(0.8 * 9 * 256 / 1000, 1)} kB; ")
    assert cell(out, "latents").startswith(f"about {round(0.8 * 35 * 256 / 1000, 1)} kB; ")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--overlap", 2], "; what was not given is as suits tiny: --stack 4 --stretch 4"),
        (["--overlap", 2, "--stack", 8], "; what was not given is as suits tiny: --stretch 4"),
        (["--overlap", 3, "--stack", 8, "--stretch", 2], "so that calls share whole frames of the video"),
    ],
)
def test_a_refused_time_names_those_that_were_not_given(flags, said, videos, tmp_path):
    fixed = ("--input", videos, "--out", tmp_path / "l.zarr", "--vae", "tiny", "--size", 16, "--dry-run")
    answer = CliRunner().invoke(commands, ["encode", *map(str, (*fixed, *flags))])
    assert answer.exit_code == 2
    assert answer.stderr.startswith("Error: --overlap: got ")
    assert answer.stderr.endswith(f"{said}\n")


def test_dry_run_of_a_new_cache_writes_nothing_and_estimates_time_and_space(
    encode, videos, tmp_path, monkeypatch
):
    forbid_work(monkeypatch)
    (videos / "notes.txt").write_text("no video")
    (videos / "odd.mp4").write_text("no video")
    before = names_below(tmp_path)
    code, out, err = encode("--dry-run")
    assert (code, err) == (0, "")
    assert names_below(tmp_path) == before
    assert cell(out, "videos to encode") == "4"
    assert cell(out, "other files, ignored") == "1"
    assert out.startswith("Ignored: 1 .txt ")
    assert cell(out, "frames to encode") == "about 30"
    assert cell(out, "their duration") == "about 1.2 s of video"
    assert cell(out, "will fail") == "1 video without a readable frame: odd.mp4"
    # 2 + 3 + 4 stacks of 4 frames, each one latent frame of 4 x 4 x 4 float16, mean and std
    assert cell(out, "latents").startswith(f"about {round(0.8 * 9 * 256 / 1000, 1)} kB; ")
    assert cell(out, "scratch of all workers") == "up to 2.3 kB"
    for name in ("decoding", "VAE"):
        assert re.fullmatch(r"about [\d.]+ frames/s per process", cell(out, name))
    assert " of the scheduler: " in cell(out, "time")
    assert "Warning" not in out


def test_stills_among_the_videos_are_told_of_and_left_out_on_request(encode, videos):
    still = Path(get_testdata_file("CT_small.dcm", download=False))
    shutil.copy(still, videos / "still.dcm")
    _, out, _ = encode("--dry-run")
    assert "1 of the 4 videos found is a single DICOM image" in out
    assert "--min-frames 2 leaves them out" in out
    assert cell(out, "videos to encode") == "4"
    _, out, _ = encode("--dry-run", "--min-frames", 2)
    assert "DICOM image" not in out
    assert "Left out: 1 new video of fewer than 2 frames" in out
    assert cell(out, "videos to encode") == "3"


@pytest.mark.slow
def test_masks_beside_the_videos_are_warned_of_before_they_are_encoded(encode, videos):
    shutil.copy(videos / "a.mp4", videos / "a_gt.mp4")
    said = "1 of the videos to encode is named like a mask (a_gt.mp4); --exclude '*_gt*' leaves them out"
    assert said in encode("--dry-run")[1]
    out = encode("--dry-run", "--exclude", "*_gt*")[1]
    assert ("named like" in out, cell(out, "videos to encode")) == (False, "3")
    assert said in encode()[1]
    assert "named like" not in encode()[1]  # encoded now


def test_short_videos_are_left_out_and_neither_failures_nor_a_setting_of_the_cache(encode, tmp_path):
    code, out, err = encode("--min-frames", 9)
    assert (code, err) == (0, "")
    assert "Left out: 1 new video of fewer than 9 frames" in out
    cache = open_cache(tmp_path / "l.zarr")
    assert (set(cache.records()), cache.failures(), cache.dropped()) == ({"b.mp4", "deep/c.mp4"}, {}, [])
    assert "Left out: 1 new video" in encode("--min-frames", 9)[1]
    out = encode("--min-frames", 17)[1]  # of videos that are there nothing is asked
    assert "Left out: 1 new video" in out
    assert "Nothing to do: 2 videos are already in" in out
    assert "1 video to encode, 2 already done" in encode()[1]


def test_a_dropped_video_stays_out_until_it_is_restored(encode, videos, tmp_path):
    (videos / "broken.mp4").write_bytes(b"no video")
    encode()
    drop = ["prune", str(tmp_path / "l.zarr"), "--yes", "--drop", "b.mp4", "--drop", "broken.mp4"]
    answer = CliRunner().invoke(commands, drop)
    assert answer.exit_code == 0, answer.output
    assert "No encode adds the requested videos again" in answer.output
    os.utime(videos / "b.mp4")
    for flags in ((), ("--retry-failed",), ("--checksum",)):
        code, out, err = encode(*flags)
        assert (code, err) == (0, "")
        assert "Left out: b.mp4, broken.mp4, dropped before; `vidlat encode --restore VIDEO_ID` takes" in out
        assert "Nothing to do: 2 videos are already in" in out
    assert cell(encode("--dry-run")[1], "dropped before") == "2"
    listed = CliRunner().invoke(commands, ["ls", str(tmp_path / "l.zarr"), "--dropped"]).output
    assert listed == "b.mp4\nbroken.mp4\n"
    info = CliRunner().invoke(commands, ["info", str(tmp_path / "l.zarr")]).output
    assert re.search(r"failed  0\n +dropped  2: b.mp4, broken.mp4", info)
    code, _, err = encode("--restore", "b.mp4", "--restore", "nobody.mp4")
    assert (code, err.count("\n")) == (1, 1)
    assert "--restore 'nobody.mp4': no video of --input has this id" in err
    code, out, _ = encode("--restore", "b.mp4", "--restore", "broken.mp4")
    assert code == 3
    cache = open_cache(tmp_path / "l.zarr")
    assert (set(cache.records()), set(cache.failures())) == (set(LENGTHS), {"broken.mp4"})
    assert cache.dropped() == []
    assert encode("--restore", "b.mp4")[0] == 3  # the same command again


def test_dry_run_counts_done_failed_moved_and_vanished_videos(encode, videos, tmp_path, monkeypatch):
    (videos / "empty.mp4").write_bytes(b"")
    assert encode()[0] == 3
    forbid_work(monkeypatch)
    before = names_below(tmp_path / "l.zarr")
    os.utime(videos / "a.mp4", ns=(7, 7))
    (videos / "b.mp4").unlink()
    code, out, _ = encode("--dry-run")
    assert code == 3
    assert cell(out, "videos to encode") == "0"
    assert cell(out, "already done") == "2"
    assert cell(out, "of these touched or moved") == "1"
    assert cell(out, "failed before") == "1"
    assert cell(out, "without their source") == "1"
    assert "is an empty file" in out
    assert "VAE" not in out
    assert names_below(tmp_path / "l.zarr") == before


def test_too_little_disk_space_is_warned_of_before_an_encode_and_in_a_dry_run(encode, tmp_path, monkeypatch):
    for command in ("encode", "dry_run"):
        monkeypatch.setattr(f"vidlat.commands.{command}.free_bytes", lambda _: 1500)
    _, out, _ = encode("--dry-run")
    assert f"about 1.8 kB needed, 1.5 kB free at {tmp_path}/l.zarr" in out
    code, out, _ = encode()
    assert code == 0
    assert "Warning: the latents will take about 1.8 kB; 1.5 kB are free on the disk of" in out
    assert "Warning" not in encode()[1]  # nothing to do


@pytest.mark.slow
def test_local_scratch_is_compared_with_its_own_disk(encode, tmp_path, monkeypatch):
    monkeypatch.setattr("vidlat.commands.dry_run.scratch_folder", lambda: tmp_path / "scratch")
    monkeypatch.setattr(
        "vidlat.commands.dry_run.free_bytes", lambda path: 1 if path.name == "scratch" else 10**9
    )
    _, out, _ = encode("--dry-run")
    assert "Warning" not in out  # the scheduler's workers have their own
    _, out, _ = encode("--dry-run", on_cluster=False)
    assert cell(out, "scratch at any time") == "about 2.3 kB; 1 B free on that disk"
    assert (
        f"not enough disk space for scratch at any time: about 2.3 kB needed, 1 B free at {tmp_path}/s" in out
    )
    assert "machine" not in cell(out, "time")


def test_cache_in_use_allows_a_dry_run_and_refuses_an_encode(encode, tmp_path, monkeypatch):
    assert encode()[0] == 0
    with open_writer(tmp_path / "l.zarr", "another command"):
        assert encode("--dry-run")[0] == 0
        monkeypatch.setattr("vidlat.pipeline.encode_videos.load_vae", None)
        code, out, err = encode()
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert "another command" in err


def test_checksum_finds_a_change_that_size_and_time_hide(encode, videos, tmp_path):
    assert encode()[0] == 0
    path = videos / "b.mp4"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert "Nothing to do: 3 videos" in encode()[1]
    before = open_cache(tmp_path / "l.zarr").records()
    code, out, _ = encode("--checksum")
    assert code == 0
    assert "comparing files" in out
    assert "1 video, 9 frames" in out
    after = open_cache(tmp_path / "l.zarr").records()
    assert [name for name in LENGTHS if after[name] != before[name]] == ["b.mp4"]
    assert "Nothing to do: 3 videos" in encode("--checksum")[1]


def test_touched_files_are_recorded_once(encode, videos):
    assert encode()[0] == 0
    os.utime(videos / "a.mp4", ns=(7, 7))
    code, out, _ = encode()
    assert code == 0
    assert "1 file touched or moved" in out
    assert "comparing" in out
    _, out, _ = encode()
    assert "touched or moved" not in out
    assert "comparing" not in out


def test_videos_without_source_are_named_whether_there_is_work_or_not(encode, videos, make_videos, tmp_path):
    assert encode()[0] == 0
    assert "prune" not in encode()[1]
    (videos / "b.mp4").unlink()
    line = f"1 video of the cache has lost its source (b.mp4); `vidlat prune {tmp_path}/l.zarr` drops it"
    code, out, _ = encode()
    assert code == 0
    assert "Nothing to do" in out
    assert line in out
    make_videos(videos, {"new.mp4": 4})
    code, out, _ = encode()
    assert code == 0
    assert "1 video, 4 frames" in out
    assert line in out


def test_only_the_first_of_many_videos_without_source_are_named(encode, videos, make_videos):
    make_videos(videos, {f"x{number}\n.mp4": 1 for number in range(5)})
    assert encode()[0] == 0
    for path in videos.glob("x*"):
        path.unlink()
    assert r"(x0\n.mp4, x1\n.mp4, x2\n.mp4, ...); `vidlat prune" in encode()[1]


def test_failures_say_where_they_are_listed_again(encode, videos, tmp_path):
    (videos / "empty.mp4").write_bytes(b"")
    code, out, _ = encode()
    assert code == 3
    assert f"`vidlat ls {tmp_path}/l.zarr --failed`" in out


def unfolded(out):
    """The text of tables, with line breaks inside cells undone."""
    return re.sub(r"[\s│]", "", out)


def write_labels(path, *rows):
    path.write_text("\n".join(("video_id,subject,EF", *rows)) + "\n")
    return path


def test_labels_are_stored_with_the_videos_and_unmatched_ones_are_counted(encode, tmp_path):
    labels = write_labels(tmp_path / "l.csv", "a.mp4,S1,0.55", "deep/c.mp4,S2,", "lost.mp4,S3,0.4")
    code, out, _ = encode("--labels", labels)
    assert code == 0
    records = open_cache(tmp_path / "l.zarr").records()
    assert {
        name: (record.annotation.subject, record.annotation.labels) for name, record in records.items()
    } == {
        "a.mp4": ("S1", {"EF": "0.55"}),
        "b.mp4": ("", {}),
        "deep/c.mp4": ("S2", {}),
    }
    assert (
        "labels: 2 of 3 videos, 1 by file name, 1 by path labels: 1 video without a row: b.mp4 "
        "labels: 1 row without a video: lost.mp4 "
    ) in out


def test_a_table_of_many_more_videos_takes_a_line(encode, tmp_path):
    rows = [f"video{number}.mp4,," for number in range(10_000)]
    _, out, _ = encode("--labels", write_labels(tmp_path / "l.csv", "a.mp4,S1,0.55", *rows))
    assert "labels: 10,000 rows without a video: video0.mp4, video1.mp4, video10.mp4 and 9997 more " in out
    assert "video1000" not in out


def test_labels_of_no_video_are_refused_before_anything_is_encoded(encode, tmp_path):
    code, _, err = encode("--labels", write_labels(tmp_path / "l.csv", "p1,S1,0.55", "p2,S1,0.5"))
    assert code == 1
    assert (
        "Error: --labels: none of the 2 rows is about one of the 3 videos: the table names 'p1', ..., the "
        "videos are 'a.mp4', ...; expected their ids or file names, with or without extension"
    ) in err
    assert not (tmp_path / "l.zarr").exists()


def test_new_labels_are_recorded_without_encoding_anything(encode, tmp_path, monkeypatch):
    encode("--labels", write_labels(tmp_path / "l.csv", "a.mp4,S1,0.55"))
    before = open_cache(tmp_path / "l.zarr").records()
    monkeypatch.setattr("vidlat.pipeline.encode_videos.open_dask_executor", None)
    code, out, _ = encode("--labels", write_labels(tmp_path / "l.csv", "a.mp4,S1,0.6", "b.mp4,S2,0.5"))
    assert code == 0
    assert "New labels of 2 videos recorded." in out
    after = open_cache(tmp_path / "l.zarr").records()
    assert after["a.mp4"].annotation.labels == {"EF": "0.6"}
    assert after["b.mp4"].annotation.subject == "S2"
    assert [record.start for record in after.values()] == [record.start for record in before.values()]
    assert "New labels" not in encode()[1]  # not given: the cache keeps what it has
    assert open_cache(tmp_path / "l.zarr").records()["a.mp4"].annotation.labels == {"EF": "0.6"}


def test_new_labels_are_told_of_beside_a_video_to_encode_and_new_videos_without_any_too(
    encode, videos, tmp_path, make_videos
):
    table = tmp_path / "l.csv"
    encode("--labels", write_labels(table, "a.mp4,S1,0.55", "b.mp4,S2,0.5", "deep/c.mp4,S3,0.6"))
    drop = ["prune", str(tmp_path / "l.zarr"), "--yes", "--drop", "b.mp4"]
    assert CliRunner().invoke(commands, drop).exit_code == 0
    make_videos(videos, {"new.mp4": 6})
    said = "1 new video has no labels and no subject, which others in "
    out = encode("--dry-run", "--restore", "b.mp4")[1]
    assert "2 new videos have no labels and no subject, which others in" in out
    assert "(b.mp4, new.mp4); `vidlat encode --labels TABLE` records them" in out
    assert said not in (out := encode("--labels", write_labels(table, "a.mp4,S1,0.7"))[1])
    assert "1 video to encode" in out
    assert "New labels of 1 video recorded." in out
    assert open_cache(tmp_path / "l.zarr").records()["a.mp4"].annotation.labels == {"EF": "0.7"}
    out = encode("--restore", "b.mp4")[1]
    assert said in out
    assert "(b.mp4); `vidlat encode --labels TABLE`" in out
    assert "no subject" not in encode()[1]


def test_a_cache_of_failures_alone_is_refused_with_other_settings_and_a_way_out(encode, encode_again, videos):
    for name in LENGTHS:
        (videos / name).write_bytes(b"no video")
    assert encode()[0] == 1
    code, _, err = encode_again("--size", 32)
    assert (code, err.count("\n")) == (1, 1)
    assert "(size: cache has 16, you asked 32): use the same settings or another --out" in err
    assert "it holds no video (failed: 3), so it can be removed" in err


def test_another_vae_is_told_by_its_name_without_hashes(encode, encode_again, small_vae):
    encode()
    code, _, err = encode_again("--vae", "tiny", "--size", 32)
    assert code == 1
    assert (
        f"made with other settings (vae: cache has {small_vae}, you asked tiny; size: cache has 16, you"
        in err
    )
    assert "encoder_" not in err
    assert "removed" not in err


def test_changed_video_keeps_labels_that_are_not_given_again(encode, videos, tmp_path, make_videos):
    encode("--labels", write_labels(tmp_path / "l.csv", "a.mp4,S1,0.55"))
    make_videos(videos, {"a.mp4": 8})
    assert encode()[0] == 0
    record = open_cache(tmp_path / "l.zarr").records()["a.mp4"]
    assert (record.num_frames, record.annotation.subject, record.annotation.labels) == (
        8,
        "S1",
        {"EF": "0.55"},
    )


def test_manifest_encodes_time_ranges_with_their_labels(encode, videos, tmp_path):
    (videos / "m.csv").write_text("path,id,start_seconds,stop_seconds,EF\ndeep/c.mp4,c,0.2,0.4,0.5\n")
    code, _, _ = encode(inputs=videos / "m.csv")
    assert code == 0
    (record,) = open_cache(tmp_path / "l.zarr").records().values()
    assert (record.video_id, record.num_frames, record.annotation.labels) == ("c", 5, {"EF": "0.5"})
    assert "Nothing to do" in encode(inputs=videos / "m.csv")[1]


def test_hashed_ids_are_shown_with_their_path_only_on_request_and_stored_without(
    encode, encode_again, videos, tmp_path, monkeypatch
):
    monkeypatch.setattr(display.console, "width", 300)  # so that no cell is folded
    (videos / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "ef.csv").write_text("video_id,EF\nmiss-doe.mp4,55\na.mp4,50\n")
    code, out, err = encode("--ids", "hash", "--labels", tmp_path / "ef.csv")
    assert code == 3
    assert ("broken" in unfolded(out + err), "doe" in unfolded(out + err)) == (False, False)
    assert "labels: 1 row without a video 4 videos" in out
    code, out, _ = encode("--ids", "hash", "--labels", tmp_path / "ef.csv", "--show-paths")
    assert code == 3
    assert str(videos / "broken.mp4") in unfolded(out)
    assert "labels: 1 row without a video: miss-doe.mp4" in out
    (tmp_path / "ef.csv").write_text("video_id,EF\nmiss-doe.mp4,55\n")
    code, _, err = encode("--ids", "hash", "--labels", tmp_path / "ef.csv")
    assert (code, "doe" in err) == (1, False)
    cache = open_cache(tmp_path / "l.zarr")
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in [*cache.records(), *cache.failures()])
    code, _, err = encode("--ids", "path")
    assert code == 1
    assert "made with --ids hash, you asked path" in err
    assert encode("--show-paths")[0] == 3
    code, _, err = encode_again()
    assert (code, err.count("\n")) == (1, 1)
    assert "is part of neither this package nor a hub; give it by --vae PATH" in err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--crop", "1,2,3", "crop: got '1,2,3'; expected none, auto, or X,Y,W,H"),
        ("--crop", "0,0,0,5", "crop: got"),
        ("--intensity", "bright", "intensity: got 'bright'; expected auto"),
        ("--intensity", "5,5", "intensity: got"),
        ("--fps", "-1", "fps: got -1.0; expected at least 0"),
    ],
)
def test_invalid_preprocessing_settings_are_refused(encode, flag, value, message):
    code, _, err = encode(flag, value)
    assert code == 2
    assert message in err


@pytest.fixture
def encode_again(scheduler, videos, tmp_path):
    """encode_again(*flags) into l.zarr without any setting: exit code, output in one line, errors."""

    def encode_again(*more):
        fixed = ("--input", videos, "--out", tmp_path / "l.zarr", "--batch", 3, "--scheduler", scheduler)
        answer = CliRunner().invoke(commands, ["encode", *map(str, (*fixed, *more))])
        return answer.exit_code, " ".join(answer.stdout.split()), answer.stderr

    return encode_again


OTHER_SETTINGS = {
    "crop": "0,0,8,8", "fps": "5", "intensity": "0,200", "fit": "stretch", "stack": "8", "overlap": "4",
    "blend": "center", "stretch": "2", "stretch-by": "linear", "keepbits": "7",
    "deinterlace": "off", "axes": "THW",
}  # fmt: skip


def test_an_encode_without_settings_takes_those_of_the_cache(
    encode, encode_again, videos, tmp_path, make_videos
):
    flags = [text for name, value in OTHER_SETTINGS.items() for text in (f"--{name}", value)]
    code, out, err = encode(*flags)
    assert (code, "taken from" in out) == (0, False), err
    make_videos(videos, {"new.mp4": 20})
    code, out, err = encode_again("--dry-run")
    assert (code, "taken from" in out, cell(out, "videos to encode")) == (0, True, "1"), err
    code, out, err = encode_again()
    assert code == 0, err
    (line,) = re.findall(r"Settings taken from \S+l.zarr: (.*?) 1 video to encode, 3 already done", out)
    assert line.startswith("vae ")
    told = dict(setting.split(" ") for setting in re.split(r", (?=[a-z])", line))
    expected = {name.replace("-", "_"): value for name, value in OTHER_SETTINGS.items()}
    assert told | {"fps": "5"} == expected | {"vae": told["vae"], "size": "16"}
    added_to = open_cache(tmp_path / "l.zarr")
    shutil.move(tmp_path / "l.zarr", tmp_path / "before.zarr")
    assert encode(*flags)[0] == 0
    fresh = open_cache(tmp_path / "l.zarr")
    assert len(fresh) == len(added_to) == 4
    for video_id, record in fresh.records().items():
        assert record.latents.frame_crc32c == added_to.records()[video_id].latents.frame_crc32c


def test_settings_in_a_file_count_as_given(encode, encode_again, tmp_path):
    encode()
    (tmp_path / "c.yaml").write_text("encode: {size: 32, fps: 0, keepbits: 7}")
    code, _, err = encode_again("--config", tmp_path / "c.yaml")
    assert (code, err.count("\n")) == (1, 1)
    assert "(keepbits: cache has 10, you asked 7; size: cache has 16, you asked 32)" in err
    assert "Nothing to do" in encode_again("--config", tmp_path / "c.yaml", "--size", 16, "--keepbits", 10)[1]


def test_a_vae_that_is_gone_or_another_is_asked_for(encode_again, small_vae, tmp_path):
    vae = tmp_path / "own.safetensors"
    shutil.copy(small_vae, vae)
    fixed = ("--vae", vae, "--size", 16, "--device", "cpu")
    assert encode_again(*fixed)[0] == 0
    vae.rename(tmp_path / "moved.safetensors")
    code, _, err = encode_again()
    assert (code, err.count("\n")) == (1, 1)
    assert re.search(
        r"the VAE of these latents, \S+own.safetensors, is no longer at \S+own.safetensors; give it by --vae",
        err,
    )
    assert "Nothing to do" in encode_again("--vae", tmp_path / "moved.safetensors")[1]
    shutil.copy(resolve_weights("tiny"), vae)
    code, _, err = encode_again()
    assert (code, err.count("\n")) == (1, 1)
    assert "own.safetensors: has another encoder than the latents were made with" in err


@pytest.mark.parametrize("flags", [("--crop", "0,0,8,8"), ("--fps", "5"), ("--intensity", "0,200")])
def test_preprocessing_settings_are_part_of_the_cache(encode, flags):
    assert encode(*flags)[0] == 0
    assert "Nothing to do" in encode(*flags)[1]
    assert "Nothing to do" in encode()[1]
    code, _, err = encode(flags[0], "auto" if flags[0] == "--crop" else "0" if flags[0] == "--fps" else "ct")
    assert code == 1
    assert f"({flags[0][2:]}: cache has" in err


def test_parts_encode_their_own_videos_and_an_empty_part_gets_an_empty_cache(encode, videos, tmp_path):
    def encode_part(number, count):
        shutil.rmtree(tmp_path / "l.zarr", ignore_errors=True)
        code, out, err = encode("--part", f"{number}/{count}")
        assert code == 0, err
        return out, [*open_cache(tmp_path / "l.zarr").records()]

    count = 7  # more than there are videos
    parts = [encode_part(number, count) for number in range(1, count + 1)]
    assert sorted(video_id for _, ids in parts for video_id in ids) == sorted(LENGTHS)
    for number, (out, ids) in enumerate(parts, start=1):
        said = f"part {number}/{count}: {len(ids)} video" if ids else f"Part {number}/{count} has no video;"
        assert said in out


def test_a_part_that_is_none_is_refused_in_one_line(encode, tmp_path):
    code, _, err = encode("--part", "5/4")
    assert (code, err.count("\n")) == (2, 1)
    assert "--part: got '5/4'; expected I/N with I from 1 to N" in err
    assert not (tmp_path / "l.zarr").exists()


def test_a_part_whose_videos_all_fail_is_no_wrong_folder(encode, videos):
    for name in LENGTHS:
        (videos / name).write_bytes(b"")
    assert encode("--part", "1/1")[0] == 3
