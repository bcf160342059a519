"""The page of a cache: what it holds, how its latents are distributed, what differs, what decodes from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from vidlat.encode.vae import FrozenVAE
from vidlat.errors import DecodeError, InputError, StoreError, WeightsError
from vidlat.evaluate.figures import FIGURES, figures, number
from vidlat.evaluate.quality import PSNR_CAP
from vidlat.evaluate.reconstruction import Evaluation, EvaluationProgress, counted, evaluate_videos
from vidlat.paths import local_path
from vidlat.pipeline.decode_videos import decode_video, load_vae_of, to_gray_levels
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.failures import without_names
from vidlat.report.bins import count_in_bins, spread_bins
from vidlat.report.comparison import NUM_CLIPS, quality_plots
from vidlat.report.groups import FAR, Group, compare_groups
from vidlat.report.latent_shape import BINS, Channel, LatentShape
from vidlat.report.moving import MOST_BYTES, MOST_FRAMES, Moving, moving_picture
from vidlat.report.page import write_page
from vidlat.report.plots import Point, Series, histogram, interval_plot, scatter_plot
from vidlat.report.tables import Table
from vidlat.store.layout import require_outside_caches
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.summary import MOST_NAMES, CacheSummary, compression_in_time, summarise_open
from vidlat.types import InputVideo
from vidlat.video.contact_sheet import evenly_spaced
from vidlat.video.display_window import window_of
from vidlat.video.reader import read_prepared
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import prepare_file
from vidlat.wording import format_seconds

NUM_DECODED = 4
"""Clips shown where there is nothing to compare them with."""

MOST_ROWS = 200
"""Of a table; the rest is counted."""

NUM_LABELLED = 12
"""Groups with their number in the plot."""

DIFFERENCE = 4
"""How many times the difference of a clip and its reconstruction is enlarged."""

NAMES = {"vae": "this VAE", "averaging": "baseline: block averages", "pca": "baseline: PCA of blocks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportProgress:
    """A step of a report: num_done of num_total of what it is doing, with which video.

    failure: why the video is left out of that.
    """

    doing: str
    num_done: int
    num_total: int
    video_id: str
    failure: str | None = None


def report_cache(
    latents: str | Path,
    out: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    max_videos: int = 0,
    vae: str | None = None,
    device: str = "auto",
) -> Iterator[ReportProgress]:
    """Write a page about the cache at `latents` to the HTML file `out`; latents are read in bounded memory.

    inputs: what the cache was encoded from; with it, the page has the figures of `evaluate_videos` and
    moving pictures of the clips with the least and the greatest PSNR, else of a few decoded ones, if the VAE
    is at hand. max_videos: compare this many, evenly spread over the sorted ids; 0 for all. vae: where its
    VAE is, if not where it was. The page appears whole, or not at all. Where the cache hides names, the page
    holds none. Raises, when called, StoreError, InputError for an empty cache or an `out` inside one or that
    cannot be written, and what `evaluate_videos` raises; and, when iterated, InputError if no video can be
    compared.
    """
    cache = open_cache(latents)
    if not len(cache):
        failed = ", failures alone, which `vidlat ls --failed` lists" if cache.failures() else ""
        raise InputError(f"{cache.where}: holds no video to report on{failed}")
    path = local_path(out)
    require_outside_caches(path)
    steps: Iterator[EvaluationProgress] = iter(())
    sources: dict[str, InputVideo] = {}
    if inputs:
        steps = evaluate_videos(cache.where, inputs, max_videos=max_videos, vae=vae, device=device)
        found = discover_videos([str(text) for text in inputs], ids=cache.schema.ids).videos
        sources = {video.video_id: video for video in found}
    frozen = _load_vae(cache, vae, device)
    prepare_file(path)
    return _Report(cache, path, steps, sources, max_videos, frozen).events()


def _load_vae(cache: LatentCache, vae: str | None, device: str) -> FrozenVAE | None:
    """The VAE of a cache, None where it is not at hand; raises WeightsError for a wrong one."""
    try:
        return load_vae_of(cache.schema, vae=vae, device=device, batch=1)
    except WeightsError:
        if vae:
            raise
        return None


class _Report:
    def __init__(
        self,
        cache: LatentCache,
        out: Path,
        steps: Iterator[EvaluationProgress],
        sources: Mapping[str, InputVideo],
        max_videos: int,
        vae: FrozenVAE | None,
    ) -> None:
        self._cache, self._out, self._steps, self._sources = cache, out, steps, sources
        self._max_videos, self._vae = max_videos, vae
        self._shape = LatentShape(cache)
        self._moving: list[Moving] = []
        self._num_left_out = 0

    def events(self) -> Iterator[ReportProgress]:
        yield from self._read_latents()
        evaluation: Evaluation | None = None
        if self._sources:
            seen: list[EvaluationProgress] = []
            yield from self._evaluate(seen)
            evaluation = Evaluation.of(seen)
        if self._vae:
            yield from self._decode(self._vae, _chosen(self._cache, evaluation))
        write_page(self._out, "cache.html", **self._values(evaluation))

    def _read_latents(self) -> Iterator[ReportProgress]:
        num_total = self._shape.num_to_read
        for num_done, video_id in enumerate(self._shape.read(), 1):
            failure = self._shape.damaged.get(video_id)
            yield ReportProgress(
                doing="reading latents",
                num_done=num_done,
                num_total=num_total,
                video_id=video_id,
                failure=failure,
            )

    def _evaluate(self, seen: list[EvaluationProgress]) -> Iterator[ReportProgress]:
        for event, count in counted(self._steps, len(self._cache), self._max_videos):
            seen.append(event)
            yield ReportProgress(
                doing=count.doing,
                num_done=count.num_done,
                num_total=count.num_total,
                video_id=event.video_id,
                failure=event.failure if event.has_source else "its source is not among the inputs",
            )

    def _decode(self, frozen: FrozenVAE, chosen: Mapping[str, str]) -> Iterator[ReportProgress]:
        for num_done, (video_id, note) in enumerate(chosen.items(), 1):
            failure = None
            try:
                shown = self._shown(frozen, video_id)
            except (DecodeError, StoreError) as error:
                failure = str(error)
            else:
                fps, most_bytes = self._cache.records()[video_id].fps, MOST_BYTES // len(chosen)
                window = window_of(next(iter(shown.values())))  # of the source, where there is one
                frames = list(side_by_side(shown, len(shown), window=window))
                moving = moving_picture(video_id, note, frames, fps, most_bytes)
                self._moving += [moving] if moving else []
                self._num_left_out += moving is None
            yield ReportProgress(
                doing="decoding", num_done=num_done, num_total=len(chosen), video_id=video_id, failure=failure
            )

    def _shown(self, frozen: FrozenVAE, video_id: str) -> dict[str, npt.NDArray[np.uint8]]:
        """What is shown side by side of the first frames of a video."""
        decoded = np.stack(list(islice(decode_video(self._cache, frozen, video_id), MOST_FRAMES)))
        if not (source := self._sources.get(video_id)):
            return {"decoded": to_gray_levels(decoded)}
        prepared = read_prepared(source.path, source.selection, self._cache.schema.settings)
        frames = np.stack([frame.pixels for frame in islice(prepared, len(decoded))])
        difference = np.clip(DIFFERENCE * np.abs(frames - decoded), 0, 1)
        shown = {"source": frames, "reconstruction": decoded, f"difference x {DIFFERENCE}": difference}
        return {name: to_gray_levels(video) for name, video in shown.items()}

    def _values(self, evaluation: Evaluation | None) -> dict[str, Any]:
        """All that the template names."""
        cache = self._cache
        hides_names = cache.schema.ids == "hash"
        summary, channels = summarise_open(cache), self._shape.channels()
        grouped_by, groups = compare_groups(cache)
        columns = cache.columns("num_frames", "fps")
        rates = [fps for fps in columns["fps"] if fps]
        return {
            "name": "" if hides_names else Path(cache.where).name,
            "hides_names": hides_names,
            "summary": summary,
            "making": _making(cache),
            "channels": _channel_table(channels),
            "channel_plots": _channel_plots(channels),
            "num_read": self._shape.num_videos,
            "damaged": list(self._shape.damaged)[:MOST_NAMES],
            "num_damaged": len(self._shape.damaged),
            "grouped_by": grouped_by,
            "num_groups": len(groups),
            "num_differing": sum(group.differs for group in groups),
            "far": FAR,
            "groups": _group_table(groups[:MOST_ROWS], grouped_by),
            "group_plot": _group_plot(groups[:MOST_ROWS]),
            "lengths": _counts(columns["num_frames"], "frames"),
            "rates": _counts(rates, "frames per second"),
            "duration": format_seconds(summary.seconds),
            "num_without_rate": len(cache) - len(rates),
            "failures": _failure_table(cache, summary),
            "warnings": _warning_table(cache),
            "evaluation": evaluation,
            "moving": self._moving,
            "num_left_out": self._num_left_out,
            "has_vae": self._vae is not None,
            "most_frames": MOST_FRAMES,
            **(self._quality(evaluation) if evaluation else {}),
        }

    def _quality(self, evaluation: Evaluation) -> dict[str, Any]:
        by_name = {
            NAMES["vae"]: [video.vae for video in evaluation.videos],
            NAMES["averaging"]: [video.averaging for video in evaluation.videos],
            NAMES["pca"]: [video.pca for video in evaluation.videos if video.pca],
        }
        overall = [
            (NAMES[name], str(summary.num_videos), *figures(summary, summary.motion))
            for name, summary in evaluation.summaries.items()
        ]
        ranked = sorted(evaluation.videos, key=lambda video: video.vae.psnr)
        videos = [
            (video.vae.video_id, str(video.vae.num_frames), *figures(video.vae, video.vae.motion))
            for video in ranked[:MOST_ROWS]
        ]
        reasons = [
            (
                video_id,
                without_names(self._sources[video_id], reason.replace(str(self._cache.where), "the cache")),
            )
            for video_id, reason in evaluation.failed.items()
        ]
        title = "Means of the videos; motion of all together"
        return {
            "quality": quality_plots({name: videos for name, videos in by_name.items() if videos}),
            "overall": Table.of(title, ("of", "videos", *FIGURES), overall),
            "videos": Table.of("Videos, the least PSNR first", ("video", "frames", *FIGURES), videos),
            "num_more": len(ranked) - len(videos),
            "not_compared": Table.of("Not compared, and why", ("video", "reason"), reasons[:MOST_ROWS]),
            "num_not_compared": len(reasons),
        }


def _chosen(cache: LatentCache, evaluation: Evaluation | None) -> dict[str, str]:
    """The ids of the clips to show, with a note on each."""
    if evaluation is None:
        ids = list(cache.records())
        return {ids[index]: "decoded" for index in evenly_spaced(len(ids), NUM_DECODED)}
    ranked = sorted(evaluation.videos, key=lambda video: video.vae.psnr)
    notes: dict[str, str] = {}
    for note, videos in (("worst", ranked[:NUM_CLIPS]), ("best", ranked[::-1][:NUM_CLIPS])):
        for video in videos:
            psnr = min(video.vae.psnr, PSNR_CAP)
            notes.setdefault(
                video.vae.video_id, f"among the {note}, {psnr:.1f} dB, SSIM {video.vae.ssim:.3f}"
            )
    return notes


def _making(cache: LatentCache) -> Table:
    """What made the cache: the VAE and all settings that change a latent."""
    schema = cache.schema
    settings = {name: value for name, value in schema.settings.to_dict().items() if name != "encoder_config"}
    facts = {
        "VAE": schema.vae_name,
        "VAE hash": schema.vae_hash,
        "encoder hash": settings.pop("encoder_hash"),
        "VAE licence": schema.vae_licence,
        "compression in time": compression_in_time(schema),
        "compression in space": f"{schema.space_compression} in height and in width",
        "latent frame": f"{schema.latent_dim} x {schema.latent_height} x {schema.latent_width}, mean and std",
        "ids": "hashes of paths" if schema.ids == "hash" else "paths",
        "cache_id": schema.cache_id[:16],
        **settings,
    }
    rows = [(name, "-" if value is None else str(value)) for name, value in facts.items()]
    return Table.of("What made the latents", ("what", "value"), rows)


def _channel_table(channels: Sequence[Channel]) -> Table:
    headings = (
        "channel",
        "mean",
        "spread",
        "skewness",
        "excess kurtosis",
        "to N(0,1)",
        "whitened",
        "posterior std",
    )
    rows = [
        (
            str(index),
            f"{channel.mean:.3f}",
            f"{channel.std:.3f}",
            number(channel.skewness),
            number(channel.excess_kurtosis),
            f"{channel.distance:.3f}",
            f"{channel.distance_whitened:.3f}",
            f"{channel.posterior_std:.3f}",
        )
        for index, channel in enumerate(channels)
    ]
    return Table.of("Posterior means, by channel", headings, rows)


def _channel_plots(channels: Sequence[Channel]) -> dict[str, Markup]:
    intervals = {f"channel {number}": (channel.mean, channel.std) for number, channel in enumerate(channels)}
    plots = {"Mean and spread": interval_plot(intervals, "latent; the band is a standard normal's")}
    edges = BINS[::4]
    grid = np.linspace(-4.5, 4.5, 91)
    normal = Series("standard normal", grid.tolist(), (np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)).tolist())
    for index, channel in enumerate(channels):
        density = channel.shares.reshape(-1, 4).sum(1) / np.diff(edges)
        label = "standard deviations from the mean"
        plots[f"Channel {index}"] = histogram(
            edges.tolist(), density.tolist(), label, "density", curve=normal
        )
    return plots


def _group_table(groups: Sequence[Group], grouped_by: str) -> Table:
    rows = [
        (
            str(number),
            group.name,
            str(group.num_videos),
            f"{group.shift:.3f}",
            f"{group.chance:.3f}",
            "-" if group.times_chance is None else f"{group.times_chance:.2f}",
            f"{group.spread:.3f}",
            "differs" if group.differs else "",
        )
        for number, group in enumerate(groups, 1)
    ]
    headings = ("no.", grouped_by, "videos", "shift", "by chance", "times chance", "spread ratio", "verdict")
    return Table.of("Groups, the one that differs most first", headings, rows)


def _group_plot(groups: Sequence[Group]) -> Markup:
    points = [
        Point(
            group.shift,
            group.spread,
            str(number) if number <= NUM_LABELLED else "",
            "differs" if group.differs else "within chance",
            f"{number}: {group.name}",
        )
        for number, group in enumerate(groups, 1)
    ]
    # The legend in one order, whichever group comes first.
    points.sort(key=lambda point: point.group == "differs")
    return scatter_plot(points, "shift of the mean, in standard deviations", "spread over that of all")


def _counts(values: Sequence[float], label: str) -> Markup | None:
    """How many videos have such a value; None where there is none."""
    if not values:
        return None
    edges, is_log = spread_bins(values)
    heights = count_in_bins(values, edges)
    return histogram(edges.tolist(), heights.tolist(), label, "videos", log_x=is_log)


def _failure_table(cache: LatentCache, summary: CacheSummary) -> Table:
    reasons: dict[str, str] = {}
    for failure in cache.failures().values():
        reasons.setdefault(failure.kind, failure.reason)
    rows = [
        (kind, str(group.num_videos), ", ".join(group.first), reasons[kind])
        for kind, group in summary.failures.items()
    ]
    return Table.of(
        "Videos that could not be encoded", ("kind", "videos", "the first", "reason of the first"), rows
    )


def _warning_table(cache: LatentCache) -> Table:
    """Warnings that differ in numbers only are of one kind."""
    kinds: dict[str, list[str]] = {}
    for video_id, warnings in cache.warnings().items():
        for kind in dict.fromkeys(re.sub(r"-?\d+(\.\d+)?", "…", warning) for warning in warnings):
            kinds.setdefault(kind, []).append(video_id)
    rows = [
        (kind, str(len(ids)), ", ".join(ids[:MOST_NAMES]))
        for kind, ids in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return Table.of("Warnings while decoding", ("warning", "videos", "the first"), rows[:MOST_ROWS])
