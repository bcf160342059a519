"""`vidlat split`: writes which videos are for training, validation and test, and shows the parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from vidlat.commands.display import console, print_table, quoted
from vidlat.config import SplitConfig
from vidlat.labels.assigning import numbers_in, place_videos
from vidlat.labels.matching import match_labels
from vidlat.labels.reading import read_labels
from vidlat.labels.split_file import PARTS, Placed, create_split, extend_split, read_split_rows
from vidlat.labels.subjects import label_of, subject_notes
from vidlat.store.reader import open_cache
from vidlat.types import Annotation, Source
from vidlat.wording import format_count

BARS = " ▁▂▃▄▅▆▇█"
NUM_BINS = 12
MOST_CLASSES = 8
"""Values of a label that a row of the table shows."""


def split(
    latents: str | Path, out: Path, extend: bool, labels: Path | None, settings: dict[str, Any]
) -> None:
    """Write the file, and print a table of its parts."""
    config = SplitConfig.from_mapping(settings)
    rows = read_split_rows(out) if extend else {}
    cache = open_cache(latents, hold=False)
    sources = cache.sources()
    annotations = _annotations(cache.annotations(), sources, labels)
    placed, new = place_videos(sources, annotations, config, rows)
    added = {video_id: placed[video_id] for video_id in new}
    if not extend:
        create_split(out, added)
    elif added:
        extend_split(out, added)
    if not (config.by or config.by_pattern):
        for line in subject_notes(sources, annotations, new):
            console.print(f"Note: {line}", soft_wrap=True)
    title = f"{format_count(len(added), 'video')} {'added to' if extend else '->'} {out}"
    label = config.stratify
    texts = {id: label_of(annotations.get(id, Annotation()), label) for id in placed} if label else {}
    _print_parts(title, placed, label, texts)
    console.print(f"next: {_training(latents, out, labels, label)}", soft_wrap=True)


def _training(latents: str | Path, out: Path, labels: Path | None, stratified: str | None) -> str:
    """The command of a training with this split, under a name that is free."""
    names = (Path("runs", name) for name in chain(["first"], map(str, count(2))))
    run = next(name for name in names if not name.exists())
    condition = ""
    if stratified and stratified != "subject":
        table = f" --labels {quoted(labels)}" if labels else ""
        condition = f"{table} --condition {quoted(stratified)}"
    return f"vidlat train --latents {quoted(latents)} --split {quoted(out)}{condition} --out {run}"


def _annotations(
    known: Mapping[str, Annotation], sources: Mapping[str, Source], labels: Path | None
) -> Mapping[str, Annotation]:
    if labels is None:
        return known
    match = match_labels(read_labels(labels), sources)
    for line in match.lines():
        console.print(line, soft_wrap=True)
    return {id: known.get(id, Annotation()).updated(match.rows.get(id, Annotation())) for id in sources}


def _print_parts(
    title: str, placed: Mapping[str, Placed], label: str | None, texts: Mapping[str, str]
) -> None:
    """A row for each part: subjects, videos and how often which value of the label is there."""
    values = sorted({text for text in texts.values() if text})
    numbers = numbers_in(values)
    is_number = numbers is not None and len(values) > MOST_CLASSES
    columns = ["part", "subjects", "videos"]
    if label:
        columns.append(
            f"{label} from {min(numbers):g} to {max(numbers):g}" if is_number and numbers else label
        )
    rows = []
    for part in PARTS:
        ids = [video_id for video_id, of in placed.items() if of.part == part]
        row = [part, f"{len({placed[id].subject for id in ids}):,}", f"{len(ids):,}"]
        if label:
            shown = [texts[id] for id in ids if texts[id]]
            row.append(_histogram(shown, values) if is_number else _counts(shown))
        rows.append(row)
    print_table(title, columns, rows)


def _histogram(texts: Sequence[str], values: Iterable[str]) -> str:
    """Bars over the range of all values, the highest the commonest bin of this part."""
    ends = [float(text) for text in values]
    counts, _ = np.histogram([float(text) for text in texts], NUM_BINS, (min(ends), max(ends)))
    highest = max(counts.max(), 1)
    return "".join(BARS[-(-int(count) * (len(BARS) - 1) // int(highest))] for count in counts)


def _counts(texts: Iterable[str]) -> str:
    """Such as `a4c 12, a2c 3`."""
    common = Counter(texts).most_common()
    more = f" and {len(common) - MOST_CLASSES} more" if len(common) > MOST_CLASSES else ""
    return ", ".join(f"{text} {count:,}" for text, count in common[:MOST_CLASSES]) + more
