"""Checks of the values in records: which of them vidlat can have written, whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidlat.errors import StoreError, one_line, shown
from vidlat.types import Selection

Rows: TypeAlias = "pa.Table | pa.RecordBatch"
Mask = npt.NDArray[np.bool_]

OPTIONAL_COLUMNS = {"pts_seconds"}

LEAST = {
    **dict.fromkeys(("sequence", "height", "width", "batch"), 1),
    "source_num_bytes": 0,
}
"""The least value of a number. Ranges are compared with the arrays, statistics with the latents."""

SLOWEST, FASTEST = 1e-100, 1e100
"""Frame rates, by which a number of frames can be divided; 0 is an unknown one."""

SUMS = ("latents_sum_mean", "latents_sum_mean_squared", "latents_sum_std_squared")

COUNTS = {"value_range": (0, 2), "box": (0, 4)}
"""How many values a list may have."""


def require_sound(rows: Rows) -> None:
    """Raises StoreError for a row that lacks a value, or has one that no video can have.

    rows: some columns. A row that removes a video has no frames, and only a few values.
    """
    for name in ("video_id", "sequence", "num_frames"):
        if name in rows.schema.names and rows[name].null_count:
            raise StoreError(f"a row has no {name}")
    if "num_frames" in rows.schema.names:
        rows = rows.filter(pc.not_equal(rows["num_frames"], 0))
    if fault := next(chain.from_iterable(_faults(rows, name) for name in rows.schema.names), None):
        raise StoreError(fault)


def require_selections(rows: Rows) -> None:
    """Raises StoreError for a selection of frames that does not parse, of which the others take long."""
    for text in filter(None, _array(rows["source_selection"]).unique().to_pylist()):
        try:
            Selection.from_text(text)
        except ValueError as error:
            raise StoreError(f"source_selection: {one_line(error)}") from error


def require_sums(rows: Rows, latent_dim: int) -> None:
    """Raises StoreError for sums that cannot be those of latents, by which a training would whiten.

    rows: video_id, latents_count and SUMS, of videos that were not removed.
    """
    is_wrong = ~_is_number(_array(rows["latents_count"]), 1)
    for name in SUMS:
        lists = _array(rows[name])
        values = lists.flatten()
        is_wrong |= pc.fill_null(pc.list_value_length(lists), -1).to_numpy() != latent_dim
        is_sum = _is_number(values) & values.is_valid().to_numpy(zero_copy_only=False)
        is_wrong[pc.list_parent_indices(lists).to_numpy()[~is_sum]] = True
    for index in np.flatnonzero(is_wrong)[:1].tolist():
        names = ("video_id", "latents_count", *SUMS)
        video, count, *sums = (_array(rows[name])[index].as_py() for name in names)
        expected = f"expected sums of {latent_dim} channels in its record"
        raise StoreError(f"{video}: {expected}, found {count} values with the sums {sums}")


def _faults(rows: Rows, name: str) -> Iterator[str]:
    column = _array(rows[name])
    if name not in OPTIONAL_COLUMNS and column.null_count:
        yield f"a row has no {name}"
    if name in LEAST:
        yield from _named(rows, name, ~_is_number(column, LEAST[name]), f"{LEAST[name]} or more")
    if name == "fps":
        rates = column.to_numpy()
        is_rate = (rates == 0) | ((rates >= SLOWEST) & (rates <= FASTEST))
        yield from _named(rows, name, ~is_rate, "a frame rate")
    if pa.types.is_list(column.type) and not name.startswith("latents_"):
        yield from _list_faults(rows, name, column)
    if pa.types.is_map(column.type):
        yield from _map_faults(rows, name, column)


def _list_faults(rows: Rows, name: str, lists: pa.ListArray) -> Iterator[str]:
    values = lists.flatten()
    if values.null_count:
        yield f"{name}: a list lacks a value"
    counts = pc.fill_null(pc.list_value_length(lists), -1).to_numpy()
    if pa.types.is_floating(values.type) and not _is_number(values).all():
        is_wrong = np.zeros(len(lists), bool)
        is_wrong[pc.list_parent_indices(lists).to_numpy()[~_is_number(values)]] = True
        yield from _named(rows, name, is_wrong, "finite numbers")
    if name in COUNTS:
        yield from _named(rows, name, ~np.isin(counts, COUNTS[name]), "{} or {} values".format(*COUNTS[name]))
    if name == "pts_seconds" and "num_frames" in rows.schema.names:
        is_wrong = (counts >= 0) & (counts != _array(rows["num_frames"]).to_numpy())
        yield from _named(rows, name, is_wrong, "one time for each frame")


def _map_faults(rows: Rows, name: str, maps: pa.MapArray) -> Iterator[str]:
    keys, offsets = maps.keys, maps.offsets.to_numpy()
    keys, items = (each[offsets[0] : offsets[-1]] for each in (keys, maps.items))
    if keys.null_count or items.null_count:
        yield f"{name}: a name or its value is missing"
        return
    codes = keys.dictionary_encode().indices.to_numpy().astype(np.int64)
    owners = np.repeat(np.arange(len(maps)), np.diff(offsets))
    places = owners * (codes.max(initial=0) + 1) + codes
    _, first = np.unique(places, return_index=True)
    is_wrong = np.zeros(len(maps), bool)
    is_wrong[np.delete(owners, first)] = True
    yield from _named(rows, name, is_wrong, "each name once")


def _is_number(values: pa.Array, least: float = -np.inf) -> Mask:
    """Whether each value is finite and at least `least`; a missing one is not looked at."""
    numbers = values.fill_null(max(least, 0)).to_numpy(zero_copy_only=False)
    is_number: Mask = np.isfinite(numbers) & (numbers >= least)
    return is_number


def _named(rows: Rows, name: str, is_wrong: Mask, expected: str) -> Iterator[str]:
    """The first wrong value of a column, with its video."""
    for index in np.flatnonzero(is_wrong)[:1].tolist():
        video = _array(rows["video_id"])[index].as_py() if "video_id" in rows.schema.names else "a row"
        yield f"{shown(video)}: {name}: got {shown(_array(rows[name])[index].as_py())}; expected {expected}"


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
