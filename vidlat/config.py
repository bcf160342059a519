"""Every setting of every command, declared once: frozen dataclasses; field names are flags and YAML keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, Self

from vidlat.checked_settings import MANY, SEED_STOP, Config, setting
from vidlat.errors import ConfigError
from vidlat.setting_texts import parse_axes, parse_crop, parse_intensity
from vidlat.timing import Blend, StretchBy, Timing

Fit = Literal["crop", "letterbox", "stretch"]
Ids = Literal["path", "hash"]
Deinterlace = Literal["auto", "off"]
Precision = Literal["auto", "float32", "bfloat16"]
Objective = Literal["flow", "v", "epsilon"]
TimestepDistribution = Literal["uniform", "logit-normal"]
Sampler = Literal["ddim", "euler", "heun"]
Network = Literal["space-time", "monai"]
Preset = Literal["tiny", "small", "base"]
VAENetwork = Literal["tiny", "maisi"]
VAEStart = Literal["random", "pca"]
VAELoss = Literal["l1", "mse", "log-mse"]

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
    )
    deinterlace: Deinterlace = setting(
        "auto", "auto deinterlaces frames that a video flags as interlaced; off keeps their combs"
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
        256, "height and width of the frames the VAE sees, in pixels", at_least=1, at_most=MANY
    )
    fit: Fit = setting("crop", "how a frame becomes square: crop it, pad it with black, or stretch it")
    crop: str = setting(
        "none", "first cut out X,Y,W,H pixels; auto keeps what moves, without static borders and text"
    )
    fps: float = setting(
        0.0, "resample to this many frames per second, by the frames' times; 0 keeps all frames", at_least=0
    )
    intensity: str = setting(
        "auto",
        "values that become black and white: auto (what the file states, else percentile), uint8 (0 to 255), "
        "ct (-1000 to 1000), percentile (lowest to 99.5th), minmax, or LOW,HIGH",
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
        at_least=1,
        at_most=MANY,
    )
    overlap: int | None = setting(
        None,
        "frames of a VAE call that the next one takes too, fewer than --stack; decoded frames are "
        "cross-faded. A multiple of the VAE's compression blends the latents, any other keeps them all. "
        "Else what suits --vae, where --stack is not given, or 0",
        at_least=0,
        at_most=MANY,
    )
    blend: Blend = setting(
        "average",
        "what is kept of latents that calls share: their average, or the one nearest a call's center",
    )
    stretch: int | None = setting(
        None,
        "show the VAE each frame so many times: slow motion, of which more is kept, for as many times the "
        "calls and latents; a divisor of --stack. Else what suits --vae, or 1",
        at_least=1,
        at_most=4,
    )
    stretch_by: StretchBy = setting(
        "repeat", "between two frames of a stretched video, show the earlier one again, or blends of both"
    )
    precision: Precision = setting(
        "auto",
        "arithmetic of the VAE; auto is resolved when the cache is made; not every CPU has bfloat16",
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


def _exclude() -> Any:
    return setting(
        (),
        "pass over files whose path below --input, or whose name, matches this pattern, such as '*_gt*'; may "
        "be repeated",
    )


def _max_skipped() -> Any:
    return setting(
        10,
        "steps in a row that may be skipped, their loss or gradient not being finite; one more ends the run",
        at_least=0,
    )


def _refuse_empty_pattern(patterns: tuple[str, ...]) -> None:
    if "" in patterns:
        raise ConfigError("exclude: got an empty pattern, which matches nothing; leave it out")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(LatentSettings):
    """Settings of `vidlat encode`."""

    vae: str = setting(
        "maisi",
        "maisi, nv-generate-ct, nv-generate-mr, tiny, tiny-16, a weights file, or "
        "diffusers:FOLDER or diffusers:OWNER/NAME[/FOLDER] of a hub: an AutoencoderKL of diffusers",
    )
    in_channels: int | None = setting(None, "refuse a VAE with another number of input channels")
    latent_dim: int | None = setting(None, "refuse a VAE with another number of latent channels")
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    batch: int = setting(0, "stacks per VAE call; 0 chooses for the device", at_least=0, at_most=MANY)
    cudnn_benchmark: bool = setting(
        False,
        "on a GPU, let cuDNN time its algorithms at the first VAE call of each process and use the fastest. "
        "Their last bits differ: an encode that is interrupted or repeated then gives slightly other latents",
    )
    time_limit_seconds: float = setting(0.0, "longest time to decode one video; 0: no limit", at_least=0)
    workers: int = setting(0, "processes that encode; 0 chooses for this machine", at_least=0)
    scheduler: str | None = setting(None, "address of a running Dask scheduler, instead of a local cluster")
    exclude: tuple[str, ...] = _exclude()
    ids: Ids = setting(
        "path", "name videos by their path, or by a hash of it; with hash, no path or file name is kept"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_empty_pattern(self.exclude)


@dataclass(frozen=True, kw_only=True)
class CompareConfig(Preprocessing):
    """Settings of `vidlat compare`. Every VAE is combined with every combination of the lists of timing."""

    size: int = setting(
        256, "height and width of the frames the VAE sees, in pixels", at_least=11, at_most=MANY
    )  # the SSIM needs 11
    vae: tuple[str, ...] = setting(
        ("maisi",), "a VAE to compare, by name or path as for encode; may be repeated"
    )
    stack: tuple[int, ...] = setting((4,), "frames per VAE call", at_least=1, at_most=MANY)
    stretch: tuple[int, ...] = setting(
        (1,), "how often the VAE is shown each frame; a divisor of the stack", at_least=1, at_most=4
    )
    overlap: tuple[int, ...] = setting(
        (0,), "frames of a VAE call that the next one takes too", at_least=0, at_most=MANY
    )
    blend: tuple[Blend, ...] = setting(("average",), "what is kept of latents that calls share")
    stretch_by: tuple[StretchBy, ...] = setting(
        ("repeat",), "what is shown between two frames of a stretched video"
    )
    videos: int = setting(12, "number of clips, evenly spread over subjects and ids", at_least=1)
    frames: int = setting(64, "frames measured of each clip, from its first on", at_least=1, at_most=1000)
    precision: Precision = setting("auto", "arithmetic of the VAEs; auto is bfloat16 on a GPU")
    batch: int = setting(0, "stacks per VAE call; 0 chooses for the device", at_least=0, at_most=MANY)
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    exclude: tuple[str, ...] = _exclude()

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_empty_pattern(self.exclude)
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


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """Settings of `vidlat train`."""

    network: Network = setting(
        "space-time", "the U-Net: space-time (down-samples space only), or MONAI's DiffusionModelUNet"
    )
    preset: Preset = setting("tiny", "size of the U-Net")
    objective: Objective = setting("flow", "what the network predicts")
    timesteps: TimestepDistribution = setting("uniform", "distribution of the training timesteps")
    shift: float = setting(
        1.0, "moves timesteps towards noise (> 1) or data (< 1), in training and in sampling", above=0
    )
    min_snr: float = setting(
        0.0, "gamma of min-SNR loss weighting, for v and epsilon; 5 is usual, 0 turns it off", at_least=0
    )
    condition: tuple[str, ...] = setting(
        (), "a label to condition on: NAME for classes, NAME:float for numbers; may be repeated"
    )
    condition_dropout: float = setting(
        0.1, "share of items trained without their condition, for guidance", at_least=0, at_most=1
    )
    first_frame: float = setting(
        0.0,
        "share of items trained with their first latent frame given, so that samples can continue a picture",
        at_least=0,
        at_most=1,
    )
    frames: int = setting(16, "video frames per training clip", at_least=1, at_most=MANY)
    batch: int = setting(8, "windows per step, over all processes", at_least=1, at_most=MANY)
    accumulate: int = setting(
        1, "parts into which each process splits its share of a step, to save memory", at_least=1
    )
    steps: int = setting(20_000, "steps of the whole run", at_least=1)
    latents_as: Literal["sample", "mean"] = setting(
        "sample", "draw latents from the VAE's posterior, or take its mean"
    )
    learning_rate: float = setting(2e-4, "peak learning rate of AdamW", above=0)
    warmup_steps: int = setting(100, "steps of linear warm-up before the cosine decay", at_least=0)
    weight_decay: float = setting(0.01, "weight decay of AdamW", at_least=0)
    clip_norm: float = setting(1.0, "gradients are clipped to this norm", above=0)
    ema_decay: float = setting(
        0.999, "decay of the averaged weights, which are used for sampling", at_least=0, below=1
    )
    validation_fraction: float = setting(
        0.1, "share of the subjects held out for validation", at_least=0, below=1
    )
    split_by: str | None = setting(
        None,
        "what identifies a subject: subject (as recorded in the cache, for every video), a label, or a "
        "regular expression whose match, or first group, in the video id does; else the recorded subject or "
        "the source (a file or series), whose parts stay together. A label of train, val and test is a "
        "split: it is kept, and test videos are left out",
    )
    validate_every: int = setting(200, "steps between validations", at_least=1)
    checkpoint_every: int = setting(200, "steps between checkpoints", at_least=1)
    keep: int = setting(3, "number of latest checkpoints to keep, besides the best", at_least=1)
    max_skipped: int = _max_skipped()
    sample_every: int = setting(
        0, "steps between samples drawn during training, shown in TensorBoard; 0 for none", at_least=0
    )
    compile: bool | None = setting(
        None,
        "compile the U-Net: a delay of a minute or so at the start, then faster steps (a few percent on a "
        "CPU). Else on a GPU alone",
    )
    checkpoint_activations: bool = setting(
        False, "recompute activations in the backward pass: less memory, a third more time"
    )
    precision: Precision = setting(
        "auto", "arithmetic of the U-Net; auto is bfloat16 on a GPU; not every CPU has it"
    )
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    seed: int = setting(0, "seed of every random draw", at_least=0, below=SEED_STOP)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_snr and self.objective == "flow":
            raise ConfigError("min_snr: weights v and epsilon only; with objective flow leave it at 0")
        if self.checkpoint_activations and self.network == "monai":
            raise ConfigError("checkpoint_activations: not available in MONAI's network; use space-time")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Config):
    """Settings of `vidlat sample`."""

    num: int = setting(8, "number of samples", short="-n", at_least=1)
    frames: int = setting(
        0, "video frames per sample; 0 for the length of a training clip", at_least=0, at_most=MANY
    )
    seed: int = setting(
        0, "seed of the first sample; sample i depends on seed + i alone", at_least=0, below=SEED_STOP
    )
    steps: int = setting(50, "denoising steps", at_least=1)
    sampler: Sampler = setting("ddim", "how a step is taken; heun calls the network twice per step")
    condition: tuple[str, ...] = setting((), "a condition, NAME=VALUE; may be repeated")
    guidance: float = setting(
        1.0, "classifier-free guidance scale: 1 is as trained, 0 ignores the condition", at_least=0
    )
    first_frame: str | None = setting(
        None, "picture or video to continue, for runs trained with --first-frame"
    )
    checkpoint: Literal["last", "best"] = setting(
        "last", "the last checkpoint, or the one with the lowest validation loss"
    )
    format: Literal["mp4", "gif", "npy"] = setting("mp4", "of the videos; npy holds (T, H, W) uint8")
    precision: Precision = setting(
        "auto",
        "arithmetic of the U-Net; auto is as it was trained, or float32 where a CPU lacks bfloat16",
    )
    batch: int = setting(
        0, "samples drawn at once, the last batch padded; 0 chooses for the device", at_least=0, at_most=MANY
    )
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")


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

    size: int = setting(128, "height and width of the training frames, in pixels", at_least=1, at_most=MANY)
    init: str | None = setting(
        None, "weights to fine-tune, as for --vae; else a network from scratch, see --network"
    )
    network: VAENetwork | None = setting(
        None,
        "from scratch: tiny (0.9 M parameters), or maisi (21 M), the network of NVIDIA's weights; else tiny",
    )
    channels: tuple[int, ...] = setting(
        (), "from scratch: width of each level, in place of the network's", at_least=1, at_most=4096
    )
    res_blocks: tuple[int, ...] = setting(
        (), "from scratch: residual blocks of each level, in place of the network's", at_least=1, at_most=64
    )
    latent_dim: int | None = setting(
        None, "from scratch: latent channels; MAISI and the default have 4", at_least=1, at_most=64
    )
    start: VAEStart | None = setting(
        None,
        "from scratch: random weights, or pca: those of the best linear code, for which the network has "
        "transposed convolutions in place of interpolation, and group norms of fewer groups; else pca for "
        "tiny, random for maisi",
    )
    freeze_encoder: bool = setting(
        False, "train the decoder of --init alone: caches that were made with it stay valid"
    )
    recipe: VAENetwork | None = setting(
        None,
        "losses, rate, batch, stack and patch where they are not given: maisi is NVIDIA's training, tiny "
        "that of the embedded VAEs; else as the network",
    )
    stack: int | None = setting(
        None,
        "frames of a training stack and of a VAE call; the network learns motion as far as a stack reaches; "
        "else 4, with recipe maisi 64",
        at_least=1,
        at_most=MANY,
    )
    shortest_stack: int | None = setting(
        None,
        "learn shorter VAE calls too: steps take turns in showing a stack whole, as two halves, and so on "
        "down to calls of this many frames",
        at_least=1,
        at_most=MANY,
    )
    patch: int | None = setting(
        None,
        "height and width of random squares of the frames to train on, in pixels, for steps that cost less; "
        "else whole frames, with recipe maisi 64",
        at_least=1,
        at_most=MANY,
    )
    steps: int | None = setting(None, "training steps; else 2000", at_least=1)
    epochs: float | None = setting(
        None, "passes over the training stacks, another way to say --steps", above=0
    )
    batch: int | None = setting(
        None, "stacks per step, over all processes; else 4, with recipe maisi 1", at_least=1, at_most=MANY
    )
    learning_rate: float | None = setting(
        None, "peak learning rate of AdamW; else 1e-3, with recipe maisi 1e-4", above=0
    )
    warmup_steps: int = setting(100, "steps of linear warm-up before the cosine decay", at_least=0)
    clip_norm: float = setting(1.0, "gradients are clipped to this norm", above=0)
    loss: VAELoss | None = setting(
        None,
        "error of the frames: l1, mse, or log-mse, by which every stack counts by its PSNR; else log-mse, "
        "with recipe maisi l1",
    )
    kl_weight: float | None = setting(
        None,
        "weight of the divergence from a standard normal, averaged over values; else 1e-4, with recipe maisi "
        "1.6384e-3, which is NVIDIA's 1e-7 of the sum over a 64x64x64 patch",
        at_least=0,
    )
    change_weight: float = setting(
        0.0, "weight of the error of the change from frame to frame, beside that of the frames", at_least=0
    )
    perceptual_weight: float | None = setting(
        None, "weight of --perceptual; else 0, with recipe maisi 0.3", at_least=0
    )
    perceptual: str = setting(
        "gradients",
        "distance of pictures: gradients, of the image gradients at three scales, which needs no weights; or "
        "of the features of a TorchScript network, a file or hub:OWNER/REPOSITORY/FILE",
    )
    perceptual_hash: str | None = setting(
        None, "SHA-256 of that file, which is verified before it is loaded; required"
    )
    adversarial_weight: float | None = setting(
        None,
        "weight of a discriminator's judgement, which sees the frames of a stack at once; else 0, with "
        "recipe maisi 0.1",
        at_least=0,
    )
    ema_decay: float = setting(0.995, "decay of the averaged weights, which are written", at_least=0, below=1)
    max_stacks: int = setting(
        20_000, "training stacks held in memory, drawn evenly from all videos", at_least=1
    )
    validation_fraction: float | None = setting(
        None,
        "share of the subjects held out for validation; else 0.1 where there are two subjects",
        at_least=0,
        below=1,
    )
    split_by: str | None = setting(
        None,
        "what identifies a subject: subject (of a manifest or --labels), a label, or a regular expression "
        "for video ids; else the subject or the source. A label of train, val and test is a split",
    )
    validate_every: int | None = setting(
        None, "steps between validations; 0 for none between epochs; else 200", at_least=0
    )
    validate_epochs: int | None = setting(
        None,
        "epochs between further validations, at the end of one; rounded up to epochs of 100 steps together; "
        "0 for none; else 1",
        at_least=0,
    )
    checkpoint_every: int = setting(200, "steps between checkpoints", at_least=1)
    keep: int = setting(3, "number of latest checkpoints to keep, besides the best", at_least=1)
    max_skipped: int = _max_skipped()
    checkpoint_activations: bool = setting(
        False, "recompute activations in the backward pass: less memory, up to a third more time"
    )
    precision: Precision = setting(
        "auto",
        "arithmetic of the training; auto is bfloat16 on a GPU; a CPU that has it is several times as fast",
    )
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    seed: int = setting(0, "seed of every random draw", at_least=0, below=SEED_STOP)

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
