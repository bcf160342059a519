"""Settings of how a video becomes latents: reading, preprocessing, and the calls of the VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from vidlat.checked_settings import MANY, Config, setting
from vidlat.errors import ConfigError
from vidlat.setting_texts import parse_axes, parse_crop, parse_intensity
from vidlat.timing import Blend, StretchBy, Timing

Fit = Literal["crop", "letterbox", "stretch"]
Deinterlace = Literal["auto", "off"]
Precision = Literal["auto", "float32", "bfloat16"]

PREPROCESS_VERSION = 2
"""Part of a cache's identity: raised whenever the same file and settings would give other pixels."""

ARITHMETIC_VERSIONS = {"float32": 1, "bfloat16": 2}
"""Part of a cache's identity, by its precision: raised whenever that gives other latents of the same pixels.

Version 1 of bfloat16 was an autocast, which rounded latents to 8 bits.
"""

MANTISSA_BITS = 10
"""Mantissa bits of a float16 (IEEE 754 binary16), the number type of stored latents."""


def _canonical(meaning: str | tuple[float, ...]) -> str:
    return meaning if isinstance(meaning, str) else ",".join(f"{number:.15g}" for number in meaning)


@dataclass(frozen=True, kw_only=True)
class Reading(Config):
    """How files are read. Kept in canonical form."""

    axes: str = setting(
        "auto",
        "order of the axes of NumPy arrays: THW, HWT (MATLAB's), THWC or any other order of time, height, "
        "width and channels; auto is THW or THWC",
        group="Videos",
    )
    deinterlace: Deinterlace = setting(
        "auto",
        "auto deinterlaces frames that a video flags as interlaced; off keeps their combs",
        group="Videos",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "axes", parse_axes(self.axes))


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Reading):
    """How the frames of a video become what the VAE sees.

    crop and intensity are kept in canonical form: equal texts mean the same.
    """

    size: int = setting(
        256, "height and width of the frames the VAE sees, in pixels", group="Basic", at_least=1, at_most=MANY
    )
    fit: Fit = setting(
        "crop", "how a frame becomes square: crop it, pad it with black, or stretch it", group="Videos"
    )
    crop: str = setting(
        "none",
        "first cut out X,Y,W,H pixels; auto keeps what moves, without static borders and text",
        group="Videos",
    )
    fps: float = setting(
        0.0,
        "resample to this many frames per second, by the frames' times; 0 keeps all frames",
        group="Videos",
        at_least=0,
    )
    intensity: str = setting(
        "auto",
        "values that become black and white: auto (what the file states, else percentile), uint8 (0 to 255), "
        "ct (-1000 to 1000), percentile (lowest to 99.5th), minmax, or LOW,HIGH",
        group="Videos",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fps", float(self.fps))
        object.__setattr__(self, "crop", _canonical(parse_crop(self.crop)))
        object.__setattr__(self, "intensity", _canonical(parse_intensity(self.intensity)))


@dataclass(frozen=True, kw_only=True)
class LatentSettings(Preprocessing):
    """Every setting that changes the value of a latent: with the VAE, the identity of a cache.

    stack, overlap, stretch: None for what suits the VAE, until that is known.
    """

    stack: int | None = setting(
        None,
        "frames per VAE call; else as many as suit --vae, or 4. MAISI learned from deep CT "
        "volumes, which longer stacks resemble: untested",
        group="Time",
        at_least=1,
        at_most=MANY,
    )
    overlap: int | None = setting(
        None,
        "frames of a VAE call that the next one takes too, fewer than --stack; decoded frames are "
        "cross-faded. A multiple of the VAE's compression blends the latents, any other keeps them all. "
        "Else what suits --vae, where --stack is not given, or 0",
        group="Time",
        at_least=0,
        at_most=MANY,
    )
    blend: Blend = setting(
        "average",
        "what is kept of latents that calls share: their average, or the one nearest a call's center",
        group="Time",
    )
    stretch: int | None = setting(
        None,
        "show the VAE each frame so many times: slow motion, of which more is kept, for as many times the "
        "calls and latents; a divisor of --stack. Else what suits --vae, or 1",
        group="Time",
        at_least=1,
        at_most=4,
    )
    stretch_by: StretchBy = setting(
        "repeat",
        "between two frames of a stretched video, show the earlier one again, or blends of both",
        group="Time",
    )
    precision: Precision = setting(
        "auto",
        "arithmetic of the VAE; auto is resolved when the cache is made; not every CPU has bfloat16",
        group="Performance",
    )
    keepbits: int = setting(
        MANTISSA_BITS,
        f"mantissa bits kept of each stored latent: fewer take less disk, {MANTISSA_BITS} is all of float16",
        at_least=1,
        at_most=MANTISSA_BITS,
    )

    def with_times(self, times: Mapping[str, int]) -> Self:
        """The same settings; of stack, overlap and stretch those that are None as in `times`.

        An overlap suits the stack that it comes with, and no other.
        """
        unset: dict[str, Any] = {name: time for name, time in times.items() if getattr(self, name) is None}
        if "stack" not in unset:
            unset.pop("overlap", None)
        return replace(self, **unset)

    def timing(self, compression: int) -> Timing:
        """How a VAE of that compression of time is shown a video; raises TimingError where it cannot be."""
        return Timing(
            stack=self.stack or 4,
            compression=compression,
            overlap=self.overlap or 0,
            blend=self.blend,
            stretch=self.stretch or 1,
            stretch_by=self.stretch_by,
        )


def exclude_setting() -> Any:
    return setting(
        (),
        "pass over files whose path below --input, or whose name, matches this pattern, such as '*_gt*'; may "
        "be repeated",
        group="Videos",
    )


def refuse_empty_pattern(patterns: tuple[str, ...]) -> None:
    if "" in patterns:
        raise ConfigError("exclude: got an empty pattern, which matches nothing; leave it out")
