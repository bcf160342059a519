"""What a sample is to show: labels and numbers of a video, as the features a network takes.

Nothing known is all zeros, which a network hears nothing of (feature_embedding.py): dropping a condition is
to multiply it by 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from vidlat.errors import ConfigError, TrainError

Labels = Mapping[str, str]
"""The labels of one video, text by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCondition:
    """A label that is one of some classes: as many features, one of them 1."""

    name: str
    classes: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """One a class."""
        return len(self.classes)

    def encode(self, text: str) -> list[float]:
        """Raises ConfigError for a class that training has not seen."""
        if text not in self.classes:
            raise ConfigError(f"{self.name}: got {text!r}; the run has seen {', '.join(self.classes)}")
        return [float(text == known) for known in self.classes]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberCondition:
    """A label that is a number: that it is known, and by how many standard deviations it is off the mean.

    mean, std: of the training videos.
    """

    name: str
    mean: float
    std: float

    @property
    def num_features(self) -> int:
        """Whether it is known, and its value."""
        return 2

    def encode(self, text: str) -> list[float]:
        """Raises ConfigError for what is no number."""
        return [1.0, (parse_number(self.name, text) - self.mean) / self.std]


Condition = ClassCondition | NumberCondition


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that a network is conditioned on, in order."""

    conditions: tuple[Condition, ...] = ()

    @classmethod
    def plan(cls, asked: Sequence[str], labels: Iterable[Labels]) -> Self:
        """From `NAME` for classes or `NAME:float` for numbers, and the labels of the training videos.

        Raises ConfigError for a name given twice or another type, TrainError where no training video has it
        or all have the same number.
        """
        labels = list(labels)
        conditions: list[Condition] = []
        for spec in asked:
            name, _, kind = spec.partition(":")
            if not name or kind not in ("", "float", "class"):
                raise ConfigError(f"condition: got {spec!r}; expected NAME for classes, or NAME:float")
            if name in (condition.name for condition in conditions):
                raise ConfigError(f"condition: {name} is given twice; keep one")
            texts = [video[name] for video in labels if video.get(name)]
            if not texts:
                known = sorted({name for video in labels for name in video})
                raise TrainError(
                    f"condition: no training video has a label {name!r}; "
                    f"they have {', '.join(known) or 'none: give a table by --labels'}"
                )
            conditions.append(_number(name, texts) if kind == "float" else _classes(name, texts))
        return cls(tuple(conditions))

    @property
    def num_features(self) -> int:
        """Length of what `encode` gives."""
        return sum(condition.num_features for condition in self.conditions)

    def encode(self, labels: Labels) -> np.ndarray:
        """Features (num_features,) float32; zeros for a label that is not there.

        Raises ConfigError for a class or a number that makes no sense.
        """
        features: list[float] = []
        for condition in self.conditions:
            text = labels.get(condition.name, "")
            features += condition.encode(text) if text else [0.0] * condition.num_features
        return np.array(features, np.float32)

    def encode_known(self, labels: Labels) -> np.ndarray:
        """The same for a video of the cache: zeros too for a class that no training video has."""
        known = {
            condition.name: labels[condition.name]
            for condition in self.conditions
            if condition.name in labels and _makes_sense(condition, labels[condition.name])
        }
        return self.encode(known)

    def kept(self, random: np.random.Generator, dropout: float) -> np.ndarray:
        """Features (num_features,) times this, 0 or 1, are what an item of the training is told.

        A share `dropout` of the items loses everything, for guidance; of what the others know each of several
        conditions is lost alone as often, so that a sample may be asked for some of them.
        """
        num = len(self.conditions)
        is_kept = np.full(num, random.random() >= dropout)
        if num > 1:
            is_kept &= random.random(num) >= dropout
        return np.repeat(is_kept, [c.num_features for c in self.conditions]).astype(np.float32)

    def parse(self, asked: Sequence[str]) -> np.ndarray:
        """Features of what a sample is asked to show: `NAME=VALUE`, each name once at most.

        Raises ConfigError for a name or a value that the run does not know.
        """
        labels: dict[str, str] = {}
        names = [condition.name for condition in self.conditions]
        for text in asked:
            name, equals, value = text.partition("=")
            if not equals or not value or name not in names:
                known = (
                    ", ".join(f"{name}=..." for name in names)
                    or "nothing: it was trained without --condition"
                )
                raise ConfigError(f"condition: got {text!r}; the run knows {known}")
            if name in labels:
                raise ConfigError(f"condition: {name} is given twice; keep one")
            labels[name] = value
        return self.encode(labels)

    def pick(self, labels: Labels) -> dict[str, str]:
        """Of a video's labels those that are meant here."""
        names = [condition.name for condition in self.conditions]
        return {name: labels[name] for name in names if labels.get(name)}

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values for JSON."""
        return [asdict(condition) for condition in self.conditions]

    @classmethod
    def from_list(cls, values: Iterable[dict[str, Any]]) -> Self:
        """The inverse of `to_list`."""
        return cls(tuple(_from_dict(value) for value in values))


def _from_dict(values: dict[str, Any]) -> Condition:
    if "classes" in values:
        return ClassCondition(name=values["name"], classes=tuple(values["classes"]))
    return NumberCondition(**values)


def _classes(name: str, texts: Iterable[str]) -> ClassCondition:
    return ClassCondition(name=name, classes=tuple(sorted(set(texts))))


def _number(name: str, texts: Iterable[str]) -> NumberCondition:
    numbers = np.array([parse_number(name, text) for text in texts])
    mean, std = float(numbers.mean()), float(numbers.std())
    if std <= 1e-9 * abs(mean):  # equal numbers differ from their mean by rounding
        raise TrainError(f"condition: {name} is {mean:g} in every training video; leave it out")
    return NumberCondition(name=name, mean=mean, std=std)


def parse_number(name: str, text: str) -> float:
    """The number a label is; raises ConfigError, naming the label."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name}: got {text!r}; expected a number, or --condition {name} for classes")
    return number


def _makes_sense(condition: Condition, text: str) -> bool:
    try:
        condition.encode(text)
    except ConfigError:
        return False
    return True
