"""Damage planted in a real cache: verify finds it, --repair undoes it, and every latent is as it was."""

import dataclasses
import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorstore as ts
from click.testing import CliRunner

from tests.pipeline.one_thread import OneThread
from tests.pipeline.opened import reading
from tests.store.damage import commit_as_it_is
from tests.thorough import some_of
from vidlat.cli import commands
from vidlat.config import ARITHMETIC_VERSIONS, PREPROCESS_VERSION, Preprocessing
from vidlat.errors import DeviceError, StoreError
from vidlat.pipeline import repair_cache as repair_module
from vidlat.pipeline.read_video import read_video
from vidlat.pipeline.repair_cache import repair_cache
from vidlat.pipeline.task import encode_batch
from vidlat.store.copying.merge import merge_caches
from vidlat.store.layout import MANIFEST
from vidlat.store.pruning.plan import plan_prune
from vidlat.store.reader import open_cache
from vidlat.store.records.manifest import read_manifest
from vidlat.store.storage import filesystem
from vidlat.store.storage.filesystem import locked
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.lease import hold_lease
from vidlat.store.writing.opening import open_writer
from vidlat.store.writing.writer import CacheWriter
from vidlat.video.reader import open_video

LENGTHS = {"a.mp4": 9, "b.mp4": 30, "c/c.mp4": 5, "d.mp4": 14}
VICTIM = "b.mp4"


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("videos"), LENGTHS)


@pytest.fixture(scope="module")
def pristine(videos, encode_here, tmp_path_factory):
    """Four videos, each in shards of its own, and one failure; never to be written to."""
    path = tmp_path_factory.mktemp("pristine") / "l.zarr"
    (videos / "broken.mp4").write_text("no video")
    encode_here(videos, path)
    assert len(open_cache(path)) == len(list(path.glob("mean/c/0/*/0/0"))) == len(LENGTHS)
    return path


@pytest.fixture
def path(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "l.zarr")


@pytest.fixture(scope="module")
def latents(pristine, read_all):
    return read_all(pristine)


@pytest.fixture
def vidlat(monkeypatch):
    """The command line, whose encodes run in this process on one thread."""

    monkeypatch.setattr(repair_module, "open_dask_executor", lambda *_: nullcontext(OneThread()))

    def vidlat(*arguments):
        answer = CliRunner().invoke(commands, [str(argument) for argument in arguments])
        assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
        return answer.exit_code, answer.stdout, answer.stderr

    return vidlat


@pytest.fixture
def read_instead(monkeypatch):
    """read_instead(read): what turns videos into stacks when they are encoded again."""

    def read_instead(read):
        monkeypatch.setattr("vidlat.pipeline.executor.encode_batch", partial(encode_batch, read=read))

    return read_instead


@pytest.fixture
def repaired(vidlat):
    """Run `verify --repair`: exit code, and the report."""

    def repaired(path, *arguments):
        code, out, err = vidlat("verify", path, "--repair", "--device", "cpu", "--json", *arguments)
        assert err == ""
        return code, json.loads(out)

    return repaired


def found(path):
    return {(problem.where, problem.kind) for problem in verify_cache(path)}


def shard_of(path, video_id, array="mean"):
    cache = open_cache(path, hold=False)
    index = cache.records()[video_id].start // cache.schema.shard_frames
    return path / array / "c" / "0" / str(index) / "0" / "0"


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def write(path, video_id, value):
    """Write latents as another program would, with correct chunk checksums."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / "mean")}}
    array = ts.open(spec, open=True, read=True, write=True).result()
    start = open_cache(path, hold=False).records()[video_id].start
    array[:, start : start + np.shape(value)[1]].write(value).result()


def write_nan(path):
    write(path, VICTIM, np.full((4, 4, 4, 4), np.nan, np.float16))


def write_latents_of_another(path):
    write(path, VICTIM, open_cache(path, hold=False).read_latents("d.mp4").mean)


def edit_record(path, of=VICTIM, **values):
    """Change values of a video's record in place."""
    for file in path.glob("videos/records/*.parquet"):
        table = pq.ParquetFile(file).read()
        ids = table["video_id"].to_pylist()
        if of not in ids:
            continue
        for name, value in values.items():
            index = table.schema.get_field_index(name)
            column = table[name].to_pylist()
            column[ids.index(of)] = value(column[ids.index(of)]) if callable(value) else value
            field = table.schema.field(name)
            table = table.set_column(index, field, pa.array(column, field.type))
        pq.write_table(table, file, compression="zstd", use_dictionary=False)
        commit_as_it_is(file)


