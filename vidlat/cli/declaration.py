"""Commands that are declared apart from their bodies, and end every user error in one line."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vidlat.checked_settings import Config, Group as OptionGroup
from vidlat.cli.checks import NAMED, make_checks
from vidlat.cli.parameters import Option, config_options, default_in_file
from vidlat.commands.settings_file import load_yaml
from vidlat.errors import ExitCode, InputError, VidlatError, is_out_of_memory, one_line, printable
from vidlat.paths import expand, is_address
from vidlat.spelling import did_you_mean


class LocalPath(click.Path):
    """A path on this machine, with `~` expanded; click's `path_type` is Path, or str for a pattern."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(expand(str(value)), param, ctx)
        except InputError as error:
            self.fail(str(error), param, ctx)


class PathOrAddress(LocalPath):
    """A path on this machine, or an address, which stays a text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return str(value) if is_address(value) else super().convert(value, param, ctx)


PATH = LocalPath(path_type=Path)
CACHE = PathOrAddress(path_type=Path)
PATH_OR_PATTERN = LocalPath(path_type=str)
PATH_PATTERN_OR_ADDRESS = PathOrAddress(path_type=str)


class Command(click.Command):
    """A command declared apart from its body, which is imported when the command runs.

    The body of a declaration NAME is the function NAME in vidlat.commands.MODULE, by default of the same
    name. It returns an ExitCode, or nothing for success. A command with a `config` has a flag per field of
    that class; its body gets those that were given, on the command line or in a YAML file, as `settings`.
    checks: of all that the body gets, made before the body loads.
    """

    def __init__(
        self,
        *args: Any,
        config: type[Config] | None = None,
        module: str | None = None,
        checks: Sequence[Callable[[Mapping[str, Any]], None]] = (),
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.checks = checks
        self.config = config
        self.module = module
        if config:
            text = (
                f"YAML file with these options, by their names, under `{self.name}:`. What is given on the "
                "command line takes precedence."
            )
            self.params.append(
                Option(
                    ["--config", "in_file"], type=PATH, is_eager=True, callback=self._read_file,
                    help=text, group="Basic",
                )
            )  # fmt: skip
            self.params += config_options(config)

    def _read_file(
        self, ctx: click.Context, param: click.Parameter, path: Path | None
    ) -> dict[str, Any] | None:
        """The settings in a file of --config; all else that it holds becomes the default of its option."""
        if not path:
            return None
        settings = {field.name for field in dataclasses.fields(self.config)} if self.config else set()
        options = {
            other.opts[0].lstrip("-").replace("-", "_"): other
            for other in self.params
            if isinstance(other, click.Option) and other.name not in settings and other is not param
        }
        values = load_yaml(path, f"{self.name}", options)
        ctx.default_map = {
            option.name: default_in_file(option, values.pop(name), f"{path}: {name}")
            for name, option in options.items()
            if name in values
        }
        return values

    def parts(self, ctx: click.Context) -> dict[str, list[click.Parameter]]:
        """The parameters by the part of `--help` that lists them, in its order; of few there is one part.

        A parameter without a group is basic where it is required.
        """
        if not self.config:
            return {"": self.get_params(ctx)}
        parts: dict[str, list[click.Parameter]] = {group: [] for group in typing.get_args(OptionGroup)}
        for param in self.get_params(ctx):
            parts[getattr(param, "group", "Basic" if param.required else "Other")].append(param)
        return {group: params for group, params in parts.items() if params}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, each part under its own title."""
        for part, params in self.parts(ctx).items():
            options = [param for param in params if not isinstance(param, click.Argument)]
            if records := [record for param in options if (record := param.get_help_record(ctx))]:
                with formatter.section(part or "Options"):
                    formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse an option with one value that is given twice, of which click takes the last."""
        try:
            _, _, given = self.make_parser(ctx).parse_args(list(args))
        except click.NoSuchOption as error:
            flags = [flag for param in self.get_params(ctx) for flag in param.opts if flag.startswith("--")]
            hint = did_you_mean(error.option_name, flags)
            raise click.NoSuchOption(
                error.option_name, f"no such option: {error.option_name}{hint}", ctx=ctx
            ) from error
        for param, times in Counter(given).items():
            is_harmless = not isinstance(param, click.Option) or (param.is_flag and not param.secondary_opts)
            if times > 1 and not (param.multiple or is_harmless):
                raise click.UsageError(f"{param.opts[0]} is given {times} times; expected it once", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        values = dict(ctx.params)
        if self.config:
            flags = {field.name: values.pop(field.name) for field in dataclasses.fields(self.config)}
            in_file = values.pop("in_file") or {}
            given = {name: value for name, value in flags.items() if value not in (None, ())}
            values["settings"] = self.config.overruled(in_file, given)
        try:
            self._require_settings(values)
            make_checks(ctx)
            for check in self.checks:
                check(values)
            ctx.exit(self.import_body()(**values) or ExitCode.DONE)
        except VidlatError as error:
            name, _, what = str(error).partition(": ")  # what is wrong with a setting begins with its name
            if ctx.params.get(name) not in (None, ()):
                error.args = (f"--{name.replace('_', '-')}: {what}",)
            raise

    def _require_settings(self, values: Mapping[str, Any]) -> None:
        """Raise a VidlatError for wrong settings before the body is imported.

        With `resume` or `training` the body checks them, together with those of the run.
        """
        if not self.config:
            return
        settings = values["settings"]
        if not (values.get("resume") or values.get("training")):
            self.config.from_mapping(settings).require_effect(settings)
        for field in dataclasses.fields(self.config):
            if field.metadata["names"] and (named := settings.get(field.name)):
                NAMED[field.metadata["names"]](named)

    def import_body(self) -> Callable[..., ExitCode | None]:
        """The function that does the work."""
        name = getattr(self.callback, "__name__", "")
        module = importlib.import_module(f"vidlat.commands.{self.module or name}")
        body: Callable[..., ExitCode | None] = getattr(module, name)
        return body


class Group(click.Group):
    """A group of such commands, in the order of their declaration, that ends every user error in one line."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VidlatError as error:
            click.echo(f"Error: {printable(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except click.ClickException as error:
            error.message = printable(error.message)  # type: ignore[misc]  # it is only printed
            raise
        except BrokenPipeError:
            raise  # `vidlat info | head`: click ends it in silence
        except OSError as error:
            click.echo(f"Error: {printable(str(error)) or type(error).__name__}", err=True)
            ctx.exit(ExitCode.REFUSED)
        except (MemoryError, RuntimeError, ImportError) as error:
            if not is_out_of_memory(error):
                raise
            why = printable(one_line(error))[:300]
            click.echo(f"Error: not enough memory ({why}); free some, or ask for less at once", err=True)
            ctx.exit(ExitCode.REFUSED)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(ExitCode.INTERRUPTED)
