"""Latents between encode and write: float16 files of (t, L, h, w) in a scratch folder of the worker."""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vidlat.encode.stacking import CallJoiner
from vidlat.errors import EncodeError, ScratchError
from vidlat.store.latents.statistics import to_stored
from vidlat.timing import Timing
from vidlat.types import LatentPosterior, VideoRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedVideo:
    """A video whose latents are in scratch files; its record lacks only the range in the cache."""

    record: VideoRecord
    mean_path: Path
    std_path: Path
    shape: tuple[int, ...]

    def posterior(self) -> LatentPosterior:
        """Mean and std as arrays (L, t, h, w), of which each slice is read when it is used."""
        return open_scratch(self.mean_path, self.std_path, self.shape)


class ScratchLatents:
    """The latents of one video, joined, converted once to what the cache stores, and kept in scratch files.

    shape: (t, L, h, w) so far. batch: stacks of the smallest VAE call. refusal: kind and reason why there
    will be no latents, else None.
    """

    def __init__(self, path: Path, keepbits: int, timing: Timing) -> None:
        self.paths = path.with_suffix(".mean"), path.with_suffix(".std")
        self.shape: tuple[int, ...] = ()
        self.batch = 0
        self.refusal: tuple[str, BaseException] | None = None
        self._keepbits = keepbits
        self._files: tuple[BinaryIO, ...] = ()
        self._joiner = CallJoiner[npt.NDArray[np.float32]](timing.latent_step, timing.blend)

    def append(self, mean: npt.NDArray[np.float32], std: npt.NDArray[np.float32], batch: int) -> None:
        """Add one stack's latents, each (L, t, h, w), from a call of `batch` stacks."""
        if self.refusal:
            return
        self.batch = batch  # the smallest yet: calls never grow again
        self._write(self._joiner.add(list(np.stack([mean, std]).transpose(2, 0, 1, 3, 4))))

    def _write(self, latent_frames: Sequence[npt.NDArray[np.float32]]) -> None:
        """Write latent frames, each mean and std (2, L, h, w)."""
        if self.refusal or not latent_frames:
            return
        mean, std = np.stack(latent_frames, axis=2)
        try:
            stored = to_stored("mean", mean, self._keepbits), to_stored("std", std, self._keepbits)
        except EncodeError as error:
            self.refuse("not-storable", error)
            return
        self._files = self._files or tuple(path.open("wb") for path in self.paths)
        for file, latents in zip(self._files, stored, strict=True):
            file.write(np.ascontiguousarray(latents.swapaxes(0, 1)).data)
        latent_dim, num_latent_frames, *sides = mean.shape
        self.shape = (num_latent_frames + (self.shape[0] if self.shape else 0), latent_dim, *sides)

    def refuse(self, kind: str, error: BaseException) -> None:
        """Take no more latents of this video, for a reason."""
        self.refusal = kind, error

    def is_refused(self) -> bool:
        """Whether no more latents are taken; may be asked by any thread."""
        return self.refusal is not None

    def close(self) -> None:
        """Write what no further stack will share, and close the files; raises OSError on a full disk."""
        self._write(self._joiner.finish())
        for file in self._files:
            file.close()

    def abandon(self) -> None:
        """Close the files whatever they hold; those that are closed already stay so."""
        for file in self._files:
            with suppress(OSError):  # a full disk refuses what was not flushed
                file.close()


@contextmanager
def new_scratch(parent: Path | None) -> Iterator[Path]:
    """A new folder in `parent` (None: the system's), removed if the block raises.

    Raises ScratchError, naming the folder, for any OSError in the block, such as a full disk.
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
    """Latents as arrays (L, t, h, w), of which each slice is read when it is used."""
    mean, std = (
        _Slices(path, np.float16, "r", shape=shape).transpose(1, 0, 2, 3) for path in (mean_path, std_path)
    )
    return LatentPosterior(mean=mean, std=std)


class _Slices(np.memmap[Any, Any]):
    """A memory map whose slices are copies, so that its pages do not stay mapped.

    Mapped pages count as memory of the process, and a worker that exceeds its limit is ended; the latents of
    a video of hours exceed it.
    """

    def __getitem__(self, index: Any) -> Any:
        values = np.array(super().__getitem__(index))
        pages: mmap.mmap = self._mmap  # type: ignore[attr-defined]
        pages.madvise(mmap.MADV_DONTNEED)
        return values
