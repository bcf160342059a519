"""Problems of the manifest and the record files, and videos whose ranges overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from vidlat.errors import StoreError
from vidlat.store.layout import MANIFEST, RECORDS
from vidlat.store.records.log import COLUMNS, ROWS_AT_ONCE, describe_record_files, read_checked
from vidlat.store.records.manifest import Manifest, RecordFile, read_manifest
from vidlat.store.storage.interface import Missing, Storage, Unreachable
from vidlat.store.storage.local import LocalStorage
from vidlat.store.verify.problem import Problem


@dataclass(slots=True, kw_only=True)
class RecordReading:
    """What can be read of the records of a cache.

    manifest: None if it cannot be read; then every readable record file counts. videos: some columns of all
    rows of videos. problems: of the manifest and the files. damaged, missing: files whose rows were not read,
    by their path relative to the cache.
    """

    manifest: Manifest | None
    videos: pa.Table
    problems: list[Problem]
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_all_records(storage: Storage, columns: Sequence[str]) -> RecordReading:
    """Read every record file of a cache, whatever is damaged.

    columns: of the videos, video_id and sequence among them.
    """
    manifest, problems = None, []
    try:
        manifest = read_manifest(storage)
    except Unreachable:
        raise
    except StoreError as error:
        problems.append(_problem(storage.where, MANIFEST, error))
    files: Sequence[RecordFile] = manifest.files if manifest else ()
    damaged: dict[str, StoreError] = {}
    if manifest is None and isinstance(storage, LocalStorage):
        files, damaged = describe_record_files(storage)
    problems += [_problem(storage.where, where, error) for where, error in damaged.items()]
    schema = pa.schema([COLUMNS[RECORDS].field(name) for name in columns])
    reading = RecordReading(
        manifest=manifest, videos=schema.empty_table(), problems=problems, damaged=list(damaged)
    )
    tables = [reading.videos]
    for file in files:
        is_of_videos = file.where.startswith(RECORDS)
        try:
            table = read_checked(storage, file, columns if is_of_videos else ["video_id", "sequence"])
            if len(table) != file.num_rows:
                raise StoreError(f"has {len(table)} rows, {MANIFEST} says {file.num_rows}")
        except Missing:
            reading.missing.append(file.where)
            problems.append(_problem(storage.where, file.where, "is missing", file.num_rows))
        except Unreachable:
            raise
        except StoreError as error:
            reading.damaged.append(file.where)
            problems.append(_problem(storage.where, file.where, error, file.num_rows))
        else:
            tables += [table] if is_of_videos else []
    reading.videos = pa.concat_tables(tables)
    return reading


def _problem(cache: str, where: str, what: object, num_rows: int | None = None) -> Problem:
    text = str(what).removeprefix(f"{cache}: ").removeprefix("damaged: ").removeprefix(f"{where} ")
    lost = "" if num_rows is None else f"; rows lost with it: {num_rows}"
    return Problem(where=where, kind="record", what=f"{text}{lost}")


def overlaps(videos: pa.Table) -> Iterator[Problem]:
    """A problem for both videos of every overlap; `videos` are sorted by start."""
    farthest: tuple[int, str] = (0, "")
    for batch in videos.select(["start", "stop", "video_id"]).to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            if not 0 <= row["start"] < row["stop"]:
                continue  # reported by `range_faults`
            stop, other = farthest
            if row["start"] < stop:
                shared = f"latent frames {row['start']}-{min(stop, row['stop'])} are named by"
                for one, two in ((row["video_id"], other), (other, row["video_id"])):
                    yield Problem(where=one, kind="overlap", what=f"{shared} {two} too", is_video=True)
            farthest = max(farthest, (row["stop"], row["video_id"]))
