"""Settings as frozen dataclasses whose values are checked against their annotations and limits."""

from __future__ import annotations

import dataclasses
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Self, TypeVar

from vidlat.errors import SHOWN_LETTERS, ConfigError, shown
from vidlat.spelling import did_you_mean
from vidlat.wording import shorten

ConfigType = TypeVar("ConfigType", bound="Config")


_LIMITS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "at_least": ("at least", operator.ge),
    "above": ("more than", operator.gt),
    "at_most": ("at most", operator.le),
    "below": ("less than", operator.lt),
}
"""The kinds of limits a number may have, in words and as comparisons."""

MANY, LARGE = 100_000, 1e9
"""Most frames, pixels or items at once, and the largest of all other numbers: far beyond what is of use."""

SEED_STOP = 2**63
"""Seeds are below this: torch's generators accept no larger one."""


Group = Literal[
    "Basic",
    "Videos",
    "Time",
    "Network",
    "Objective",
    "Conditioning",
    "Split",
    "Optimisation",
    "Sampling",
    "Monitoring",
    "Performance",
    "Other",
]
"""The parts of `--help`, in their order; basic is what a newcomer needs."""


def setting(
    default: Any,
    help: str,
    *,
    group: Group = "Other",
    short: str | None = None,
    same_as: str | None = None,
    names: str | None = None,
    **limits: float,
) -> Any:
    """A dataclass field with the text that `--help` shows, its one-letter flag, and its _LIMITS.

    group: the part of `--help` that lists it.
    same_as: another setting that says the same in its own way, so that only one of them may be given.
    names: the kind of thing that the value names, a key of `cli.checks.NAMED`, by which it is checked.
    """
    metadata = {
        "help": help, "group": group, "short": short, "same_as": same_as, "names": names, "limits": limits,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Common to all settings: values are checked against annotation and limits, unknown names are refused."""

    def __post_init__(self) -> None:
        hints = self._type_hints()
        for declared in dataclasses.fields(self):
            value = getattr(self, declared.name)
            _check_type(declared.name, value, hints[declared.name])
            _check_limits(declared.name, value, declared.metadata.get("limits", {}))

    @classmethod
    @cache
    def _type_hints(cls) -> dict[str, Any]:
        """Evaluated once: every look at a cache checks its settings."""
        return typing.get_type_hints(cls)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        """Build from flag or YAML names (`-` and `_` are the same); a float may be a text such as 2e-4.

        A list of anything but texts may be one text with commas, as in a flag, or a single value.
        Raises ConfigError for an unknown name or a value of the wrong type.
        """
        known = cls._type_hints()
        values = {field_name(name): value for name, value in values.items()}
        cls.require_known(values)
        return cls(**{name: _parse(value, known[name]) for name, value in values.items()})

    @classmethod
    def require_known(cls, names: Iterable[str], beside: Iterable[str] = ()) -> None:
        """Raise ConfigError for a name that is neither a setting nor among those known beside them."""
        known = sorted({*cls._type_hints(), *beside})
        if unknown := sorted(set(names).difference(known)):
            hint = did_you_mean(unknown[0], known) if len(unknown) == 1 else ""
            hint = hint or f"; known are {', '.join(known)}"
            raise ConfigError(f"unknown setting {shorten(unknown)}{hint}")

    @classmethod
    def overruled(cls, values: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by field name with those that take precedence, also over what says the same otherwise."""
        pairs = [(each.name, each.metadata.get("same_as") or "") for each in dataclasses.fields(cls)]
        left_out = {other for one, two in pairs for name, other in ((one, two), (two, one)) if by.get(name)}
        return {name: value for name, value in values.items() if name not in left_out} | dict(by)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values for JSON."""
        return dataclasses.asdict(self)

    def require_effect(self, given: Iterable[str] | None = None) -> None:
        """Raise ConfigError for a setting that was given and has no effect beside the others.

        given: names of settings; by default those that are not as declared. Not asked of settings that were
        read from a document, which holds all of them.
        """
        if given is None:
            declared = dataclasses.fields(self)
            given = [each.name for each in declared if getattr(self, each.name) != each.default]
        without_effect = self._without_effect()
        for name in given:
            if name in without_effect:
                raise ConfigError(f"{name}: has no effect {without_effect[name]}")

    def _without_effect(self) -> dict[str, str]:
        """The settings that have no effect beside the others, and what would give them one."""
        return {}

    def select(self, kind: type[ConfigType]) -> ConfigType:
        """Those of the settings that `kind`, a base class of this one, declares."""
        return kind(**{declared.name: getattr(self, declared.name) for declared in dataclasses.fields(kind)})


def field_name(name: object) -> str:
    """The name of a field as a flag or a YAML file writes it, shortened where it is none."""
    return (name[:SHOWN_LETTERS] if isinstance(name, str) else shown(name)).replace("-", "_")


def is_list(annotation: Any) -> bool:
    """Whether a setting is a list, of texts or of something else."""
    return typing.get_origin(annotation) is tuple


def item_of(annotation: Any) -> Any:
    """What such a list holds."""
    return typing.get_args(annotation)[0]


def given(annotation: Any) -> Any:
    """The annotation of a setting that may be None, where it is not."""
    kinds = [kind for kind in typing.get_args(annotation) if kind is not types.NoneType]
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return kinds[0] if is_union and len(kinds) == 1 else annotation


def _parse(value: Any, annotation: Any) -> Any:
    if is_list(annotation):
        return _parse_list(value, item_of(annotation))
    # YAML 1.1, and so PyYAML, reads 2e-4 as text: it wants 2.0e-4.
    if given(annotation) is float and isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _parse_list(value: Any, item: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)  # JSON and YAML have no tuples
    if item is str or isinstance(value, tuple):
        return value
    if not isinstance(value, str):
        return (value,)
    return tuple(_to_number(part.strip(), item) for part in value.split(","))


def _to_number(text: str, item: Any) -> int | float | str:
    with suppress(ValueError):
        return item(text) if item in (int, float) else text
    return text


def _check_type(name: str, value: Any, annotation: Any) -> None:
    if value is None and given(annotation) is not annotation:
        return
    if typing.get_origin(given(annotation)) is Literal:
        annotation = given(annotation)
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        if value not in options:
            hint = did_you_mean(str(value), options)
            raise ConfigError(f"{name}: got {shown(value)}; expected one of {', '.join(options)}{hint}")
        return
    if origin is tuple:
        item = item_of(annotation)
        if not isinstance(value, tuple) or (item is str and not all(isinstance(each, str) for each in value)):
            raise ConfigError(f"{name}: got {shown(value)}; expected a list of {_LISTED.get(item, 'words')}")
        for each in value:
            _check_type(name, each, item)
        return
    kinds = options if origin in (typing.Union, types.UnionType) else (annotation,)
    # YAML and JSON write 1 where a float is meant; to Python a bool is an int, to a user it never is.
    if isinstance(value, bool) and bool not in kinds:
        raise ConfigError(f"{name}: got {shown(value)}; expected {_type_names(kinds)}")
    if isinstance(value, int) and float in kinds:
        return
    if not isinstance(value, tuple(typing.get_origin(kind) or kind for kind in kinds)):
        raise ConfigError(f"{name}: got {shown(value)}; expected {_type_names(kinds)}")


_LISTED = {str: "texts", int: "whole numbers", float: "numbers"}
_KINDS = {
    type(None): "nothing",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


def _type_names(kinds: tuple[Any, ...]) -> str:
    return " or ".join(_KINDS.get(kind, kind.__name__) for kind in kinds)


def limits_in_words(limits: dict[str, float]) -> str:
    """Such as `at least 0 and less than 1`; empty without limits."""
    texts = [
        f"{_LIMITS[kind][0]} {'2**63' if bound == SEED_STOP else f'{bound:.12g}'}"
        for kind, bound in limits.items()
    ]
    return " and ".join(texts)


def _check_limits(name: str, value: Any, limits: dict[str, float]) -> None:
    if isinstance(value, tuple):
        for each in value:
            _check_limits(name, each, limits)
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if "below" not in limits:
        limits = {**limits, "at_most": limits.get("at_most", LARGE)}
    is_finite = abs(value) <= sys.float_info.max  # of a whole number beyond it nothing else can be asked
    if is_finite and all(_LIMITS[kind][1](value, bound) for kind, bound in limits.items()):
        return
    expected = limits_in_words(limits)
    if not is_finite:
        expected = f"a finite number, {expected}".removesuffix(", ")
    raise ConfigError(f"{name}: got {shown(value)}; expected {expected}")
