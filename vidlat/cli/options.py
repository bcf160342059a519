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
            shown = "" if field.default in (None, ()) else f"  [default: {_shown(field.default)}]"
            names, how = _click_option(flag, hints[field.name])
            short = [field.metadata["short"]] if field.metadata["short"] else []
            option = click.option(*names, *short, help=field.metadata["help"] + shown, default=None, **how)
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
    settings |= {name: value for name, value in flags.items() if value not in (None, ())}
    return config.from_mapping(settings)


def _shown(default: Any) -> str:
    return {True: "yes", False: "no"}[default] if isinstance(default, bool) else str(default)


def _click_option(flag: str, annotation: Any) -> tuple[list[str], dict[str, Any]]:
    """Names and keywords of the option of a field."""
    if annotation is bool:
        return [f"{flag}/--no-{flag.removeprefix('--')}"], {}
    if typing.get_origin(annotation) is tuple:
        return [flag], {"multiple": True}
    return [flag], {"type": _click_type(annotation)}


def _click_type(annotation: Any) -> Any:
    if typing.get_origin(annotation) is typing.Literal:
        return click.Choice(typing.get_args(annotation))
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    return options[0] if options else annotation
