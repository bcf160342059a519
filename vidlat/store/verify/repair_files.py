"""Repairs that need no video: of metadata and record files, and the removal of leftovers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError
from vidlat.store import layout
from vidlat.store.metadata import (
    MOST_FRAMES,
    read_zarr_document,
    write_document,
    zarr_documents,
)
from vidlat.store.records.log import describe_record_files, read_records, roll_forward
from vidlat.store.records.manifest import Manifest, RecordFile, read_committed, read_manifest, write_manifest
from vidlat.store.records.tables import SOURCE_COLUMNS, latest, to_source, without_removed
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.verify.record_files import read_all_records
from vidlat.store.verify.stray_files import KnownFiles, file_problem, find_suspects
from vidlat.store.verify.zarr_metadata import ZarrMetadata, read_zarr_metadata
from vidlat.store.writing.lease import hold_lease
from vidlat.types import Source
from vidlat.wording import shorten

PURPOSE = "vidlat verify --repair"

_ENCODE_AGAIN = (
    "its videos are lost, and videos that it removed may be back: run `vidlat encode` with your inputs "
    "again, which adds what is missing"
)


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
    with _held(path):
        return [*_repair_records(path), *_repair_metadata(path)]


def remove_leftovers(path: Path, known: Collection[str] = ()) -> list[Outcome]:
    """Delete leftovers, and report foreign files without touching them.

    known: leftovers that were found before; those that are gone by now, such as the lease of a dead process,
    are reported as removed. Raises StoreError like `repair_description`.
    """
    removed, foreign = [], []
    with _held(path):
        files = KnownFiles.of(path, read_zarr_metadata(local_cache(path)).num_shards)
        for suspect in find_suspects(path, files):
            problem = file_problem(path, suspect.where, files)
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
    """The source of each of these videos that has a record, by video_id.

    Unlike `LatentCache.sources` it accepts impossible ranges. Raises StoreError for a damaged file.
    """
    table = read_records(local_cache(path)).videos.read(SOURCE_COLUMNS)
    rows = table.filter(pc.is_in(table["video_id"], pa.array(sorted(video_ids), pa.string()))).to_pylist()
    return {row["video_id"]: to_source(*(row[name] for name in SOURCE_COLUMNS)) for row in rows}


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold and lock the cache, which may be damaged."""
    read_zarr_metadata(local_cache(path))  # before a file is created in a folder that is not a cache
    try:
        with hold_lease(path, PURPOSE) as lease:
            filesystem.make_folder(path / layout.FAILURES)
            with filesystem.locked(path / layout.LOCK):
                lease.require_held()
                yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be repaired: {error}") from error


