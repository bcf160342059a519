"""What is decided before the first video of a VAE's training is read: network, settings, split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlat.config import ChosenFit, FitVAEConfig
from vidlat.encode.vae_spec import PREFIX
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import hash_weights
from vidlat.errors import ConfigError
from vidlat.evaluate.candidates import choose_clips
from vidlat.evaluate.source import WINDOW
from vidlat.fit.networks import likeness_of, load_start, require_suited
from vidlat.fit.validation import NUM_CLIPS
from vidlat.labels.split import decide_split, run_subjects
from vidlat.train.runs.notes import notes_on_share
from vidlat.types import Annotation, InputVideo

NOT_VALIDATED = "no video is validated, so nothing tells how well the network does on videos it has not seen"
"""The note on a training without a held-out clip, or whose clips cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """A network to train: its settings, where its weights come from, if from a file, and their hash."""

    settings: dict[str, Any]
    init: Path | None
    init_hash: str


def plan_network(settings: FitVAEConfig) -> tuple[ChosenFit, NetworkPlan]:
    """The network and the settings that suit it; raises ConfigError or WeightsError."""
    if settings.init and settings.init.startswith(PREFIX):
        raise ConfigError(
            f"init: got {settings.init}; expected weights of MAISI's class, not an AutoencoderKL of diffusers"
        )
    init = resolve_weights(settings.init) if settings.init else None
    network, network_settings = load_start(settings, init)
    kind = settings.network or (likeness_of(network_settings) if init else "tiny")
    chosen = settings.chosen(kind)
    require_suited(network, chosen)
    init_hash = hash_weights(network.state_dict()) if init else ""
    return chosen, NetworkPlan(settings=network_settings, init=init, init_hash=init_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Ids of the videos on both sides, and of the clips to validate.

    Of a new split also its numbers in words, and what states it: see `VideoSplit`.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    clips: tuple[str, ...]
    in_words: str = ""
    stated_by: str = ""


def plan_split(videos: Sequence[InputVideo], asked: FitVAEConfig, chosen: ChosenFit) -> Split:
    """Hold subjects out, as a diffusion run does, and choose clips of theirs.

    Raises TrainError or ConfigError as `subjects_of`, and where a validation is `asked` for and there can be
    none.
    """
    annotations = {video.video_id: video.annotation or Annotation() for video in videos}
    sources = {video.video_id: video.source for video in videos}
    decided = decide_split(sources, annotations, chosen, chosen.validation_fraction)
    obstacle = ""
    if not decided.validation:
        obstacle = "there is a single subject; add videos of another, or say by --split-by what a subject is"
    elif chosen.size < WINDOW:
        obstacle = f"frames of {chosen.size} pixels are too small to be measured; expected {WINDOW}"
    if obstacle and any((asked.validation_fraction, asked.validate_every, asked.validate_epochs)):
        raise ConfigError(f"validation_fraction: nothing can be validated: {obstacle}")
    wanted = bool(chosen.validate_every or chosen.validate_epochs) and not obstacle
    held_out = [video for video in videos if video.video_id in set(decided.validation)]
    subjects = run_subjects(sources, annotations, chosen)
    clips = choose_clips(held_out, NUM_CLIPS, subjects) if wanted else []
    return Split(
        training=decided.training,
        validation=decided.validation,
        clips=tuple(video.video_id for video in clips),
        in_words=decided.in_words(),
        stated_by=decided.stated_by,
    )


def split_notes(split: Split, num_videos: int, settings: ChosenFit) -> Iterator[str]:
    """What is unusual about a split, one line each."""
    if not split.clips:
        yield NOT_VALIDATED
    yield split.in_words
    if not split.stated_by:
        yield from notes_on_share(len(split.validation), num_videos, settings.validation_fraction)
