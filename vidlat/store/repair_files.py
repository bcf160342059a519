"""Repairs that need no video: of metadata and record files, and the removal of leftovers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError
from vidlat.store import filesystem, layout
from vidlat.store.lease import hold_lease
from vidlat.store.log import RecordLogs, read_record_file, to_parquet
from vidlat.store.metadata import read_attributes, read_document, read_schema, zarr_documents
from vidlat.store.records import (
    FAILURE_COLUMNS,
    SOURCE_COLUMNS,
    VIDEO_COLUMNS,
    latest,
    to_source,
    without_removed,
)
from vidlat.store.verify.record_files import read_log
from vidlat.store.verify.stray_files import file_problem, find_suspects
from vidlat.store.verify.zarr_metadata import ZarrMetadata, read_zarr_metadata
from vidlat.types import Source

PURPOSE = "vidlat verify --repair"

MOST_FRAMES = 2**40
"""A greater length is damage: no disk holds as many latent frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a problem.

    where: a video_id, or a file's path relative to the cache. state: `lost` if the cache is sound again but
    has lost content. what: what was done, or why not, and what to do.
    """

    where: str
    state: Literal["repaired", "lost", "not repairable"]
    what: str


def repair_description(path: Path) -> list[Outcome]:
    """Rewrite zarr.json files that differ from the description, and set damaged record files aside.

    Raises StoreError if the cache cannot be written, or if another process writes to it.
    """
    with _held(path) as partial:
        return [
            *_repair_log(path, layout.RECORDS, VIDEO_COLUMNS, partial),
            *_repair_log(path, layout.FAILURES, FAILURE_COLUMNS, partial),
            *_repair_metadata(path, partial),
        ]


def remove_leftovers(path: Path, known: Collection[str] = ()) -> list[Outcome]:
    """Delete leftovers, and report foreign files without touching them.

    known: leftovers that were found before; those that are gone by now, such as the lease of a dead process,
    are reported as removed. Raises StoreError like `repair_description`.
    """
    removed, foreign = [], []
    with _held(path):
        num_shards = read_zarr_metadata(path).num_shards
        for suspect in find_suspects(path, num_shards):
            problem = file_problem(path, suspect.where, num_shards)
            if problem and problem.kind == "leftover":
                filesystem.delete_tree(suspect.file)
                removed.append(problem.where)
            elif problem:
                foreign.append(problem.where)
    removed += [where for where in known if where not in removed and not filesystem.exists(path / where)]
    left = "not a file of vidlat, so it is kept; move it away if nobody needs it"
    return [
        *(Outcome(where=where, state="repaired", what="removed") for where in removed),
        *(Outcome(where=where, state="not repairable", what=left) for where in foreign),
    ]


def recorded_sources(path: Path, video_ids: Collection[str]) -> dict[str, Source]:
    """The source of each video whose record has one, by video_id.

    Unlike `LatentCache.sources` it accepts rows that lack a value. Raises StoreError for a damaged file.
    """
    columns = ["video_id", "sequence", *SOURCE_COLUMNS]
    table = RecordLogs(path).videos.read_with_removed(columns)
    rows = table.filter(pc.is_in(table["video_id"], pa.array(sorted(video_ids), pa.string()))).to_pylist()
    return {
        row["video_id"]: to_source(*(row[name] for name in SOURCE_COLUMNS))
        for row in rows
        if None not in row.values()
    }


@contextmanager
def _held(path: Path) -> Iterator[Path]:
    """Hold and lock the cache, which may be damaged; gives the path of its temporary file."""
    read_zarr_metadata(path)  # before a file is created in a folder that is not a cache
    try:
        with hold_lease(path, PURPOSE) as lease:
            filesystem.make_folder(path / layout.FAILURES)
            with filesystem.locked(path / layout.LOCK):
                lease.require_held()
                yield path / layout.PARTIAL
    except OSError as error:
        raise StoreError(f"{path}: cannot be repaired: {error}") from error


def _repair_metadata(path: Path, partial: Path) -> Iterator[Outcome]:
    """Rewrite the zarr.json files from the attributes of the root and the length of the arrays."""
    try:
        schema = read_schema(path)
        metadata = read_zarr_metadata(path)
        if metadata.is_contradicted:
            raise StoreError(f"{path}: its description and the metadata of its arrays contradict each other")
    except StoreError as error:
        yield _lost_description(path, error)
        return
    frames = max(
        (n for n in _implied_frames(path, metadata, schema.shard_frames) if n <= MOST_FRAMES), default=0
    )
    num_frames = -(-frames // schema.shard_frames) * schema.shard_frames
    attributes = read_attributes(path) | {"vidlat": schema.to_attributes()}
    for name, expected in zarr_documents(attributes, schema, num_frames).items():
        found = _read_if_possible(path / name)
        document = dict(expected)
        if name != layout.ROOT and isinstance(found.get("attributes"), dict):
            document["attributes"] = found["attributes"]  # set by other programs
        if any(found.get(field) != value for field, value in document.items()):
            filesystem.make_folder((path / name).parent)
            filesystem.replace(path / name, json.dumps(document, indent=2).encode(), partial)
            what = f"rewritten from the description, for {num_frames} latent frames"
            yield Outcome(where=name, state="repaired", what=what)


def _implied_frames(path: Path, metadata: ZarrMetadata, shard_frames: int) -> Iterator[int]:
    """Lengths that the arrays must at least have by their metadata, shards and records.

    No shard is cut off, and no range that a record names is reserved again, even if its shards are lost.
    """
    yield from metadata.lengths
    for name in layout.ARRAYS:
        yield from ((shard + 1) * shard_frames for shard in layout.stored_shards(path, name))
    records = read_log(
        path, layout.RECORDS, VIDEO_COLUMNS, ["video_id", "sequence", "num_frames", "stop"]
    ).rows
    yield from without_removed(latest(records))["stop"].to_pylist()


def _lost_description(path: Path, error: StoreError) -> Outcome:
    reason = str(error).removeprefix(f"{path}/").removeprefix(f"{path}: ")
    return Outcome(
        where="zarr.json",
        state="not repairable",
        what=f"{reason}. Restore it from a backup; or encode one video with exactly the same settings into "
        "another cache, copy the zarr.json of that cache here, and repair again",
    )


def _repair_log(path: Path, folder: str, columns: pa.Schema, partial: Path) -> Iterator[Outcome]:
    reading = read_log(path, folder, columns, ["video_id", "sequence"])
    for where in reading.damaged:
        yield _set_aside(path, where, is_failures=folder == layout.FAILURES)
    for where in sorted({row.file for row in reading.incomplete if row.is_nameless}):
        yield _drop_nameless_rows(path / where, where, partial)


def _set_aside(path: Path, where: str, *, is_failures: bool) -> Outcome:
    """Rename a damaged record file, so that no reader opens it and its content is kept."""
    file = path / where
    try:
        content = filesystem.read(file)
    except OSError as error:
        what = f"cannot be opened ({error.strerror}): make it readable and repair again"
        return Outcome(where=where, state="not repairable", what=what)
    aside = file.with_name(f"{file.name}.{zlib.crc32(content):08x}.damaged")
    filesystem.rename(file, aside)
    filesystem.sync(file.parent)
    what = f"set aside as {aside.relative_to(path)}; "
    if is_failures:
        return Outcome(where=where, state="repaired", what=what + "the next encode tries its videos again")
    what += (
        "its videos are lost, and videos that it removed may be back: run `vidlat encode` with your inputs "
        "again, which adds what is missing"
    )
    return Outcome(where=where, state="lost", what=what)


def _drop_nameless_rows(file: Path, where: str, partial: Path) -> Outcome:
    table = read_record_file(file)
    has_name = pc.and_(table["video_id"].is_valid(), table["sequence"].is_valid())
    kept = table.filter(has_name)
    filesystem.replace(file, to_parquet(kept), partial)
    what = (
        f"{len(table) - len(kept)} of {len(table)} rows dropped, whose video or commit is unknown; "
        "run `vidlat encode` with your inputs again, which adds what is missing"
    )
    return Outcome(where=where, state="lost", what=what)


def _read_if_possible(file: Path) -> dict[str, Any]:
    with suppress(StoreError):
        return read_document(file)
    return {}
