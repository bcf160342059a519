"""What an evaluation concludes from its figures."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vidlat.commands.evaluate_samples import _print
from vidlat.evaluate.samples.adherence import Adherence
from vidlat.evaluate.samples.comparison import Distances, Row
from vidlat.evaluate.samples.measuring import LATENTS
from vidlat.evaluate.samples.result import (
    HELD_OUT,
    NOISE,
    REAL,
    STILL,
    SampleEvaluation,
    UsedFeatures,
    held_out_in_words,
)
from vidlat.metrics.features import Features
from vidlat.metrics.frechet import LEAST_ITEMS, PrincipalComponents
from vidlat.metrics.intervals import Estimate
from vidlat.metrics.neighbourhoods import neighbourhoods

NOTHING = Estimate(value=None)
REAL_KERNEL = Estimate(value=0.1, low=0.0, high=0.2)


def row(kernel, excess=NOTHING, num_clips=20, num_groups=20):
    distances = Distances(
        kernel=kernel, excess=excess, frechet=NOTHING, neighbourhoods=None, diversity=NOTHING
    )
    return Row(
        num_clips=num_clips,
        num_groups=num_groups,
        distances={LATENTS: distances},
        inside=NOTHING,
        at_borders=NOTHING,
        sharpness=NOTHING,
        bands=(),
    )


def evaluation(samples, real=REAL_KERNEL, num_subjects=20, **values):
    rows = {
        "samples": samples,
        REAL: row(real, num_groups=num_subjects),
        STILL: row(Estimate(value=3.0)),
        NOISE: row(Estimate(value=10.1)),
    }
    values = {"adherence": {}, "left_out": (), "copies": {}} | values
    return SampleEvaluation(
        settings={},
        run={},
        features=[UsedFeatures(name=LATENTS)],
        held_out=(20, 20),
        num_videos=20,
        rows=rows,
        bands=[],
        drawn={"samples": {}},
        seconds={"samples": None},
        **values,
    )


def sentence(*arguments, **values):
    return evaluation(*arguments, **values).conclusions()[0]


@pytest.mark.parametrize(
    ("kernel", "where", "way"), [(0.05, "within", "-0.5%"), (0.6, "above", "5.0%"), (-0.1, "below", "-2.0%")]
)
def test_a_distance_is_told_by_the_interval_of_real_clips_and_the_way_to_noise(kernel, where, way):
    found = sentence(row(Estimate(value=kernel), Estimate(value=0.5, low=0.4, high=0.6)))
    assert found == (
        f"samples: KID x 1000 is {where} the interval of real against real, and differs from its value by "
        f"500 (400 to 600); it is {way} of the way from there to noise."
    )


def test_a_difference_that_may_be_chance_and_few_subjects_are_told():
    chance = row(Estimate(value=0.15), Estimate(value=0.05, low=-0.1, high=0.2))
    assert "by 50 (-100 to 200), which may be chance;" in sentence(chance)
    few = evaluation(chance, num_subjects=3).conclusions()
    assert "within the interval of real against real, which so few subjects leave wide, and" in few[0]
    assert few[1].startswith("Only 3 subjects among the training clips that are compared: with")


@pytest.mark.parametrize("kernel", [NOTHING, Estimate(value=0.3)])
def test_what_cannot_be_told_is_said(kernel):
    unknown = evaluation(row(kernel), real=Estimate(value=0.1))
    assert unknown.conclusions()[0].endswith("cannot be told: too few subjects.")
    assert json.loads(json.dumps(unknown.to_dict(), allow_nan=False))["rows"]["samples"]["bands"] == []


def test_a_condition_that_held_out_clips_do_not_show_is_named():
    read = {HELD_OUT: Adherence(error=Estimate(value=0.7), constant_error=0.7, num_clips=9)}
    well = Adherence(error=Estimate(value=0.2), constant_error=0.7, num_clips=9)
    shown = {HELD_OUT: well, "samples": well}
    values = {"adherence": {"finding": read, "view": shown}, "left_out": ("a.mp4",)}
    warnings = evaluation(row(Estimate(value=0.6)), **values).conclusions()[1:]
    assert warnings[0] == "Left out, being nearly equal to training videos: a.mp4."
    assert [text for text in warnings if text.startswith("finding: is read from held-out clips no better")]
    assert not [text for text in warnings if text.startswith("view")]


def test_nothing_is_said_of_what_is_read_from_samples_that_have_no_row():
    """Held-out clips alone are read: the samples' conditions are not recorded."""
    read = {HELD_OUT: Adherence(error=Estimate(value=0.7), constant_error=0.7, num_clips=9)}
    told = evaluation(row(Estimate(value=0.6)), adherence={"finding": read, "age": {}}).conclusions()[1:]
    assert told == [
        "finding: is read from held-out clips no better than by a constant.",
        "finding: no row for samples, as no value that they were drawn with is recorded.",
    ]
    both = {"finding": read | {"samples": read[HELD_OUT]}}
    (told,) = evaluation(row(Estimate(value=0.6)), adherence=both).conclusions()[1:]
    assert told.endswith(
        "than by a constant, so what is read from samples tells how like training clips they "
        "are, not whether they show it."
    )


