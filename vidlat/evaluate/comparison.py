"""Which VAE, shown videos in which way, keeps most of some clips: measured without a cache, and shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from vidlat.config import CompareConfig
from vidlat.encode.vae import FrozenVAE
from vidlat.errors import InputError, VidlatError, one_line
from vidlat.evaluate.candidates import Candidate, Candidates, choose_clips, load_candidates
from vidlat.evaluate.clip import measure_clip
from vidlat.evaluate.quality import Summary, VideoQuality, summarise
from vidlat.paths import local_path
from vidlat.pipeline.decode_videos import prepare_decoded_folder, to_gray_levels
from vidlat.pipeline.decoded_names import file_stems, path_below
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.read_video import frame_rate
from vidlat.types import InputVideo
from vidlat.video.contact_sheet import COLUMNS, Row, contact_sheet
from vidlat.video.display_window import window_of
from vidlat.video.reader import read_prepared
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import prepare_folder, write_video

Frames = npt.NDArray[np.float32]

MAX_SHOWN = 24
"""Settings shown beside a source, at most: the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a candidate makes of one clip. seconds_per_stack: of encoding, in this process."""

    candidate: Candidate
    quality: VideoQuality
    seconds_per_stack: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareProgress:
    """What happened: a clip was measured with a candidate, is done and shown, or one of them is left out.

    num_clips, num_candidates: of the whole comparison. video_id: of the clip; None where a candidate or a VAE
    is left out. name: of the candidate, or the VAE; None where a clip is done or left out. pictures: of a
    clip that is done, its video and its contact sheet. impossible: candidates that make no sense, and why;
    all in the first event. failure: why the candidate, VAE or clip cannot be used.
    """

    num_clips: int
    num_candidates: int
    video_id: str | None = None
    name: str | None = None
    measurement: Measurement | None = None
    pictures: tuple[Path, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The figures of a candidate: means over the clips, motion of all together, and those of each clip.

    seconds_per_1000_frames: of encoding, in this process, at the speed of the fastest clip.
    """

    candidate: Candidate
    summary: Summary
    clips: list[VideoQuality]
    seconds_per_1000_frames: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.candidate.to_dict(),
            "seconds_per_1000_frames": self.seconds_per_1000_frames,
            "overall": self.summary.to_dict(),
            "clips": [clip.to_dict() for clip in self.clips],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All candidates on the same clips, and what was left out.

    clips: ids of those measured with every candidate. impossible, failed_candidates, failed_clips: by name or
    id, why one is left out; a VAE that cannot be loaded is among the failed candidates.
    """

    candidates: list[Compared]
    clips: list[str]
    impossible: dict[str, str]
    failed_candidates: dict[str, str]
    failed_clips: dict[str, str]

    @classmethod
    def of(cls, events: Iterable[CompareProgress]) -> Comparison:
        """Collect what `compare_videos` yields, also if that was cut short: a clip counts once it is done."""
        seen = list(events)
        failed = {event.name: event.failure for event in seen if event.name and event.failure}
        measured: dict[Candidate, dict[str, Measurement]] = {}
        for event in seen:
            if event.measurement and event.video_id and event.name not in failed:
                measured.setdefault(event.measurement.candidate, {})[event.video_id] = event.measurement
        shared = set.intersection(*map(set, measured.values())) if measured else set()
        return cls(
            candidates=[
                _compared(candidate, [found[video_id] for video_id in sorted(shared)])
                for candidate, found in measured.items()
                if shared
            ],
            clips=sorted(shared),
            impossible={name: reason for event in seen for name, reason in event.impossible.items()},
            failed_candidates=failed,
            failed_clips={
                event.video_id: event.failure
                for event in seen
                if event.video_id and event.failure and not event.name
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "clips": self.clips,
            "candidates": [compared.to_dict() for compared in self.candidates],
            "impossible": self.impossible,
            "failed_candidates": self.failed_candidates,
            "failed_clips": self.failed_clips,
        }


def _compared(candidate: Candidate, measurements: Sequence[Measurement]) -> Compared:
    clips = [measurement.quality for measurement in measurements]
    # Of the fastest clip: the first call of a process, and whatever else the machine does, takes longer.
    seconds = min(measurement.seconds_per_stack for measurement in measurements)
    return Compared(
        candidate=candidate,
        summary=summarise(clips),
        clips=clips,
        seconds_per_1000_frames=1000 * seconds / candidate.timing.frame_step,
    )


def compare_videos(
    inputs: Sequence[str | Path],
    out: str | Path,
    settings: CompareConfig,
    *,
    labels: str | Path | None = None,
    named: Mapping[str, str] = MappingProxyType({}),
    among: Collection[str] | None = None,
) -> Iterator[CompareProgress]:
    """Encode and decode some clips with every combination of `settings`; measure and show what comes back.

    inputs: files, folders, glob patterns or manifests. labels: a table by video id, for its subjects. named:
    further VAEs, by what they are called. among: ids of the videos that clips are chosen from; None for all.
    The folder `out` gets a video and a contact sheet per clip, named as `file_stems` says, which show the
    source and the candidates, MAX_SHOWN at most. One clip is in memory at a time, with all that is shown.
    Latents are rounded as in a cache, so that the figures are those of `evaluate_videos`.
    Raises, when called, InputError, DeviceError, and what `load_candidates` raises if there is no candidate;
    and, when iterated, InputError if no clip can be read or `out` cannot be written, or VidlatError if every
    candidate fails.
    """
    out, table = local_path(out), local_path(labels) if labels else None
    videos = discover_videos([str(text) for text in inputs], labels=table, exclude=settings.exclude).videos
    if among is not None:
        num_found, videos = len(videos), [video for video in videos if video.video_id in among]
        if not videos:
            raise InputError(
                f"none of the {num_found} videos is held out by every training; give the --input that they "
                "were trained with"
            )
    candidates = load_candidates(settings, named)
    prepare_decoded_folder(out, {video.video_id: video.source.path for video in videos})
    return _Run(choose_clips(videos, settings.videos), candidates, out, settings).events()


class _Run:
    """The clips and the candidates of a comparison; those that fail are left out on the way."""

    def __init__(
        self, clips: Sequence[InputVideo], candidates: Candidates, out: Path, settings: CompareConfig
    ) -> None:
        self._clips, self._candidates, self._out, self._settings = clips, candidates, out, settings
        self._vaes = dict(candidates.vaes)

    def events(self) -> Iterator[CompareProgress]:
        if impossible := self._candidates.impossible:
            yield self._event(impossible={name: str(error) for name, error in impossible.items()})
        for name, error in self._candidates.failed.items():
            yield self._event(name=name, failure=str(error))
        failures, stems = [], file_stems([clip.video_id for clip in self._clips])
        for clip in self._clips:
            try:
                paths = [path_below(self._out, clip.video_id, stems, suffix) for suffix in (".mp4", ".png")]
                frames, fps = _read(clip, self._settings)
            except Exception as error:
                # A library that breaks on one file, in whatever way, must not stop the other clips.
                failures.append(f"{clip.path}: {one_line(error)}")
                yield self._event(video_id=clip.video_id, failure=one_line(error))
            else:
                yield from self._compare(clip.video_id, frames, fps, *paths)
        if len(failures) == len(self._clips):
            raise InputError(f"no clip can be compared: {failures[0]}")

    def _compare(
        self, video_id: str, frames: Frames, fps: float, video: Path, sheet: Path
    ) -> Iterator[CompareProgress]:
        shown = {"source": to_gray_levels(frames)}
        numbers = _liveliest(shown["source"], COLUMNS)
        rows = [Row("source", shown["source"][numbers], note=video_id, numbers=numbers)]
        for candidate, vae in list(self._vaes.items()):
            try:
                measurement, decoded = _measure(candidate, vae, video_id, frames)
            except VidlatError as error:
                del self._vaes[candidate]
                yield self._event(name=candidate.name, failure=f"{video_id}: {error}")
                if not self._vaes:
                    raise type(error)(f"nothing is left to compare: {candidate.name}: {error}") from error
                continue
            if len(shown) <= MAX_SHOWN:
                shown[candidate.name] = to_gray_levels(decoded)
                row = Row(
                    candidate.name,
                    shown[candidate.name][numbers],
                    note=_note(measurement.quality),
                    numbers=numbers,
                    frame_step=candidate.timing.frame_step,
                )
                rows.append(row)
            yield self._event(video_id=video_id, name=candidate.name, measurement=measurement)
        prepare_folder(video.parent)
        write_video(video, side_by_side(shown, window=window_of(shown["source"])), fps)
        contact_sheet(rows, sheet)
        yield self._event(video_id=video_id, pictures=(video, sheet))

    def _event(self, **what: Any) -> CompareProgress:
        return CompareProgress(num_clips=len(self._clips), num_candidates=len(self._candidates.vaes), **what)


def _read(clip: InputVideo, settings: CompareConfig) -> tuple[Frames, float]:
    """The first frames of a clip (T, H, W), and its frame rate, 0.0 if unknown."""
    prepared = list(islice(read_prepared(clip.path, clip.selection, settings), settings.frames))
    fps, _ = frame_rate([frame.pts_seconds for frame in prepared])
    return np.stack([frame.pixels for frame in prepared]), fps


def _measure(
    candidate: Candidate, vae: FrozenVAE, video_id: str, frames: Frames
) -> tuple[Measurement, Frames]:
    """The figures of a candidate for one clip, and the frames that it decodes."""
    quality, decoded, seconds = measure_clip(vae, video_id, frames)
    num_stacks = -(-vae.timing.num_calls(len(frames)) // vae.batch) * vae.batch  # the last call is filled up
    return Measurement(candidate=candidate, quality=quality, seconds_per_stack=seconds / num_stacks), decoded


def _note(quality: VideoQuality) -> str:
    correlation = quality.motion.correlation
    motion = "no motion" if correlation is None else f"correlation of motion {correlation:.2f}"
    return f"PSNR {quality.psnr:.1f} dB, {motion}"


def _liveliest(frames: npt.NDArray[np.uint8], length: int) -> range:
    """The run of `length` frames, or of all, that changes most from frame to frame."""
    if len(frames) <= length:
        return range(len(frames))
    changes = np.square(np.diff(frames.astype(np.float32), axis=0)).mean(axis=(1, 2))
    start = int(np.convolve(changes, np.ones(length - 1), "valid").argmax())
    return range(start, start + length)
