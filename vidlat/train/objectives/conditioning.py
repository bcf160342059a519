"""Conditions: the labels of a video, classes or numbers, encoded as the features a network takes.

Features of an unknown label are zeros, which have no effect on a network (see `unet.feature_embedding`), so a
condition is dropped by multiplying its features by 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from vidlat.documents import Fields
from vidlat.errors import ConfigError, TrainError, shown

Labels = Mapping[str, str]
"""The labels of one video, text by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCondition:
    """A label with a fixed set of classes, encoded one-hot. Classes go by value: 3 and 3.0 are one."""

    name: str
    classes: tuple[str, ...]

    @property
    def num_features(self) -> int:
        """One per class."""
        return len(self.classes)

    @property
    def example(self) -> str:
        """The first class."""
        return self.classes[0]

    def canonical(self, text: str) -> str:
        """The class that a label means; raises ConfigError for one that was not trained on."""
        if text in self.classes:  # a run of before may have 3 and 3.0 as two classes
            return text
        for known in self.classes:
            if by_value(known) == by_value(text):
                return known
        raise ConfigError(f"{self.name}: got {text!r}; expected one of {', '.join(self.classes)}")

    def encode(self, text: str) -> list[float]:
        """Raises ConfigError for a class that was not trained on."""
        meant = self.canonical(text)
        return [float(meant == known) for known in self.classes]


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberCondition:
    """A label that is a number, encoded as 1 (it is known) and its standard score.

    mean, std: of the training videos.
    """

    name: str
    mean: float
    std: float

    @property
    def num_features(self) -> int:
        """Whether it is known, and its standard score."""
        return 2

    @property
    def example(self) -> str:
        """The mean of the training videos, in three digits."""
        return f"{self.mean:.3g}"

    def canonical(self, text: str) -> str:
        """The number as it is written shortest; raises ConfigError for text that is not a number."""
        return by_value(repr(parse_number(self.name, text) + 0.0))  # -0.0 is 0

    def encode(self, text: str) -> list[float]:
        """Raises ConfigError for text that is not a number."""
        return [1.0, (parse_number(self.name, text) - self.mean) / self.std]


Condition = ClassCondition | NumberCondition


