"""The folder of samples: which samples it holds, and in samples.jsonl how they were drawn.

    {"vidlat_version": "0.1.0", "run": "first", "checkpoint": "last", ..., "drawn": {"step": 20000, ...}}
    {"name": "sample-0000.mp4", "seed": 0, "condition": ["view=a4c"], "seconds": 1.9, "num_rejected": 0}

The first line is that of all samples of the folder: `drawn` is what determines them besides their seeds, and
is the same for all. Each has a line of its own, with its condition, that is appended once its video is
written; of several about one sample the last holds. Several processes may add to a folder at once, samples of
other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vidlat.checked_settings import LARGE, MANY, SEED_STOP
from vidlat.documents import Fields
from vidlat.errors import InputError, one_line, shown
from vidlat.pipeline.json_lines import append_line, differences_in_words, read_lines, start_lines

SAMPLES = "samples.jsonl"
"""File name of the description of a folder of samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How one sample was drawn.

    seconds: of the network, without the VAE; those of a batch count for its first sample. num_rejected:
    attempts before this one, each of which copied a training clip.
    """

    seed: int
    condition: tuple[str, ...] = ()
    seconds: float = 0.0
    num_rejected: int = 0

    @property
    def labels(self) -> dict[str, str]:
        """The conditions as labels, by name."""
        return {name: value for name, _, value in (text.partition("=") for text in self.condition)}

    @classmethod
    def from_fields(cls, fields: Fields) -> Sample:
        """Raises ValueError for what no sample is."""
        return cls(
            seed=fields.whole("seed", 0, SEED_STOP - 1),
            condition=fields.texts("condition"),
            seconds=fields.number("seconds", 0, LARGE),
            num_rejected=fields.whole("num_rejected", 0, MANY),
        )


class SampleFolder:
    """The samples of a folder, by file name. drawn: what they have in common, as plain values."""

    def __init__(self, path: Path, drawn: dict[str, Any], samples: dict[str, Sample]) -> None:
        self.path, self.drawn, self.samples = path, drawn, samples

    @property
    def seconds_per_sample(self) -> float:
        """The mean, of the network alone; 0 without samples."""
        seconds = [sample.seconds for sample in self.samples.values()]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def holds(self, name: str) -> bool:
        """Whether the folder has this sample, and it is known how it was drawn."""
        return name in self.samples and (self.path / name).is_file()

    def held(self) -> dict[str, Sample]:
        """The samples that the folder has, by file name."""
        return {name: sample for name, sample in self.samples.items() if self.holds(name)}

    def add(self, name: str, sample: Sample) -> None:
        """Append a sample whose file is written; raises InputError where that cannot be recorded."""
        self.samples[name] = sample
        append_line(self.path / SAMPLES, {"name": name, **asdict(sample)})


def read_samples(folder: Path) -> SampleFolder | None:
    """What the samples.jsonl of a folder says; None where there is none, or one without a whole line.

    Raises InputError for one that cannot be read.
    """
    path = folder / SAMPLES
    try:
        lines = read_lines(path)
        if lines is None:
            return None
        first, *others = lines
        drawn = first.take("drawn", dict, "an object")
        known = dict(_sample_of(line, number) for number, line in enumerate(others, 2))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)[:300]}); to draw, remove it and the samples beside "
            "it, or give another --out; to measure these samples, without their conditions, remove it alone"
        ) from error
    return SampleFolder(folder, drawn, known)


def _sample_of(line: Fields, number: int) -> tuple[str, Sample]:
    try:
        return line.text("name"), Sample.from_fields(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def continue_samples(
    folder: Path, description: Mapping[str, Any], wanted: Mapping[str, Sample]
) -> SampleFolder:
    """The folder with its samples so far, if those that are wanted may be added to them.

    description: the first line of a new folder; its `drawn` has to be that of the folder. wanted: file names
    and how they are to be drawn. A sample that the folder has already, drawn so, need not be drawn again.
    Raises InputError for a folder with samples that were drawn otherwise, or of which no samples.jsonl tells.
    """
    drawn, found = description["drawn"], read_samples(folder)
    if found is None:
        if others := sorted(path.name for path in folder.glob("sample-*")):
            raise InputError(
                f"{folder} holds {others[0]}, and no {SAMPLES} that tells how it was drawn; give another "
                "--out"
            )
        start_lines(folder / SAMPLES, description)
        found = read_samples(folder) or SampleFolder(folder, drawn, {})
    if differences := differences_in_words(drawn, found.drawn):
        raise InputError(
            f"{folder} holds samples that were drawn otherwise ({differences}); give another --out"
        )
    for name, sample in wanted.items():
        there = found.samples.get(name)
        if there and there.condition != sample.condition:
            raise InputError(
                f"{folder} holds {name} with condition {_in_words(there.condition)}, which was to be drawn "
                f"with {_in_words(sample.condition)}; give another --out or --seed"
            )
    return found


def _in_words(condition: Sequence[str]) -> str:
    return ", ".join(map(shown, condition)) or "none"
