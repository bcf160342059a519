"""`vidlat info` and `vidlat ls` as a user types them, for caches in every state."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.store.caches import SCHEMA, SETTINGS, failure_of, random_posterior, record_of, writer_of
from tests.store.damage import rewrite
from tests.thorough import some_of
from vidlat.cli import commands
from vidlat.commands.info import _values
from vidlat.commands.ls import _format_rate
from vidlat.store import summary
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.reader import LatentCache
from vidlat.store.summary import _label_values
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.types import Annotation

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "info.md").read_text()
PARTIAL = "videos/records/.0af0.partial"
TRACEBACK = 'Traceback (most recent call last):\n  File "reader.py", line 3\nValueError: no frame'


def vidlat(*arguments):
    """Exit code, standard output, standard error."""
    answer = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


def num_rows(file):
    return pq.ParquetFile(file).metadata.num_rows


def json_of(*arguments):
    """What a command prints with --json."""
    code, out, err = vidlat(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.fixture
def videos(tmp_path):
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


@pytest.fixture
def cache(tmp_path, videos):
    """`a` with 12 frames at 25 per second, `b` with 20, a warning and no rate; failures of two kinds."""
    path = tmp_path / "l.zarr"
    create_cache(path, SCHEMA)
    a, b = random_posterior(3), random_posterior(5)
    start, _ = (first for first, _ in write_shards(path, writer_of(path).reserve(2), [a, b]))
    annotation = Annotation("S1", {"EF": "0.55"})
    records = [
        record_of("a.mp4", start, a, fps=25.0, annotation=annotation, **source_of(videos / "a.mp4", 10)),
        record_of("b.mp4", 4, b, fps=0.0, warnings=("cut off",), **source_of(videos / "b.mp4", 20)),
    ]
    writer_of(path).commit(records)
    broken = dataclasses.replace(failure_of("c.mp4"), traceback=TRACEBACK)
    empty = dataclasses.replace(failure_of("d\n.mp4", "is an empty file"), kind="empty")
    writer_of(path).record_failures([broken, empty])
    return path


def source_of(path, num_bytes):
    path.write_bytes(b"x" * num_bytes)
    status = path.stat()
    return {
        "source_path": os.fspath(path),
        "source_num_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
    }


def add_orphan_shard(path):
    """What an encode leaves behind when it is killed between writing shards and committing."""
    write_shards(path, writer_of(path).reserve(1), [random_posterior(8)])


def size_of(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_info_shows_what_a_cache_holds(cache):
    code, out, err = vidlat("info", cache)
    assert (code, err) == (0, "")
    facts = dict(re.findall(r"^ *([\w ]+?)  (.*)$", out, re.MULTILINE))
    assert facts["videos"] == "2 (32 frames, 0.48 s of video)"
    assert facts["with warnings"] == "1: b.mp4"
    assert (facts["changed since"], facts["vanished since"]) == ("0", "0")
    assert "  failed  empty 1: d\\n.mp4\n" in out
    assert "  failed  unreadable 1: c.mp4\n" in out
    assert facts["settings"] == (
        "size 12, fit crop, crop none, all frames, intensity auto, stack 4, encoded in float32"
    )
    assert not facts.keys() & {"in use by", "unfinished", "inaccessible"}


def test_info_as_json_is_one_object_in_plain_units(cache):
    answer = json_of("info", cache)
    assert (answer["num_videos"], answer["num_frames"], answer["seconds"]) == (2, 32, 12 / 25)
    assert answer["num_bytes"] == size_of(cache)
    assert (answer["num_latent_frames"], answer["num_used_latent_frames"]) == (16, 8)
    assert (answer["num_dead_shards"], answer["num_dead_bytes"]) == (0, 0)
    assert answer["num_failed"] == 2
    assert answer["failures"] == {
        "empty": {"num_videos": 1, "first": ["d\n.mp4"]},
        "unreadable": {"num_videos": 1, "first": ["c.mp4"]},
    }
    assert answer["with_warnings"] == {"num_videos": 1, "first": ["b.mp4"]}
    assert answer["cache_id"] == SETTINGS.cache_id
    assert answer["schema"]["settings"]["size"] == 12
    assert answer["holder"] is None
    assert answer["unfinished"] == []


def test_documentation_lists_exactly_the_fields_of_the_json(cache):
    with open_writer(cache, "vidlat encode"):
        answer = json_of("info", cache)
    expected = {f"holder.{name}" for name in answer["holder"]} | {"with_warnings.num_videos"}
    expected |= (
        {"with_warnings.first"} | {f"labels.{name}" for name in answer["labels"]["EF"]} | answer.keys()
    )
    documented = set(re.findall(r"^\| `([\w.]+)` \|", PAGE.split("## ls")[0], re.MULTILINE))
    assert documented == expected
    (video, *_), (failure, *_) = json_of("ls", cache), json_of("ls", cache, "--failed")
    documented = set(re.findall(r"^\| `([\w.]+)` \|", PAGE.split("## ls")[1], re.MULTILINE))
    assert documented == video.keys() | failure.keys()


def test_changed_and_vanished_sources_are_distinguished(cache, videos):
    assert [row["state"] for row in json_of("ls", cache)] == ["ok", "warnings"]
    (videos / "a.mp4").write_bytes(b"y" * 11)
    (videos / "b.mp4").unlink()
    answer = json_of("info", cache)
    assert answer["num_sources_checked"] == 2
    assert answer["stale"] == {"num_videos": 1, "first": ["a.mp4"]}
    assert answer["vanished"] == {"num_videos": 1, "first": ["b.mp4"]}
    assert [row["state"] for row in json_of("ls", cache)] == ["stale", "vanished"]
    assert "changed since  1: a.mp4\n" in vidlat("info", cache)[1]


def test_source_of_the_same_size_and_another_time_is_stale(cache, videos):
    os.utime(videos / "a.mp4", ns=(0, 0))
    assert json_of("info", cache)["stale"]["first"] == ["a.mp4"]


def test_source_in_an_inaccessible_folder_is_not_called_vanished(cache, videos, monkeypatch):
    stat = os.stat

    def closed(path, *more, **options):
        if str(path).startswith(str(videos)):
            raise PermissionError(13, "Permission denied")
        return stat(path, *more, **options)

    monkeypatch.setattr("vidlat.store.sources.os.stat", closed)
    answer = json_of("info", cache)
    assert (answer["unknown"]["num_videos"], answer["vanished"]["num_videos"]) == (2, 0)
    assert "inaccessible  2: a.mp4, b.mp4\n" in vidlat("info", cache)[1]


def test_source_whose_name_is_not_unicode_is_found(cache, videos):
    name = os.fsdecode(b"caf\xe9.mp4")
    source = source_of(videos / name, 5)
    writer_of(cache).commit([record_of("caf%E9.mp4", 0, random_posterior(3), **source)])
    rows = {row["video_id"]: row for row in json_of("ls", cache)}
    assert rows["caf%E9.mp4"]["state"] == "ok"
    assert rows["caf%E9.mp4"]["source_path"].endswith("caf\\udce9.mp4")  # letters, as in the record


def test_only_some_of_many_sources_are_checked_spread_evenly_and_info_says_so(cache, monkeypatch):
    numbers, start = range(10), writer_of(cache).reserve(10)
    records = [
        record_of(f"m{n}.mp4", start + 8 * n, random_posterior(1), source_path="/gone") for n in numbers
    ]
    writer_of(cache).commit(records)
    monkeypatch.setattr(summary, "MOST_SOURCES_CHECKED", 4)
    answer = json_of("info", cache)
    assert answer["num_sources_checked"] == 4
    assert answer["vanished"]["first"] == ["m1.mp4", "m4.mp4", "m7.mp4"]
    assert "vanished since  3: m1.mp4, m4.mp4, m7.mp4 (of 4 checked" in vidlat("info", cache)[1]


def test_shards_without_a_video_are_counted_as_what_prune_frees(cache):
    before = size_of(cache)
    add_orphan_shard(cache)
    answer = json_of("info", cache)
    assert answer["num_dead_shards"] == 2  # of mean and of std
    grown = size_of(cache) - before
    assert 0 < answer["num_dead_bytes"] <= grown
    assert answer["num_bytes"] == size_of(cache)
    assert "2 shards without a video: `vidlat prune` frees it" in vidlat("info", cache)[1]


def test_writer_is_named_and_its_unfinished_work_is_no_problem(cache):
    add_orphan_shard(cache)
    with open_writer(cache, "vidlat encode"):
        (cache / PARTIAL).touch()
        answer, (_, out, _) = json_of("info", cache), vidlat("info", cache)
    assert (answer["holder"]["purpose"], answer["holder"]["pid"]) == ("vidlat encode", os.getpid())
    assert answer["holder"]["is_alive"]
    assert answer["unfinished"] == []
    assert f"in use by  vidlat encode (process {os.getpid()} on " in out
    assert "without a video: being written, or left over" in out
    assert json_of("info", cache)["holder"] is None


def test_leftovers_of_a_killed_writer_are_reported(cache):
    kill = (
        "import os, sys; from pathlib import Path; from vidlat.store.writing.opening import open_writer\n"
        f"with open_writer(Path({str(cache)!r}), 'vidlat encode'): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", kill], check=False).returncode == 9
    (cache / PARTIAL).touch()
    grown = json.loads((cache / "mean/zarr.json").read_text())
    grown["shape"][1] += SCHEMA.shard_frames
    (cache / "mean/zarr.json").write_text(json.dumps(grown))
    answer = json_of("info", cache)
    assert not answer["holder"]["is_alive"]
    dead, growth, partial = answer["unfinished"]
    assert "ended without releasing the cache" in dead
    assert "mean has 24, std has 16" in growth
    assert PARTIAL in partial
    assert vidlat("info", cache)[1].count("unfinished  ") == 3


def test_ls_prints_a_line_per_video(cache):
    code, out, err = vidlat("ls", cache)
    assert (code, err) == (0, "")
    header, *lines = [line.split() for line in out.splitlines()]
    assert header == ["state", "frames", "fps", "seconds", "pixels", "video"]
    assert lines == [
        ["ok", "12", "25.00", "0.48", "640", "x", "480", "a.mp4"],
        ["warnings", "20", "-", "-", "640", "x", "480", "b.mp4"],
    ]


def test_ls_shows_a_column_for_each_label(cache):
    _, out, _ = vidlat("ls", cache, "--labels")
    assert [line.split()[5 if line.startswith("state") else 7 :] for line in out.splitlines()] == [
        ["subject", "EF", "video"],
        ["S1", "0.55", "a.mp4"],
        ["-", "-", "b.mp4"],
    ]
    assert vidlat("ls", cache, "--labels", "--failed")[0] == 2


def test_info_counts_the_values_of_each_label(cache):
    assert json_of("info", cache)["labels"] == {
        "subject": {"num_videos": 1, "num_values": 1, "counts": {"S1": 1}, "lowest": None, "highest": None},
        "EF": {"num_videos": 1, "num_values": 1, "counts": {"0.55": 1}, "lowest": 0.55, "highest": 0.55},
    }
    lines = "labels  subject: S1 (1 video); 1 video without it", "EF: 0.55 (1 video); 1 video without it\n"
    assert f"\n{'':16}".join(lines) in vidlat("info", cache)[1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([f"{n}" for n in range(20)], (20, 0.0, 19.0)),
        ([f"p{n}" for n in range(20)], (20, None, None)),
        (["1", "nan"], (2, None, None)),
    ],
)
def test_a_label_of_numbers_has_a_range(values, expected):
    found = _label_values([Annotation("", {"EF": value}) for value in [*values, values[-1]]])["EF"]
    assert (found.num_values, found.lowest, found.highest) == expected
    assert found.num_videos == len(values) + 1
    assert next(iter(found.counts.items())) == (values[-1], 2)
    assert len(found.counts) <= 10


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["10", "9", "11", "9.5", "12", "-1"], "-1 (1 video), 9 (1), 9.5 (1), 10 (1), 11 (1), 12 (1)"),
        (["10", "9", "10", "11"], "10 (2 videos), 9 (1), 11 (1)"),
        (["10", "9", "p1"], "10 (1 video), 9 (1), p1 (1)"),
        (["10", "9", "nan"], "10 (1 video), 9 (1), nan (1)"),
    ],
)
def test_of_equally_common_values_numbers_stand_by_size_and_texts_by_the_alphabet(values, expected):
    found = _label_values([Annotation("", {"grade": value}) for value in values])["grade"]
    assert _values(found.counts) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"stack": 4}, "4 video frames per latent frame, 4 in height and width"),
        ({"stack": 16, "overlap": 4}, "4 video frames per latent frame, 4 in height and width"),
        (
            {"stack": 4, "stretch": 4},
            "1 video frame per latent frame (the VAE compresses time by 4), 4 in height and width",
        ),
        (
            {"stack": 8, "stretch": 8},
            "0.5 video frames per latent frame (the VAE compresses time by 4), 4 in height and width",
        ),
    ],
)
def test_info_says_how_many_frames_of_the_video_a_latent_frame_holds(tmp_path, settings, expected):
    settings = dataclasses.replace(SETTINGS, **settings)
    create_cache(tmp_path / "l.zarr", dataclasses.replace(SCHEMA, settings=settings))
    assert f"  compression  {expected}\n" in vidlat("info", tmp_path / "l.zarr")[1]


def test_ls_as_json_is_one_array(cache, videos):
    first, second = json_of("ls", cache)
    assert first == {
        "video_id": "a.mp4",
        "num_frames": 12,
        "fps": 25.0,
        "seconds": 0.48,
        "height": 480,
        "width": 640,
        "source_path": str(videos / "a.mp4"),
        "subject": "S1",
        "labels": {"EF": "0.55"},
        "state": "ok",
        "warnings": [],
    }
    assert (second["fps"], second["seconds"], second["warnings"]) == (None, None, ["cut off"])


def test_failures_are_listed_with_their_reason_and_traceback_on_request(cache):
    _, out, _ = vidlat("ls", cache, "--failed")
    assert [line.split("  ") for line in re.sub(" {3,}", "  ", out).splitlines()] == [
        ["video", "kind", "reason"],
        ["c.mp4", "unreadable", "no frame decodes"],
        ["d\\n.mp4", "empty", "is an empty file"],
    ]
    _, out, _ = vidlat("ls", cache, "--failed", "--traceback")
    assert '      File "reader.py", line 3\n    ValueError: no frame\n' in out
    rows = json_of("ls", cache, "--failed")
    assert [row["video_id"] for row in rows] == ["c.mp4", "d\n.mp4"]
    assert [row["traceback"] for row in rows] == [TRACEBACK, ""]


def test_traceback_needs_failed(cache):
    code, _, err = vidlat("ls", cache, "--traceback")
    assert code == 2
    assert "--traceback goes with --failed" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--failed", "--dropped"], "give --failed or --dropped, not both"),
        (
            ["--where", "EF > 0", "--dropped"],
            "--where chooses among videos; leave --failed",
        ),
        (["--labels", "--json"], "--labels adds columns to the videos; --json holds them anyway"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(cache, flags, message):
    code, _, err = vidlat("ls", cache, *flags)
    assert code == 2
    assert message in err


def test_videos_are_listed_by_a_condition(cache):
    def listed(where):
        return [row["video_id"] for row in json_of("ls", cache, "--where", where)]

    every = [row["video_id"] for row in json_of("ls", cache)]
    assert listed("num_frames > 0") == every
    assert listed("EF > 0.5 and video_id == 'a.mp4'") == ["a.mp4"]
    assert listed("fps == 0") == [row["video_id"] for row in json_of("ls", cache) if row["fps"] is None]
    assert vidlat("ls", cache, "--where", "EF > 0.5")[1].count("\n") == 2
    for where, said in {
        "EV > 0.5": "--where: no video has a label 'EV'; known are subject, video_id, num_frames, fps, EF",
        "EF": "--where: got 'EF'; expected comparisons of labels",
        "EF > 1": "--where: EF > 1 holds for none of 2 videos",
    }.items():
        code, _, err = vidlat("ls", cache, "--where", where)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err
    assert vidlat("ls", cache, "--where", "EF > 0", "--failed")[0] == 2


def test_empty_cache_is_listed_as_empty(tmp_path):
    create_cache(tmp_path / "l.zarr", SCHEMA)
    assert json_of("ls", tmp_path / "l.zarr") == []
    assert json_of("ls", tmp_path / "l.zarr", "--failed") == []
    assert json_of("info", tmp_path / "l.zarr")["num_videos"] == 0
    assert vidlat("ls", tmp_path / "l.zarr")[1].count("\n") == 1


@pytest.mark.parametrize("command", ["info", "ls"])
def test_path_that_is_not_a_cache_is_refused_in_one_line(command, tmp_path):
    code, out, err = vidlat(command, tmp_path / "missing")
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_reader_of_the_output_may_stop_early(cache):
    numbers = range(3000)
    start = writer_of(cache).reserve(len(numbers))
    records = [
        record_of(f"{n}.mp4", start + 8 * n, random_posterior(1), source_path="/gone") for n in numbers
    ]
    writer_of(cache).commit(records)
    code = "import sys; sys.argv[0] = 'vidlat'; from vidlat.cli import main; main()"
    for name, *flags in some_of((["ls"], ["ls", "--json"], ["ls", "--failed"], ["info"])):
        command = [sys.executable, "-c", code, name, str(cache), *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b"", command


def test_info_and_ls_build_no_records_and_load_nothing_heavy(cache, monkeypatch):
    monkeypatch.setattr(LatentCache, "records", None)
    heavy = ["torch", "monai", "tensorstore", "zarr", "distributed", "dask", "av", "pyarrow.dataset"]
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom vidlat.cli import commands\n"
        f"for arguments in (['info'], ['info', '--json'], ['ls'], ['ls', '--failed']):\n"
        f"    answer = CliRunner().invoke(commands, [arguments[0], {str(cache)!r}, *arguments[1:]])\n"
        "    assert answer.exit_code == 0, answer\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
    assert vidlat("info", cache)[0] == vidlat("ls", cache)[0] == 0


@pytest.mark.parametrize(
    ("fps", "text"), [(25.0, "25.00"), (0.0005, "5.0e-04"), (1e6, "1.0e+06"), (0.01, "0.01")]
)
def test_implausible_rate_is_shown_and_fits_its_column(fps, text):
    assert _format_rate(fps) == text


def test_info_of_records_with_negative_ranges_is_one_line(cache):
    for file in (cache / "videos/records").glob("*.parquet"):
        rewrite(file, start=[-4] * num_rows(file), stop=[-1] * num_rows(file))
    code, _, err = vidlat("info", cache)
    assert (code, err.count("\n")) == (1, 1)
    assert "a.mp4: its record names latent frames -4--1" in err


@pytest.mark.parametrize("command", ["preview", "decode"])
def test_vae_path_that_leads_to_another_file_ends_a_command_in_one_line(tmp_path, command):
    path = tmp_path / "l.zarr"
    create_cache(path, dataclasses.replace(SCHEMA, vae_path="/etc/passwd"))
    given = (path,) if command == "preview" else ("--latents", path)
    code, _, err = vidlat(command, *given, "--out", tmp_path / "out.png")
    assert (code, err.count("\n")) == (1, 1)
    assert "/etc/passwd: cannot be read as weights" in err
    assert "root" not in err  # nothing of the file is shown
