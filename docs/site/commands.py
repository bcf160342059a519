"""Hook of MkDocs: the reference of all commands and settings, from their declarations in vidlat/cli."""

import inspect
import re
from collections.abc import Iterator

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from vidlat.cli import commands
from vidlat.cli.declaration import Command

INTRODUCTION = """# Commands and settings

`vidlat COMMAND --help` prints the same. Every option of a command that has `--config` is also a key of that
YAML file, under the name of the command; a flag takes precedence over the file.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add reference/commands.md."""
    context = click.Context(commands, info_name="vidlat")
    text = "\n".join([INTRODUCTION, *_sections(commands, context, 2)])
    files.append(File.generated(config, "reference/commands.md", content=text))
    return files


def _sections(group: click.Group, context: click.Context, level: int) -> Iterator[str]:
    """A section of each command of a group, and of its own commands."""
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = click.Context(command, parent=context, info_name=name)
        yield f"{'#' * level} {inner.command_path.removeprefix('vidlat ')}\n"
        yield f"```text\n{command.get_usage(inner).removeprefix('Usage: ')}\n```\n"
        yield from _paragraphs(command)
        yield from _options(command, inner)
        if isinstance(command, click.Group):
            yield from _sections(command, inner, level + 1)


def _paragraphs(command: click.Command) -> Iterator[str]:
    """The help text; what click prints as it stands, such as examples, as code."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if first.strip() == "\b":
            title, _, lines = rest.partition("\n")
            yield f"{title}\n\n```text\n{lines}\n```\n" if lines else f"{title}\n"
        else:
            yield _escape(paragraph) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """A table of arguments and options for each part of `--help`, in its order."""
    parts = command.parts(context) if isinstance(command, Command) else {"": command.get_params(context)}
    for part, params in parts.items():
        yield f"| {part.lower() or 'option'} | what |\n|---|---|"
        for param in params:
            record = param.get_help_record(context)
            if record:
                flags, text = (" ".join(each.split()) for each in record)
                yield f"| `{flags}` | {_escape(text)} |"
        yield ""


def _escape(text: str) -> str:
    """Signs that mean something in Markdown, as they are; code in backticks stays code."""
    return re.sub(r"(`[^`]*`)|([*_<|\[])", lambda match: match[1] or f"\\{match[2]}", text)
