"""What a merge takes from each cache; what cannot become one is refused before anything is written."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vidlat.errors import CacheMismatchError, InputError, StoreError, one_line, shown
from vidlat.store import layout
from vidlat.store.metadata import array_frames, read_schema
from vidlat.store.records.log import RecordSnapshot, dropped_videos, read_records
from vidlat.store.records.ranges import (
    CHECKSUM_SIZES,
    CHECKSUMS,
    RANGE_COLUMNS,
    REPAIR,
    require_possible_ranges,
    shards_of,
)
from vidlat.store.schema import CacheSchema
from vidlat.store.storage import filesystem
from vidlat.store.storage.opening import local_cache
from vidlat.store.writing.lease import reading, refuse_if_held
from vidlat.types import Selection

ROWS_AT_ONCE = 10_000

OF_CONTENT = ("source_sha256", "source_selection")
"""Columns that tell the content of a video from others."""

OF_THE_VAE = ("vae_name", "vae_hash", "vae_licence", "vae_path")
"""Fields of a description that may differ: a merged cache keeps those of the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePart:
    """A cache to merge, as it was when the merge was planned.

    cache_uuid, sequence: of its manifest. is_new: (N,) whether each of its videos, sorted by video_id, is to
    be added; the others are there already. shards: sorted numbers of the shards that hold those to be added.
    failures: ids of the failures to be added.
    """

    path: Path
    cache_uuid: str
    sequence: int
    is_new: npt.NDArray[np.bool_]
    shards: npt.NDArray[np.int64]
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergePlan:
    """What a merge would do.

    schema: of the merged cache. first: the cache whose schema it is, `out` if that is there. planned_at: the
    sequence of the last commit to `out`, 0 where there is no cache. kept: by name, the fields of `schema` for
    which other caches have other values, which are lost, and those caches. same_content: ids of videos of one
    and the same content, for each that has several; all of them stay. dropped: ids of videos of
    the parts that are not added, since `out` has dropped them.
    """

    out: Path
    schema: CacheSchema
    first: Path
    planned_at: int
    parts: tuple[MergePart, ...]
    kept: Mapping[str, tuple[Path, ...]]
    same_content: tuple[tuple[str, ...], ...]
    dropped: tuple[str, ...]

    @property
    def num_files(self) -> int:
        """Files of shards to be linked or copied."""
        return len(layout.ARRAYS) * sum(len(part.shards) for part in self.parts)


def plan_merge(parts: Sequence[Path], out: Path) -> MergePlan:
    """Plan the merge of the caches `parts` into the cache at `out`, which may be there; changes nothing.

    Raises InputError if `out` is one of the parts or lies in a cache, CacheMismatchError for caches of
    other settings, ids or layout, and StoreError for one that is damaged, in use or unfinished, or if two
    caches hold different videos under one id.
    """
    _require_apart(parts, out)
    is_there = layout.holds_anything(out)
    schemas = {path: read_schema(local_cache(path)) for path in ([out, *parts] if is_there else parts)}
    first, schema = next(iter(schemas.items()))
    _require_alike(schemas)
    known, planned_at = _Known(), 0
    if is_there:
        refuse_if_held(out)
        planned_at = known.add(out)
    planned = tuple(known.plan(path, schema) for path in parts)
    return MergePlan(
        out=out,
        schema=schema,
        first=first,
        planned_at=planned_at,
        parts=planned,
        kept=dict(_kept(schemas)),
        same_content=tuple(map(tuple, known.same_content.values())),
        dropped=tuple(sorted(known.left_out)),
    )


def differences(one: CacheSchema, other: CacheSchema) -> dict[str, tuple[Any, Any]]:
    """The fields with both values, for which no cache can hold the latents of both as they are."""
    names = [field.name for field in dataclasses.fields(CacheSchema)]
    layouts = {
        name: (getattr(one, name), getattr(other, name))
        for name in names
        if name not in ("settings", *OF_THE_VAE)
    }
    return one.settings.differences(other.settings) | {
        name: (ours, theirs) for name, (ours, theirs) in layouts.items() if ours != theirs
    }


