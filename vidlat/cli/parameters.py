"""Kinds of options, and an option per field of a Config."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

import click

from vidlat.checked_settings import Config, Group, given, is_list, item_of, limits_in_words
from vidlat.errors import ConfigError, shown
from vidlat.spelling import did_you_mean


class Option(click.Option):
    """An option that `--help` lists in a part of its own choice; see `Command.parts`."""

    def __init__(self, *args: Any, group: Group, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


class OptionOrArgument(Option):
    """A required option whose value may be given as an argument instead, before the command's arguments."""

    def __init__(self, *args: Any, metavar: str, **attributes: Any) -> None:
        super().__init__(*args, required=True, group="Basic", metavar=metavar, **attributes)
        self.placeholder = metavar

    @property
    def _as_argument(self) -> str:
        return f"{self.name} as an argument"

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        parser.add_argument(click.Argument([self._as_argument]), self._as_argument)

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        self._take_argument(ctx, typing.cast(dict[str, Any], opts))
        try:
            return super().handle_parse_result(ctx, opts, args)
        except click.MissingParameter as error:
            what = f"{self.placeholder} is missing: give it as an argument or as {self.opts[0]}"
            raise click.UsageError(what, ctx) from error

    def _take_argument(self, ctx: click.Context, parsed: dict[str, Any]) -> None:
        """Make the first argument the value, or hand it on to the next parameter where there is one."""
        argument = parsed.pop(self._as_argument, None)
        if not isinstance(argument, str):
            return
        if self.name not in parsed:
            parsed[self.name] = argument
            return
        left = argument
        for param in ctx.command.params:
            if isinstance(param, click.Argument):
                parsed[param.name], left = left, parsed[param.name]
        if isinstance(left, str):
            twice = f"as {self.opts[0]} {parsed[self.name]} and as an argument, {argument}"
            raise click.UsageError(f"{self.placeholder} is given twice, {twice}; keep one", ctx)

    def get_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [self.placeholder]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:  # noqa: ARG002
        return f"{self.placeholder}, {self.opts[0]}", f"{self.help}  [required]"


class Choice(click.Choice[str]):
    """One of a few texts."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:  # noqa: ARG002
        hint = did_you_mean(str(value), self.choices)
        return f"got {value!r}; expected one of {', '.join(self.choices)}{hint}"


def default_in_file(option: click.Option, value: Any, where: str) -> Any:
    """The value of an option in a YAML file, as click takes a default; raises ConfigError, with `where`."""
    kinds: tuple[type, ...] = (bool,) if option.is_flag else (str,) if option.multiple else (str, int, float)
    values = value if option.multiple and isinstance(value, list) else [value]
    if any(type(each) not in kinds for each in values):
        expected = "true or false" if option.is_flag else "a text or a number"
        if option.multiple:
            expected = "a text, or a list of texts"
        raise ConfigError(f"{where}: got {shown(value)}; expected {expected}")
    return values if option.multiple else value


def config_options(config: type[Config]) -> list[Option]:
    """An option per field of `config`: its name, type, help, default and limits; not given, it is None."""
    hints = typing.get_type_hints(config)
    return [_option(field, hints[field.name]) for field in dataclasses.fields(config)]


def _option(field: dataclasses.Field[Any], annotation: Any) -> Option:
    name = field.name.replace("_", "-")
    is_switch = annotation in (bool, bool | None)
    flags = [f"--{name}/--no-{name}" if is_switch else f"--{name}"]
    if field.metadata["short"]:
        flags.append(field.metadata["short"])
    kind = None if is_list(annotation) or is_switch else _click_type(annotation)
    # Texts may hold commas: an option with a list of them is repeated instead.
    is_repeated = is_list(annotation) and item_of(annotation) is str
    metavar = _list_in_words(item_of(annotation)) if is_list(annotation) and not is_repeated else None
    text = field.metadata["help"] + _default_and_limits(field)
    group = field.metadata["group"]
    return Option(
        flags, type=kind, multiple=is_repeated, default=None, help=text, metavar=metavar, group=group
    )


def _list_in_words(item: Any) -> str:
    return f"{'|'.join(typing.get_args(item)) or item.__name__.upper()},..."


def _default_and_limits(field: dataclasses.Field[Any]) -> str:
    """Such as `  [default: 4; at least 1]`, as click writes it."""
    default = field.default
    if isinstance(default, bool):
        default = {True: "yes", False: "no"}[default]
    elif isinstance(default, tuple):
        default = ",".join(map(str, default))
    shown = "" if default in (None, "") else f"default: {default}"
    notes = "; ".join(filter(None, (shown, limits_in_words(field.metadata["limits"]))))
    return f"  [{notes}]" if notes else ""


def _click_type(annotation: Any) -> Any:
    annotation = given(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return Choice(typing.get_args(annotation))
    return annotation
