"""Flags from configuration: every field of a Config is a flag, with the field's own help and default."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vidlat.config import Config, load_yaml

EXIT_SOME_FAILED = 3
"""What ends a command that did all but some of the videos."""

Command = TypeVar("Command", bound=Callable[..., Any])
ConfigType = TypeVar("ConfigType", bound=Config)


def config_options(config: type[Config], section: str) -> Callable[[Command], Command]:
    """Give a command one flag a field of `config`, and --config for a YAML file with a `section:` of them."""

    def decorate(command: Command) -> Command:
        hints = typing.get_type_hints(config)
        for field in reversed(dataclasses.fields(config)):
            flag = "--" + field.name.replace("_", "-")
            shown = "" if field.default is None else f"  [default: {field.default}]"
            option = click.option(
                flag, type=_click_type(hints[field.name]), help=field.metadata["help"] + shown
            )
            command = option(command)
        return click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help=f"YAML file with these settings under `{section}:`; flags win over it.",
        )(command)

    return decorate


def build_config(
    config: type[ConfigType],
    section: str,
    config_file: Path | None,
    flags: dict[str, Any],
    base: ConfigType | None = None,
) -> ConfigType:
    """Settings from `base`, overruled by the YAML file, overruled by the flags given; raises ConfigError."""
    settings = base.to_dict() if base else {}
    if config_file:
        settings |= {str(name).replace("-", "_"): v for name, v in load_yaml(config_file, section).items()}
    settings |= {name: value for name, value in flags.items() if value is not None}
    return config.from_mapping(settings)


def _click_type(annotation: Any) -> Any:
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice(typing.get_args(annotation))
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    return options[0] if options else annotation
