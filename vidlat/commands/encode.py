"""`vidlat encode`: shows the progress of an encode and reports what came of it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from vidlat.commands.display import (
    console,
    format_bytes,
    format_names,
    print_table,
    progress_bar,
    quoted,
)
from vidlat.commands.dry_run import print_dry_run
from vidlat.commands.worker import tell_of_waiting
from vidlat.config import EncodeConfig
from vidlat.encode.device import resolve_device, warning_of_convolutions
from vidlat.encode.weights_file import trained_stacks
from vidlat.errors import ExitCode, InputError
from vidlat.paths import is_address, local_path
from vidlat.pipeline.cached_settings import settings_in
from vidlat.pipeline.dask_cluster import PATIENCE_SECONDS
from vidlat.pipeline.driver import EncodeProgress
from vidlat.pipeline.encode_videos import DEFAULT_VAE, PreparedEncode, prepare_encode
from vidlat.pipeline.estimate import ExpectedFrames
from vidlat.pipeline.ignored import describe_ignored
from vidlat.pipeline.masks import named_like_masks
from vidlat.pipeline.measure import headers_of, measure_size
from vidlat.store.schema import CacheSettings
from vidlat.store.storage.filesystem import free_bytes
from vidlat.types import FailureRecord
from vidlat.wording import format_count, format_seconds

MAX_ROWS = 20
"""Most rows printed of a table of warnings."""

NO_LOCKS = (
    "Warning: the file system of the cache has no locks. One encode at a time writes to it all the same; "
    "`vidlat prune` is refused there."
)

SECONDS_BEFORE_PROGRESS = 2.0
"""Of looking at files: most encodes have found their videos by then."""

SECONDS_OF_HEADERS = 1.0
"""Time spent reading headers before an encode: whether the disk space suffices, and how long it will take."""


def encode(
    inputs: tuple[str, ...],
    out: Path | str,
    retry_failed: bool,
    checksum: bool,
    dry_run: bool,
    restore: tuple[str, ...],
    show_paths: bool,
    labels: Path | None,
    settings: dict[str, Any],
) -> ExitCode:
    """Encode what is new, and report what failed."""
    taken = {name: value for name, value in settings_in(out).items() if name not in settings}
    config = EncodeConfig.from_mapping(taken | settings)
    options = {
        "restore": restore,
        "retry_failed": retry_failed,
        "checksum": checksum,
        "dry_run": dry_run,
        "labels": labels,
    }
    prepared = _prepare(inputs, config, out, options)
    names = _paths_of_hashed(prepared) if show_paths else {}
    failures = list(prepared.plan.known_failures)
    _report_taken(out, taken if config.vae or not taken else {"vae": prepared.job.vae} | taken)
    _report_left_out(prepared, config)
    _report_ignored(prepared, hide=config.ids == "hash" and not show_paths)
    _report_decoded(prepared)
    _report_masks(prepared)
    _report_labels(prepared, hide=config.ids == "hash" and not show_paths)
    _warn_of_other_stacks(prepared)
    _warn_of_slow_convolutions(prepared)
    if prepared.plan.num_videos:
        tell_of_waiting(config.scheduler, PATIENCE_SECONDS)
    if dry_run:
        print_dry_run(prepared, config)
    elif prepared.plan.num_videos:
        failures += _run(prepared, config, out, names)
    else:
        _record_changes(prepared, config.part)
    if prepared.plan.annotated and not dry_run:
        _tell(f"New labels of {format_count(len(prepared.plan.annotated), 'video')} recorded.")
    _report_vanished(prepared)
    if failures:
        _print_failures(names, failures, len(prepared.plan.known_failures), out)
        if len(failures) == prepared.plan.num_sources and not config.part:
            raise InputError(f"no readable video in {', '.join(inputs)}: all {len(failures)} failed")
        return ExitCode.SOME_FAILED
    return ExitCode.DONE


def _prepare(
    inputs: tuple[str, ...], config: EncodeConfig, out: Path | str, options: dict[str, Any]
) -> PreparedEncode:
    """Plan the encode, with progress where it takes long to look at files, or to compare their content."""
    num_looked_at = num_compared = 0
    began = time.monotonic()
    with progress_bar("{task.fields[name]}") as progress:
        looking = progress.add_task("looking at files", total=None, name="", visible=False)
        task = progress.add_task("comparing files", total=None, name="")

        def on_hash(video_id: str, num_videos: int) -> None:
            nonlocal num_compared
            num_compared += 1
            progress.update(task, completed=num_compared, total=num_videos, name=video_id)

        def on_files(num_files: int) -> None:
            nonlocal num_looked_at
            num_looked_at += num_files
            if time.monotonic() - began > SECONDS_BEFORE_PROGRESS:
                progress.update(looking, completed=num_looked_at, visible=True)

        return prepare_encode(inputs, config, out, on_hash=on_hash, on_files=on_files, **options)


def _record_changes(prepared: PreparedEncode, part: str | None) -> None:
    plan = prepared.plan
    is_there = "is" if plan.num_done == 1 else "are"
    count = format_count(plan.num_done, "video")
    if part and not prepared.discovery.videos:
        console.print(
            f"Part {part} has no video; {prepared.out} is there for `vidlat merge`.", soft_wrap=True
        )
    else:
        console.print(f"Nothing to do: {count} {is_there} already in {prepared.out}.", soft_wrap=True)
    list(prepared.run(on_wait=_tell))  # records where the files are now, and new labels
    if plan.moved:
        moved = format_count(len(plan.moved), "file")
        console.print(f"{moved} touched or moved: recorded, so that they need not be compared again.")


def _report_taken(out: Path | str, taken: dict[str, Any]) -> None:
    """Say which settings are those of the cache, but for those that a new cache would have too."""
    usual = {each.name: each.default for each in dataclasses.fields(CacheSettings)}
    usual |= {"vae": DEFAULT_VAE, "ids": "path"}
    if told := [f"{name} {value}" for name, value in taken.items() if value != usual[name]]:
        _tell(f"Settings taken from {out}: {', '.join(told)}")


def _report_left_out(prepared: PreparedEncode, config: EncodeConfig) -> None:
    """What is not encoded though it was found, and stills that are."""
    discovery = prepared.discovery
    if prepared.dropped:
        console.print(
            f"Left out: {format_names(prepared.dropped)}, dropped before; `vidlat encode --restore VIDEO_ID` "
            "takes one back",
            soft_wrap=True,
            markup=False,
        )
    if prepared.short:
        count = format_count(len(prepared.short), "new video")
        _tell(f"Left out: {count} of fewer than {config.min_frames} frames")
    if discovery.num_stills and config.min_frames == 1:
        is_one = "is a single DICOM image" if discovery.num_stills == 1 else "are single DICOM images"
        console.print(
            f"{discovery.num_stills} of the {format_count(len(discovery.videos), 'video')} found {is_one}, "
            "a video of one frame each; --min-frames 2 leaves them out",
            soft_wrap=True,
        )


def _report_ignored(prepared: PreparedEncode, *, hide: bool) -> None:
    if kinds := describe_ignored(prepared.discovery.ignored, hide=hide):
        console.print(f"Ignored: {kinds}", soft_wrap=True)
    if num_unopened := prepared.discovery.num_unopened:
        console.print(
            f"{format_count(num_unopened, 'object')} in a bucket passed over (pictures, or no suffix): "
            "only in a folder on a disk are such files opened, and series of them made into videos",
            soft_wrap=True,
        )


def _report_masks(prepared: PreparedEncode) -> None:
    """Videos to encode that are named like masks, and the flags that leave them out."""
    found = named_like_masks(video for batch in prepared.plan.batches for video in batch)
    if not found:
        return
    ids = sorted(video_id for names in found.values() for video_id in names)
    are = "is named like a mask" if len(ids) == 1 else "are named like masks"
    flags = " ".join(f"--exclude {quoted(pattern)}" for pattern in sorted(found))
    _tell(f"Warning: {len(ids)} of the videos to encode {are} ({format_names(ids)}); {flags} leaves them out")


def _report_decoded(prepared: PreparedEncode) -> None:
    if prepared.discovery.decoded:
        console.print(
            f"Passed over: {format_names(prepared.discovery.decoded)}, decoded by vidlat; to encode such "
            "videos, give their folder as --input",
            soft_wrap=True,
            markup=False,
        )


def _report_vanished(prepared: PreparedEncode) -> None:
    vanished = prepared.plan.vanished
    if vanished:
        have, them = ("has lost its", "it") if len(vanished) == 1 else ("have lost their", "them")
        console.print(
            f"{format_count(len(vanished), 'video')} of the cache {have} source ({format_names(vanished)}); "
            f"`vidlat prune {quoted(prepared.out)}` drops {them}",
            soft_wrap=True,
        )


def _report_labels(prepared: PreparedEncode, *, hide: bool) -> None:
    if prepared.discovery.labels:
        for line in prepared.discovery.labels.lines(hide=hide):
            _tell(line)
    elif unlabelled := prepared.plan.unlabelled:  # a table names the videos without a row itself
        videos, have = format_count(len(unlabelled), "new video"), "has" if len(unlabelled) == 1 else "have"
        _tell(
            f"{videos} {have} no labels and no subject, which others in {prepared.out} have "
            f"({format_names(unlabelled)}); `vidlat encode --labels TABLE` records them"
        )


def _paths_of_hashed(prepared: PreparedEncode) -> dict[str, str]:
    """Hashed ids with the paths of their files; for the terminal only, they are stored nowhere."""
    return {
        source.video_id: f"{source.video_id} {source.path}"
        for source in prepared.discovery.videos
        if source.hides_names
    }


@dataclass
class _Results:
    """What an encode has done so far."""

    num_videos: int = 0
    num_frames: int = 0
    num_frames_encoded: int = 0
    failures: list[FailureRecord] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def add(self, event: EncodeProgress) -> None:
        self.num_videos += len(event.records)
        self.num_frames += sum(record.num_frames for record in event.records)
        self.num_frames_encoded += event.num_frames
        self.failures += event.failures
        self.warnings += [(record.video_id, text) for record in event.records for text in record.warnings]


def _run(
    prepared: PreparedEncode, config: EncodeConfig, out: Path | str, names: dict[str, str]
) -> list[FailureRecord]:
    plan = prepared.plan
    excluded = f", {prepared.discovery.num_excluded} excluded" if config.exclude else ""
    part = f"part {config.part}: " if config.part else ""
    processes = "1 process" if prepared.num_workers == 1 else f"{prepared.num_workers} processes"
    console.print(
        f"{part}{format_count(plan.num_videos, 'video')} to encode, {plan.num_done} already done, "
        f"{prepared.discovery.num_ignored} other files ignored{excluded}; VAE {prepared.job.vae} in "
        f"{prepared.job.settings.precision}, {config.scheduler or processes}"
    )
    headers = headers_of(prepared, SECONDS_OF_HEADERS)
    _warn_of_full_disk(prepared, measure_size(prepared, headers).latent_bytes)
    expected = ExpectedFrames(plan.videos, headers)
    results, began = _Results(), time.monotonic()
    with (
        progress_bar("{task.fields[frames]} frames", "{task.fields[rate]:.1f} frames/s") as progress,
        closing(prepared.run(on_wait=_tell)) as events,
    ):
        task = progress.add_task("starting", total=plan.num_videos, frames=0, rate=0.0)
        progress.start()
        try:
            _follow(events, results, expected, progress, task)
        except KeyboardInterrupt:
            progress.stop()
            console.print(f"{results.num_videos} videos are finished and safe; the same command continues.")
            raise
    count = f"{format_count(results.num_videos, 'video')}, {format_count(results.num_frames, 'frame')}"
    console.print(f"{count} in {format_seconds(time.monotonic() - began)} -> {out}")
    if results.warnings:
        _print_warnings([(names.get(video_id, video_id), text) for video_id, text in results.warnings])
    return results.failures


def _tell(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def _follow(
    events: Iterable[EncodeProgress],
    results: _Results,
    expected: ExpectedFrames,
    progress: Progress,
    task: TaskID,
) -> None:
    """Add the events to the results and the progress bar; the rate is that since the workers started."""
    began = None
    for event in events:
        if began is None:  # the first event says that the workers have started
            began = progress.get_time()
            progress.update(task, description="encoding", began=began)
        _tell_of_start(event)
        results.add(event)
        for record in event.records:
            expected.learn(record.video_id, record.num_frames)
        for failure in event.failures:
            expected.learn(failure.video_id, 0)
        progress.update(
            task,
            completed=results.num_videos + len(results.failures),
            frames=results.num_frames_encoded,
            rate=results.num_frames_encoded / max(progress.get_time() - began, 1e-9),
            share=results.num_frames_encoded / (expected.num_frames or math.inf),
        )


def _tell_of_start(event: EncodeProgress) -> None:
    if event.taken_over_from:
        text = f"Continuing after {event.taken_over_from}, which has died."
        console.print(text, soft_wrap=True)
    if event.dashboard:
        console.print(f"Dask's dashboard: {event.dashboard}", soft_wrap=True)
    if not event.has_locks:
        console.print(NO_LOCKS, soft_wrap=True)


def _warn_of_other_stacks(prepared: PreparedEncode) -> None:
    stacks, shown = trained_stacks(prepared.job.vae_path), prepared.schema.settings.stack
    if stacks and shown not in stacks:
        console.print(
            f"Warning: {prepared.job.vae} was trained on stacks of {_in_words(stacks)} frames, and is "
            f"shown {shown} at a time: expect worse pictures; `vidlat evaluate` measures them",
            soft_wrap=True,
            markup=False,
        )


def _in_words(numbers: Sequence[int]) -> str:
    """`4, 8 and 16`."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} and {last}" if others else last


