"""docs/reference/format.md suffices: a reader written from that page alone reads what the store writes."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "format.md").read_text()


# The reader: from here to `vidlat`'s own imports nothing but the page is known.


def read_description(path):
    description = json.loads((path / "zarr.json").read_text())["attributes"]["vidlat"]
    if description["format_version"] != 10:
        raise ValueError(f"format version {description['format_version']} is not known")
    return description


def compute_cache_id(settings):
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def read_manifest(path):
    manifest = json.loads((path / "videos" / "records" / "manifest.json").read_text())
    crc32c = manifest.pop("crc32c")
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    if google_crc32c.value(canonical.encode("ascii")) != crc32c:
        raise ValueError("the manifest is damaged")
    return manifest


def read_rows(path, folder):
    """The latest row of every video, by video_id."""
    rows = {}
    for file in read_manifest(path)["files"]:
        if file["where"].startswith(f"{folder}/"):
            content = (path / file["where"]).read_bytes()
            if (len(content), google_crc32c.value(content)) != (file["num_bytes"], file["crc32c"]):
                raise ValueError(f"{file['where']} is damaged")
            found = pq.ParquetFile(pa.BufferReader(content)).read().to_pylist(maps_as_pydicts="strict")
            assert len(found) == file["num_rows"]
            for row in found:
                if row["video_id"] not in rows or rows[row["video_id"]]["sequence"] <= row["sequence"]:
                    rows[row["video_id"]] = row
    return rows


def read_videos(path):
    rows = read_rows(path, "videos/records")
    return {video_id: row for video_id, row in rows.items() if row["num_frames"] != 0}


def read_failures(path):
    done = read_rows(path, "videos/records")
    rows = read_rows(path, "failures/records")
    return {
        video_id: row
        for video_id, row in rows.items()
        if video_id not in done or done[video_id]["sequence"] <= row["sequence"]
    }


def read_latents(path, row):
    group = zarr.open_group(path, mode="r")
    return tuple(group[name][:, row["start"] : row["stop"]] for name in ("mean", "std"))


def checksums(mean, std):
    """Of each latent frame, mean first."""
    frames = [array[:, frame] for array in (mean, std) for frame in range(array.shape[1])]
    values = [google_crc32c.value(frame.astype("<f2").tobytes()) for frame in frames]
    return np.array(values, "<u4").tobytes()


def num_shown(description, row):
    return row["num_frames"] * description["settings"]["stretch"]


def steps(description):
    """Frames shown, and latent frames, from the start of a call to that of the next."""
    stack, overlap = description["settings"]["stack"], description["settings"]["overlap"]
    compression, step = description["time_compression"], stack - overlap
    return step, step // compression if overlap % compression == 0 else stack // compression


def num_summed(description, row):
    stack, compression = description["settings"]["stack"], description["time_compression"]
    shown, (step, latent_step) = num_shown(description, row), steps(description)
    if shown >= stack:
        return (shown - stack) // step * latent_step + stack // compression
    return -(-shown // compression)


def num_latent_frames(description, row):
    stack, (step, latent_step) = description["settings"]["stack"], steps(description)
    calls = 1 + max(0, -(-(num_shown(description, row) - stack) // step))
    return (calls - 1) * latent_step + stack // description["time_compression"]


def chunk_by_hand(path, description, name, frame):
    """The chunk that holds a latent frame, with no Zarr library: blosc and CRC-32C as the page says."""
    from numcodecs import Blosc

    shard, inside = divmod(frame, description["shard_frames"])
    content = (path / name / "c" / "0" / str(shard) / "0" / "0").read_bytes()
    num_chunks = description["shard_frames"] // description["chunk_frames"]
    index = content[-16 * num_chunks - 4 :]
    assert google_crc32c.value(index[:-4]) == int.from_bytes(index[-4:], "little")
    entries = np.frombuffer(index[:-4], "<u8").reshape(num_chunks, 2)
    offset, num_bytes = map(int, entries[inside // description["chunk_frames"]])
    if offset == num_bytes == 2**64 - 1:
        return None
    chunk = content[offset : offset + num_bytes]
    assert google_crc32c.value(chunk[:-4]) == int.from_bytes(chunk[-4:], "little")
    shape = [description[field] for field in ("latent_dim", "chunk_frames", "latent_height", "latent_width")]
    return np.frombuffer(Blosc().decode(chunk[:-4]), "<f2").reshape(shape)


# The reader ends here.


from tests.store.caches import SCHEMA, add_videos, failure_of, random_posterior, record_of, writer_of  # noqa: E402
from vidlat.store.metadata import zarr_documents  # noqa: E402
from vidlat.store.pruning.plan import plan_prune  # noqa: E402
from vidlat.store.pruning.prune import prune  # noqa: E402
from vidlat.store.reader import open_cache  # noqa: E402
from vidlat.store.records.manifest import Manifest, RecordFile  # noqa: E402
from vidlat.store.records.tables import FAILURE_COLUMNS, VIDEO_COLUMNS  # noqa: E402
from vidlat.store.schema import FORMAT_VERSION, CacheSchema, CacheSettings  # noqa: E402
from vidlat.store.writing.opening import create_cache  # noqa: E402


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Videos new, replaced and removed, failures that hold or not, holes, merged and single record files."""
    config = {"latent_channels": 2, "naïve": [0.1, 1e-6, 1.0, 12345678901234567890, True, None]}
    settings = dataclasses.replace(SCHEMA.settings, encoder_config=config, stack=8)
    path = tmp_path_factory.mktemp("format") / "l.zarr"
    create_cache(path, dataclasses.replace(SCHEMA, settings=settings))
    writer = writer_of(path)
    writer.record_failures([failure_of("a.mp4"), failure_of("gone.mp4", "first try")])
    videos = {"a.mp4": random_posterior(6), "sub/ü.avi": random_posterior(18)}
    records = add_videos(path, videos)
    writer.reserve(2)
    for number in range(70):
        writer.commit([dataclasses.replace(records[number % 2], batch=number)])
    add_videos(path, {"a.mp4": random_posterior(10, 1)})
    start = writer.reserve(1)
    timed = record_of(
        "timed",
        start,
        random_posterior(2),
        pts_seconds=(0.0, 0.5, 0.6, 1.0, 1.1, 1.2, 1.3, 1.4),
        warnings=("w",),
    )
    writer.commit([timed])
    add_videos(path, {"removed.mp4": random_posterior(4), "again.mp4": random_posterior(4)})
    writer.record_failures([failure_of("gone.mp4", "second try"), failure_of("removed.mp4")])
    writer.remove(["removed.mp4", "again.mp4"])
    add_videos(path, {"again.mp4": random_posterior(4)})
    writer.record_failures([failure_of("again.mp4")])
    return path


