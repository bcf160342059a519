"""The samples that are measured: drawn from a run, or a folder of videos that somebody has drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlat.config import Drawing, EvaluateConfig, SampleConfig
from vidlat.errors import printable
from vidlat.evaluate.samples.clips import Clip, folder_clips
from vidlat.sample.folder import Sample, read_samples
from vidlat.sample.videos import sample_videos
from vidlat.train.runs.frozen_run import Run
from vidlat.wording import shorten


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSet:
    """Samples that are measured as one. name: of their row.

    drawn: how, as samples.jsonl of their folder says; empty where it is not known. seconds: to draw one, of
    the network alone; None where unknown. differing: how the samples differ, by condition, in words.
    """

    name: str
    clips: Sequence[Clip]
    drawn: dict[str, Any]
    seconds: float | None
    differing: str = ""

    @classmethod
    def of_files(cls, name: str, paths: Sequence[Path], run: Run) -> SampleSet:
        """Videos of one folder; raises InputError for a samples.jsonl that cannot be read."""
        found = read_samples(paths[0].parent)
        samples = found.samples if found else {}
        labels = [samples[path.name].labels if path.name in samples else {} for path in paths]
        return cls(
            name=name,
            clips=folder_clips(paths, run.schema.settings.size, run.config.frames, labels),
            drawn=found.drawn if found else {},
            seconds=found.seconds_per_sample if found else None,
            differing=_differing(paths, samples) if found else "",
        )


def _differing(paths: Sequence[Path], samples: Mapping[str, Sample]) -> str:
    """How many of the files were drawn with which condition; empty where all were drawn with one."""
    drawn = [_condition(samples[path.name]) if path.name in samples else "unknown how" for path in paths]
    counts = Counter(drawn).most_common()
    return shorten([f"{num} {text}" for text, num in counts]) if len(counts) > 1 else ""


def _condition(sample: Sample) -> str:
    return (
        f"with {' and '.join(map(printable, sample.condition))}" if sample.condition else "without condition"
    )


def draw_samples(
    run_dir: Path,
    folder: Path,
    settings: EvaluateConfig,
    num_steps: int,
    *,
    conditions: Sequence[Sequence[str]],
    vae: str | None,
    on_progress: Callable[[float], None],
) -> list[Path]:
    """Draw a sample for each of the conditions into a folder, where it is not there already; their files.

    on_progress: as for `sample_videos`, and raises as it does.
    """
    sampling = SampleConfig(
        **settings.select(Drawing).to_dict(),
        num=len(conditions),
        seed=settings.seed,
        steps=num_steps,
        format="npy",
    )
    return sorted(
        sample_videos(run_dir, folder, sampling, conditions=conditions, vae=vae, on_progress=on_progress)
    )