def shift(path, num_frames):
    edit_record(path, start=lambda start: start + num_frames, stop=lambda stop: stop + num_frames)


def overlap(path):
    starts = [record.start for record in open_cache(path, hold=False).records().values()]
    mine = open_cache(path, hold=False).records()[VICTIM].start
    shift(path, (min(starts) if mine > min(starts) else max(starts)) - mine)


def edit_json(file, change):
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def roll_back(path):
    """Restore the metadata from before the cache last grew, as from a backup."""
    shards = open_cache(path, hold=False).schema.shard_frames
    last = open_cache(path, hold=False).num_latent_frames - shards
    for name in ("mean", "std"):
        edit_json(path / name / "zarr.json", lambda document: document["shape"].__setitem__(1, last))
    for name in ("mean", "std"):
        edit_json(
            path / "zarr.json",
            lambda document, name=name: document["consolidated_metadata"]["metadata"][name][
                "shape"
            ].__setitem__(1, last),
        )


def leave_leftovers(path):
    (path / "videos/records/partial").write_text("?")
    (path / "mean/c/0/0/0/0.__lock").write_text("")
    path.with_name(f".{path.name}.{'0' * 32}.partial").mkdir()
    (path / "videos/records/lease").write_text("{}")
    os.utime(path / "videos/records/lease", (0, 0))


VICTIMS = {
    "bit of a chunk": (lambda path: flip(shard_of(path, VICTIM), 40), "damaged"),
    "bit of an index": (lambda path: flip(shard_of(path, VICTIM), -2), "damaged"),
    "bit of std": (lambda path: flip(shard_of(path, VICTIM, "std"), 40), "damaged"),
    "deleted shard": (lambda path: shard_of(path, VICTIM).unlink(), "missing"),
    "truncated shard": (lambda path: os.truncate(shard_of(path, VICTIM), 99), "damaged"),
    "empty shard": (lambda path: shard_of(path, VICTIM).write_bytes(b""), "damaged"),
    "NaN": (write_nan, "missing"),
    "latents of another": (write_latents_of_another, "checksum"),
    "sums": (lambda path: edit_record(path, latents_sum_mean=[0.0] * 4), "statistics"),
    "count": (lambda path: edit_record(path, latents_count=1), "statistics"),
    "checksums": (lambda path: edit_record(path, latents_frame_crc32c=bytes(64)), "checksum"),
    "overlap": (overlap, "overlap"),
    "beyond the end": (lambda path: shift(path, 10**6), "range"),
    "far beyond the end": (lambda path: shift(path, 2**60), "range"),
    "no range": (lambda path: edit_record(path, stop=0), "range"),
    "checksums of too few frames": (lambda path: edit_record(path, latents_frame_crc32c=b"1234"), "range"),
}

FILES = {
    "array metadata cut": (lambda path: os.truncate(path / "mean/zarr.json", 50), "mean/zarr.json"),
    "array metadata deleted": (lambda path: (path / "std/zarr.json").unlink(), "std/zarr.json"),
    "shorter array": (
        lambda path: edit_json(path / "std/zarr.json", lambda d: d["shape"].__setitem__(1, 0)),
        "std/zarr.json",
    ),
    "fill value": (
        lambda path: edit_json(path / "std/zarr.json", lambda d: d.update(fill_value=0.0)),
        "std/zarr.json",
    ),
    "group deleted": (lambda path: (path / "videos/zarr.json").unlink(), "videos/zarr.json"),
    "consolidated metadata": (
        lambda path: edit_json(path / "zarr.json", lambda d: d.pop("consolidated_metadata")),
        "zarr.json",
    ),
    "all but the description": (
        lambda path: [
            edit_json(path / "zarr.json", lambda d: d.pop("consolidated_metadata")),
            *(file.unlink() for file in path.glob("*/zarr.json")),
        ],
        "zarr.json",
    ),
}