def gaussian(seed, num, shift=0.0):
    values = np.random.default_rng(seed).normal(size=(num, 40)) + shift
    return Features(values=values, groups=np.arange(num).astype(str))


@pytest.mark.parametrize(("num", "shift", "is_told"), [(12, 0.8, True), (200, 5.0, False), (200, 0.0, True)])
def test_noise_that_scores_as_real_clips_do_is_told(num, shift, is_told, monkeypatch):
    """Two draws of one Gaussian, and a shifted one for noise, whose balls hold it if there are few clips."""
    monkeypatch.setattr("vidlat.metrics.intervals.NUM_RESAMPLES", 2)
    sets = {"samples": gaussian(1, num), REAL: gaussian(2, num), NOISE: gaussian(3, num, shift)}
    found = evaluation(row(Estimate(value=0.6)))
    for name, features in sets.items():
        distances = found.rows[name].distances
        near = neighbourhoods(gaussian(0, num), features)
        found.rows[name].distances[LATENTS] = replace(distances[LATENTS], neighbourhoods=near)
    told = [text for text in found.conclusions() if text.startswith("Precision, recall, density and")]
    assert len(told) == is_told
    if is_told:
        near = found.rows[NOISE].distances[LATENTS].neighbourhoods
        assert (
            "coverage in the VAE's latents say little of samples, since even noise has precision" in told[0]
        )
        assert f"coverage {near.coverage.value:.3g} (real against real" in told[0]
    assert told == [text for text in found.to_dict()["conclusions"] if "since even noise" in text]


def test_sets_of_different_sizes_are_named():
    smaller = evaluation(row(Estimate(value=0.6), num_clips=12))
    assert any("The sets hold 12 to 20 clips" in text for text in smaller.conclusions())


def test_copies_are_told_after_the_distances():
    copies = SimpleNamespace(conclusion=lambda: "none copied", warnings=lambda: ["few held out"])
    told = evaluation(row(Estimate(value=0.6)), copies={"samples": copies}).conclusions()
    assert told[1:] == ["samples: none copied", "few held out"]


def test_why_figures_are_missing_is_told_with_how_many_clips_they_take():
    few = evaluation(row(NOTHING, num_clips=1, num_groups=1))
    assert few.missing_distances(LATENTS) == (
        "No figure (-): a KID takes clips of at least 2 subjects in each set and a Fréchet distance at least "
        "5 clips; of the sets here the least has 1 clip of 1 subject."
    )
    needed = "neighbours take at least 6 clips in each set, and for each of them 5 clips of other subjects;"
    missing = f"No precision, recall, density or coverage: {needed}"
    assert few.missing_neighbours(LATENTS).startswith(missing)
    known = Estimate(value=1.0)
    for each in few.rows.values():
        near = neighbourhoods(gaussian(0, 6), gaussian(1, 6))
        each.distances[LATENTS] = replace(
            each.distances[LATENTS], kernel=known, frechet=known, neighbourhoods=near
        )
    assert near is not None  # six of a set are enough
    assert few.missing_distances(LATENTS) == few.missing_neighbours(LATENTS) == ""
    assert PrincipalComponents.fit(np.eye(9), LEAST_ITEMS)
    assert PrincipalComponents.fit(np.eye(9), LEAST_ITEMS - 1) is None


@pytest.mark.parametrize(
    ("num_videos", "settings", "told"),
    [
        (2, {"held_out": "test"}, "8 held-out clips (windows of 2 videos) of 2 test subjects"),
        (1, {}, "8 held-out clips (windows of 1 video) of 2 subjects"),
        (8, {}, "8 held-out clips of 2 subjects"),
        (None, {}, "8 held-out clips of 2 subjects"),
    ],
)
def test_clips_that_share_a_video_are_told_to_be_windows(num_videos, settings, told):
    assert held_out_in_words(8, 2, settings, num_videos) == told


def test_what_questions_all_figures_stands_first_and_everything_else_below_the_tables(capsys):
    found = evaluation(row(Estimate(value=0.6)), num_subjects=3, left_out=("a.mp4",))
    (doubt,) = found.doubts()
    assert doubt.startswith("Only 3 subjects among the training clips")
    _print(found)
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(doubt)
    assert said.count(doubt) == 1
    assert said.index("Distances from") < said.index("Left out, being nearly equal")
    assert "Neighbours among" not in said  # a table of dashes
    assert said.count("No precision, recall, density or coverage: neighbours take") == 1
