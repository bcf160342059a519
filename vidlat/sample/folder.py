"""The folder of samples: which samples it holds, and in samples.jsonl how they were drawn.

    {"vidlat_version": "0.1.0", "drawn": {"cache_id": ..., "weights_hash": ..., "step": 20000, ...}}
    {"name": "sample-0000.mp4", "seed": 0, "condition": ["view=a4c"], "seconds": 1.9, "num_rejected": 0}

The first line is that of all samples of the folder, which were drawn in the same way. Each has a line of its
own, with its condition, that is appended once its video is written; of several about one sample the last
holds. A process that is killed may leave half a line at the end, which does not count: its sample is drawn
again. Several processes may add to a folder at once, samples of other seeds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import vidlat
from vidlat.checked_settings import LARGE, MANY, SEED_STOP
from vidlat.documents import Fields, parse_json
from vidlat.errors import InputError, one_line, shown
from vidlat.files import open_regular_file, read_file, sync
from vidlat.store.storage.filesystem import locked

SAMPLES = "samples.jsonl"
"""File name of the description of a folder of samples."""

SAMPLES_BYTES = 2**28
"""Most bytes of it: a million samples have less."""

LINE_BYTES = 2**16
"""Read at once to find where the last line ends; most lines have much less."""


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

    def add(self, name: str, sample: Sample) -> None:
        """Append a sample whose file is written; raises InputError where that cannot be recorded."""
        self.samples[name] = sample
        path = self.path / SAMPLES
        try:
            with _after_whole_lines(path) as file:
                _append(file, {"name": name, **asdict(sample)})
        except OSError as error:
            raise _unwritable(path, error) from error


@contextmanager
def _after_whole_lines(path: Path) -> Iterator[BinaryIO]:
    """The file, locked and opened to append, without the half line that a killed process left."""
    # Locked, half a line at the end is not one that another process is about to end.
    with locked(path), open_regular_file(path, create=True) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        file.seek(end)
        yield file


def _end_of_lines(file: BinaryIO) -> int:
    """The position after the last newline."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - LINE_BYTES, 0)
        file.seek(start)
        if found := file.read(end - start).rfind(b"\n") + 1:
            return start + found
        end = start
    return 0


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror})")


def _append(file: BinaryIO, values: dict[str, Any]) -> None:
    file.write((json.dumps(values) + "\n").encode())
    file.flush()
    os.fsync(file.fileno())


def read_samples(folder: Path) -> SampleFolder | None:
    """What the samples.jsonl of a folder says; None where there is none, or one without a whole line.

    Raises InputError for one that cannot be read.
    """
    path = folder / SAMPLES
    try:
        whole = read_file(path, SAMPLES_BYTES).split(b"\n")[:-1]
        if not whole:
            return None  # a process was killed before it had written the first line, or is writing it
        first, *lines = whole
        drawn = Fields(parse_json(first), "line 1").take("drawn", dict, "an object")
        known = dict(_sample_of(line, number) for number, line in enumerate(lines, 2))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)[:300]}); to draw, remove it and the samples beside "
            "it, or give another --out; to measure these samples, without their conditions, remove it alone"
        ) from error
    return SampleFolder(folder, drawn, known)


def _sample_of(line: bytes, number: int) -> tuple[str, Sample]:
    try:
        fields = Fields(parse_json(line), "it")
        return fields.text("name"), Sample.from_fields(fields)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def continue_samples(folder: Path, drawn: dict[str, Any], wanted: Mapping[str, Sample]) -> SampleFolder:
    """The folder with its samples so far, if those that are wanted may be added to them.

    wanted: file names and how they are to be drawn. A sample that the folder has already, drawn so, need not
    be drawn again. Raises InputError for a folder with samples that were drawn otherwise, or of which no
    samples.jsonl tells.
    """
    found = read_samples(folder)
    if found is None:
        if others := sorted(path.name for path in folder.glob("sample-*")):
            raise InputError(
                f"{folder} holds {others[0]}, and no {SAMPLES} that tells how it was drawn; give another "
                "--out"
            )
        _start(folder / SAMPLES, drawn)
        found = read_samples(folder) or SampleFolder(folder, drawn, {})
    if found.drawn != drawn:
        differing = [name for name in {**drawn, **found.drawn} if drawn.get(name) != found.drawn.get(name)]
        first = differing[0]
        raise InputError(
            f"{folder} holds samples that were drawn otherwise ({', '.join(differing)} differ; {first}: got "
            f"{shown(drawn.get(first))}, there {shown(found.drawn.get(first))}); give another --out"
        )
    for name, sample in wanted.items():
        there = found.samples.get(name)
        if there and there.condition != sample.condition:
            raise InputError(
                f"{folder} holds {name} with condition {_in_words(there.condition)}, which was to be drawn "
                f"with {_in_words(sample.condition)}; give another --out or --seed"
            )
    return found


def _start(path: Path, drawn: dict[str, Any]) -> None:
    """Write the first line, unless another process has done so meanwhile."""
    try:
        with _after_whole_lines(path) as file:
            if not file.tell():
                _append(file, {"vidlat_version": vidlat.__version__, "drawn": drawn})
        sync(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _in_words(condition: Sequence[str]) -> str:
    return ", ".join(map(shown, condition)) or "none"