@dataclass(frozen=True, slots=True)
class Conditions:
    """Everything a network is conditioned on, in the order of its features."""

    conditions: tuple[Condition, ...] = ()

    @classmethod
    def plan(cls, specs: Sequence[str], labels: Iterable[Labels]) -> Self:
        """Plan the conditions of a new run from the labels of its training videos.

        specs: `NAME` for classes, `NAME:float` for numbers. Raises ConfigError for a name given twice or an
        unknown type, TrainError if no training video has the label or all have the same number.
        """
        labels = list(labels)
        conditions: list[Condition] = []
        for spec in specs:
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
                    f"they have {', '.join(known) or 'none: give a table with --labels'}"
                )
            if kind == "float":
                conditions.append(_number(name, texts))
            else:
                conditions.append(ClassCondition(name=name, classes=tuple(sorted(set(map(by_value, texts))))))
        return cls(tuple(conditions))

    @property
    def num_features(self) -> int:
        """Length D of the feature vector."""
        return sum(condition.num_features for condition in self.conditions)

    def encode(self, labels: Labels) -> np.ndarray:
        """Encode as features (D,) float32; zeros for a missing label.

        Raises ConfigError for an unknown class or text that is not a number.
        """
        features: list[float] = []
        for condition in self.conditions:
            text = labels.get(condition.name, "")
            features += condition.encode(text) if text else [0.0] * condition.num_features
        return np.array(features, np.float32)

    def encode_known(self, labels: Labels) -> np.ndarray:
        """Encode the labels of a video in the cache; zeros also for a label that `encode` would refuse."""
        return self.encode(self.known(labels))

    def known(self, labels: Labels) -> dict[str, str]:
        """Those labels of a video that `encode` takes, in canonical form."""
        known: dict[str, str] = {}
        for condition in self.conditions:
            with suppress(ConfigError):
                known[condition.name] = condition.canonical(labels.get(condition.name, ""))
        return known

    def draw_mask(self, random: np.random.Generator, dropout: float) -> np.ndarray:
        """Draw the condition mask of one training item: (D,) float32, 0 for dropped features.

        All conditions are dropped with probability `dropout`, for classifier-free guidance. Otherwise each of
        several conditions is dropped with that probability, so that samples can leave some of them out.
        """
        num = len(self.conditions)
        is_kept = np.full(num, random.random() >= dropout)
        if num > 1:
            is_kept &= random.random(num) >= dropout
        return np.repeat(is_kept, [c.num_features for c in self.conditions]).astype(np.float32)

    def parse(self, texts: Sequence[str]) -> np.ndarray:
        """Features (D,) of the conditions of a sample, `NAME=VALUE`, each name at most once.

        Raises ConfigError for an unknown name or value.
        """
        return self.encode(self._labels_of(texts))

    def canonical(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The same conditions of a sample in the order and the form in which equal ones are written alike.

        Takes and raises what `parse` does.
        """
        labels = self._labels_of(texts)
        conditions = [condition for condition in self.conditions if condition.name in labels]
        return tuple(f"{each.name}={each.canonical(labels[each.name])}" for each in conditions)

    def _labels_of(self, texts: Sequence[str]) -> dict[str, str]:
        labels: dict[str, str] = {}
        names = [condition.name for condition in self.conditions]
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or not value or name not in names:
                known = ", ".join(f"{name}=..." for name in names)
                expected = f"expected {known}" if known else "the run was trained without --condition"
                raise ConfigError(f"condition: got {text!r}; {expected}")
            if name in labels:
                raise ConfigError(f"condition: {name} is given twice; keep one")
            labels[name] = value
        return labels

    def examples(self) -> list[str]:
        """A value of each condition, `NAME=VALUE`: its first class, or the mean of the training videos."""
        return [f"{each.name}={each.example}" for each in self.conditions]

    def pick(self, labels: Labels) -> dict[str, str]:
        """Those labels of a video that are conditions."""
        names = [condition.name for condition in self.conditions]
        return {name: labels[name] for name in names if labels.get(name)}

    def to_list(self) -> list[dict[str, Any]]:
        """As plain values for JSON."""
        return [asdict(condition) for condition in self.conditions]

    @classmethod
    def from_fields(cls, values: Iterable[Fields]) -> Self:
        """The inverse of `to_list`; raises ValueError for what are no conditions."""
        conditions = tuple(map(_from_fields, values))
        if len({condition.name for condition in conditions}) < len(conditions):
            raise ValueError("conditions: two have one name")
        return cls(conditions)


def _from_fields(fields: Fields) -> Condition:
    name = fields.text("name")
    if "classes" not in fields.names():
        mean, std = fields.number("mean", -1e30, 1e30), fields.number("std", 1e-30, 1e30)
        return NumberCondition(name=name, mean=mean, std=std)
    classes = fields.texts("classes")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes: got {shown(list(classes))}; expected different texts")
    return ClassCondition(name=name, classes=classes)


def _number(name: str, texts: Iterable[str]) -> NumberCondition:
    numbers = np.array([parse_number(name, text) for text in texts])
    mean, std = float(numbers.mean()), float(numbers.std())
    if std <= 1e-9 * abs(mean):  # equal numbers differ from their mean by rounding
        raise TrainError(f"condition: {name} is {mean:g} in every training video; leave it out")
    return NumberCondition(name=name, mean=mean, std=std)


def by_value(text: str) -> str:
    """A number in digits without what adds nothing, so that 3, 3.0 and +3 are one; else the same text."""
    if not re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", text):
        return text
    number = text.removeprefix("+")
    number = number.rstrip("0").removesuffix(".") if "." in number else number
    return "0" if number == "-0" else number


def parse_number(name: str, text: str) -> float:
    """Parse a label as a finite number; raises ConfigError naming the label."""
    try:
        number = math.nan if "_" in text else float(text)  # Python reads 1_2 as 12
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name}: got {text!r}; expected a number, or --condition {name} for classes")
    return number