@pytest.fixture(scope="module", params=["as it is", "pruned"])
def cache_path(path, request, tmp_path_factory):
    """The cache, and a copy of it that was pruned."""
    if request.param == "as it is":
        return path
    copy = tmp_path_factory.mktemp("pruned") / "l.zarr"
    shutil.copytree(path, copy)
    prune(writer_of(copy), plan_prune(copy))
    return copy


def test_reader_of_the_page_gets_the_same_records_and_failures(cache_path):
    cache = open_cache(cache_path)
    for ours, theirs in (
        (cache.records(), read_videos(cache_path)),
        (cache.failures(), read_failures(cache_path)),
    ):
        assert theirs == {video_id: flat(record) for video_id, record in ours.items()}
    assert set(read_videos(cache_path)) == {"a.mp4", "sub/ü.avi", "timed", "again.mp4"}
    assert set(read_failures(cache_path)) == {"gone.mp4", "again.mp4"}


def flat(record):
    """A record's columns, spelt out: nested values go by their own name and an underscore."""
    values = dataclasses.asdict(record)
    del values["source"]
    source = record.source._asdict() | {"selection": record.source.selection.to_text()}
    values |= {f"source_{name}": value for name, value in source.items()}
    if "latents" in values:
        values |= {f"latents_{name}": value for name, value in values.pop("latents").items()}
        subject, labels = values.pop("annotation")
        values |= {"annotation_subject": subject, "annotation_labels": dict(labels)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def test_reader_of_the_page_gets_the_same_latents_and_checksums(cache_path):
    rows = read_videos(cache_path)
    for video_id in ("a.mp4", "sub/ü.avi"):
        mean, std = read_latents(cache_path, rows[video_id])
        ours = open_cache(cache_path).read_latents(video_id)
        np.testing.assert_array_equal(mean, ours.mean)
        np.testing.assert_array_equal(std, ours.std)
        assert checksums(mean, std) == rows[video_id]["latents_frame_crc32c"]


def test_reader_of_the_page_decodes_chunks_by_hand(path):
    description, group = read_description(path), zarr.open_group(path, mode="r")
    seen = []
    for name in ("mean", "std"):
        for frame in range(0, group[name].shape[1], description["chunk_frames"]):
            if (path / name / "c/0" / str(frame // description["shard_frames"])).exists():
                chunk = chunk_by_hand(path, description, name, frame)
                expected = group[name][:, frame : frame + description["chunk_frames"]]
                expected_none = np.isnan(expected).all()
                assert (chunk is None) == expected_none
                if chunk is not None:
                    np.testing.assert_array_equal(chunk, expected)
                seen.append(chunk is None)
    assert set(seen) == {True, False}


def bitwise_crc32c(content):
    """CRC-32C by its definition: the polynomial 0x1EDC6F41, here reflected."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_checksums_of_the_page_are_those_of_rfc_3720(path):
    examples = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}  # appendix B.4
    for content, checksum in (examples | {b"123456789": 0xE3069283}).items():
        assert bitwise_crc32c(content) == google_crc32c.value(content) == checksum
    assert f"`0x{bitwise_crc32c(b'123456789'):X}`" in PAGE
    mean, _ = read_latents(path, row := read_videos(path)["a.mp4"])
    first = bitwise_crc32c(mean[:, 0].astype("<f2").tobytes())
    assert row["latents_frame_crc32c"][:4] == first.to_bytes(4, "little")


def test_tombstone_is_as_the_page_says(path):
    row = read_rows(path, "videos/records")["removed.mp4"]
    assert {name: value for name, value in row.items() if value is not None} == {
        "video_id": "removed.mp4",
        "num_frames": 0,
        "sequence": row["sequence"],
    }


def test_pruning_moves_and_erases_only_what_the_page_says(path, cache_path):
    before, after = read_videos(path), read_videos(cache_path)
    moved = ("start", "stop", "sequence")
    for video_id, row in before.items():
        assert {k: v for k, v in row.items() if k not in moved} == {
            k: v for k, v in after[video_id].items() if k not in moved
        }
    if cache_path != path:
        assert set(read_rows(cache_path, "videos/records")) == set(after)
        assert last_commit(cache_path) > last_commit(path)


def last_commit(path):
    return max(int(file.stem.split("-")[1]) for file in (path / "videos" / "records").glob("*.parquet"))


def test_reader_of_the_page_gets_the_sums(path):
    description, rows = read_description(path), read_videos(path)
    row = rows["sub/ü.avi"]
    mean, std = (
        latents[:, : num_summed(description, row)].astype(float) for latents in read_latents(path, row)
    )
    assert row["latents_count"] == mean[0].size
    np.testing.assert_allclose(row["latents_sum_mean"], mean.sum((1, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(row["latents_sum_mean_squared"], (mean**2).sum((1, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(row["latents_sum_std_squared"], (std**2).sum((1, 2, 3)), rtol=1e-9)
    assert row["stop"] - row["start"] == num_latent_frames(description, row)


def test_reader_of_the_page_computes_the_same_cache_id(path):
    description = read_description(path)
    assert compute_cache_id(description["settings"]) == description["cache_id"]
    assert open_cache(path).schema.cache_id == description["cache_id"]


def test_reader_of_the_page_refuses_another_version(path, tmp_path):
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["vidlat"]["format_version"] = FORMAT_VERSION + 1
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"version {FORMAT_VERSION + 1} is not known"):
        read_description(tmp_path)


def section(title):
    return PAGE.split(f"\n## {title}")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Description", SCHEMA.to_attributes().keys()),
        ("Description", [field.name for field in dataclasses.fields(CacheSchema)]),
        ("Description", [field.name for field in dataclasses.fields(CacheSettings)]),
        (
            "Manifest",
            [field.name for field in (*dataclasses.fields(Manifest), *dataclasses.fields(RecordFile))],
        ),
        ("Records", VIDEO_COLUMNS.names),
        ("Failures", FAILURE_COLUMNS.names),
    ],
)
def test_every_field_and_column_has_its_row_on_the_page(title, names):
    rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(names) <= named


def test_page_names_no_field_that_does_not_exist():
    for title, names in (("Records", VIDEO_COLUMNS.names), ("Failures", FAILURE_COLUMNS.names)):
        rows = [line.split("|")[1] for line in section(title).splitlines() if line.startswith("| `")]
        assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(names)


def test_types_on_the_page_are_those_of_the_columns():
    words = {
        "double": "float64",
        "list<item: double>": "list of float64",
        "list<item: string>": "list of string",
        "list<item: int64>": "list of int64",
    }
    words |= {"map<string, string>": "map of string to string"}
    for line in section("Records").splitlines():
        if line.startswith("| `"):
            _, names, types, *_ = line.split("|")
            for name in re.findall(r"`(\w+)`", names):
                found = str(VIDEO_COLUMNS.field(name).type)
                assert types.strip().startswith(words.get(found, found)), name


def test_layout_on_the_page_is_that_of_the_arrays():
    text = section("Arrays")
    array = zarr_documents({}, SCHEMA, 8)["mean/zarr.json"]
    (sharding,) = array["codecs"]
    codecs = [codec["name"] for codec in sharding["configuration"]["codecs"]]
    numbered = re.search(r"^\| `codecs` \| 1\. (.*)$", text, re.MULTILINE)[1]
    assert [re.findall(r"`(\w+)`", part)[0] for part in re.split(r"\d\. ", numbered)] == codecs
    for name, value in sharding["configuration"]["codecs"][1]["configuration"].items():
        assert re.search(rf"`{name}` `?{value}`?", numbered), name
    assert f"separator `{array['chunk_key_encoding']['configuration']['separator']}`" in text
    assert json.dumps(array["fill_value"]) in text
    assert ", ".join(f"`{name}`" for name in array["dimension_names"]) in text
    assert f"`index_location` | `{sharding['configuration']['index_location']}`" in text
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    assert f"version {FORMAT_VERSION}" in PAGE.splitlines()[0]
