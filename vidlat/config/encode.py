"""Settings of `vidlat encode`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidlat.checked_settings import MANY, setting
from vidlat.config.device import device_setting
from vidlat.config.latents import LatentSettings, exclude_setting, refuse_empty_pattern
from vidlat.config.part import Part

Ids = Literal["path", "hash"]


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(LatentSettings):
    """Settings of `vidlat encode`."""

    vae: str | None = setting(
        None,
        "maisi, nv-generate-ct, nv-generate-mr, tiny, tiny-16, a weights file, or "
        "diffusers:FOLDER or diffusers:OWNER/NAME[/FOLDER] of a hub: an AutoencoderKL of diffusers; else the "
        "VAE of the cache at --out, for a new one maisi",
        group="Basic",
        names="weights",
    )
    in_channels: int | None = setting(None, "refuse a VAE with another number of input channels")
    latent_dim: int | None = setting(None, "refuse a VAE with another number of latent channels")
    device: str = device_setting()
    batch: int = setting(
        0, "stacks per VAE call; 0 chooses for the device", group="Performance", at_least=0, at_most=MANY
    )
    cudnn_benchmark: bool = setting(
        False,
        "on a GPU, let cuDNN time its algorithms at the first VAE call of each process and use the fastest. "
        "Their last bits differ: an encode that is interrupted or repeated then gives slightly other latents",
        group="Performance",
    )
    time_limit_seconds: float = setting(
        0.0, "longest time to decode one video; 0: no limit", group="Performance", at_least=0
    )
    workers: int = setting(
        0, "processes that encode; 0 chooses for this machine", group="Performance", at_least=0
    )
    scheduler: str | None = setting(
        None,
        "address of a running Dask scheduler, or its scheduler file (.json), instead of a local cluster; "
        "`vidlat worker` starts its workers",
        group="Performance",
        names="scheduler",
    )
    part: str | None = setting(
        None,
        "I/N, such as 3/16: only the I-th of N parts of the videos, chosen by a hash of their path before a "
        "file is opened; each part into a cache of its own, which `vidlat merge` joins",
        group="Performance",
    )
    exclude: tuple[str, ...] = exclude_setting()
    min_frames: int = setting(
        1,
        "leave out new videos of fewer frames, such as stills among cines; their frames are counted before "
        "--fps",
        group="Videos",
        at_least=1,
        at_most=MANY,
    )
    ids: Ids = setting(
        "path", "name videos by their path, or by a hash of it; with hash, no path or file name is kept"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_empty_pattern(self.exclude)
        if self.part is not None:
            Part.from_text(self.part)
