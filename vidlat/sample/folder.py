"""The folder of samples: which samples it holds, and in samples.json how they were drawn.

    {"vidlat_version": "0.1.0",
     "drawn": {"cache_id": ..., "weights_hash": ..., "step": 20000, "frames": 16, "steps": 50, ...},
     "samples": {"sample-0000.mp4": {"seed": 0, "condition": ["view=a4c"], "seconds": 1.9}, ...}}

All samples of a folder were drawn in the same way, each with a condition of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import vidlat
from vidlat.checked_settings import LARGE, MANY, SEED_STOP
from vidlat.documents import Fields, read_json
from vidlat.errors import InputError, one_line, shown
from vidlat.files import replace_file

SAMPLES = "samples.json"
"""File name of the description of a folder of samples."""

SAMPLES_BYTES = 2**28
"""Most bytes of it: a million samples have less."""


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
            num_rejected=fields.whole("num_rejected", 0, MANY) if "num_rejected" in fields.names() else 0,
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
        """Add a sample whose file is written; raises InputError where that cannot be recorded."""
        self.samples[name] = sample
        self.write()

    def write(self) -> None:
        """Write samples.json, whole or not at all; raises InputError where that cannot be done."""
        values = {
            "vidlat_version": vidlat.__version__,
            "drawn": self.drawn,
            "samples": {name: asdict(self.samples[name]) for name in sorted(self.samples)},
        }
        try:
            replace_file(self.path / SAMPLES, (json.dumps(values, indent=1) + "\n").encode())
        except OSError as error:
            raise InputError(f"{self.path / SAMPLES}: cannot be written ({error.strerror})") from error


def read_samples(folder: Path) -> SampleFolder | None:
    """What the samples.json of a folder says; None where there is none.

    Raises InputError for one that cannot be read.
    """
    path = folder / SAMPLES
    try:
        fields = Fields(read_json(path, SAMPLES_BYTES), SAMPLES)
        drawn, samples = fields.take("drawn", dict, "an object"), fields.fields("samples")
        known = {name: Sample.from_fields(samples.fields(name)) for name in samples.names()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)[:300]}); give another --out") from error
    return SampleFolder(folder, drawn, known)


def continue_samples(folder: Path, drawn: dict[str, Any], wanted: Mapping[str, Sample]) -> SampleFolder:
    """The folder with its samples so far, if those that are wanted may be added to them.

    wanted: file names and how they are to be drawn. A sample that the folder has already, drawn so, need not
    be drawn again. Raises InputError for a folder with samples that were drawn otherwise, or of which no
    samples.json tells.
    """
    found = read_samples(folder)
    if found is None:
        if others := sorted(path.name for path in folder.glob("sample-*")):
            raise InputError(
                f"{folder} holds {others[0]}, and no {SAMPLES} that tells how it was drawn; give another "
                "--out"
            )
        found = SampleFolder(folder, drawn, {})
        found.write()
        return found
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


def _in_words(condition: Sequence[str]) -> str:
    return ", ".join(map(shown, condition)) or "none"
