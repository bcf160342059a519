"""Latents between encode and write: files of (t, L, h, w) float16 in a folder of the worker."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidlat.errors import ScratchError
from vidlat.types import LatentPosterior, VideoRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedVideo:
    """A video whose latents lie in scratch files, (t, L, h, w) float16; its record lacks only the range."""

    record: VideoRecord
    mean_path: Path
    std_path: Path
    shape: tuple[int, ...]

    def posterior(self) -> LatentPosterior:
        """Mean and std as arrays of (L, t, h, w) that are read in bounded memory, slice by slice."""
        return open_scratch(self.mean_path, self.std_path, self.shape)


@contextmanager
def new_scratch(parent: Path | None) -> Iterator[Path]:
    """A new folder in `parent` (None: the system's), which is removed if the block raises.

    Raises ScratchError, naming the folder, where the system refuses to keep something in it.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="vidlat-", dir=parent))
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise ScratchError(
            f"{parent or tempfile.gettempdir()}: cannot keep there what is encoded and not yet written "
            f"({error.strerror or error}); make room, or choose another folder with TMPDIR or Dask's "
            "temporary-directory"
        ) from error


def open_scratch(mean_path: Path, std_path: Path, shape: tuple[int, ...]) -> LatentPosterior:
    """Latents as arrays of (L, t, h, w) that are read in bounded memory, slice by slice."""
    mean, std = (
        _Slices(path, np.float16, "r", shape=shape).transpose(1, 0, 2, 3) for path in (mean_path, std_path)
    )
    return LatentPosterior(mean=mean, std=std)


class _Slices(np.memmap[Any, Any]):
    """A memory map of which a slice is a copy: pages that stay mapped count as the process's memory.

    A worker whose memory passes its limit is ended, and of a video of hours the map is larger than that.
    """

    def __getitem__(self, index: Any) -> Any:
        values = np.array(super().__getitem__(index))
        pages: mmap.mmap = self._mmap  # type: ignore[attr-defined]
        pages.madvise(mmap.MADV_DONTNEED)
        return values
