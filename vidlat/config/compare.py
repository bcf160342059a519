"""Settings of `vidlat compare`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from vidlat.checked_settings import MANY, setting
from vidlat.config.device import device_setting
from vidlat.config.latents import (
    LatentSettings,
    Precision,
    Preprocessing,
    exclude_setting,
    refuse_empty_pattern,
)
from vidlat.errors import ConfigError
from vidlat.timing import Blend, StretchBy


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Preprocessing):
    """Settings of `vidlat compare`. Every VAE is combined with every combination of the lists of timing."""

    size: int = setting(
        256,
        "height and width of the frames the VAE sees, in pixels",
        group="Basic",
        at_least=11,
        at_most=MANY,
    )  # the SSIM needs 11
    vae: tuple[str, ...] = setting(
        ("maisi",),
        "a VAE to compare, by name or path as for encode; may be repeated",
        group="Basic",
        names="weights",
    )
    stack: tuple[int, ...] = setting((4,), "frames per VAE call", group="Time", at_least=1, at_most=MANY)
    stretch: tuple[int, ...] = setting(
        (1,),
        "how often the VAE is shown each frame; a divisor of the stack",
        group="Time",
        at_least=1,
        at_most=4,
    )
    overlap: tuple[int, ...] = setting(
        (0,), "frames of a VAE call that the next one takes too", group="Time", at_least=0, at_most=MANY
    )
    blend: tuple[Blend, ...] = setting(("average",), "what is kept of latents that calls share", group="Time")
    stretch_by: tuple[StretchBy, ...] = setting(
        ("repeat",), "what is shown between two frames of a stretched video", group="Time"
    )
    videos: int = setting(
        12, "number of clips, evenly spread over subjects and ids", group="Basic", at_least=1
    )
    frames: int = setting(
        64, "frames measured of each clip, from its first on", group="Basic", at_least=1, at_most=1000
    )
    precision: Precision = setting(
        "auto", "arithmetic of the VAEs; auto is bfloat16 on a GPU", group="Performance"
    )
    batch: int = setting(
        0, "stacks per VAE call; 0 chooses for the device", group="Performance", at_least=0, at_most=MANY
    )
    device: str = device_setting()
    exclude: tuple[str, ...] = exclude_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_empty_pattern(self.exclude)
        for name in ("stack", "stretch", "overlap", "blend", "stretch_by"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: got an empty list; expected something to compare")

    def settings_of_each_vae(self) -> Iterator[LatentSettings]:
        """Every combination of the lists but that of the VAEs, once, whether or not it makes sense."""
        common: dict[str, Any] = self.select(Preprocessing).to_dict() | {"precision": self.precision}
        names = "stack", "stretch", "overlap", "blend", "stretch_by"
        for values in dict.fromkeys(product(*(getattr(self, name) for name in names))):
            timing = dict(zip(names, values, strict=True))
            if timing["stretch"] > 1 or timing["stretch_by"] == self.stretch_by[0]:  # nothing lies between
                yield LatentSettings(**common | timing)
