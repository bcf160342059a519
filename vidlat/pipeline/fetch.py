"""Videos in a bucket: while one is read, a copy of its file lies on a disk of this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from vidlat.errors import DecodeError, ScratchError, one_line
from vidlat.files import temporary_name
from vidlat.paths import is_address
from vidlat.pipeline.failures import failure_from, without_names
from vidlat.pipeline.folder import require_one_video
from vidlat.store.object_sources import object_content
from vidlat.store.storage.interface import Changed, Missing, Unreachable
from vidlat.types import FailureRecord, InputVideo

Item = TypeVar("Item")


@contextmanager
def on_this_disk(video: InputVideo, folder: Path | None = None) -> Iterator[InputVideo]:
    """The same video; one that is an object in a bucket with a copy of it as long as the block lasts.

    folder: where the copy is, None for the system's temporary folder.
    Raises DecodeError for an object that is gone, has changed since it was found, or is no video by itself;
    Unreachable, and ScratchError where there is no room for it.
    """
    if not is_address(video.source.path):
        yield video
        return
    copy = (folder or Path(tempfile.gettempdir())) / temporary_name()
    try:
        _fetch(video, copy)
        require_one_video(copy)
        yield replace(video, copy=copy)
    finally:
        copy.unlink(missing_ok=True)


def read_on_this_disk(
    video: InputVideo, folder: Path, read: Callable[[InputVideo], Iterator[Item]]
) -> Iterator[Item | FailureRecord]:
    """What `read` yields for a video on this machine's disk, or why it cannot be there.

    Raises as `on_this_disk`, but for DecodeError.
    """
    try:
        with on_this_disk(video, folder) as here:
            yield from read(here)
    except DecodeError as error:
        yield failure_from(video, error.kind, error)


def _fetch(video: InputVideo, copy: Path) -> None:
    try:
        with copy.open("xb") as file:
            for piece in object_content(video.source):
                file.write(piece)
    except Missing:
        reason = "got no object at its address; expected the one that was found there: store it again"
        raise DecodeError(reason, "missing") from None
    except Changed:
        expected = f"expected one of {video.source.num_bytes} bytes, as it was found"
        raise DecodeError(f"got another object; {expected}: run the same command again", "changed") from None
    except Unreachable as error:
        raise Unreachable(without_names(video, str(error))) from None
    except OSError as error:
        raise ScratchError(
            f"{copy.parent}: cannot keep there a video of {video.source.num_bytes} bytes while it is read "
            f"({one_line(error)}); make room, or choose another folder with TMPDIR or Dask's "
            "temporary-directory"
        ) from error
