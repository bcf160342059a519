"""`vidlat ls`: the videos of a cache, one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click

from vidlat.commands.display import echo
from vidlat.errors import printable
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.records.tables import ANNOTATION_COLUMNS, SOURCE_COLUMNS, to_source
from vidlat.store.sources import source_state
from vidlat.types import Annotation, FailureRecord
from vidlat.where import KnownVideo, videos_where

LINES_AT_ONCE = 1000

HEADER = f"{'state':<8} {'frames':>8} {'fps':>7} {'seconds':>8} {'pixels':>11}"


def ls(
    latents: str | Path,
    failed: bool,
    traceback: bool,
    dropped: bool,
    where: str | None,
    labels: bool,
    as_json: bool,
) -> None:
    """Print a line per video, per failure, or per video that was dropped."""
    if failed and dropped:
        raise click.UsageError("give --failed or --dropped, not both")
    if traceback and not failed:
        raise click.UsageError("--traceback goes with --failed")
    if where is not None and (failed or dropped):
        raise click.UsageError("--where chooses among videos; leave --failed and --dropped out")
    if labels and (failed or dropped or as_json):
        raise click.UsageError("--labels adds columns to the videos; --json holds them anyway")
    cache = open_cache(latents, hold=False)
    if failed:
        failures = list(cache.failures().values())
        _print(_json_array(map(_failure_row, failures)) if as_json else _failure_lines(failures, traceback))
    elif dropped:
        ids = cache.dropped()
        _print(_json_array({"video_id": video_id} for video_id in ids) if as_json else map(printable, ids))
    else:
        rows = _video_rows(cache, None if where is None else _chosen(cache, where))
        _print(_json_array(rows) if as_json else _video_lines(rows, _label_widths(cache) if labels else {}))


def _print(lines: Iterable[str]) -> None:
    # Many lines per write: a cache may hold a million videos. The reader may stop after ten.
    lines = iter(lines)
    while block := list(islice(lines, LINES_AT_ONCE)):
        echo(*block)


def _json_array(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The lines of a JSON array, one object per line, without holding them all in memory."""
    separator = "["
    for row in rows:
        yield f"{separator}{json.dumps(row)}"
        separator = ","
    yield "]" if separator == "," else "[]"


def _chosen(cache: LatentCache, where: str) -> set[str]:
    """Ids of the videos for which a condition holds."""
    rows = cache.rows("video_id", "num_frames", "fps", *ANNOTATION_COLUMNS)
    facts = (
        KnownVideo(video_id, subject, num_frames, fps, dict(labels))
        for video_id, num_frames, fps, subject, labels in rows
    )
    return set(videos_where(where, facts))


def _video_rows(cache: LatentCache, chosen: set[str] | None) -> Iterator[dict[str, Any]]:
    names = ("video_id", "num_frames", "fps", "height", "width", *ANNOTATION_COLUMNS, *SOURCE_COLUMNS)
    warnings = cache.warnings()
    for video_id, num_frames, fps, height, width, subject, labels, *cells in cache.rows(*names):
        if chosen is not None and video_id not in chosen:
            continue
        state = source_state(to_source(*cells), may_be_elsewhere=cache.is_remote)
        noticed = warnings.get(video_id, [])
        yield {
            "video_id": video_id,
            "num_frames": num_frames,
            "fps": fps or None,
            "seconds": num_frames / fps if fps else None,
            "height": height,
            "width": width,
            "source_path": cells[0],
            "subject": subject,
            "labels": dict(labels),
            "state": "warnings" if state == "ok" and noticed else state,
            "warnings": noticed,
        }


def _label_widths(cache: LatentCache) -> dict[str, int]:
    """How wide the column of each label is, the subject first, with room for the longest value."""
    widths: dict[str, int] = {}
    for annotation in cache.annotations().values():
        for name, text in annotation.columns().items():
            widths[name] = max(widths.get(name, len(printable(name))), len(printable(text)))
    return {name: widths[name] for name in sorted(widths, key=lambda name: (name != "subject", name))}


def _video_lines(rows: Iterable[dict[str, Any]], widths: Mapping[str, int]) -> Iterator[str]:
    """A table with a column for each label in `widths`; names come last, so that none is cut or padded."""
    names = [f"{printable(name):<{width}}  " for name, width in widths.items()]
    yield f"{HEADER}  {''.join(names)}video"
    for row in rows:
        rate = _format_rate(row["fps"]) if row["fps"] else "-"
        seconds = f"{row['seconds']:.2f}" if row["fps"] else "-"
        pixels = f"{row['width']} x {row['height']}"
        numbers = f"{row['num_frames']:>8} {rate:>7} {seconds:>8} {pixels:>11}"
        texts = Annotation(row["subject"], row["labels"]).columns()
        labels = [f"{printable(texts.get(name, '-')):<{width}}  " for name, width in widths.items()]
        yield f"{row['state']:<8} {numbers}  {''.join(labels)}{row['video_id']}"


def _format_rate(fps: float) -> str:
    """A frame rate in 7 columns: an implausible one must not look like 0."""
    return f"{fps:.2f}" if 0.01 <= fps < 10_000 else f"{fps:.1e}"


def _failure_row(failure: FailureRecord) -> dict[str, Any]:
    return {
        "video_id": failure.video_id,
        "kind": failure.kind,
        "reason": failure.reason,
        "traceback": failure.traceback,
        "source_path": failure.source.path,
    }


def _failure_lines(failures: list[FailureRecord], with_traceback: bool) -> Iterator[str]:
    names = [printable(failure.video_id) for failure in failures]
    name_width = max(map(len, ["video", *names]))
    kind_width = max(map(len, ["kind", *(failure.kind for failure in failures)]))
    yield f"{'video':<{name_width}}  {'kind':<{kind_width}}  reason"
    for name, failure in zip(names, failures, strict=True):
        yield f"{name:<{name_width}}  {failure.kind:<{kind_width}}  {failure.reason}"
        if with_traceback:
            yield from (f"    {line}" for line in failure.traceback.splitlines())
