"""A cache or a run is named as an argument or as an option, on every command that needs one."""

import re

import click
import pytest

from vidlat.cli import commands
from vidlat.cli.parameters import OptionOrArgument

NEEDED = {
    "info": [],
    "ls": [],
    "split": ["--out", "s.csv"],
    "verify": [],
    "prune": [],
    "push": [],
    "preview": ["--out", "p.png"],
    "decode": ["--out", "d"],
    "evaluate": ["--samples", "s"],
    "report": ["--out", "r.html"],
    "train": ["--out", "r"],
    "sample": ["--out", "s"],
    "export": ["--out", "m"],
}
"""Each command that reads a cache or a run, with its other required options."""

BOTH_WAYS = {
    name: param
    for name, command in commands.commands.items()
    for param in command.params
    if isinstance(param, OptionOrArgument)
}


def parsed(name, *args):
    """The values of a command line, before anything is looked for."""
    return commands.commands[name].make_context(name, [*args, *NEEDED[name]]).params


def refusal(name, *args):
    with pytest.raises(click.UsageError) as caught:
        parsed(name, *args)
    assert "\n" not in caught.value.format_message()
    return caught.value.format_message()


def test_all_commands_that_read_a_cache_or_a_run_are_tested():
    assert set(BOTH_WAYS) == set(NEEDED)


@pytest.mark.parametrize("name", NEEDED)
def test_argument_and_option_are_the_same(name):
    option = BOTH_WAYS[name].opts[0]
    rest = ["s3://bucket/l"] if name == "push" else []
    expected = parsed(name, "one", *rest)
    assert str(expected[BOTH_WAYS[name].name]) == "one"
    assert parsed(name, option, "one", *rest) == expected
    assert parsed(name, *rest, f"{option}=one") == expected
    assert expected.get("address") == (rest[0] if rest else None)


@pytest.mark.parametrize("name", NEEDED)
def test_both_at_once_and_neither_are_refused_in_one_line(name):
    (option,), placeholder = BOTH_WAYS[name].opts, BOTH_WAYS[name].placeholder
    if name != "push":  # whose ADDRESS is missing too
        assert refusal(name) == f"{placeholder} is missing: give it as an argument or as {option}"
    rest = ["s3://bucket/l"] if name == "push" else []
    assert refusal(name, "one", *rest, option, "two") == (
        f"{placeholder} is given twice, as {option} two and as an argument, one; keep one"
    )
    assert refusal(name, option, "one", option, "two") == f"{option} is given 2 times; expected it once"
    assert re.search("unexpected extra argument", refusal(name, "one", *rest, "two"))


def test_help_shows_both_ways():
    command = commands.commands["decode"]
    text = command.get_help(click.Context(command, info_name="vidlat decode"))
    assert text.startswith("Usage: vidlat decode [OPTIONS] LATENTS\n")
    assert "  LATENTS, --latents " in text