def _warn_of_slow_convolutions(prepared: PreparedEncode) -> None:
    precision, device = prepared.schema.settings.precision, resolve_device(prepared.job.device)
    if prepared.scheduler is None and (warning := warning_of_convolutions(precision, device)):
        console.print(f"Warning: {warning}", soft_wrap=True, markup=False)


def _warn_of_full_disk(prepared: PreparedEncode, needed: int) -> None:
    if is_address(prepared.out):
        return
    free = free_bytes(local_path(prepared.out))
    if needed > free:
        console.print(
            f"Warning: the latents will take about {format_bytes(needed)}; {format_bytes(free)} are free "
            f"on the disk of {prepared.out}",
            soft_wrap=True,
        )


def _print_warnings(warnings: list[tuple[str, str]]) -> None:
    first = f", the first {MAX_ROWS}" if len(warnings) > MAX_ROWS else ""
    title = format_count(len(warnings), "warning") + first
    print_table(title, ("video", "warning"), warnings[:MAX_ROWS])


def _print_failures(
    names: dict[str, str], failures: list[FailureRecord], num_known: int, out: Path | str
) -> None:
    how_many = "" if num_known == len(failures) else f"{num_known} of them "
    known = f", {how_many}in an earlier run (--retry-failed tries again)" if num_known else ""
    rows = [(names.get(f.video_id, f.video_id), f.kind, f.reason) for f in failures]
    print_table(f"{format_count(len(failures), 'video')} failed{known}", ("video", "kind", "reason"), rows)
    traceback = " --traceback" if any(failure.traceback for failure in failures) else ""
    console.print(f"Listed again by `vidlat ls {quoted(out)} --failed{traceback}`", soft_wrap=True)
