"""A cache or a run is named as an argument or as an option; a YAML file names what the flags name."""

import os
import re
from pathlib import Path

import click
import pytest

from vidlat.cli import commands
from vidlat.cli.parameters import OptionOrArgument
from vidlat.commands.settings_file import SECTIONS
from vidlat.config import train
from vidlat.errors import ConfigError
from vidlat.fit import continuing

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


@pytest.fixture
def with_file(tmp_path, monkeypatch):
    """The values of a command with --config and a YAML text, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def parse(name, text, *args):
        (tmp_path / "c.yaml").write_text(text)
        return commands.commands[name].make_context(name, ["--config", "c.yaml", *args]).params

    return parse


TRAINING = """
train:
  latents: l.zarr
  out: runs/a
  labels: ef.csv
  resume: true
  cache-dir: fast/
  steps: 3
  split: s.csv
"""


def test_a_file_names_inputs_and_outputs_beside_the_settings(with_file, monkeypatch):
    for name in ("VIDLAT_CACHE_DIR", "VIDLAT_CACHE_GB"):
        monkeypatch.setenv(name, "")  # set by the options, back afterwards
    params = with_file("train", TRAINING)
    assert params["in_file"] == {"steps": 3, "split": "s.csv"}
    assert (params["latents"], params["out"], params["labels"]) == (
        Path("l.zarr"),
        Path("runs/a"),
        Path("ef.csv"),
    )
    assert params["resume"] is True
    assert os.environ["VIDLAT_CACHE_DIR"] == "fast"


def test_the_command_line_takes_precedence_over_a_file(with_file):
    text = "encode: {input: [a, b], out: l.zarr, dry_run: true, size: 64}"
    params = with_file("encode", text, "--input", "c", "--out", "s3://bucket/l")
    assert (params["inputs"], params["out"], params["dry_run"]) == (("c",), "s3://bucket/l", True)
    assert with_file("encode", text)["inputs"] == ("a", "b")
    assert with_file("encode", text.replace("[a, b]", "a"))["inputs"] == ("a",)
    text = "sample: {run: runs/a, out: s, num: 2}"
    assert with_file("sample", text)["run_dir"] == "runs/a"
    assert with_file("sample", text, "runs/b")["run_dir"] == "runs/b"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train", "train: {latents: [a, b], out: r}", "latents: got ['a', 'b']; expected a text or a number"),
        ("train", "train: {latents: a, out: r, resume: 1}", "resume: got 1; expected true or false"),
        ("train", "train: {latents: a, out: true}", "out: got True; expected a text or a number"),
        ("encode", "encode: {input: [a, 3], out: l}", "input: got ['a', 3]; expected a text, or a list"),
        (
            "train",
            "train: {latents: a, out: r, lables: t.csv}",
            "unknown setting lables; did you mean labels?",
        ),
        ("train", "train: {config: c.yaml}", "unknown setting config"),
        ("train", "train: {out: r, out: s}", "out is given twice; keep one"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_name(with_file, name, text, message):
    with pytest.raises(ConfigError) as caught:
        with_file(name, text)
    assert str(caught.value).startswith("c.yaml: ")
    assert message in str(caught.value)


def test_every_command_with_settings_has_a_section():
    with_settings = {name for name, command in commands.commands.items() if getattr(command, "config", None)}
    assert {name: commands.commands[name].config for name in with_settings} == SECTIONS


def test_what_a_file_lacks_is_still_missing(with_file):
    with pytest.raises(click.UsageError, match="LATENTS is missing"):
        with_file("train", "train: {out: r}")


@pytest.mark.parametrize(
    ("name", "may_change"), [("train", train.MAY_CHANGE), ("fit-vae", continuing.MAY_CHANGE)]
)
def test_help_lists_the_flags_that_a_resumed_run_may_change(name, may_change):
    sentence = re.search(
        r"A resumed \w+ keeps its settings;(.*?)can be changed", commands.commands[name].help, re.S
    )
    assert {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", sentence[1])} == set(may_change)
