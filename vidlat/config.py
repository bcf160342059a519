"""Every setting of every command, once: frozen dataclasses whose field names are flags and YAML keys."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from vidlat.errors import ConfigError
from vidlat.types import Box, Range

Fit = Literal["crop", "letterbox", "stretch"]
Ids = Literal["path", "hash"]
Precision = Literal["auto", "float32", "bfloat16"]
Objective = Literal["flow", "v", "epsilon"]
TimestepDistribution = Literal["uniform", "logit-normal"]
Sampler = Literal["ddim", "euler", "heun"]
Network = Literal["space-time", "monai"]
Preset = Literal["tiny", "small", "base"]

SEED_STOP = 2**63
"""Seeds end before this: torch's generators take no larger one."""

INTENSITIES = ("auto", "uint8", "ct", "percentile", "minmax")
"""Names of the ranges that gray levels may be taken from; LOW,HIGH is one more way."""

PREPROCESS_VERSION = 2
"""Raised whenever the same file and settings would give other pixels: part of a cache's identity."""


MANTISSA_BITS = 10
"""Of a float16 (IEEE 754 binary16), which latents are stored as."""


def setting(default: Any, help: str, short: str | None = None) -> Any:
    """A dataclass field with the help text that `--help` shows, and perhaps a flag of one letter."""
    return field(default=default, metadata={"help": help, "short": short})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Common behaviour: values are checked against their annotations, unknown names are refused."""

    def __post_init__(self) -> None:
        for name, annotation in typing.get_type_hints(type(self)).items():
            _check(name, getattr(self, name), annotation)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        """Build from flag or YAML names (`-` and `_` are the same); a float may be a text such as 2e-4.

        Raises ConfigError for an unknown name or a value of the wrong type.
        """
        known = typing.get_type_hints(cls)
        values = {_field_name(name): value for name, value in values.items()}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**{name: _parse(value, known[name]) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values for JSON."""
        return dataclasses.asdict(self)


def _field_name(name: object) -> str:
    return str(name).replace("-", "_")


def _parse(value: Any, annotation: Any) -> Any:
    if typing.get_origin(annotation) is tuple and isinstance(value, list):
        return tuple(value)  # JSON and YAML know no other
    # To YAML 1.1, and so to PyYAML, 2e-4 is a text: it wants 2.0e-4.
    if annotation is float and isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _check(name: str, value: Any, annotation: Any) -> None:
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        if value not in options:
            raise ConfigError(f"{name}: got {value!r}; one of {', '.join(map(str, options))}")
        return
    if origin is tuple:
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{name}: got {value!r}; expected a list of texts")
        return
    kinds = options if origin in (typing.Union, types.UnionType) else (annotation,)
    # YAML and JSON write 1 where a float is meant; a bool is an int to Python but never to a user.
    if isinstance(value, bool) and bool not in kinds:
        raise ConfigError(f"{name}: got {value!r}; expected {_names(kinds)}")
    if isinstance(value, int) and float in kinds:
        return
    if not isinstance(value, tuple(kinds)):
        raise ConfigError(f"{name}: got {value!r}; expected {_names(kinds)}")


def _names(kinds: tuple[Any, ...]) -> str:
    return " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)


def require(name: str, value: float, holds: bool, expected: str) -> None:
    """Refuse a number out of range, naming the setting; one that is not finite never is in range."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}: got {value}; expected a finite number, {expected}")
    if not holds:
        raise ConfigError(f"{name}: got {value}; expected {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How the frames of a video become what the VAE sees: part of a cache's identity.

    size: height and width, pixels. crop: none, auto, or X,Y,W,H. fps: frames a second, 0 for those of the
    video. intensity: one of INTENSITIES, or LOW,HIGH. The texts are canonical: equal ones mean the same.
    """

    size: int
    fit: Fit
    crop: str = "none"
    fps: float = 0.0
    intensity: str = "auto"


