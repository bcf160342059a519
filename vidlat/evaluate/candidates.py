"""What a comparison compares: VAEs, each with several ways to show it videos, and where it looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vidlat.config import CompareConfig, LatentSettings
from vidlat.encode.device import resolve_batch, resolve_device
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.encode.vae_spec import require_size
from vidlat.encode.weights import resolve_weights
from vidlat.errors import ConfigError, TimingError, VidlatError, WeightsError
from vidlat.labels.subjects import subjects_of
from vidlat.pipeline.estimate import bytes_on_disk
from vidlat.timing import Timing
from vidlat.types import Annotation, InputVideo
from vidlat.video.contact_sheet import evenly_spaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A VAE and how it is shown videos.

    name: of both, such as `tiny stack 4 stretch 2`. called: the VAE alone. vae: as it was asked for.
    values_per_pixel: posterior means per pixel of a video. bytes_per_1000_frames: in a cache, about.
    """

    name: str
    called: str
    vae: str
    timing: Timing
    values_per_pixel: float
    bytes_per_1000_frames: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Each candidate with its VAE, and by name the error of what is none.

    impossible: ways of showing that do not fit the VAE, or each other. failed: VAEs that cannot be loaded, or
    cannot take frames of that size.
    """

    vaes: dict[Candidate, FrozenVAE] = field(default_factory=dict)
    impossible: dict[str, VidlatError] = field(default_factory=dict)
    failed: dict[str, VidlatError] = field(default_factory=dict)


def load_candidates(config: CompareConfig, named: Mapping[str, str] = MappingProxyType({})) -> Candidates:
    """Load every VAE, and combine it with every way to show videos that makes sense; equal ones count once.

    named: further VAEs, by what they are called.
    Raises DeviceError, ConfigError for what is no device, and, if there is no candidate, the first error,
    with its name.
    """
    found = Candidates()
    specs = dict(named)
    for spec, name in _short_names(config.vae).items():
        specs[f"VAE {name}" if name in named else name] = spec
    if not specs:
        raise ConfigError("vae: got an empty list; expected something to compare")
    batch = resolve_batch(config.batch, resolve_device(config.device))
    for name, vae in specs.items():
        try:
            _add(found, vae, name, config, batch)
        except (ConfigError, WeightsError) as error:
            found.failed[name] = error
    if not found.vaes:
        left_out = found.failed | found.impossible
        name, first = next(iter(left_out.items()))
        if len(left_out) > 1:
            raise type(first)(f"nothing is left to compare: {name}: {first}") from first
        raise first
    return found


def _add(found: Candidates, spec: str, short_name: str, config: CompareConfig, batch: int) -> None:
    loaded: FrozenVAE | None = None
    path = resolve_weights(spec)
    for settings in config.settings_of_each_vae():
        name = f"{short_name} {_describe(settings)}"
        try:
            loaded = loaded or load_vae(path, settings, batch=batch, device=config.device)
            require_size(config.size, loaded.space_compression)
            vae = loaded.with_timing(settings.timing(loaded.time_compression))
        except TimingError as error:
            found.impossible[name] = error
            continue
        is_new = all(
            (vae.weights_hash, vae.encoder_config, vae.timing)
            != (other.weights_hash, other.encoder_config, other.timing)
            for other in found.vaes.values()
        )
        if is_new:
            found.vaes[_candidate(name, short_name, spec, vae, config.size)] = vae


def _candidate(name: str, called: str, spec: str, vae: FrozenVAE, size: int) -> Candidate:
    side = size // vae.space_compression
    # Without the ends of a video, where a call may be padded.
    values_per_frame = vae.timing.latent_step / vae.timing.frame_step * vae.latent_dim * side * side
    return Candidate(
        name=name,
        called=called,
        vae=spec,
        timing=vae.timing,
        values_per_pixel=values_per_frame / (size * size),
        bytes_per_1000_frames=bytes_on_disk(1000 * values_per_frame),
    )


def _describe(settings: LatentSettings) -> str:
    """Such as `stack 4 stretch 2`: what is not the default, in words."""
    parts = [f"stack {settings.stack}"]
    if settings.stretch != 1:
        parts.append(f"stretch {settings.stretch}")
        parts += ["linear"] * (settings.stretch_by == "linear")
    if settings.overlap:
        parts.append(f"overlap {settings.overlap}")
    parts += ["center"] * (settings.blend == "center")
    return " ".join(parts)


def _short_names(specs: Sequence[str]) -> dict[str, str]:
    """What VAEs are called: files without folder and suffix, unless two would be called alike."""
    short = {spec: Path(spec).name.removesuffix(".safetensors").removesuffix(".pt") for spec in specs}
    times = Counter(short.values())
    return {spec: name if times[name] == 1 else spec for spec, name in short.items()}


def choose_clips(
    videos: Sequence[InputVideo], num_clips: int, subjects: Mapping[str, str] | None = None
) -> list[InputVideo]:
    """Up to `num_clips` of the videos, sorted by id, evenly spread over the subjects and over those of each.

    No subject has two before every subject has one. subjects: by video_id; by default the recorded ones, or
    the sources.
    """
    if subjects is None:
        annotations = {video.video_id: video.annotation or Annotation() for video in videos}
        subjects = subjects_of({video.video_id: video.source for video in videos}, annotations)
    by_subject: dict[str, list[InputVideo]] = {}
    for video in sorted(videos, key=lambda video: video.video_id):
        by_subject.setdefault(subjects[video.video_id], []).append(video)
    wanted: Counter[str] = Counter()
    while wanted.total() < min(num_clips, len(videos)):
        others = [subject for subject, clips in by_subject.items() if wanted[subject] < len(clips)]
        wanted.update(others[index] for index in evenly_spaced(len(others), num_clips - wanted.total()))
    chosen = [
        by_subject[subject][index]
        for subject, times in wanted.items()
        for index in evenly_spaced(len(by_subject[subject]), times)
    ]
    return sorted(chosen, key=lambda video: video.video_id)