@pytest.mark.parametrize(("plant", "kind"), some_of(VICTIMS.values()), ids=some_of(VICTIMS))
def test_damaged_video_is_found_and_encoded_again_to_the_same_bits(
    path, repaired, read_all, latents, plant, kind
):
    before = {file: file.stat().st_mtime_ns for file in path.glob("*/c/0/*/0/0")}
    plant(path)
    damaged = {file: file.stat().st_mtime_ns for file in path.glob("*/c/0/*/0/0")}
    assert (VICTIM, kind) in found(path)
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (0, [])
    assert {outcome["state"] for outcome in report["outcomes"]} == {"repaired"}
    assert VICTIM in {outcome["where"] for outcome in report["outcomes"]}
    assert list(verify_cache(path)) == []
    assert read_all(path) == latents
    # Never over old shards.
    assert all(file.stat().st_mtime_ns == then for file, then in damaged.items())
    assert len(list(path.glob("*/c/0/*/0/0"))) > len(damaged) >= len(before) - 1


def test_repair_of_a_merged_cache_leaves_the_shards_that_it_shares_with_its_part(
    path, tmp_path, repaired, read_all, latents
):
    merged = tmp_path / "merged.zarr"
    list(merge_caches([path], merged))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    shard_of(merged, VICTIM).unlink()
    assert repaired(merged)[0] == 0
    assert read_all(merged) == read_all(path) == latents
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(("plant", "file"), some_of(FILES.values()), ids=some_of(FILES))
def test_damaged_metadata_is_found_and_written_as_it_was(
    path, pristine, repaired, read_all, latents, plant, file
):
    plant(path)
    assert (file, "description") in found(path)
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (0, [])
    assert list(verify_cache(path)) == []
    assert read_all(path) == latents
    for document in pristine.rglob("zarr.json"):
        assert json.loads((path / document.relative_to(pristine)).read_text()) == json.loads(
            document.read_text()
        )
    assert len(list(path.glob("*/c/0/*/0/0"))) == 2 * len(LENGTHS)  # nothing was encoded


def test_metadata_from_an_old_backup_grows_again_to_the_last_shard(path, repaired, read_all, latents):
    roll_back(path)
    assert {kind for _, kind in found(path)} == {"range", "foreign"}
    code, report = repaired(path)
    assert code == 0, report
    assert read_all(path) == latents
    assert len(list(path.glob("*/c/0/*/0/0"))) == 2 * len(LENGTHS)


def test_range_whose_shards_are_lost_too_is_not_handed_out_again(path, repaired, videos, read_all, latents):
    """The last video's source is gone as well: nobody else may come to stand where its record points."""
    records = open_cache(path).records()
    last = max(records.values(), key=lambda record: record.start)
    edit_record(path, last.video_id, source_path="/nowhere")
    for array in ("mean", "std"):
        shard_of(path, last.video_id, array).unlink()
    other = next(video_id for video_id in LENGTHS if video_id != last.video_id)
    shard_of(path, other).unlink()
    roll_back(path)
    code, report = repaired(path)
    assert code == 1
    assert {problem["where"] for problem in report["problems_left"]} == {last.video_id}
    assert open_cache(path).records()[other].start >= last.stop


def test_a_cache_in_bfloat16_is_not_repaired_on_a_cpu_without_it(videos, encode_here, tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("torch.cpu.get_capabilities", lambda: {"amx_bf16": True})
        path = encode_here(videos, tmp_path / "half.zarr", precision="bfloat16")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True})
    (next(path.glob("mean/c/0/*/0/0"))).write_bytes(b"damaged")
    with pytest.raises(DeviceError, match="this CPU does not compute with it"):
        list(repair_cache(path, device="cpu"))


def test_leftovers_of_kills_are_removed(path, repaired, read_all, latents):
    leave_leftovers(path)
    assert {kind for _, kind in found(path)} == {"leftover"}
    assert len(found(path)) == 4
    planted = {where for where, _ in found(path)}
    code, report = repaired(path)
    assert code == 0
    assert {(outcome["where"], outcome["state"]) for outcome in report["outcomes"]} == {
        (where, "repaired") for where in planted
    }
    assert list(verify_cache(path)) == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read_all(path) == latents