def parse_crop(text: str) -> Literal["none", "auto"] | Box:
    """The meaning of --crop: a word, or a box of pixels; raises ConfigError."""
    if text == "none":
        return "none"
    if text == "auto":
        return "auto"
    try:
        left, top, width, height = map(int, text.split(","))
    except ValueError:
        left, top, width, height = -1, -1, 0, 0
    if min(left, top) < 0 or min(width, height) < 1:
        raise ConfigError(
            f"crop: got {text!r}; expected none, auto, or X,Y,W,H in pixels: left, top, width, height"
        )
    return left, top, width, height


def parse_intensity(text: str) -> str | Range:
    """The meaning of --intensity: one of INTENSITIES, or what becomes 0 and what 1; raises ConfigError."""
    if text in INTENSITIES:
        return text
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"intensity: got {text!r}; expected {', '.join(INTENSITIES)}, or LOW,HIGH")
    return low, high


def _canonical(meaning: str | tuple[float, ...]) -> str:
    return meaning if isinstance(meaning, str) else ",".join(f"{number:.15g}" for number in meaning)


@dataclass(frozen=True, kw_only=True)
class FramesConfig(Config):
    """Settings of every command that prepares frames for a VAE."""

    size: int = setting(256, "height and width of the frames the VAE sees, in pixels")
    fit: Fit = setting("crop", "how a frame becomes square: cut, pad with black, or distort")
    crop: str = setting(
        "none", "first cut out X,Y,W,H pixels; auto: what moves, without static borders and text"
    )
    fps: float = setting(0.0, "resample to so many frames a second, by the frames' times; 0: as they are")
    intensity: str = setting(
        "auto",
        "values that become black and white: auto (what the file states, else percentile), uint8 (0 to 255), "
        "ct (-1000 to 1000), percentile (lowest to 99.5th), minmax, or LOW,HIGH",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require("size", self.size, self.size >= 1, "at least 1")
        require("fps", self.fps, self.fps >= 0, "0 or more")
        parse_crop(self.crop)
        parse_intensity(self.intensity)

    @property
    def preprocessing(self) -> Preprocessing:
        """Size, fit, crop, rate and intensity as one value."""
        return Preprocessing(
            size=self.size,
            fit=self.fit,
            crop=_canonical(parse_crop(self.crop)),
            fps=float(self.fps),
            intensity=_canonical(parse_intensity(self.intensity)),
        )


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(FramesConfig):
    """Settings of `vidlat encode`."""

    vae: str = setting("maisi", "maisi, nv-generate-ct, nv-generate-mr, tiny, or a weights file")
    stack: int = setting(4, "frames of one VAE call")
    in_channels: int | None = setting(None, "refuse a VAE that takes another number of channels")
    latent_dim: int | None = setting(None, "refuse a VAE with another number of latent channels")
    precision: Precision = setting("auto", "arithmetic of the VAE; auto is resolved once a cache")
    keepbits: int = setting(
        MANTISSA_BITS,
        "bits of mantissa that a stored latent keeps, 1 to 10: fewer take less disk; 10 is all of float16",
    )
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    batch: int = setting(0, "stacks of one VAE call; 0 chooses for the device")
    time_limit_seconds: float = setting(0.0, "longest that decoding one video may take; 0: no limit")
    workers: int = setting(0, "processes that encode; 0 chooses for this machine")
    scheduler: str | None = setting(None, "address of a running Dask scheduler, instead of a local cluster")
    ids: Ids = setting(
        "path", "name videos by their path, or by a hash of it: then no path or file name is kept"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require("stack", self.stack, self.stack >= 1, "at least 1")
        require("keepbits", self.keepbits, 1 <= self.keepbits <= MANTISSA_BITS, f"1 to {MANTISSA_BITS}")
        require("batch", self.batch, self.batch >= 0, "0 or more")
        require("workers", self.workers, self.workers >= 0, "0 or more")
        limit = self.time_limit_seconds
        require("time_limit_seconds", limit, limit >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Settings of `vidlat train`."""

    network: Network = setting("space-time", "the U-Net: space-time (halves space alone), or MONAI's")
    preset: Preset = setting("tiny", "size of the U-Net")
    objective: Objective = setting("flow", "what the network predicts")
    timesteps: TimestepDistribution = setting("uniform", "how training timesteps are drawn")
    shift: float = setting(1.0, "moves timesteps towards noise (> 1) or data (< 1), in sampling too")
    min_snr: float = setting(0.0, "gamma of min-SNR weighting, of v and epsilon; 5 is usual, 0 is none")
    condition: tuple[str, ...] = setting(
        (), "a label to condition on: NAME for classes, NAME:float for numbers; may be repeated"
    )
    condition_dropout: float = setting(0.1, "share of items that lose their condition, for guidance")
    animate: float = setting(
        0.0, "share of items whose first latent frame is given, so that samples may go on from a picture"
    )
    frames: int = setting(16, "video frames of one training clip")
    batch: int = setting(8, "windows of one step, of all processes together")
    accumulate: int = setting(1, "parts that a process takes its windows of a step in, to save memory")
    steps: int = setting(20_000, "steps of the whole run")
    latents_as: Literal["sample", "mean"] = setting("sample", "draw from the posterior, or take its mean")
    learning_rate: float = setting(2e-4, "peak learning rate of AdamW")
    warmup_steps: int = setting(100, "steps of linear warm-up before the cosine decay")
    weight_decay: float = setting(0.01, "AdamW's weight decay")
    clip_norm: float = setting(1.0, "largest gradient norm")
    ema_decay: float = setting(0.999, "decay of the averaged weights used for sampling")
    validation_fraction: float = setting(0.1, "share of the subjects held out for validation")
    split_by: str | None = setting(
        None,
        "what tells subjects apart: subject (as the cache knows it, for every video), a label, or a regular "
        "expression whose match, or first group, in the video's id does; else the known subject or the video",
    )
    validate_every: int = setting(200, "steps between two validations")
    checkpoint_every: int = setting(200, "steps between two checkpoints")
    keep: int = setting(3, "last checkpoints that are kept, beside the best")
    sample_every: int = setting(
        0, "steps between two looks at samples by the command line, in TensorBoard too; 0 for none"
    )
    compile: bool = setting(
        False, "compile the U-Net: a wait at first, then quicker steps, on a CPU by some percent"
    )
    checkpoint_activations: bool = setting(
        False, "compute activations again instead of keeping them: less memory, a third more time"
    )
    precision: Precision = setting("auto", "arithmetic of the U-Net; auto is bfloat16 on a GPU")
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    seed: int = setting(0, "seed of every random draw")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("frames", "batch", "accumulate", "steps", "validate_every", "checkpoint_every", "keep"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_steps", "weight_decay", "sample_every"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("condition_dropout", "animate"):
            require(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "from 0 to 1")
        require("seed", self.seed, 0 <= self.seed < SEED_STOP, "from 0 up to 2**63, 2**63 excluded")
        for name in ("learning_rate", "clip_norm", "shift"):
            require(name, getattr(self, name), getattr(self, name) > 0, "more than 0")
        require("min_snr", self.min_snr, self.min_snr >= 0, "0 or more")
        if self.min_snr and self.objective == "flow":
            raise ConfigError("min_snr: weighs v and epsilon; with objective flow leave it at 0")
        if self.checkpoint_activations and self.network == "monai":
            raise ConfigError("checkpoint_activations: MONAI's network has no such way; use space-time")
        require("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "from 0 up to 1, 1 excluded")
        fraction = self.validation_fraction
        require("validation_fraction", fraction, 0 <= fraction < 1, "from 0 up to 1, 1 excluded")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Config):
    """Settings of `vidlat sample`."""

    num: int = setting(8, "how many samples", short="-n")
    frames: int = setting(0, "video frames of a sample; 0 for those of a training clip")
    seed: int = setting(0, "of the first sample; sample number i depends on seed + i alone")
    steps: int = setting(50, "denoising steps")
    sampler: Sampler = setting("ddim", "how a step is taken; heun asks the network twice a step")
    condition: tuple[str, ...] = setting((), "what to show, NAME=VALUE; may be repeated")
    guidance: float = setting(1.0, "how much the condition is insisted on: 1 is as trained, 0 not at all")
    start: str | None = setting(None, "picture or video to go on from, for runs trained with --animate")
    checkpoint: Literal["last", "best"] = setting(
        "last", "the last one, or that of the lowest validation loss"
    )
    format: Literal["mp4", "gif", "npy"] = setting("mp4", "of the videos; npy holds (T, H, W) uint8")
    batch: int = setting(0, "samples drawn at once, the last ones filled up; 0 chooses for the device")
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num", "steps"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("frames", "batch"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("guidance", self.guidance, self.guidance >= 0, "0 or more")
        require("seed", self.seed, 0 <= self.seed < SEED_STOP, "from 0 up to 2**63, 2**63 excluded")


@dataclass(frozen=True, kw_only=True)
class FitVAEConfig(FramesConfig):
    """Settings of `vidlat fit-vae`."""

    size: int = setting(128, "height and width of the training frames, in pixels")
    init: str | None = setting(None, "weights to fine-tune, as for --vae; else a small network from scratch")
    stack: int = setting(4, "frames of one VAE call")
    steps: int = setting(2000, "training steps")
    batch: int = setting(4, "stacks of one step")
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW")
    warmup_steps: int = setting(100, "steps of linear warm-up before the cosine decay")
    kl_weight: float = setting(1e-4, "weight of the divergence from a standard normal, a mean over values")
    ema_decay: float = setting(0.995, "decay of the averaged weights that are written")
    max_stacks: int = setting(20_000, "training stacks held in memory, drawn evenly from all videos")
    save_every: int = setting(100, "steps between two savings of the weights")
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    seed: int = setting(0, "seed of every random draw")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stack", "steps", "batch", "max_stacks", "save_every"):
            require(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        require("learning_rate", self.learning_rate, self.learning_rate > 0, "more than 0")
        require("ema_decay", self.ema_decay, 0 <= self.ema_decay < 1, "from 0 up to 1, 1 excluded")
        for name in ("warmup_steps", "kl_weight"):
            require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        require("seed", self.seed, 0 <= self.seed < SEED_STOP, "from 0 up to 2**63, 2**63 excluded")


SECTIONS: dict[str, type[Config]] = {
    "encode": EncodeConfig,
    "train": TrainConfig,
    "sample": SampleConfig,
    "fit-vae": FitVAEConfig,
}
"""What a YAML file of settings may hold: one section a command."""


def load_yaml(path: Path, section: str) -> dict[str, Any]:
    """The settings in one of a YAML file's SECTIONS, checked, by field name.

    Raises ConfigError naming the file: it cannot be read, says something twice, has another section or
    not this one, or one of the section's settings is wrong.
    """
    try:
        document = yaml.load(path.read_text(), _UniqueKeyLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: has no section `{section}:` with settings below it")
    unknown = [str(name) for name in document if name not in SECTIONS]
    if unknown:
        raise ConfigError(f"{path}: unknown section {', '.join(unknown)}; known are {', '.join(SECTIONS)}")
    values = document.get(section)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: has no section `{section}:` with settings below it")
    names = [_field_name(name) for name in values]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: {', '.join(twice)} is given twice in `{section}:`; keep one")
    try:
        config = SECTIONS[section].from_mapping(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return {name: getattr(config, name) for name in names}


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which would let the last of two equal keys win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice; keep one", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
