"""Damage planted in a cache, one kind a test: verify names it, and blames nobody else."""

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from caches import SCHEMA, add_videos, failure_of, random_posterior, record_of, writer_of
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vidlat.cli.main import commands
from vidlat.errors import StoreError
from vidlat.store.files import locked
from vidlat.store.verify import KINDS, Problem, count_hole_frames, verify_cache
from vidlat.store.writer import create_cache, write_shards

LENGTHS = {"a.mp4": 5, "b.mp4": 20, "c/[b].mp4": 3}
"""Shards of 8 latent frames: a.mp4 lies in 0 (0-5), b.mp4 in 1 to 3 (8-28), c in 4 (32-35)."""

MEAN_B, STD_B = "mean/c/0/2/0/0", "std/c/0/2/0/0"
RECORD_B = "videos/records/000000000002-000000000002.parquet"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A cache of three videos in three commits, one failure; never written to again."""
    path = tmp_path_factory.mktemp("verify") / "l.zarr"
    create_cache(path, SCHEMA)
    for seed, (video_id, length) in enumerate(LENGTHS.items()):
        add_videos(path, {video_id: random_posterior(length, seed)})
    writer_of(path).record_failures([failure_of("d.mp4")])
    return path


@pytest.fixture
def path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "l.zarr")


def found(path):
    """(where, kind) of every problem; each must be one line and of a kind that is explained."""
    problems = list(verify_cache(path))
    assert all(problem.kind in KINDS and "\n" not in problem.what for problem in problems)
    return [(problem.where, problem.kind) for problem in problems]


def flip(file, position, bit=0):
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def rewrite(file, **columns):
    """Replace whole columns of a record file; None removes one."""
    table = pq.ParquetFile(file).read()
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        if values is None:
            table = table.remove_column(index)
        else:
            field = table.schema.field(name)
            table = table.set_column(index, field, pa.array(values, field.type))
    pq.write_table(table, file, compression="zstd")


def edit_json(file, change):
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def test_undamaged_cache_has_no_problem(path):
    read = []
    assert list(verify_cache(path, lambda *video: read.append(video))) == []
    assert read == [(video_id, 3) for video_id in LENGTHS]


def test_empty_cache_has_no_problem(cache_path):
    assert found(cache_path) == []
    assert count_hole_frames(cache_path) == 0


def test_verifying_changes_no_file(path):
    def state():
        return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in path.rglob("*")}

    flip(path / MEAN_B, 3)
    before = state()
    assert found(path)
    assert state() == before


def test_holes_are_counted_and_no_problem(path):
    writer_of(path).reserve(2)
    start = writer_of(path).reserve(1)
    write_shards(path, start, [random_posterior(8)])  # never committed
    assert found(path) == []
    assert count_hole_frames(path) == 5 * 8 + 3 * 8 - sum(LENGTHS.values())


def test_video_replaced_by_a_later_record_is_not_read_any_more(path):
    add_videos(path, {"b.mp4": random_posterior(2)})
    (path / MEAN_B).unlink()
    assert found(path) == []


@pytest.mark.parametrize("shard", [MEAN_B, STD_B])
@pytest.mark.parametrize("position", [0, 100, -1, -40])
def test_flipped_bit_in_a_shard_is_damage(path, shard, position):
    flip(path / shard, position)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("b.mp4", "damaged")
    assert shard in problem.what
    assert problem.what.startswith(shard.partition("/")[0])


def test_damage_is_told_by_the_frames_it_hits(path):
    flip(path / MEAN_B, 100)  # the first of the two chunks
    flip(path / STD_B, -1)  # the index: both are lost
    problems = list(verify_cache(path))
    assert [problem.what.split(":")[0] for problem in problems] == [
        "mean, latent frames 16-20",
        "std, latent frames 16-24",
    ]


@given(
    st.sampled_from([f"{name}/c/0/{shard}/0/0" for name in ("mean", "std") for shard in range(5)]),
    st.integers(0, 10**6),
    st.integers(0, 7),
)
def test_any_bit_of_any_shard_is_missed_by_its_video_alone(pristine, shard, position, bit):
    owner = ["a.mp4", "b.mp4", "b.mp4", "b.mp4", "c/[b].mp4"][int(shard.split("/")[3])]
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(pristine, Path(folder) / "l.zarr")
        flip(path / shard, position % (path / shard).stat().st_size, bit)
        problems = found(path)
    assert problems
    assert set(problems) <= {(owner, "damaged"), (owner, "missing"), (owner, "checksum")}


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (lambda shard: shard.unlink(), "missing", "latent frames 16-24: mean/c/0/2/0/0 is not there"),
        (
            lambda shard: shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2]),
            "damaged",
            "16-24",
        ),
        (lambda shard: shard.write_bytes(b""), "damaged", "16-24"),
        (lambda shard: shard.write_bytes(b"\xff" * 5000), "damaged", "16-24"),
    ],
    ids=["deleted", "half", "empty", "rubbish"],
)
def test_shard_that_is_not_whole_is_told(path, damage, kind, what):
    damage(path / MEAN_B)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("b.mp4", kind)
    assert what in problem.what


def write_latents(path, frames, value):
    """As a program would that knows nothing of vidlat: with zarr, its checksums right."""
    array = zarr.open_array(path / "mean", mode="r+")
    array[:, frames] = value


def test_chunk_of_nan_is_missing(path):
    write_latents(path, slice(8, 12), np.nan)
    (problem,) = verify_cache(path)
    assert problem == Problem(
        where="b.mp4",
        kind="missing",
        what="mean, latent frames 8-12: mean/c/0/1/0/0 does not hold them",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_told_with_their_chunks(path, value):
    for frame in (9, 20, 27):
        write_latents(path, frame, value)
    problems = list(verify_cache(path))
    assert {(problem.where, problem.kind) for problem in problems} == {("b.mp4", "not-finite")}
    assert [problem.what.split(":")[0] for problem in problems] == [
        "mean, latent frames 8-12",
        "mean, latent frames 20-24",
        "mean, latent frames 24-28",
    ]


def test_latents_changed_with_their_checksums_are_not_those_recorded(path):
    write_latents(path, 9, 0.5)
    kinds = [kind for where, kind in found(path) if where == "b.mp4"]
    assert kinds == ["checksum", "statistics", "statistics"]  # of mean; std is as it was
    assert len(found(path)) == 3


def test_padding_frames_count_for_the_checksum_alone(tmp_path):
    schema = dataclasses.replace(SCHEMA, settings=dataclasses.replace(SCHEMA.settings, stack=16))
    path = tmp_path / "padded.zarr"
    create_cache(path, schema)
    video = random_posterior(8)
    writer = writer_of(path)
    ((start, _),) = write_shards(path, writer.reserve(1), [video])
    # 18 frames: two stacks of 16, 8 latent frames, of which ceil(18 / 4) = 5 are valid.
    valid = {name: getattr(video, name).astype(np.float16)[:, :5].astype(float) for name in ("mean", "std")}
    writer.commit(
        [
            record_of(
                "a.mp4",
                start,
                video,
                num_frames=18,
                count=5 * 3 * 5,
                sum_mean=tuple(valid["mean"].sum((1, 2, 3))),
                sum_mean_squared=tuple((valid["mean"] ** 2).sum((1, 2, 3))),
                sum_std_squared=tuple((valid["std"] ** 2).sum((1, 2, 3))),
            )
        ]
    )
    assert found(path) == []
    write_latents(path, 7, 0.5)
    assert found(path) == [("a.mp4", "checksum")]


def test_changed_checksum_of_a_record_is_told(path):
    rewrite(path / RECORD_B, latent_crc32=[12345])
    assert found(path) == [("b.mp4", "checksum")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("count", 299),
        ("sum_mean", [1.0, 2.0]),
        ("sum_mean", [1.0]),
        ("sum_mean_squared", [None, 3.0]),
        ("sum_std_squared", [float("nan"), float("inf")]),
    ],
)
def test_changed_statistics_of_a_record_are_told(path, column, value):
    rewrite(path / RECORD_B, **{column: [value]})
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("b.mp4", "statistics")
    assert f"recorded {column} {value}" in problem.what


def test_sums_may_differ_in_their_last_bits(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    for name, factor, kinds in (("sum_mean_squared", 1 + 1e-14, 0), ("sum_mean_squared", 1 + 1e-6, 1)):
        rewrite(path / RECORD_B, **{name: [[factor * value for value in table[name][0].as_py()]]})
        assert len(found(path)) == kinds


@pytest.mark.parametrize(
    ("start", "stop", "num_frames", "what"),
    [
        (40, 60, 80, "the arrays end at 40"),
        (9, 29, 80, "inside a chunk of 4"),
        (8, 8, 0, "is no range"),
        (-4, 16, 80, "is no range"),
        (2**62, 2**62 + 20, 80, "the arrays end at 40"),
        (8, 28, 81, "81 frames in stacks of 4 give 21"),
        (8, 28, -5, "give"),
    ],
)
def test_range_that_cannot_be_the_videos_is_told(path, start, stop, num_frames, what):
    rewrite(path / RECORD_B, start=[start], stop=[stop], num_frames=[num_frames])
    problems = [problem for problem in verify_cache(path) if problem.kind == "range"]
    assert {problem.where for problem in problems} == {"b.mp4"}
    assert any(what in problem.what for problem in problems)


def test_overlapping_videos_are_both_told(path):
    writer = writer_of(path)
    writer.commit([record_of("copy.mp4", 8, random_posterior(20, 1))])
    problems = list(verify_cache(path))
    assert [(problem.where, problem.kind) for problem in problems] == [
        ("copy.mp4", "overlap"),
        ("b.mp4", "overlap"),
    ]
    assert all("8-28" in problem.what for problem in problems)
    assert count_hole_frames(path) == 40 - sum(LENGTHS.values())


def test_every_video_under_a_long_one_overlaps_it(path):
    rewrite(path / RECORD_B, start=[0], stop=[40], num_frames=[160])
    overlaps = {problem.where for problem in verify_cache(path) if problem.kind == "overlap"}
    assert overlaps == set(LENGTHS)


@pytest.mark.parametrize("log", ["videos", "failures"])
@pytest.mark.parametrize("keep", [0, 3, 100, -8, -1])
def test_truncated_record_file_is_told_and_the_other_videos_are_still_read(path, log, keep):
    file = max((path / log / "records").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:keep])
    read = []
    problems = list(verify_cache(path, lambda *video: read.append(video)))
    assert [(problem.where, problem.kind) for problem in problems] == [
        (f"{log}/records/{file.name}", "record")
    ]
    assert [video_id for video_id, _ in read] == list(LENGTHS)[: 2 if log == "videos" else 3]


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_flipped_bit_in_a_record_file_stops_nothing(pristine, position, bit):
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(pristine, Path(folder) / "l.zarr")
        flip(path / RECORD_B, position % (path / RECORD_B).stat().st_size, bit)
        problems = found(path)
        count_hole_frames(path)
    assert all(where not in ("a.mp4", "c/[b].mp4") or kind == "overlap" for where, kind in problems)


@pytest.mark.parametrize("column", ["start", "latent_crc32", "warnings"])
def test_record_without_a_value_is_told(path, column):
    rewrite(path / RECORD_B, **{column: [None]})
    (problem,) = verify_cache(path)
    assert problem == Problem(where="b.mp4", kind="record", what=f"its record in {RECORD_B} has no {column}")


def test_record_without_a_name_is_told_by_its_file(path):
    rewrite(path / RECORD_B, video_id=[None])
    assert found(path) == [(RECORD_B, "record")]


def test_record_file_without_a_column_is_told(path):
    rewrite(path / RECORD_B, fps=None)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == (RECORD_B, "record")
    assert "fps" in problem.what


def test_record_file_with_a_column_of_another_type_is_told(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    index = table.schema.get_field_index("start")
    pq.write_table(table.set_column(index, "start", pa.array(["8"])), path / RECORD_B)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == (RECORD_B, "record")
    assert "start: expected int64, found string" in problem.what


def test_record_file_with_a_further_column_is_read(path):
    table = pq.ParquetFile(path / RECORD_B).read()
    pq.write_table(table.append_column("note", pa.array(["new"])), path / RECORD_B)
    assert found(path) == []


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".DS_Store",
        "mean/c/0/1/0/1",
        "mean/c/0/01/0/0",
        "videos/records/1-2.parquet",
        "videos/deep/er/file",
        "failures/records/lock",
    ],
)
def test_foreign_file_is_told(path, name):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("?")
    assert found(path) == [(name, "foreign")]


def test_foreign_file_whose_name_is_no_text_is_told(path):
    (path / "caf\udce9").write_text("?")
    assert found(path) == [(r"caf\xe9", "foreign")]


def test_shard_past_the_end_of_the_array_is_told(path):
    (path / "mean/c/0/5/0").mkdir(parents=True)
    shutil.copy(path / MEAN_B, path / "mean/c/0/5/0/0")
    assert found(path) == [("mean/c/0/5/0/0", "foreign")]


@pytest.mark.parametrize(
    "name", ["videos/records/partial", "mean/c/0/1/0/0.__lock", "zarr.json.partial", "std/c/0/1/0/0#1"]
)
def test_leftover_of_a_kill_is_told(path, name):
    (path / name).write_text("")
    assert found(path) == [(name, "leftover")]


def test_cache_that_was_never_finished_is_told_beside_the_one_that_was(path):
    path.with_name(".l.zarr.partial").mkdir()
    assert found(path) == [("../.l.zarr.partial", "leftover")]


def test_file_of_a_running_encode_is_no_leftover(path):
    (path / "videos/records/partial").write_text("being written")

    def encode_goes_on(*_):
        (path / "videos/records/partial").unlink(missing_ok=True)
        (path / "videos/records/partial").write_text("another commit")

    assert list(verify_cache(path, encode_goes_on)) == []


def test_shards_that_a_running_encode_adds_are_not_past_the_end(path, monkeypatch):
    from vidlat.store import verify

    list_files = verify._suspects

    def grown_meanwhile(*arguments):
        add_videos(path, {"new.mp4": random_posterior(9)})
        return list_files(*arguments)

    monkeypatch.setattr(verify, "_suspects", grown_meanwhile)
    assert found(path) == []


def test_records_are_read_while_no_driver_writes(path, monkeypatch):
    import fcntl

    from vidlat.store import verify

    read_layout, held = verify.read_layout, []

    def and_try_the_lock(path):
        with (path / "videos/records/lock").open("ab") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return read_layout(path)

    monkeypatch.setattr(verify, "read_layout", and_try_the_lock)
    assert found(path) == []
    assert held == [True]
    with locked(path / "videos/records/lock"):
        pass  # released


ROOT = "zarr.json"


def of_vidlat(change):
    return lambda document: change(document["attributes"]["vidlat"])


def test_cache_of_a_newer_version_is_told_by_name_and_its_latents_are_left(path):
    edit_json(path / ROOT, of_vidlat(lambda fields: fields.update(format_version=2, novelty=1)))
    read = []
    (problem,) = verify_cache(path, lambda *video: read.append(video))
    assert (problem.where, problem.kind) == (ROOT, "description")
    assert "format 2" in problem.what
    assert "no latents could be checked" in problem.what
    assert read == []


def test_edited_settings_are_told_and_the_latents_are_still_read(path):
    edit_json(path / ROOT, of_vidlat(lambda fields: fields["settings"].update(vae_hash="other")))
    flip(path / MEAN_B, 5)
    problems = list(verify_cache(path))
    assert [(problem.where, problem.kind) for problem in problems] == [
        (ROOT, "description"),
        ("b.mp4", "damaged"),
    ]
    assert "settings were edited" in problems[0].what


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("time_compression"),
        lambda fields: fields.update(settings=None),
        lambda fields: fields.update(settings=[1]),
        lambda fields: fields["settings"].pop("stack"),
        lambda fields: fields["settings"].update(stack="four"),
        lambda fields: fields.update(chunk_frames=3),
        lambda fields: fields.update(latent_dim=7),
        lambda fields: fields.pop("format_version"),
        lambda fields: fields.pop("cache_id"),
    ],
)
def test_damaged_description_is_told(path, change):
    edit_json(path / ROOT, of_vidlat(change))
    problems = found(path)
    assert (ROOT, "description") in problems
    assert {kind for _, kind in problems} == {"description"}
    count_hole_frames(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"attributes": {"vidlat": 1}}'])
def test_damaged_root_is_told_with_what_else_is_wrong(path, content):
    (path / ROOT).write_bytes(content)
    (path / "notes.txt").write_text("?")
    (path / RECORD_B).write_bytes(b"")
    assert found(path) == [(ROOT, "description"), (RECORD_B, "record"), ("notes.txt", "foreign")]


def test_lost_root_is_told(path):
    (path / ROOT).unlink()
    assert found(path) == [(ROOT, "description")]


@pytest.mark.parametrize("content", [None, b"{", b"{}"])
def test_latents_of_an_array_whose_metadata_is_damaged_are_still_read(path, content):
    if content is None:
        (path / "mean/zarr.json").unlink()
    else:
        (path / "mean/zarr.json").write_bytes(content)
    flip(path / MEAN_B, 5)
    problems = found(path)
    assert set(problems) == {("mean/zarr.json", "description"), ("b.mp4", "damaged")}


def test_cache_without_any_metadata_of_arrays_is_told(path):
    edit_json(path / ROOT, lambda document: document.pop("consolidated_metadata"))
    for name in ("mean", "std"):
        (path / name / "zarr.json").unlink()
    problems = list(verify_cache(path))
    assert {problem.kind for problem in problems} == {"description"}
    assert any("no latents could be checked" in problem.what for problem in problems)


def test_edited_layout_of_an_array_is_told(path):
    edit_json(path / "std/zarr.json", lambda document: document.update(fill_value=0.0))
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("std/zarr.json", "description")
    assert "fill_value is not as the description says: 0.0" in problem.what


def test_array_that_was_shortened_is_told_with_the_videos_it_cuts(path):
    edit_json(path / "std/zarr.json", lambda document: document["shape"].__setitem__(1, 16))
    problems = found(path)
    assert ("std/zarr.json", "description") in problems
    assert ("b.mp4", "range") in problems
    assert "a.mp4" not in {where for where, _ in problems}


def test_array_that_ends_inside_a_shard_is_told(path):
    edit_json(path / "std/zarr.json", lambda document: document["shape"].__setitem__(1, 37))
    assert ("std/zarr.json", "description") in found(path)


def test_growth_that_was_killed_is_a_leftover(path):
    old = (path / ROOT).read_bytes(), (path / "std/zarr.json").read_bytes()
    writer_of(path).reserve(1)
    (path / ROOT).write_bytes(old[0])
    assert found(path) == [("mean/zarr.json", "leftover"), ("std/zarr.json", "leftover")]
    (path / "std/zarr.json").write_bytes(old[1])
    assert found(path) == [("mean/zarr.json", "leftover")]
    writer_of(path).reserve(1)
    assert found(path) == []


def test_metadata_that_other_readers_need_is_told_when_lost(path):
    edit_json(path / ROOT, lambda document: document.pop("consolidated_metadata"))
    (path / "videos/zarr.json").unlink()
    assert set(found(path)) == {(ROOT, "description"), ("videos/zarr.json", "description")}


def test_notes_of_others_in_the_attributes_are_no_problem(path):
    edit_json(path / ROOT, lambda document: document["attributes"].update(note="mine"))
    edit_json(path / "mean/zarr.json", lambda document: document["attributes"].update(note="mine"))
    assert found(path) == []


def test_all_problems_are_told_at_once(path):
    flip(path / "mean/c/0/0/0/0", 0)
    (path / STD_B).unlink()
    rewrite(path / "videos/records/000000000003-000000000003.parquet", latent_crc32=[1])
    (path / "notes.txt").write_text("?")
    (path / "videos/records/partial").write_text("")
    assert sorted(found(path)) == [
        ("a.mp4", "damaged"),
        ("b.mp4", "missing"),
        ("c/[b].mp4", "checksum"),
        ("notes.txt", "foreign"),
        ("videos/records/partial", "leftover"),
    ]


def test_long_video_is_read_a_shard_at_a_time(cache_path, monkeypatch):
    from vidlat.store.verify_latents import LatentChecker

    add_videos(cache_path, {"long.mp4": random_posterior(333)})
    read, parts = LatentChecker._read, []

    def watched(self, name, first, stop):
        parts.append((first, stop))
        return read(self, name, first, stop)

    monkeypatch.setattr(LatentChecker, "_read", watched)
    assert found(cache_path) == []
    assert max(stop - first for first, stop in parts) == SCHEMA.shard_frames
    assert parts == 2 * [(first, min(first + 8, 333)) for first in range(0, 333, 8)]


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: zarr.create_group(path)])
def test_path_without_a_cache_is_refused(tmp_path, make):
    make(tmp_path / "no.zarr")
    with pytest.raises(StoreError, match="is not a vidlat cache"):
        list(verify_cache(tmp_path / "no.zarr"))


def vidlat_verify(*arguments):
    answer = CliRunner().invoke(commands, ["verify", *map(str, arguments)])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout, answer.stderr


def test_command_says_that_nothing_is_wrong(path):
    code, out, err = vidlat_verify(path)
    assert (code, err) == (0, "")
    assert "3 videos read: no problem (12 latent frames belong to no video)" in out


def test_command_prints_every_problem_and_fails(path):
    flip(path / MEAN_B, 0)
    (path / "mean/c/0/4/0/0").unlink()
    code, out, _ = vidlat_verify(path)
    assert code == 1
    assert "3 videos read: 2 problems" in out
    for text in ("b.mp4", "damaged", MEAN_B, "c/[b].mp4", "missing"):
        assert text in out


def test_command_prints_json_and_nothing_else(path):
    code, out, _ = vidlat_verify(path, "--json")
    assert (code, json.loads(out)) == (0, {"num_videos": 3, "num_hole_frames": 12, "problems": []})
    (path / "notes.txt").write_text("?")
    code, out, _ = vidlat_verify("--json", path)
    assert code == 1
    assert json.loads(out)["problems"] == [
        {"where": "notes.txt", "kind": "foreign", "what": "is no part of a cache"}
    ]


def test_command_without_a_cache_is_one_clear_line(tmp_path):
    code, out, err = vidlat_verify(tmp_path / "no.zarr")
    assert (code, out.strip().count("\n")) == (1, 0)
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
