"""Settings, inputs and outputs of commands in a YAML file, one section per command."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from vidlat.checked_settings import Config, field_name
from vidlat.config import (
    CompareConfig,
    EncodeConfig,
    EvaluateConfig,
    FitVAEConfig,
    SampleConfig,
    TrainConfig,
    WorkerConfig,
)
from vidlat.config.split import SplitConfig
from vidlat.errors import SHOWN_LETTERS, ConfigError, InputError, one_line
from vidlat.files import read_file
from vidlat.spelling import did_you_mean
from vidlat.wording import shorten

SECTIONS: dict[str, type[Config]] = {
    "encode": EncodeConfig,
    "train": TrainConfig,
    "sample": SampleConfig,
    "fit-vae": FitVAEConfig,
    "compare": CompareConfig,
    "evaluate": EvaluateConfig,
    "split": SplitConfig,
    "worker": WorkerConfig,
}
"""Sections of a file, by command."""

YAML_BYTES = 100_000
"""Most bytes of a file."""


def load_yaml(path: Path, section: str, beside: Collection[str] = ()) -> dict[str, Any]:
    """What one of a YAML file's SECTIONS holds, by field name: settings, checked, and what may stand beside.

    beside: names of inputs, outputs and the like; their values are as the file states them. Raises
    InputError if there is no file, ConfigError naming it if it cannot be read, repeats a key, holds an
    unknown section or not this one, or if one of the section's settings is wrong.
    """
    values = _read_section(path, section)
    names = [field_name(name) for name in values]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: {', '.join(twice)} is given twice in `{section}:`; keep one")
    by_name = dict(zip(names, values.values(), strict=True))
    others = {name: value for name, value in by_name.items() if name in beside}
    settings = {name: value for name, value in by_name.items() if name not in beside}
    try:
        SECTIONS[section].require_known(settings, beside)
        config = SECTIONS[section].from_mapping(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return others | {name: getattr(config, name) for name in settings}


def _read_section(path: Path, section: str) -> dict[Any, Any]:
    try:
        document = yaml.load(read_file(path, YAML_BYTES).decode(), _StrictLoader)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: cannot be read as YAML: it is nested too deeply") from error
    except Exception as error:  # PyYAML fails in as many ways as it has tags
        raise ConfigError(f"{path}: cannot be read as YAML: {one_line(error)[:500]}") from error
    sections = document if isinstance(document, dict) else {}
    unknown = [field_name(name) for name in sections if name not in SECTIONS]
    if unknown:
        hint = did_you_mean(unknown[0], SECTIONS) or f"; known are {', '.join(SECTIONS)}"
        raise ConfigError(f"{path}: unknown section {shorten(unknown)}{hint}")
    values = sections.get(section)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: has no section `{section}:` with settings below it")
    return values


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which silently keeps the last of duplicate keys, and merges without end."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value[:SHOWN_LETTERS]} is given twice; keep one", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > YAML_BYTES:  # `<<` takes over mappings that took over others
            raise yaml.constructor.ConstructorError(
                None, None, "merges more keys than it could hold", node.start_mark
            )