def _repair_metadata(path: Path) -> Iterator[Outcome]:
    """Rewrite the zarr.json files from the attributes of the root and the length of the arrays."""
    metadata = read_zarr_metadata(local_cache(path))
    if metadata.is_contradicted or (schema := metadata.schema) is None:
        yield _lost_description(metadata)
        return
    frames = max(
        (n for n in _implied_frames(path, metadata, schema.shard_frames) if n <= MOST_FRAMES), default=0
    )
    num_frames = -(-frames // schema.shard_frames) * schema.shard_frames
    attributes = _attributes(path) | {"vidlat": schema.to_attributes()}
    for name, expected in zarr_documents(attributes, schema, num_frames).items():
        found = _read_if_possible(path, name)
        document = dict(expected)
        if name != layout.ROOT and isinstance(found.get("attributes"), dict):
            document["attributes"] = found["attributes"]  # set by other programs
        if any(found.get(field) != value for field, value in document.items()):
            filesystem.make_folder((path / name).parent)
            write_document(path, name, document)
            what = f"rewritten from the description, for {num_frames} latent frames"
            yield Outcome(where=name, state="repaired", what=what)
    yield from _repair_copy(path, schema.to_attributes())


def _repair_copy(path: Path, description: dict[str, Any]) -> Iterator[Outcome]:
    """Rewrite the copy of the description in the manifest."""
    try:
        manifest = read_manifest(local_cache(path))
    except StoreError:
        return  # reported with the records
    if manifest.description != description:
        write_manifest(path, replace(manifest, description=description))
        what = f"its copy of the description rewritten from that in {layout.ROOT}"
        yield Outcome(where=layout.MANIFEST, state="repaired", what=what)


def _implied_frames(path: Path, metadata: ZarrMetadata, shard_frames: int) -> Iterator[int]:
    """Lengths that the arrays must at least have by their metadata, shards and records.

    No shard is cut off, and no range that a record names is reserved again, even if its shards are lost.
    """
    yield from metadata.lengths
    for name in layout.ARRAYS:
        yield from ((shard + 1) * shard_frames for shard in layout.stored_shards(path, name))
    videos = read_all_records(local_cache(path), ["video_id", "sequence", "num_frames", "stop"]).videos
    yield from without_removed(latest(videos))["stop"].to_pylist()


def _attributes(path: Path) -> dict[str, Any]:
    """The attributes of the root, some of which other programs may have set; none if they are lost."""
    attributes = _read_if_possible(path, layout.ROOT).get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _lost_description(metadata: ZarrMetadata) -> Outcome:
    reason = "; ".join(what for where, _, what in metadata.findings if where == layout.ROOT)
    return Outcome(
        where=layout.ROOT,
        state="not repairable",
        what=f"{reason}; the copy in {layout.MANIFEST} is damaged too. Restore one of them from a backup; or "
        "encode one video with exactly the same settings into another cache, copy its zarr.json here, and "
        "repair again",
    )


def _repair_records(path: Path) -> Iterator[Outcome]:
    """Bring the manifest and the record files that can be read into agreement."""
    reading = read_all_records(local_cache(path), ["video_id", "sequence"])
    if not reading.problems:
        roll_forward(local_cache(path), read_committed(local_cache(path)))
        return
    outcomes = [_set_aside(path, where) for where in reading.damaged]
    yield from outcomes
    if any(outcome.state == "not repairable" for outcome in outcomes):
        return  # a file that cannot be read now may be sound
    for where in reading.missing:
        yield Outcome(where=where, state="lost", what=f"is missing; {_ENCODE_AGAIN}")
    manifest = reading.manifest or _new_manifest(path)
    if manifest is None:
        return  # reported with the description
    # With files that the manifest does not name: they may hold what is missing, or an earlier state of it.
    files, _ = describe_record_files(local_cache(path))
    last = max((layout.commits_of(file.where)[1] for file in files), default=0)
    manifest = replace(manifest, sequence=max(manifest.sequence, last), files=tuple(files))
    write_manifest(path, manifest)
    if reading.manifest is None:
        yield _rebuilt(files)


def _new_manifest(path: Path) -> Manifest | None:
    """A manifest without files, from the description in the root; None if that is lost too."""
    schema = read_zarr_metadata(local_cache(path)).schema
    return Manifest(cache_uuid=uuid4().hex, description=schema.to_attributes()) if schema else None


def _rebuilt(files: Sequence[RecordFile]) -> Outcome:
    gaps, following = [], 1
    for first, last in sorted(layout.commits_of(file.where) for file in files):
        if following < first:
            gaps.append(f"{following}" if first == following + 1 else f"{following} to {first - 1}")
        following = max(following, last + 1)
    what = f"written again, with the {len(files)} record files that are there"
    if files and not gaps:
        return Outcome(where=layout.MANIFEST, state="repaired", what=what)
    lost = f"commits {shorten(gaps)} are in none" if files else "none is left"
    return Outcome(where=layout.MANIFEST, state="lost", what=f"{what}: {lost}; {_ENCODE_AGAIN}")


def _set_aside(path: Path, where: str) -> Outcome:
    """Rename a damaged record file, so that no reader opens it and its content is kept."""
    file = path / where
    try:
        content = filesystem.read(file)
    except OSError as error:
        what = f"cannot be opened ({error.strerror}): make it readable and repair again"
        return Outcome(where=where, state="not repairable", what=what)
    aside = file.with_name(f"{file.name}.{google_crc32c.value(content):08x}.damaged")
    filesystem.rename(file, aside)
    filesystem.sync(file.parent)
    what = f"set aside as {aside.relative_to(path)}; "
    if where.startswith(layout.FAILURES):
        return Outcome(where=where, state="repaired", what=what + "the next encode tries its videos again")
    return Outcome(where=where, state="lost", what=what + _ENCODE_AGAIN)


def _read_if_possible(path: Path, name: str) -> dict[str, Any]:
    with suppress(StoreError):
        return read_zarr_document(local_cache(path), name)
    return {}