def refuse_unfinished(path: Path) -> None:
    """Raises StoreError for a cache to merge that a process writes to, or did when it died."""
    if dead := refuse_if_held(path):
        raise StoreError(
            f"{path}: may be unfinished: {dead} ended without releasing it; run that command again, or "
            "`vidlat verify --repair` to merge what is there"
        )


def _require_apart(parts: Sequence[Path], out: Path) -> None:
    if not parts:
        raise InputError("no cache to merge; name one or more")
    layout.require_outside_caches(out, may_be_one=True)
    target = out.resolve()
    for path in parts:
        folder = path.resolve()
        if folder == target:
            raise InputError(f"{out}: is one of the caches to merge; give another --out")
        if target in folder.parents:
            raise InputError(f"{path}: lies in {out}, into which it is to be merged; give another --out")


def _require_alike(schemas: Mapping[Path, CacheSchema]) -> None:
    """Raises CacheMismatchError that names every differing field of every cache, beside that of the first."""
    (first, schema), *others = schemas.items()
    faults = []
    for path, other in others:
        fields = [
            f"{name}: {shown(value)}, there {shown(expected)}"
            for name, (expected, value) in differences(schema, other).items()
        ]
        if fields:
            faults.append(f"{path}: made otherwise than {first} ({'; '.join(fields)})")
    if faults:
        raise CacheMismatchError(
            f"{'; '.join(faults)}: caches of equal settings, ids and layout become one, so merge these apart "
            "or encode their videos again; nothing was changed"
        )


