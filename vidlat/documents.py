"""JSON documents that others may have written: read within limits, with a type and a range for each field."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from vidlat.errors import shown
from vidlat.files import read_file


def read_json(path: Path, at_most: int) -> Any:
    """The value of a JSON file of `at_most` bytes; raises OSError or ValueError, which do not name it."""
    return parse_json(read_file(path, at_most))


def parse_json(text: str | bytes) -> Any:
    """A JSON value of finite numbers and of names that are given once; raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} is given twice")
    return values


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(shown(text))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"holds {constant}, which is no number of JSON")


class Fields:
    """The fields of a JSON object; each is refused, by ValueError, unless it is what is expected there."""

    def __init__(self, values: object, name: str) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{name}: got {shown(values)}; expected an object")
        self._values, self._name = values, name

    def take(self, name: str, kind: type | tuple[type, ...], expected: str) -> Any:
        """The value of a field of one of the Python types; True is no number."""
        value = self._value(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name}: got {shown(value)}; expected {expected}")
        return value

    def _value(self, name: str) -> Any:
        if name not in self._values:
            raise ValueError(f"{self._name}: has no {name}")
        return self._values[name]

    def whole(self, name: str, at_least: int, at_most: int) -> int:
        """A whole number in a range, both ends included."""
        expected = f"a whole number from {at_least} to {at_most}"
        value: int = self.take(name, int, expected)
        if not at_least <= value <= at_most:
            raise ValueError(f"{name}: got {shown(value)}; expected {expected}")
        return value

    def number(self, name: str, at_least: float = -math.inf, at_most: float = math.inf) -> float:
        """A finite number in a range."""
        expected = "a finite number" if at_most == math.inf else f"a number from {at_least:g} to {at_most:g}"
        return _number(name, self.take(name, (int, float), expected), at_least, at_most, expected)

    def numbers(self, name: str, count: int, at_least: float, at_most: float) -> tuple[float, ...]:
        """A list of so many numbers in a range."""
        expected = f"{count} numbers from {at_least:g} to {at_most:g}"
        values = self.take(name, list, expected)
        if len(values) != count:
            raise ValueError(f"{name}: got {shown(values)}; expected {expected}")
        return tuple(_number(name, value, at_least, at_most, expected) for value in values)

    def whole_list(self, name: str, most: int, at_most: int) -> list[int]:
        """A list of up to `most` whole numbers from 1 to `at_most`."""
        expected = f"up to {most} whole numbers from 1 to {at_most}"
        values = self.take(name, list, expected)
        is_right = all(
            isinstance(it, int) and not isinstance(it, bool) and 1 <= it <= at_most for it in values
        )
        if not is_right or len(values) > most:
            raise ValueError(f"{name}: got {shown(values)}; expected {expected}")
        return list(values)

    def is_null(self, name: str) -> bool:
        """Whether a field is null."""
        return self._value(name) is None

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._value(name)
        if not isinstance(value, bool):
            raise ValueError(f"{name}: got {shown(value)}; expected true or false")
        return value

    def booleans(self, name: str, most: int) -> list[bool]:
        """A list of up to `most` of true and false."""
        expected = f"up to {most} of true and false"
        values = self.take(name, list, expected)
        if not all(isinstance(value, bool) for value in values) or len(values) > most:
            raise ValueError(f"{name}: got {shown(values)}; expected {expected}")
        return list(values)

    def text(self, name: str) -> str:
        """A text."""
        text: str = self.take(name, str, "a text")
        return text

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        expected = "a list of texts"
        values = self.take(name, list, expected)
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f"{name}: got {shown(value)}; expected {expected}")
        return tuple(values)

    def all_texts(self) -> dict[str, str]:
        """All fields, each of which is a text."""
        return {name: self.text(name) for name in self._values}

    def wholes(self, at_least: int, at_most: int) -> dict[str, int]:
        """All fields, each of which is a whole number in a range."""
        return {name: self.whole(name, at_least, at_most) for name in self._values}

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """A list of pairs of texts."""
        expected = "a list of pairs of texts"
        pairs = self.take(name, list, expected)
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(it, str) for it in pair):
                raise ValueError(f"{name}: got {shown(pair)}; expected {expected}")
        return [(first, second) for first, second in pairs]

    def objects(self, name: str) -> list[Fields]:
        """A list of objects."""
        return [Fields(value, name) for value in self.take(name, list, "a list of objects")]

    def fields(self, name: str) -> Fields:
        """An object."""
        return Fields(self.take(name, dict, "an object"), name)

    def names(self) -> list[str]:
        """The names of all fields, in their order."""
        return list(self._values)


def _number(name: str, value: Any, at_least: float, at_most: float, expected: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Compared first: a whole number may be too large for a float.
    if not is_number or not (at_least <= value <= at_most) or abs(value) > 1.7e308 or value != value:
        raise ValueError(f"{name}: got {shown(value)}; expected {expected}")
    return float(value)
