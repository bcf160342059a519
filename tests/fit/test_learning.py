"""Curves of trainings, and the criteria that hold for what they made."""

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from vidlat.evaluate.motion import Motion
from vidlat.evaluate.quality import Summary
from vidlat.fit.learning import (
    CurvePoint,
    Learning,
    LearningCurve,
    criteria_table,
    shared_target,
    training_table,
)

NO_MOTION = Motion(
    energy=None, energy_inside=None, energy_at_borders=None, correlation=None, correlation_inside=None,
    correlation_at_borders=None, seam=None,
)  # fmt: skip


def curve(name, start, errors, steps_per_epoch=10, every=5):
    return LearningCurve(
        name=name,
        start=start,
        points=tuple(
            CurvePoint(
                step=every * number, epoch=every * number / steps_per_epoch, mse=mse, psnr=30.0, ssim=0.9,
                sharpness=None, correlation=None,
            )
            for number, mse in enumerate(errors)
        ),
    )  # fmt: skip


def compared(called, mse=0.001, psnr=39.0, ssim=0.9, sharpness=0.6):
    summary = Summary(
        num_videos=2, num_frames=9, mse=mse, psnr=psnr, ssim=ssim, sharpness=sharpness, motion=NO_MOTION
    )
    return SimpleNamespace(
        candidate=SimpleNamespace(called=called, name=f"{called} stack 4"), summary=summary
    )


def judge(curves, candidates, target_mse=None):
    return Learning.of(curves, SimpleNamespace(candidates=candidates), target_mse)


def test_a_fine_tuning_that_needs_two_thirds_of_the_epochs_converges_sooner():
    scratch = curve("scratch", "random", [0.5, 0.4, 0.3, 0.2, 0.1, 0.04, 0.04])  # 0.04 after 2.5 epochs
    late = curve("late", "fine-tuned", [0.3, 0.2, 0.1, 0.05, 0.04])  # after 2
    soon = curve("soon", "fine-tuned", [0.2, 0.1, 0.06, 0.04])  # after 1.5, which is 60 %
    frozen, bad = compared("maisi", mse=0.03), compared("other", mse=0.05)
    learning = judge(
        [scratch, late, soon], [*map(compared, ("scratch", "late", "soon")), frozen, bad], target_mse=0.04
    )
    sooner = {name: list(holds.values())[2] for name, holds in learning.criteria.items()}
    assert sooner == {
        "scratch stack 4": None, "late stack 4": False, "soon stack 4": True,
        "maisi stack 4": True, "other stack 4": False,
    }  # fmt: skip


def test_error_after_the_first_epoch_is_that_of_the_first_validation_after_it():
    first = curve("a", "random", [0.5, 0.06, 0.04, 0.06], every=5)  # after 0, 0.5, 1, 1.5 epochs
    learning = judge([first], [compared("a"), compared("frozen", mse=0.051)])
    holds = {name: next(iter(holds.values())) for name, holds in learning.criteria.items()}
    assert holds == {"a stack 4": True, "frozen stack 4": False}
    assert first.after_first_epoch.mse == 0.04


def test_pictures_are_judged_by_the_figures_on_the_same_clips():
    learning = judge(
        [],
        [
            compared("good"),
            compared("bad", psnr=38.0, ssim=0.88, sharpness=0.5),
            compared("flat", sharpness=None),
        ],
    )
    columns, rows = criteria_table(learning)
    assert columns == (
        "setting", "MSE < 0.05 after an epoch", "sharp 0.5 to 1.5", "in 67% of scratch's epochs",
        "PSNR > 38 dB", "SSIM > 0.88",
    )  # fmt: skip
    assert rows == [
        ("good stack 4", "yes", "yes", "-", "yes", "yes"),
        ("bad stack 4", "yes", "no", "-", "no", "no"),
        ("flat stack 4", "yes", "-", "-", "yes", "yes"),
    ]


def test_without_a_training_from_scratch_that_reaches_the_target_none_is_sooner():
    other = curve("other", "pca", [0.1, 0.01])
    for scratch in ([], [curve("scratch", "random", [0.5, 0.4])]):
        learning = judge([*scratch, other], [compared("other")], target_mse=0.05)
        assert list(learning.criteria["other stack 4"].values())[2] is None


@given(st.lists(st.lists(st.floats(1e-6, 1), min_size=1, max_size=6), min_size=1, max_size=4))
def test_every_training_reaches_the_shared_target_and_none_a_lower_one(errors):
    curves = [curve(str(number), "random", values) for number, values in enumerate(errors)]
    target = shared_target(curves)
    assert all(one.first_at_most(target) for one in curves)
    assert target in [mse for values in errors for mse in values]
    assert any(one.first_at_most(math.nextafter(target, 0)) is None for one in curves)


def test_a_training_without_a_validation_has_dashes():
    learning = judge([curve("a", "random", [])], [compared("a")])
    assert training_table(learning)[1] == [("a", "random", "-", "-", "-", "-", "-", "-")]
    assert json.loads(json.dumps(learning.to_dict(), allow_nan=False))["target_mse"] is None


def test_table_of_trainings():
    learning = judge([curve("a", "random", [0.5, 0.2, 0.1]), curve("b", "pca", [0.3, 0.2])], [])
    columns, rows = training_table(learning)
    assert columns[-2:] == ("epochs to 2.00e-01", "steps to it")
    assert rows == [
        ("a", "random", "10", "1.0", "1.00e-01", "1.00e-01", "0.5", "5"),
        ("b", "pca", "5", "0.5", "-", "2.00e-01", "0.5", "5"),
    ]


def test_what_cannot_be_said_is_null():
    learning = judge([curve("a", "random", [0.5])], [compared("a", sharpness=None)])
    assert learning.to_dict()["criteria"]["a stack 4"]["sharp 0.5 to 1.5"] is None


@pytest.mark.parametrize("start", ["random", "pca", "fine-tuned"])
def test_only_random_weights_are_a_start_from_scratch(start):
    learning = judge([curve("a", start, [0.5, 0.1]), curve("b", "pca", [0.1])], [compared("b")])
    sooner = list(learning.criteria["b stack 4"].values())[2]
    assert sooner is (True if start == "random" else None)