def _kept(schemas: Mapping[Path, CacheSchema]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    first = next(iter(schemas.values()))
    for name in OF_THE_VAE:
        others = [path for path, other in schemas.items() if getattr(other, name) != getattr(first, name)]
        if others:
            yield name, tuple(others)


class _Known:
    """The videos and failures that the merged cache holds by then, as one part after the other is planned.

    same_content: by content, the ids of the videos that share one. left_out: ids of videos of the parts that
    the merged cache has dropped before.
    """

    def __init__(self) -> None:
        self._videos: dict[str, tuple[bytes, Path]] = {}
        self.left_out: set[str] = set()
        self._dropped: set[str] = set()
        self._failures: set[str] = set()
        self._first_ids: dict[bytes, str] = {}
        self.same_content: dict[bytes, list[str]] = {}

    def add(self, path: Path) -> int:
        """Add what the cache at `path` holds; returns the sequence of its last commit."""
        records = read_records(local_cache(path))
        for video_id, content in _contents(path, records.videos.read(OF_CONTENT)):
            self._add(video_id, content, path)
        self._failures.update(_failures(records))
        self._dropped.update(dropped_videos(records))
        return records.manifest.sequence

    def plan(self, path: Path, schema: CacheSchema) -> MergePart:
        """What is to be added of the cache at `path`; it counts as added afterwards."""
        with reading(path):
            refuse_unfinished(path)
            records = read_records(local_cache(path))
            videos = records.videos.read([*OF_CONTENT, *RANGE_COLUMNS])
            contents = list(_contents(path, videos))
            self._require_no_other(path, contents)
            unwanted = self._videos.keys() | self._dropped
            is_new = np.array([video_id not in unwanted for video_id, _ in contents], bool)
            self.left_out |= self._dropped.intersection(dict(contents))
            videos = videos.append_column(CHECKSUM_SIZES, records.videos.read_sizes(CHECKSUMS))
            shards = _shards_to_take(path, schema, videos, is_new)
            failures, dropped = _failures(records), set(dropped_videos(records))
        added = [video for video, is_added in zip(contents, is_new.tolist(), strict=True) if is_added]
        # Its own failures stand beside its own videos, as they did; those of earlier caches are superseded.
        self._failures.difference_update(video_id for video_id, _ in added)
        new_failures = [
            video_id
            for video_id in failures
            if video_id not in self._videos
            and video_id not in (self._dropped if video_id in dropped else self._failures)
        ]
        for video_id, content in added:
            self._add(video_id, content, path)
        self._failures.update(new_failures)
        return MergePart(
            path=path,
            cache_uuid=records.manifest.cache_uuid,
            sequence=records.manifest.sequence,
            is_new=is_new,
            shards=shards,
            failures=tuple(new_failures),
        )

    def _add(self, video_id: str, content: bytes, path: Path) -> None:
        self._videos[video_id] = content, path
        first = self._first_ids.setdefault(content, video_id)
        if first != video_id:
            self.same_content.setdefault(content, [first]).append(video_id)

    def _require_no_other(self, path: Path, contents: Sequence[tuple[str, bytes]]) -> None:
        """Raises StoreError where a video is known by its id, and has another content."""
        others = [
            (video_id, known[1])
            for video_id, content in contents
            if (known := self._videos.get(video_id)) and known[0] != content
        ]
        if others:
            video_id, holder = others[0]
            more = f", and so it is with {len(others) - 1} more" if len(others) > 1 else ""
            raise StoreError(
                f"{video_id}: {holder} and {path} hold different videos of this id{more}; remove one with "
                "`vidlat prune --drop`, or encode one under another id, which a manifest can give; nothing "
                "was changed"
            )


def _failures(records: RecordSnapshot) -> list[str]:
    """The ids of the failures that stand."""
    if not records.manifest.files_in(layout.FAILURES):
        return []  # saves a walk through the records of all videos
    ids: list[str] = records.standing_failures([])["video_id"].to_pylist()
    return ids


def _contents(path: Path, videos: pa.Table) -> Iterator[tuple[str, bytes]]:
    """The id of each video, in their order, and what tells its content from others: 32 bytes."""
    for block in videos.select(["video_id", *OF_CONTENT]).to_batches(max_chunksize=ROWS_AT_ONCE):
        for video_id, sha256, selection in zip(*(c.to_pylist() for c in block.columns), strict=True):
            try:
                Selection.from_text(selection)
            except ValueError as error:
                what = f"source_selection: {one_line(error)}"
                raise StoreError(f"{path}: damaged: {video_id}: {what}; {REPAIR}") from error
            # An unknown content, which no encode leaves, is never that of a video elsewhere.
            content = f"{sha256 or path.resolve()} {selection}"
            yield video_id, hashlib.sha256(content.encode("utf-8", "surrogateescape")).digest()


def _shards_to_take(
    path: Path, schema: CacheSchema, videos: pa.Table, is_new: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """The shards that hold new videos. Raises StoreError for an impossible range or a shard that is no file.

    videos: RANGE_COLUMNS and CHECKSUM_SIZES. is_new: (N,).
    """
    table = videos.append_column("is_new", pa.array(is_new))
    # After the records, whose ranges the arrays must cover.
    num_frames = min(array_frames(local_cache(path), schema).values())
    table = require_possible_ranges(str(path), table, schema, num_frames)
    table = table.filter(table["is_new"])
    starts, stops = table["start"].to_numpy(), table["stop"].to_numpy()
    shards = shards_of(starts, stops, schema.shard_frames)
    for shard in shards.tolist():
        for where in (layout.shard_file(name, shard) for name in layout.ARRAYS):
            # Text, since a Path for each of a million files takes seconds.
            if not filesystem.is_regular_file(f"{path}/{where}"):
                index = np.searchsorted(stops, shard * schema.shard_frames, side="right")
                video_id = table["video_id"][int(index)].as_py()
                raise StoreError(f"{path}: damaged: {video_id}: {where} {_file_fault(path / where)}")
    return shards


def _file_fault(file: Path) -> str:
    """Why the file of a shard cannot be taken, and what to do."""
    try:
        filesystem.require_regular_file(file, follow=False)
    except FileNotFoundError:
        return f"is missing; {REPAIR}"
    except OSError as error:
        # Readers follow a link to a file, so that verify finds nothing wrong.
        remedy = "put the file itself there" if filesystem.is_link(file) else REPAIR
        return f"{error.strerror}; {remedy}"
    return "is a regular file by now; run the same command again"
