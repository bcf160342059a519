"""Whether what a storage holds is an earlier state of a cache, to which a copy may add."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError, shown
from vidlat.store.copying.snapshot import DOCUMENTS, CacheSnapshot, array_lengths, read_snapshot, shard_keys
from vidlat.store.layout import LEASE, LEFTOVER, OWN_FILES, SHARD_FILE, is_record_file
from vidlat.store.records.ranges import CHECKSUMS, RANGE_COLUMNS
from vidlat.store.storage.interface import Missing, Storage
from vidlat.wording import format_count


class DivergedError(StoreError):
    """A target that holds what the cache to copy lacks."""


def read_target(source: CacheSnapshot, target: Storage) -> CacheSnapshot | None:
    """The cache in the target, which must be an earlier state of the source; None if there is none."""
    try:
        before = read_snapshot(target, source.record_files)
    except Missing:
        return None
    if before.manifest.cache_uuid != source.manifest.cache_uuid:
        raise DivergedError(
            f"{target.where}: holds another cache; expected nothing, or an earlier state of "
            f"{source.storage.where}: give another place"
        )
    if lacking := _lacking(source.videos, before.videos):
        number = format_count(len(lacking), "video")
        raise DivergedError(
            f"{target.where}: holds commits of {number} that {source.storage.where} lacks, such as "
            f"{shown(lacking[0])}; push to a new place, or pull it and merge the two"
        )
    if before.manifest.sequence > source.manifest.sequence:
        raise DivergedError(
            f"{target.where}: holds commit {before.manifest.sequence}, {source.storage.where} ends at "
            f"{source.manifest.sequence}; push to a new place, or pull it and go on from there"
        )
    return before


def _lacking(videos: pa.Table, earlier: pa.Table) -> list[str]:
    """The ids of videos of an earlier state that a later one neither holds, nor has replaced or removed.

    videos, earlier: the latest row of each video, removed ones included.
    """
    rows = pc.index_in(earlier["video_id"], value_set=videos["video_id"].combine_chunks())
    now = videos.take(rows.combine_chunks())
    is_later = pc.greater(now["sequence"], earlier["sequence"])
    is_equal = pc.equal(now["sequence"], earlier["sequence"])
    for name in (*RANGE_COLUMNS, CHECKSUMS):
        same = pc.equal(now[name], earlier[name])
        both_null = pc.and_(pc.is_null(now[name]), pc.is_null(earlier[name]))
        is_equal = pc.and_(is_equal, pc.or_(pc.fill_null(same, False), both_null))
    # A removed video may be gone without a trace: pruning forgets it.
    is_gone = pc.and_(pc.is_null(now["sequence"]), pc.equal(earlier["num_frames"], 0))
    stands = pc.or_(pc.fill_null(pc.or_(is_later, is_equal), False), is_gone)
    ids: list[str] = earlier["video_id"].filter(pc.invert(stands)).to_pylist()
    return ids


def require_no_others(source: CacheSnapshot, target: Storage, present: Mapping[str, int]) -> None:
    """Raises DivergedError if there is anything that no copy of the cache has left."""
    named = {*OWN_FILES, LEASE}
    patterns = SHARD_FILE, LEFTOVER
    strangers = [
        key
        for key in present
        if not (key in named or is_record_file(key) or any(each.fullmatch(key) for each in patterns))
    ]
    if strangers:
        raise DivergedError(
            f"{target.where}: holds {shown(min(strangers))}, which is of no cache; expected nothing, or an "
            "earlier state of this cache: give another place"
        )
    for name in filter(present.__contains__, DOCUMENTS):
        try:
            array_lengths(target, {name: target.read(name)[0]}, source.schema)
        except StoreError as error:
            raise DivergedError(f"{error}: it is of another program or cache; give another place") from error


def known_shards(source: CacheSnapshot, before: CacheSnapshot | None) -> set[str]:
    """The keys of shards whose content is known: a video that stands in both states lies in them.

    A shard is written once, with all its videos.
    """
    if before is None:
        return set()
    now, then = source.standing, before.standing
    rows = pc.index_in(now["video_id"], value_set=then["video_id"].combine_chunks()).combine_chunks()
    stands = pc.fill_null(pc.equal(then["sequence"].take(rows), now["sequence"]), False)
    return set(shard_keys(now.filter(stands), source.schema.shard_frames))