def test_foreign_file_is_left_and_keeps_the_exit_code(path, repaired):
    (path / "notes.txt").write_text("mine")
    code, report = repaired(path)
    assert code == 1
    assert [(o["where"], o["state"]) for o in report["outcomes"]] == [("notes.txt", "not repairable")]
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "damage",
    some_of(
        [
            lambda file: flip(file, 50),
            lambda file: file.write_bytes(file.read_bytes()[:-1]),
            lambda file: file.write_bytes(b""),
        ]
    ),
    ids=some_of(["flipped", "truncated", "empty"]),
)
def test_damaged_record_file_is_set_aside_and_the_next_encode_adds_its_videos(
    path, pristine, repaired, encode_here, videos, read_all, latents, damage
):
    file = min(path.glob("videos/records/*.parquet"))
    damage(file)
    content = file.read_bytes()
    assert found(path) == {(f"videos/records/{file.name}", "record")}
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (1, [])
    assert [outcome["state"] for outcome in report["outcomes"]] == ["lost"]
    assert "vidlat encode" in report["outcomes"][0]["what"]
    assert repaired(path)[0] == 0
    (aside,) = path.glob("videos/records/*.damaged")
    assert aside.read_bytes() == content
    rest = read_all(path)
    assert rest.items() < latents.items()
    encode_here(videos, path)
    assert read_all(path) == latents
    assert list(verify_cache(path)) == []


def test_damaged_failures_are_forgotten(path, repaired, read_all, latents):
    (file,) = path.glob("failures/records/*.parquet")
    os.truncate(file, 20)
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (0, [])
    assert open_cache(path).failures() == {}
    assert read_all(path) == latents


@pytest.mark.parametrize("column", some_of(["video_id", "sequence", "start", "num_frames"]))
def test_file_with_a_row_that_lacks_a_value_is_set_aside(
    path, repaired, encode_here, videos, read_all, latents, column
):
    edit_record(path, **{column: None})
    code, report = repaired(path)
    assert (code, [outcome["state"] for outcome in report["outcomes"]]) == (1, ["lost"])
    assert VICTIM not in read_all(path)
    encode_here(videos, path)
    assert read_all(path) == latents


@pytest.mark.parametrize("content", some_of([b"{", None, b"{}"]))
def test_lost_root_is_restored_from_the_manifest(path, repaired, read_all, latents, content):
    before = (path / "zarr.json").read_bytes()
    (path / "zarr.json").unlink()
    if content is not None:
        (path / "zarr.json").write_bytes(content)
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (0, [])
    assert (path / "zarr.json").read_bytes() == before
    assert read_all(path) == latents


@pytest.mark.parametrize("content", some_of([b"{", None, b"{}"]))
def test_lost_manifest_is_made_again_from_the_root_and_the_record_files(
    path, repaired, read_all, latents, content
):
    before = read_manifest(local_cache(path))
    (path / MANIFEST).unlink()
    if content is not None:
        (path / MANIFEST).write_bytes(content)
    assert found(path) == {(MANIFEST, "record")}
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (0, [])
    assert dataclasses.replace(read_manifest(local_cache(path)), cache_uuid=before.cache_uuid) == before
    assert read_all(path) == latents


def test_every_lost_record_file_is_named_the_last_one_too(path, pristine, repaired, tmp_path):
    for number, file in some_of(enumerate(sorted(pristine.glob("videos/records/*.parquet")))):
        damaged = shutil.copytree(pristine, tmp_path / f"{number}.zarr")
        where = f"videos/records/{file.name}"
        (damaged / where).unlink()
        assert found(damaged) == {(where, "record")}
        with pytest.raises(StoreError, match=f"{file.name} is missing"):
            plan_prune(damaged)
        code, report = repaired(damaged)
        assert (code, report["problems_left"]) == (1, [])
        assert [(o["where"], o["state"]) for o in report["outcomes"]] == [(where, "lost")]


def test_lost_records_are_told_and_prune_deletes_no_shard(path, repaired):
    shutil.rmtree(path / "videos/records")
    with pytest.raises(StoreError, match="is missing"):
        plan_prune(path)
    code, report = repaired(path)
    assert code == 1
    assert (MANIFEST, "lost") in [(o["where"], o["state"]) for o in report["outcomes"]]
    shutil.rmtree(path / "failures/records")
    repaired(path)
    with pytest.raises(StoreError, match="holds latents but no record of any video"):
        plan_prune(path)


def test_record_file_under_another_name_is_no_commit(path, read_all, latents):
    file = min(path.glob("videos/records/*.parquet"))
    shutil.copy(file, path / "videos/records/000000000099-000000000099.parquet")
    assert found(path) == {("videos/records/000000000099-000000000099.parquet", "leftover")}
    assert read_all(path) == latents


