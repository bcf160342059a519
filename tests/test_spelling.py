"""What is suggested for mistyped names, chosen by hand."""

import click
import pytest
from hypothesis import given, strategies as st

from vidlat.cli import commands
from vidlat.spelling import closest, did_you_mean

FLAGS = [
    option
    for param in commands.commands["train"].params
    if isinstance(param, click.Option)
    for option in param.opts
]
VAES = ["maisi", "nv-generate-ct", "nv-generate-mr", "tiny", "tiny-16"]


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("--lr", FLAGS, "--learning-rate"),
        ("--wd", FLAGS, "--weight-decay"),
        ("--learning_rate", FLAGS, "--learning-rate"),
        ("--batch-size", FLAGS, "--batch"),
        ("--dropout", FLAGS, "--condition-dropout"),
        ("--validation", FLAGS, "--validation-fraction"),
        ("--ema", FLAGS, "--ema-decay"),
        ("--presett", FLAGS, "--preset"),
        ("--Steps", FLAGS, "--steps"),
        ("--xyzzy", FLAGS, None),
        ("", FLAGS, None),
        ("tyni", VAES, "tiny"),
        ("maisy", VAES, "maisi"),
        ("tiny16", VAES, "tiny-16"),
        ("ct", VAES, "nv-generate-ct"),
        ("vae.safetensors", VAES, None),
        ("stepz", ["steps", "shift"], "steps"),
        ("steps", [], None),
        ("p1_L1", ["b/p1_L1.mp4", "p1_L2.mp4"], "b/p1_L1.mp4"),
        ("p1_L1.mp4", ["b/p1_L1.mp4", "p1_L2.mp4"], "b/p1_L1.mp4"),
    ],
)
def test_what_is_suggested(typed, known, meant):
    assert closest(typed, known) == meant
    assert did_you_mean(typed, known) == (f"; did you mean {meant}?" if meant else "")


@given(st.text(max_size=40))
def test_whatever_is_typed_the_suggestion_is_a_known_name(typed):
    assert closest(typed, VAES) in (None, *VAES)


@given(st.sampled_from(FLAGS), st.data())
def test_two_letters_in_the_wrong_order_suggest_the_name_or_one_of_the_same_letters(flag, data):
    name = flag.removeprefix("--")
    at = data.draw(st.integers(0, max(len(name) - 2, 0)))
    typed = name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
    found = closest(f"--{typed}", FLAGS)
    assert found is not None
    assert sorted(found.strip("-").replace("-", "")) == sorted(name.strip("-").replace("-", ""))
