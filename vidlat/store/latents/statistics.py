"""Conversion of latents to the stored float16, and the statistics that a record keeps of them."""

from __future__ import annotations

from collections.abc import Iterable

import google_crc32c
import numpy as np
import numpy.typing as npt

from vidlat.config import MANTISSA_BITS
from vidlat.errors import EncodeError
from vidlat.types import FloatArray, LatentStatistics

BLOCK_FRAMES = 64
"""Latent frames in memory at once; fixed, since the order of additions changes the last bit of a sum."""


def latent_statistics(
    mean: npt.NDArray[np.float16], std: npt.NDArray[np.float16], num_unpadded: int
) -> LatentStatistics:
    """Statistics of one video's latents as stored, each (L, t, h, w); a memmap is read in blocks.

    The sums cover the first `num_unpadded` latent frames, the checksums all.
    """
    if not 1 <= num_unpadded <= mean.shape[1]:
        raise ValueError(f"num_unpadded: got {num_unpadded}; expected 1 to {mean.shape[1]}")
    of_mean, of_std = LatentDigest(len(mean)), LatentDigest(len(std))
    for first in range(0, mean.shape[1], BLOCK_FRAMES):
        of_mean.add(mean[:, first : first + BLOCK_FRAMES], num_unpadded - first)
        of_std.add(std[:, first : first + BLOCK_FRAMES], num_unpadded - first)
    return LatentStatistics(
        frame_crc32c=bytes(of_mean.checksums + of_std.checksums),
        count=num_unpadded * mean.shape[2] * mean.shape[3],
        sum_mean=tuple(of_mean.sums.tolist()),
        sum_mean_squared=tuple(of_mean.squares.tolist()),
        sum_std_squared=tuple(of_std.squares.tolist()),
    )


class LatentDigest:
    """Checksums of the frames and sums per channel of one array of one video, accumulated over blocks."""

    def __init__(self, latent_dim: int) -> None:
        self.checksums = bytearray()
        self.sums = np.zeros(latent_dim)
        self.squares = np.zeros(latent_dim)

    def add(self, block: npt.NDArray[np.float16], num_valid: int) -> None:
        """Add the next latent frames (L, t, h, w), of which the first `num_valid` are no padding."""
        stored = np.ascontiguousarray(block.swapaxes(0, 1), dtype="<f2")
        self.checksums += frame_checksums(stored).tobytes()
        valid = stored[: max(num_valid, 0)].swapaxes(0, 1).astype(np.float64)
        for channel, exact in enumerate(valid):
            self.sums[channel] += exact.sum()
            self.squares[channel] += np.square(exact).sum()


def frame_checksums(
    frames: npt.NDArray[np.float16], picked: Iterable[int] | None = None
) -> npt.NDArray[np.uint32]:
    """The CRC-32C of each of the latent frames (t, L, h, w), over its float16 bytes in C order.

    picked: the indices of some of them, or None for all.
    """
    stored = np.ascontiguousarray(frames, dtype="<f2").reshape(len(frames), -1).view(np.uint8)
    rows = stored if picked is None else (stored[index] for index in picked)
    return np.array([google_crc32c.value(row) for row in rows], dtype="<u4")


def to_stored(name: str, values: FloatArray, keepbits: int = MANTISSA_BITS) -> npt.NDArray[np.float16]:
    """`values` as stored: float16 in C order, rounded to `keepbits` (1 to 10) bits of mantissa.

    Idempotent. Raises EncodeError for NaN, infinity and values out of range (above 65504, or less with fewer
    bits), which would read back as a hole or spoil a training.
    """
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values, dtype="<f2")
    _require_finite(name, values, stored, "float16's 65504")
    if keepbits < MANTISSA_BITS:
        from numcodecs.bitround import BitRound

        codec = BitRound(keepbits)
        stored = codec.decode(codec.encode(stored))
        # The largest numbers round up to infinity.
        _require_finite(name, values, stored, f"what --keepbits {keepbits} can hold")
    return stored


def _require_finite(name: str, values: FloatArray, stored: npt.NDArray[np.float16], largest: str) -> None:
    finite = np.isfinite(stored)
    if not finite.all():
        worst = np.asarray(values)[~finite].flat[0]
        why = f"is beyond {largest}" if np.isfinite(worst) else "is not a number that can be stored"
        raise EncodeError(
            f"latent {name}: {worst} {why}; check the video, or encode with --precision float32"
        )
