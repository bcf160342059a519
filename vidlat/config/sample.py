"""Settings of `vidlat sample`, and of other commands that draw samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidlat.checked_settings import MANY, SEED_STOP, Config, setting
from vidlat.config.device import device_setting
from vidlat.config.latents import Precision
from vidlat.errors import ConfigError, shown

SHORTEST_AVERAGE, LONGEST_AVERAGE = 0.01, 0.25
"""Lengths of an average, as shares of the training; the plain mean of all steps has 0.289."""

MAX_SWEPT = 16
"""Values of a sweep, and rows of its grid, at most: more make no picture."""

Sampler = Literal["ddim", "euler", "heun"]


@dataclass(frozen=True, kw_only=True)
class Drawing(Config):
    """How samples are drawn, whichever and however many."""

    sampler: Sampler = setting(
        "ddim", "how a step is taken; heun calls the network twice per step", group="Sampling"
    )
    guidance: float = setting(
        1.0,
        "classifier-free guidance scale: 1 is as trained, 0 ignores the condition",
        group="Conditioning",
        at_least=0,
    )
    guidance_interval: tuple[float, ...] = setting(
        (0.0, 1.0),
        "lowest and highest timestep that is guided; 0 is data, 1 is noise",
        group="Conditioning",
        at_least=0,
        at_most=1,
    )
    checkpoint: Literal["last", "best"] = setting(
        "last", "the last checkpoint, or the one with the lowest validation loss", group="Sampling"
    )
    average_length: float = setting(
        0.0,
        "average the weights over this share of the training (a standard deviation, 0.01 to 0.25), for runs "
        "trained with --average-snapshots; 0 takes the average of --ema-decay",
        group="Sampling",
        at_least=0,
        at_most=LONGEST_AVERAGE,
    )
    precision: Precision = setting(
        "auto",
        "arithmetic of the U-Net; auto is as it was trained, or float32 where a CPU lacks bfloat16",
        group="Performance",
    )
    batch: int = setting(
        0,
        "samples drawn at once, the last batch padded; 0 chooses for the device",
        group="Performance",
        at_least=0,
        at_most=MANY,
    )
    device: str = device_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.average_length < SHORTEST_AVERAGE:
            raise ConfigError(
                f"average_length: got {self.average_length:g}; expected {SHORTEST_AVERAGE} to "
                f"{LONGEST_AVERAGE}, or 0"
            )
        if len(self.guidance_interval) != 2 or self.guidance_interval[0] > self.guidance_interval[1]:
            got = ",".join(map(str, self.guidance_interval))
            raise ConfigError(f"guidance_interval: got {got}; expected LOW,HIGH such as 0.2,0.8")

    def _without_effect(self) -> dict[str, str]:
        if self.guidance == 1:
            return {"guidance_interval": "where nothing is guided; give a --guidance other than 1"}
        return {}


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Drawing):
    """Settings of `vidlat sample`."""

    num: int = setting(8, "number of samples", group="Basic", short="-n", at_least=1)
    frames: int = setting(
        0,
        "video frames per sample; 0 for the length of a training clip",
        group="Basic",
        at_least=0,
        at_most=MANY,
    )
    seed: int = setting(
        0,
        "seed of the first sample; sample i depends on seed + i alone",
        group="Basic",
        at_least=0,
        below=SEED_STOP,
    )
    steps: int | None = setting(
        None, "denoising steps; else 50, or 4 of a mean flow", group="Basic", at_least=1
    )
    condition: tuple[str, ...] = setting((), "a condition, NAME=VALUE; may be repeated", group="Conditioning")
    sweep: str | None = setting(
        None,
        "each value of a condition, NAME=VALUE,VALUE..., at the same seeds, --num of each, and a grid",
        group="Conditioning",
    )
    first_frame: str | None = setting(
        None, "picture or video to continue, for runs trained with --first-frame", group="Conditioning"
    )
    reject_copies: float = setting(
        0.0,
        "draw each sample again that is nearer to a training clip than this share of held-out clips is, such "
        "as 0.01; 0 keeps all; needs --latents",
        group="Sampling",
        at_least=0,
        below=1,
    )
    format: Literal["mp4", "gif", "npy"] = setting(
        "mp4", "of the videos; npy holds (T, H, W) uint8", group="Basic"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweep is None:
            return
        name, values = self.swept
        if not name or not all(values) or not 1 <= len(values) <= MAX_SWEPT:
            raise ConfigError(
                f"sweep: got {shown(self.sweep)}; expected NAME=VALUE,VALUE... with 1 to {MAX_SWEPT} values"
            )
        if any(text.partition("=")[0] == name for text in self.condition):
            raise ConfigError(f"sweep: {name} is given by condition too; keep one of the two")

    @property
    def swept(self) -> tuple[str, list[str]]:
        """The name and the values of `sweep`; without one, none."""
        name, _, values = (self.sweep or "").partition("=")
        return name, values.split(",") if values else []

    @property
    def num_samples(self) -> int:
        """Of all values of a sweep."""
        return self.num * max(len(self.swept[1]), 1)
