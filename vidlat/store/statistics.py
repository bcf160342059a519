"""Conversion of latents to the stored float16, and the statistics that a record keeps of them."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from vidlat.config import MANTISSA_BITS
from vidlat.errors import EncodeError
from vidlat.types import FloatArray, LatentStatistics

BLOCK_FRAMES = 64
"""Latent frames in memory at once; fixed, since the order of additions changes the last bit of a sum."""


def latent_statistics(
    mean: npt.NDArray[np.float16], std: npt.NDArray[np.float16], num_valid_latent_frames: int
) -> LatentStatistics:
    """Statistics of one video's latents as stored, each (L, t, h, w); a memmap is read in blocks.

    The sums cover the first `num_valid_latent_frames`, which hold no stack padding; the checksum covers all.
    """
    valid = num_valid_latent_frames
    if not 1 <= valid <= mean.shape[1]:
        raise ValueError(f"num_valid_latent_frames: got {valid}; expected 1 to {mean.shape[1]}")
    sum_mean, sum_mean_squared, crc = _channel_sums(mean, valid, 0)
    _, sum_std_squared, crc = _channel_sums(std, valid, crc)
    return LatentStatistics(
        crc32=crc,
        count=valid * mean.shape[2] * mean.shape[3],
        sum_mean=sum_mean,
        sum_mean_squared=sum_mean_squared,
        sum_std_squared=sum_std_squared,
    )


def latent_crc32(mean: npt.NDArray[np.float16], std: npt.NDArray[np.float16]) -> int:
    """The checksum a record keeps: zlib.crc32 over the bytes of mean, then of std, each (L, t, h, w)."""
    return zlib.crc32(np.ascontiguousarray(std).data, zlib.crc32(np.ascontiguousarray(mean).data))


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


def _channel_sums(
    values: npt.NDArray[np.float16], num_valid: int, crc: int
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Sum and sum of squares per channel over the valid frames, and `crc` continued over all bytes."""
    sums, squares = np.zeros(len(values)), np.zeros(len(values))
    # Channel by channel, the byte order of a C-ordered (L, t, h, w) array.
    for channel in range(len(values)):
        for first in range(0, values.shape[1], BLOCK_FRAMES):
            block = np.ascontiguousarray(values[channel, first : first + BLOCK_FRAMES], "<f2")
            crc = zlib.crc32(block.data, crc)
            exact = block[: max(num_valid - first, 0)].astype(np.float64)
            sums[channel] += exact.sum()
            squares[channel] += np.square(exact).sum()
    return tuple(sums.tolist()), tuple(squares.tolist()), crc
