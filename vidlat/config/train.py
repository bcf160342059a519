"""Settings of `vidlat train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vidlat.checked_settings import MANY, SEED_STOP, Config, setting
from vidlat.config.device import device_setting
from vidlat.config.latents import Precision
from vidlat.config.split import (
    split_by_pattern_setting,
    split_by_setting,
    split_setting,
    useless_of_split,
)
from vidlat.errors import ConfigError
from vidlat.where import parse_where

Objective = Literal["flow", "mean-flow", "v", "epsilon"]
TimestepDistribution = Literal["uniform", "logit-normal"]
Network = Literal["space-time", "monai"]
Preset = Literal["tiny", "small", "base", "large"]
Tracker = Literal[
    "tensorboard", "wandb", "mlflow", "aim", "comet_ml", "clearml", "dvclive", "swanlab", "trackio"
]


OPERATIONAL = (
    "device", "accumulate", "compile", "checkpoint_activations", "max_skipped", "checkpoint_every", "keep",
    "sample_every", "threads", "tracker",
)  # fmt: skip
"""Settings that do not affect what is learnt: where and how it is computed, saved and shown."""

RECORDED = ("steps", "learning_rate", "clip_norm", "precision")
"""Settings that change what is learnt, and may change with a resumed run, which records it."""

MAY_CHANGE = (*RECORDED, "patience", *OPERATIONAL)
"""Settings that a resumed run may change."""


def tracker_setting() -> Any:
    return setting(
        ("tensorboard",),
        "where to report figures and settings; TensorBoard's files are always written, the others must be "
        "installed",
        group="Monitoring",
    )


def max_skipped_setting() -> Any:
    return setting(
        10,
        "steps in a row that may be skipped, their loss or gradient not being finite; one more ends the run",
        group="Monitoring",
        at_least=0,
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Settings of `vidlat train`."""

    network: Network = setting(
        "space-time",
        "the U-Net: space-time (down-samples space only), or MONAI's DiffusionModelUNet",
        group="Network",
    )
    preset: Preset = setting("tiny", "size of the U-Net", group="Basic")
    channels: tuple[int, ...] = setting(
        (),
        "width of each level of the U-Net, in place of the preset's; multiples of 8",
        group="Network",
        at_least=8,
        at_most=4096,
    )
    blocks: int | None = setting(
        None,
        "residual blocks of each level, in place of the preset's",
        group="Network",
        at_least=1,
        at_most=16,
    )
    attention: int | None = setting(
        None,
        "number of levels, the smallest ones, that attend within a frame; else 2",
        group="Network",
        at_least=0,
        at_most=16,
    )
    heads: int | None = setting(
        None,
        "heads of each attention; else one for 32 channels or more",
        group="Network",
        at_least=1,
        at_most=256,
    )
    objective: Objective = setting(
        "flow", "what the network predicts; with mean-flow, samples take 1 to 4 steps", group="Objective"
    )
    init: str | None = setting(
        None,
        "start from the averaged weights of a run, an exported one (a folder or hf://OWNER/NAME), or a "
        ".safetensors file, of the same network and VAE",
        group="Network",
        names="start",
    )
    distil: str | None = setting(
        None,
        "with objective mean-flow: start from this run of objective flow, and learn its velocity in place of "
        "that of the data",
        group="Objective",
        names="model",
    )
    plain_flow: float = setting(
        0.75,
        "share of items that a mean flow trains as plain flow; the others cost twice as much",
        group="Objective",
        at_least=0,
        at_most=1,
    )
    timesteps: TimestepDistribution = setting(
        "uniform", "distribution of the training timesteps", group="Objective"
    )
    shift: float = setting(
        1.0,
        "moves timesteps towards noise (> 1) or data (< 1), in training and in sampling",
        group="Objective",
        above=0,
    )
    min_snr: float = setting(
        0.0,
        "gamma of min-SNR loss weighting, for v and epsilon; 5 is usual, 0 turns it off",
        group="Objective",
        at_least=0,
    )
    condition: tuple[str, ...] = setting(
        (),
        "a label to condition on: NAME for classes, NAME:float for numbers; may be repeated",
        group="Conditioning",
    )
    condition_dropout: float = setting(
        0.1,
        "share of items trained without their condition, for guidance",
        group="Conditioning",
        at_least=0,
        at_most=1,
    )
    first_frame: float = setting(
        0.0,
        "share of items trained with their first latent frames given, so that samples can continue a picture "
        "or a video",
        group="Conditioning",
        at_least=0,
        at_most=1,
    )
    first_frames: int = setting(
        1,
        "latent frames that are given then; more show the motion to continue",
        group="Conditioning",
        at_least=1,
        at_most=MANY,
    )
    frames: int = setting(16, "video frames per training clip", group="Basic", at_least=1, at_most=MANY)
    batch: int = setting(8, "windows per step, over all processes", group="Basic", at_least=1, at_most=MANY)
    accumulate: int = setting(
        1,
        "parts into which each process splits its share of a step, to save memory",
        group="Performance",
        at_least=1,
    )
    steps: int = setting(
        20_000, "steps of the whole run, at whose end the learning rate is 0", group="Basic", at_least=1
    )
    latents_as: Literal["sample", "mean"] = setting(
        "sample", "draw latents from the VAE's posterior, or take its mean", group="Objective"
    )
    learning_rate: float = setting(2e-4, "peak learning rate of AdamW", group="Optimisation", above=0)
    warmup_steps: int = setting(
        100, "steps of linear warm-up before the cosine decay", group="Optimisation", at_least=0
    )
    weight_decay: float = setting(0.01, "weight decay of AdamW", group="Optimisation", at_least=0)
    clip_norm: float = setting(1.0, "gradients are clipped to this norm", group="Optimisation", above=0)
    ema_decay: float = setting(
        0.999,
        "decay of the averaged weights, which are used for sampling",
        group="Optimisation",
        at_least=0,
        below=1,
    )
    average_snapshots: int = setting(
        0,
        "steps between snapshots of two further averages, from which `vidlat sample --average-length` makes "
        "one of any length; 0 for none. Each takes as much disk as the weights",
        group="Optimisation",
        at_least=0,
    )
    where: str | None = setting(
        None,
        "train on those videos alone for which this holds: comparisons of labels, subject, video_id, "
        "num_frames and fps, such as \"view == 'A4C' and EF >= 50\"",
        group="Split",
    )
    validation_fraction: float = setting(
        0.1, "share of the subjects held out for validation", group="Split", at_least=0, below=1
    )
    split: str | None = split_setting()
    split_by: str | None = split_by_setting()
    split_by_pattern: str | None = split_by_pattern_setting()
    validate_every: int = setting(200, "steps between validations", group="Monitoring", at_least=1)
    patience: int = setting(
        0,
        "validations without a lower validation loss after which the run ends early; 0 for none",
        group="Monitoring",
        at_least=0,
    )
    checkpoint_every: int = setting(200, "steps between checkpoints", group="Monitoring", at_least=1)
    keep: int = setting(
        3, "number of latest checkpoints to keep, besides the best", group="Monitoring", at_least=1
    )
    max_skipped: int = max_skipped_setting()
    sample_every: int = setting(
        0,
        "steps between samples drawn during training, shown in TensorBoard; 0 for none",
        group="Monitoring",
        at_least=0,
    )
    tracker: tuple[Tracker, ...] = tracker_setting()
    compile: bool | None = setting(
        None,
        "compile the U-Net: a delay of a minute or so at the start, then faster steps (a few percent on a "
        "CPU). Else on a GPU alone",
        group="Performance",
    )
    checkpoint_activations: bool = setting(
        False,
        "recompute activations in the backward pass: less memory, a third more time",
        group="Performance",
    )
    precision: Precision = setting(
        "auto",
        "arithmetic of the U-Net; auto is bfloat16 on a GPU; not every CPU has it",
        group="Performance",
    )
    device: str = device_setting()
    threads: int = setting(
        0,
        "threads of the U-Net on a CPU; 0 tries at the start of a run which number is fastest, unless "
        "OMP_NUM_THREADS is set, which wins",
        group="Performance",
        at_least=0,
        at_most=4096,
    )
    seed: int = setting(0, "seed of every random draw", group="Optimisation", at_least=0, below=SEED_STOP)

    @property
    def takes_span(self) -> bool:
        """Whether the network is told a span beside the timestep."""
        return self.objective == "mean-flow"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where is not None:
            parse_where(self.where)
        if self.min_snr and self.objective in ("flow", "mean-flow"):
            raise ConfigError("min_snr: weights v and epsilon only; with objective flow leave it at 0")
        if self.distil and (self.init or not self.takes_span):
            raise ConfigError(
                "distil: it needs --objective mean-flow, and starts from that run, so leave --init out"
            )
        if self.takes_span and self.network == "monai":
            raise ConfigError("objective: mean-flow is not available in MONAI's network; use space-time")
        self._require_possible_sizes()

    def _without_effect(self) -> dict[str, str]:
        without_effect = useless_of_split(self)
        if not self.takes_span:
            without_effect["plain_flow"] = f"with objective {self.objective}; give --objective mean-flow"
        if not self.condition:
            without_effect["condition_dropout"] = "without conditions; give a --condition"
        if not self.first_frame:
            without_effect["first_frames"] = "where no first frame is given; give a --first-frame above 0"
        if self.channels and self.blocks:
            without_effect["preset"] = "beside --channels and --blocks; leave one of these out"
        if not (self.validation_fraction or self.split or self.split_by):
            why = (
                "with nothing held out; give a --validation-fraction above 0, or the --split or --split-by "
                "that says what is"
            )
            without_effect |= dict.fromkeys(("validate_every", "patience"), why)
        return without_effect

    def _require_possible_sizes(self) -> None:
        """Raise ConfigError for sizes that no network can have."""
        odd = [width for width in self.channels if width % 8]
        if odd:
            raise ConfigError(f"channels: got {odd[0]}; expected multiples of 8, the groups of a norm")
        uneven = [width for width in self.channels if self.heads and width % (2 * self.heads)]
        if uneven:
            raise ConfigError(
                f"heads: got {self.heads}, and a level of {uneven[0]} channels; expected heads of an even "
                "number of channels each"
            )
        if self.heads and not self.channels:
            raise ConfigError("heads: are those of --channels; give both, or a preset alone")