def test_lost_root_and_manifest_are_reported_with_a_remedy_that_works(
    path, repaired, encode_here, videos, tmp_path, read_all, latents
):
    (path / "zarr.json").write_bytes(b"{")
    (path / MANIFEST).write_bytes(b"{")
    shard_of_victim = max(path.glob("mean/c/0/*/0/0"))
    code, report = repaired(path)
    assert code == 1
    outcome = report["outcomes"][-1]
    assert (outcome["where"], outcome["state"]) == ("zarr.json", "not repairable")
    assert "copy its zarr.json" in outcome["what"]
    assert shard_of_victim.exists()
    (tmp_path / "one").mkdir()
    shutil.copy(videos / "a.mp4", tmp_path / "one")
    other = encode_here(tmp_path / "one", tmp_path / "other.zarr")
    shutil.copy(other / "zarr.json", path / "zarr.json")
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (0, [])
    assert read_all(path) == latents


def test_edited_description_is_restored_from_its_copy(path, repaired, read_all, latents):
    edit_json(path / "zarr.json", lambda d: d["attributes"]["vidlat"].update(shard_frames=4))
    code, report = repaired(path)
    assert (code, report["problems_left"]) == (0, [])
    assert read_all(path) == latents


def test_description_that_all_arrays_contradict_is_not_written_over_them(path, repaired):
    before = {file: file.read_bytes() for file in path.glob("*/zarr.json")}
    edit_json(path / "zarr.json", lambda d: d["attributes"]["vidlat"].update(shard_frames=4))
    (path / MANIFEST).unlink()
    code, report = repaired(path)
    assert code == 1
    assert "contradict" in report["outcomes"][-1]["what"]
    assert {file: file.read_bytes() for file in before} == before


@pytest.fixture
def own_videos(make_videos, encode_here, tmp_path):
    """Videos and their cache, which a test may damage."""
    folder = make_videos(tmp_path / "own", LENGTHS)
    return folder, encode_here(folder, tmp_path / "own.zarr")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    some_of(
        [
            (lambda file: file.unlink(), "is gone"),
            (lambda file: file.write_bytes(b""), "has changed"),
            (lambda file: (file.unlink(), file.mkdir()), "has changed"),
            (lambda file: file.write_bytes(file.read_bytes()[::-1]), "has changed"),
        ]
    ),
    ids=some_of(["gone", "other size", "folder", "other bytes"]),
)
def test_video_without_its_source_is_reported_and_the_others_are_repaired(
    own_videos, repaired, read_all, spoil, reason
):
    folder, path = own_videos
    whole = read_all(path)
    for video_id in (VICTIM, "d.mp4"):
        shard_of(path, video_id).unlink()
    shutil.copy(folder / VICTIM, folder / "kept")
    spoil(folder / VICTIM)
    code, report = repaired(path)
    assert code == 1
    states = {outcome["where"]: outcome for outcome in report["outcomes"]}
    assert states["d.mp4"]["state"] == "repaired"
    assert states[VICTIM]["state"] == "not repairable"
    assert reason in states[VICTIM]["what"]
    assert "vidlat prune --drop" in states[VICTIM]["what"]
    assert {problem["where"] for problem in report["problems_left"]} == {VICTIM}
    # The advice works: the source is put back.
    if (folder / VICTIM).is_dir():
        (folder / VICTIM).rmdir()
    shutil.copy(folder / "kept", folder / VICTIM)
    assert repaired(path)[0] == 0
    assert read_all(path) == whole


def test_removing_the_video_is_the_other_remedy(own_videos, repaired):
    folder, path = own_videos
    shard_of(path, VICTIM).unlink()
    (folder / VICTIM).unlink()
    with open_writer(path, "test") as writer:
        writer.remove([VICTIM])
    assert found(path) == set()
    assert repaired(path)[0] == 0


def test_source_that_no_longer_encodes_is_reported(path, repaired, read_instead):
    from vidlat.errors import DecodeError

    def read_frames(*_):
        raise DecodeError("codec is gone")

    read_instead(reading(read_frames))
    shard_of(path, VICTIM).unlink()
    code, report = repaired(path)
    assert code == 1
    (outcome,) = report["outcomes"]
    assert "codec is gone" in outcome["what"]


def test_repair_that_dies_before_a_commit_loses_nothing_and_the_next_one_completes_it(
    path, repaired, read_all, latents, monkeypatch
):
    class Death(BaseException):
        pass

    for video_id in LENGTHS:
        shard_of(path, video_id).unlink()
    (path / "std/zarr.json").unlink()
    real, num_commits = CacheWriter.commit, []

    def dies(self, records):
        if len(num_commits) == 2:
            raise Death
        num_commits.append(1)
        real(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "commit", dies)
        with pytest.raises(Death):
            CliRunner().invoke(commands, ["verify", str(path), "--repair", "--device", "cpu"])
    left = {where for where, _ in found(path)}
    assert len(left) == len(LENGTHS) - 2
    assert list(open_cache(path).records()) == sorted(LENGTHS)
    code, report = repaired(path)
    assert code == 0
    assert {outcome["where"] for outcome in report["outcomes"]} == left
    assert read_all(path) == latents


