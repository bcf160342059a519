"""`vidlat push`: publishes a cache in an object store or on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidlat.commands.display import Stages, console, echo, format_bytes, progress_bar
from vidlat.commands.transfer import COLUMN, Transferred
from vidlat.documents import read_json
from vidlat.errors import ExitCode, InputError, one_line
from vidlat.export.cache_card import cache_card
from vidlat.store.copying.copy import copy_cache
from vidlat.store.copying.snapshot import CacheSnapshot, read_snapshot
from vidlat.store.layout import CARD
from vidlat.store.metadata import read_schema
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.opening import local_cache, open_published, require_folder
from vidlat.store.writing.lease import reading
from vidlat.wording import format_count

EVALUATION_BYTES = 2**28
"""Most bytes of a file of figures."""


def push(latents: str | Path, address: str, licence: str, evaluation: Path | None) -> ExitCode:
    """Copy what is new to the address, with a card, and say what was sent."""
    latents = require_folder(latents, "push")
    read_schema(local_cache(latents))  # before anything is asked elsewhere
    figures = _read_figures(evaluation)
    transferred = Transferred()
    with reading(latents):
        source = read_snapshot(LocalStorage(latents))
        num_bytes = sum(size for key, size in source.storage.list() if key in source.keys)
        card = cache_card(source, address, num_bytes=num_bytes, licence=licence, evaluation=figures)
        target = open_published(address, source.keys)
        _tell_names(source, address)
        try:
            with progress_bar(COLUMN) as progress:
                transferred.follow(copy_cache(source, target, card=card), Stages(progress), "pushing files")
        except KeyboardInterrupt:
            files = format_count(transferred.num_files, "file")
            echo(f"Interrupted: {files} sent; the same command continues.", err=True)
            return ExitCode.INTERRUPTED
    _tell_pushed(source, transferred, address)
    if transferred.is_card_kept:
        text = f"{CARD} there was not written by a push and stays as it is; delete it to have a card written"
        console.print(text, soft_wrap=True)
    return ExitCode.DONE


def _read_figures(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        figures = read_json(path, EVALUATION_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"--evaluation {path}: cannot be read: {one_line(error)}") from error
    if not isinstance(figures, dict):
        raise InputError(f"--evaluation {path}: got no object; expected what `vidlat evaluate --json` writes")
    return figures


def _tell_names(source: CacheSnapshot, address: str) -> None:
    if source.schema.ids == "path" and len(source.videos):
        videos = format_count(len(source.videos), "video")
        console.print(
            f"Names and paths of {videos} can be read by whoever reads {address}; `encode --ids hash` hides "
            "them",
            soft_wrap=True,
        )


def _tell_pushed(source: CacheSnapshot, transferred: Transferred, address: str) -> None:
    plan = transferred.plan
    state = f"{address}: {format_count(len(source.standing), 'video')}, commit {source.manifest.sequence}"
    if not (plan and plan.num_files):
        console.print(f"{state}; up to date", soft_wrap=True)
        return
    sent = f"{format_count(transferred.num_files, 'file')} of {format_bytes(transferred.num_bytes)} sent"
    there = f", {plan.num_there} there already" if plan.num_there else ""
    console.print(f"{state}; {sent}{there}", soft_wrap=True)
