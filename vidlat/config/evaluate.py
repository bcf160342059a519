"""Settings of `vidlat evaluate` where it measures samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vidlat.checked_settings import MANY, SEED_STOP, setting
from vidlat.config.sample import Drawing


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Drawing):
    """How many samples are drawn and how, and in which features they are compared."""

    num: int | None = setting(
        None,
        "samples to draw, and clips in each set that they are compared with; of --samples, videos to take; "
        "else 256, on a CPU 64, and all of --samples",
        group="Basic",
        short="-n",
        at_least=2,
        at_most=MANY,
    )
    steps: tuple[int, ...] = setting(
        (),
        "denoising steps; a row for each of several; else 50, or 4 of a mean flow",
        group="Basic",
        at_least=1,
    )
    seed: int = setting(
        0, "seed of the first sample, and of the noise", group="Basic", at_least=0, below=SEED_STOP
    )
    held_out: Literal["val", "test"] = setting(
        "val",
        "the clips that samples are compared with: of the validation videos, or of those for testing",
        group="Basic",
    )
    features: tuple[str, ...] = setting(
        (),
        "a TorchScript network whose features are compared too, a file or hub:OWNER/REPOSITORY/FILE; it "
        "takes clips (B, C, T, H, W) or frames (N, C, H, W) in [0, 1]; may be repeated",
    )

    def num_on(self, device: str) -> int:
        """Samples to draw on a device."""
        return self.num or (64 if device == "cpu" else 256)