def test_second_repair_finds_nothing_to_do_and_writes_nothing(path, repaired):
    shard_of(path, VICTIM).unlink()
    assert repaired(path)[0] == 0

    def state():
        return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in path.rglob("*")}

    before = state()
    assert repaired(path) == (0, {**repaired(path)[1], "problems": []})
    assert state() == before


def test_latents_that_another_machine_would_give_are_accepted(path, repaired, read_instead):
    """Another batch size is enough to change last bits; here all bits are."""

    def open_darker(*source):
        return replace(open_video(*source), auto_range=lambda: (0.0, 280.0))

    read_instead(partial(read_video, open_video=open_darker))
    before = open_cache(path).records()[VICTIM].latents.crc32c
    shard_of(path, VICTIM).unlink()
    code, _ = repaired(path)
    assert code == 0
    assert open_cache(path).records()[VICTIM].latents.crc32c != before
    assert list(verify_cache(path)) == []


def test_repair_encodes_with_the_batch_that_was_recorded(path):
    shard_of(path, VICTIM).unlink()
    executor = OneThread()
    events = list(repair_cache(path, device="cpu", executor=executor))
    (job,) = executor.jobs
    assert (job.batch, job.settings.select(Preprocessing)) == (3, Preprocessing(size=16, fit="crop"))
    assert [event.num_to_encode for event in events if event.num_to_encode] == [1]
    assert sum(event.num_frames for event in events) == open_cache(path).records()[VICTIM].num_frames == 30
    assert [o.where for event in events for o in event.outcomes if o.state == "repaired"] == [VICTIM]
    assert events[-1].problems_left == ()


def test_repair_of_a_sound_cache_does_nothing(path):
    assert list(repair_cache(path)) == []


@pytest.mark.parametrize(
    ("vae", "code", "reason"),
    [
        ("tiny", 1, "another encoder"),
        ("nowhere", 2, "no weights file at nowhere"),
        ("no/where", 1, "no weights file at no/where"),
    ],
)
def test_other_vae_is_refused_in_one_line(path, vidlat, vae, code, reason):
    shard_of(path, VICTIM).unlink()
    found, _, err = vidlat("verify", path, "--repair", "--vae", vae)
    assert found == code
    assert reason in err
    assert err.count("\n") == 1


def test_cache_of_another_preprocessing_is_refused(path, vidlat, monkeypatch):
    monkeypatch.setattr(repair_module, "PREPROCESS_VERSION", PREPROCESS_VERSION + 1)
    shard_of(path, VICTIM).unlink()
    code, _, err = vidlat("verify", path, "--repair")
    assert (code, err.count("\n")) == (1, 1)
    assert f"version {PREPROCESS_VERSION} does" in err


def test_cache_of_another_arithmetic_is_refused(path, vidlat, monkeypatch):
    monkeypatch.setitem(ARITHMETIC_VERSIONS, "float32", 3)
    shard_of(path, VICTIM).unlink()
    code, _, err = vidlat("verify", path, "--repair")
    assert (code, err.count("\n")) == (1, 1)
    assert "computed in float32 as version 1 does, this vidlat computes them as version 3" in err


def test_cache_in_use_is_refused_before_it_is_read(path, vidlat):
    shard_of(path, VICTIM).unlink()
    with hold_lease(path, "vidlat encode"):
        code, out, err = vidlat("verify", path, "--repair")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "in use by `vidlat encode`" in err


def test_cache_that_cannot_be_written_is_verified_and_refused(path, vidlat, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(filesystem, "create_file", read_only)
    shard_of(path, VICTIM).unlink()
    code, out, err = vidlat("verify", path, "--repair")
    assert (code, err.count("\n")) == (1, 1)
    assert "Read-only file system" in err
    assert VICTIM in out
    with locked(path / "videos/records/lock"):
        pass  # released


def test_sound_cache_that_cannot_be_written_needs_no_repair(path, vidlat, monkeypatch):
    monkeypatch.setattr(filesystem, "create_file", None)
    assert vidlat("verify", path, "--repair")[0] == 0
