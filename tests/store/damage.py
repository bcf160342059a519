"""Damage to a small cache, and the problems that verify finds."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from tests.store.caches import SCHEMA, add_videos, failure_of, random_posterior, writer_of
from vidlat.store.layout import MANIFEST
from vidlat.store.records.manifest import RecordFile, read_manifest
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.verify.problem import KINDS
from vidlat.store.writing.opening import create_cache

LENGTHS = {"a.mp4": 5, "b.mp4": 20, "c/[b].mp4": 3}
"""Shards of 8 latent frames: a.mp4 lies in 0 (0-5), b.mp4 in 1 to 3 (8-28), c in 4 (32-35)."""

MEAN_B, STD_B = "mean/c/0/2/0/0", "std/c/0/2/0/0"
RECORD_B = "videos/records/000000000002-000000000002.parquet"
ROOT = "zarr.json"


def make_three_videos(path):
    """A cache of three videos in three commits, and one failure."""
    create_cache(path, SCHEMA)
    for seed, (video_id, length) in enumerate(LENGTHS.items()):
        add_videos(path, {video_id: random_posterior(length, seed)})
    writer_of(path).record_failures([failure_of("d.mp4")])
    return path


def found(path):
    """(where, kind) of every problem; each must be one line and of a documented kind."""
    problems = list(verify_cache(path))
    assert all(problem.kind in KINDS and "\n" not in problem.what for problem in problems)
    return [(problem.where, problem.kind) for problem in problems]


def flip(file, position, bit=0):
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def rewrite(file, **columns):
    """Replace whole columns of a record file, as a hostile writer would; None removes one."""
    table = pq.ParquetFile(file).read()
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        if values is None:
            table = table.remove_column(index)
        else:
            field = table.schema.field(name)
            table = table.set_column(index, field, pa.array(values, field.type))
    pq.write_table(table, file, compression="zstd", use_dictionary=False)
    commit_as_it_is(file)


def commit_as_it_is(file):
    """Make the manifest name a record file as it is now, so that only its rows can give it away."""
    path, content = file.parents[2], file.read_bytes()
    where = file.relative_to(path).as_posix()
    manifest = read_manifest(local_cache(path))
    files = tuple(
        RecordFile.of(where, content, one.num_rows) if one.where == where else one for one in manifest.files
    )
    (path / MANIFEST).write_bytes(replace(manifest, files=files).to_json())


def edit_json(file, change):
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def write_latents(path, frames, value):
    """Write with zarr, like a program that does not know vidlat, so that the checksums of Zarr are right."""
    array = zarr.open_array(path / "mean", mode="r+")
    array[:, frames] = value
