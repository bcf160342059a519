"""Settings of `vidlat fit-vae`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from vidlat.checked_settings import MANY, SEED_STOP, setting
from vidlat.config.device import device_setting
from vidlat.config.latents import Precision, Preprocessing
from vidlat.config.split import (
    split_by_pattern_setting,
    split_by_setting,
    split_setting,
    useless_of_split,
)
from vidlat.config.train import Tracker, max_skipped_setting, tracker_setting
from vidlat.errors import ConfigError

VAENetwork = Literal["tiny", "maisi"]
VAEStart = Literal["random", "pca"]
VAELoss = Literal["l1", "mse", "log-mse"]

RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "loss": "log-mse",
        "kl_weight": 1e-4,
        "perceptual_weight": 0.0,
        "adversarial_weight": 0.0,
        "learning_rate": 1e-3,
        "stack": 4,
        "patch": None,
        "batch": 4,
    },
    # config_maisi_vae_train.json of Project-MONAI/tutorials. Its KL weight of 1e-7 is that of the sum over
    # the 4 x 16 x 16 x 16 latents of a patch, ours that of their mean.
    "maisi": {
        "loss": "l1",
        "kl_weight": 1e-7 * 4 * 16**3,
        "perceptual_weight": 0.3,
        "adversarial_weight": 0.1,
        "learning_rate": 1e-4,
        "stack": 64,
        "patch": 64,
        "batch": 1,
    },
}
"""Named settings of `vidlat fit-vae`: those of the embedded VAEs, and those by which NVIDIA trained MAISI."""

USUAL_FIT: dict[str, Any] = {
    "steps": 2000,
    "validation_fraction": 0.1,
    "validate_every": 200,
    "validate_epochs": 1,
}
"""Of every recipe; none of these is a default, so that it can be told whether a validation was asked for."""


@dataclass(frozen=True, kw_only=True)
class FitVAEConfig(Preprocessing):
    """Settings of `vidlat fit-vae`; what is None is chosen by network and recipe, see `chosen`."""

    size: int = setting(
        128, "height and width of the training frames, in pixels", group="Basic", at_least=1, at_most=MANY
    )
    init: str | None = setting(
        None,
        "weights to fine-tune, as for --vae; else a network from scratch, see --network",
        group="Basic",
        names="weights",
    )
    network: VAENetwork | None = setting(
        None,
        "from scratch: tiny (0.9 M parameters), or maisi (21 M), the network of NVIDIA's weights; else tiny",
        group="Basic",
    )
    channels: tuple[int, ...] = setting(
        (),
        "from scratch: width of each level, in place of the network's",
        group="Network",
        at_least=1,
        at_most=4096,
    )
    res_blocks: tuple[int, ...] = setting(
        (),
        "from scratch: residual blocks of each level, in place of the network's",
        group="Network",
        at_least=1,
        at_most=64,
    )
    latent_dim: int | None = setting(
        None,
        "from scratch: latent channels; MAISI and the default have 4",
        group="Network",
        at_least=1,
        at_most=64,
    )
    start: VAEStart | None = setting(
        None,
        "from scratch: random weights, or pca: those of the best linear code, for which the network has "
        "transposed convolutions in place of interpolation, and group norms of fewer groups; else pca for "
        "tiny, random for maisi",
        group="Network",
    )
    freeze_encoder: bool = setting(
        False, "train the decoder of --init alone: caches that were made with it stay valid", group="Network"
    )
    recipe: VAENetwork | None = setting(
        None,
        "losses, rate, batch, stack and patch where they are not given: maisi is NVIDIA's training, tiny "
        "that of the embedded VAEs; else as the network",
        group="Objective",
    )
    stack: int | None = setting(
        None,
        "frames of a training stack and of a VAE call; the network learns motion as far as a stack reaches; "
        "else 4, with recipe maisi 64",
        group="Time",
        at_least=1,
        at_most=MANY,
    )
    shortest_stack: int | None = setting(
        None,
        "learn shorter VAE calls too: steps take turns in showing a stack whole, as two halves, and so on "
        "down to calls of this many frames",
        group="Time",
        at_least=1,
        at_most=MANY,
    )
    patch: int | None = setting(
        None,
        "height and width of random squares of the frames to train on, in pixels, for steps that cost less; "
        "else whole frames, with recipe maisi 64",
        group="Optimisation",
        at_least=1,
        at_most=MANY,
    )
    steps: int | None = setting(None, "training steps; else 2000", group="Basic", at_least=1)
    epochs: float | None = setting(
        None,
        "passes over the training stacks, another way to say --steps",
        group="Basic",
        same_as="steps",
        above=0,
    )
    batch: int | None = setting(
        None,
        "stacks per step, over all processes; else 4, with recipe maisi 1",
        group="Optimisation",
        at_least=1,
        at_most=MANY,
    )
    learning_rate: float | None = setting(
        None, "peak learning rate of AdamW; else 1e-3, with recipe maisi 1e-4", group="Optimisation", above=0
    )
    warmup_steps: int = setting(
        100, "steps of linear warm-up before the cosine decay", group="Optimisation", at_least=0
    )
    clip_norm: float = setting(1.0, "gradients are clipped to this norm", group="Optimisation", above=0)
    loss: VAELoss | None = setting(
        None,
        "error of the frames: l1, mse, or log-mse, by which every stack counts by its PSNR; else log-mse, "
        "with recipe maisi l1",
        group="Objective",
    )
    kl_weight: float | None = setting(
        None,
        "weight of the divergence from a standard normal, averaged over values; else 1e-4, with recipe maisi "
        "1.6384e-3, which is NVIDIA's 1e-7 of the sum over a 64x64x64 patch",
        group="Objective",
        at_least=0,
    )
    change_weight: float = setting(
        0.0,
        "weight of the error of the change from frame to frame, beside that of the frames",
        group="Objective",
        at_least=0,
    )
    perceptual_weight: float | None = setting(
        None, "weight of --perceptual; else 0, with recipe maisi 0.3", group="Objective", at_least=0
    )
    perceptual: str = setting(
        "gradients",
        "distance of pictures: gradients, of the image gradients at three scales, which needs no weights; or "
        "of the features of a TorchScript network, a file or hub:OWNER/REPOSITORY/FILE",
        group="Objective",
    )
    perceptual_hash: str | None = setting(
        None, "SHA-256 of that file, which is verified before it is loaded; required", group="Objective"
    )
    adversarial_weight: float | None = setting(
        None,
        "weight of a discriminator's judgement, which sees the frames of a stack at once; else 0, with "
        "recipe maisi 0.1",
        group="Objective",
        at_least=0,
    )
    ema_decay: float = setting(
        0.995, "decay of the averaged weights, which are written", group="Optimisation", at_least=0, below=1
    )
    max_stacks: int = setting(
        20_000,
        "training stacks held in memory, drawn evenly from all videos",
        group="Performance",
        at_least=1,
    )
    validation_fraction: float | None = setting(
        None,
        "share of the subjects held out for validation; else 0.1 where there are two subjects",
        group="Split",
        at_least=0,
        below=1,
    )
    split: str | None = split_setting()
    split_by: str | None = split_by_setting()
    split_by_pattern: str | None = split_by_pattern_setting()
    validate_every: int | None = setting(
        None,
        "steps between validations; 0 for none between epochs; else 200",
        group="Monitoring",
        at_least=0,
    )
    validate_epochs: int | None = setting(
        None,
        "epochs between further validations, at the end of one; rounded up to epochs of 100 steps together; "
        "0 for none; else 1",
        group="Monitoring",
        at_least=0,
    )
    checkpoint_every: int = setting(200, "steps between checkpoints", group="Monitoring", at_least=1)
    keep: int = setting(
        3, "number of latest checkpoints to keep, besides the best", group="Monitoring", at_least=1
    )
    max_skipped: int = max_skipped_setting()
    tracker: tuple[Tracker, ...] = tracker_setting()
    checkpoint_activations: bool = setting(
        False,
        "recompute activations in the backward pass: less memory, up to a third more time",
        group="Performance",
    )
    precision: Precision = setting(
        "auto",
        "arithmetic of the training; auto is bfloat16 on a GPU; a CPU that has it is several times as fast",
        group="Performance",
    )
    device: str = device_setting()
    seed: int = setting(0, "seed of every random draw", group="Optimisation", at_least=0, below=SEED_STOP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps and self.epochs:
            raise ConfigError("epochs: another way to say --steps; give one of them")
        if self.patch and self.patch > self.size:
            raise ConfigError(f"patch: got {self.patch}; expected at most --size, {self.size}")
        if self.stack and self.call_lengths[-1] != (self.shortest_stack or self.stack):
            raise ConfigError(
                f"shortest_stack: got {self.shortest_stack}; expected --stack {self.stack} halved any number "
                f"of times, one of {', '.join(map(str, _halvings(self.stack)))}"
            )
        self._require_one_start()
        if self.perceptual != "gradients" and not re.fullmatch("[0-9a-f]{64}", self.perceptual_hash or ""):
            raise ConfigError(
                f"perceptual_hash: got {self.perceptual_hash}; expected the SHA-256 of {self.perceptual}, 64 "
                "hexadecimal digits, as sha256sum prints it"
            )

    def _require_one_start(self) -> None:
        """Raise ConfigError for settings of a network from scratch beside weights to fine-tune."""
        for name in ("network", "channels", "res_blocks", "start"):
            if self.init and getattr(self, name):
                raise ConfigError(
                    f"{name}: is for a network from scratch, and --init gives one; leave out one of the two"
                )
        if self.freeze_encoder and not self.init:
            raise ConfigError("freeze_encoder: keeps the encoder of --init; give such weights")

    def _without_effect(self) -> dict[str, str]:
        without_effect = useless_of_split(self)
        if self.perceptual == "gradients":
            without_effect["perceptual_hash"] = "with gradients; give a network as --perceptual"
        if self.stack == 1 and self.change_weight:
            without_effect["change_weight"] = "in stacks of one frame; give a --stack above 1"
        if self.freeze_encoder:
            without_effect["kl_weight"] = "on the decoder alone; leave --freeze-encoder out"
        return without_effect

    def chosen(self, network: VAENetwork) -> ChosenFit:
        """The settings with those of a recipe, and the usual ones, where none was given.

        network: what is trained; of weights to fine-tune, what they are like. With `epochs` the steps are
        those of no data set yet.
        """
        recipe = self.recipe or network
        usual: dict[str, Any] = RECIPES[recipe] | USUAL_FIT | {"recipe": recipe}
        if (usual["patch"] or 0) >= self.size:
            usual["patch"] = None  # a whole frame
        if not self.init:
            usual |= {"network": network, "start": {"tiny": "pca", "maisi": "random"}[network]}
        given = {name: value for name, value in self.to_dict().items() if value is not None}
        return ChosenFit(**usual | given | {"epochs": None})

    @property
    def call_lengths(self) -> tuple[int, ...]:
        """Frames of the VAE calls that are trained on, from `stack` down to `shortest_stack`."""
        stack = self.stack or 4
        shortest = self.shortest_stack or stack
        return tuple(frames for frames in _halvings(stack) if frames >= shortest) or (stack,)


@dataclass(frozen=True, kw_only=True)
class ChosenFit(FitVAEConfig):
    """The settings of a training of a VAE, where nothing is left to choose; see `FitVAEConfig.chosen`."""

    recipe: VAENetwork
    stack: int
    steps: int
    batch: int
    learning_rate: float
    loss: VAELoss
    kl_weight: float
    perceptual_weight: float
    adversarial_weight: float
    validation_fraction: float
    validate_every: int
    validate_epochs: int


def _halvings(number: int) -> list[int]:
    """A number, its half and so on, as long as it is even."""
    return [number] if number % 2 else [number, *_halvings(number // 2)]
