"""Measured sets against a reference: planted real clips, frozen clips, other motion, other labels."""

import numpy as np
import pytest

from vidlat.evaluate.samples.adherence import LabelReader
from vidlat.evaluate.samples.comparison import Reference
from vidlat.evaluate.samples.frame_figures import FrameFigures
from vidlat.evaluate.samples.measuring import LATENTS, MeasuredClips
from vidlat.metrics.features import Features
from vidlat.train.objectives.conditioning import ClassCondition, NumberCondition


def measured(values, name, per_group=1, energy=1.0, labels=None):
    """Clips of given features, and of energies that are those of any other set as large, but for `energy`."""
    rng = np.random.default_rng(len(values))
    figures = tuple(
        FrameFigures(inside=energy * factor, at_borders=float("nan"), detail=2 * factor, bands=(factor, 0.0))
        for factor in rng.uniform(0.9, 1.1, len(values))
    )
    groups = np.array([f"{name} {row // per_group}" for row in range(len(values))])
    return MeasuredClips(
        features={LATENTS: Features(values=values, groups=groups)},
        figures=figures,
        labels=tuple(labels or [{}] * len(values)),
    )


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(0)

    def draw(num, shift=0.0):
        return 5 + 3 * (rng.normal(size=(num, 30)) + shift)

    held_out = measured(draw(60), "held out", per_group=3)
    training = measured(draw(60), "training", per_group=3)
    return held_out, training, draw


def test_real_samples_are_not_told_from_real_clips_and_others_are(sets):
    held_out, training, draw = sets
    reference = Reference(held_out, training, 60)
    real, shifted = reference.compare(measured(draw(60), "s")), reference.compare(measured(draw(60, 1), "s"))
    kernel = real.distances[LATENTS].kernel
    assert kernel.holds(0)
    assert shifted.distances[LATENTS].kernel.low > kernel.high
    assert real.distances[LATENTS].excess.holds(0)
    assert shifted.distances[LATENTS].excess.low > 0
    assert reference.compare(training).distances[LATENTS].excess.value is None
    assert shifted.distances[LATENTS].frechet.low > real.distances[LATENTS].frechet.high
    assert (
        shifted.distances[LATENTS].neighbourhoods.coverage.high
        < real.distances[LATENTS].neighbourhoods.coverage.low
    )
    assert real.diversity.value == pytest.approx(1, abs=0.1)


def test_energies_are_over_those_of_the_reference(sets):
    held_out, training, draw = sets
    row = Reference(held_out, training, 60).compare(measured(draw(60), "s", energy=0.25))
    assert row.inside.value == pytest.approx(0.25)
    assert row.inside.low < row.inside.value < row.inside.high
    assert row.at_borders.value is None
    assert row.bands[1].value is None
    assert row.sharpness.value == pytest.approx(1)


def test_few_clips_have_figures_only_where_they_can_be_told(sets):
    held_out, _, draw = sets
    alone = measured(draw(3), "one", per_group=3)
    row = Reference(held_out, alone, 3).compare(alone)
    distances = row.distances[LATENTS]
    assert distances.kernel.value is distances.frechet.value is distances.neighbourhoods is None
    assert row.diversity.value is None
    assert row.inside.value is not None
    assert row.inside.low is None
    assert row.to_dict()["distances"][LATENTS]["neighbourhoods"] is None


CLASSES = ClassCondition(name="view", classes=("a", "b"))


def test_a_class_is_read_from_samples_that_show_it_and_not_from_others():
    rng = np.random.default_rng(1)

    def draw(num, follows=True):
        classes = rng.integers(0, 2, num)
        shown = classes if follows else rng.integers(0, 2, num)
        values = rng.normal(size=(num, 10)) + 6 * shown[:, None] * np.eye(10)[0]
        groups = np.array([f"{rng.random()}" for _ in range(num)])
        return Features(values=values, groups=groups), [{"view": "ab"[each]} for each in classes]

    reader = LabelReader(CLASSES, *draw(60))
    following, ignoring = reader.read(*draw(200)), reader.read(*draw(200, follows=False))
    assert following.error.value < 0.05
    assert ignoring.error.value == pytest.approx(0.5, abs=0.12)
    assert 0 <= following.error.low <= following.error.value < ignoring.error.low
    assert ignoring.error.high <= 1
    assert following.constant_error == pytest.approx(0.5, abs=0.12)
    assert following.num_clips == 200


def test_a_number_is_read_in_its_unit():
    rng = np.random.default_rng(2)
    features = Features(values=rng.normal(size=(80, 4)), groups=np.arange(80).astype(str))
    labels = [{"ef": f"{50 + 10 * row[0]}"} for row in features.values]
    found = LabelReader(NumberCondition(name="ef", mean=50, std=10), features, labels).read(features, labels)
    assert found.error.value < 0.5
    assert 0 <= found.error.low < found.error.value < found.error.high
    assert found.constant_error == pytest.approx(10 * features.values[:, 0].std(), rel=1e-6)


def test_the_interval_of_an_error_draws_subjects():
    """Of 40 clips of four subjects the first one's are all wrong: as if there were four clips, not forty."""
    values = np.repeat(np.eye(2)[[1, 0, 1, 1]], 10, axis=0)
    labels = [{"view": "b"}] * 40
    training = Features(values=np.tile(np.eye(2), (10, 1)), groups=np.arange(20).astype(str))
    reader = LabelReader(CLASSES, training, [{"view": name} for name in "ab" * 10])
    found = reader.read(Features(values=values, groups=np.repeat(list("1234"), 10)), labels).error
    alone = reader.read(Features(values=values, groups=np.arange(40).astype(str)), labels).error
    assert found.value == alone.value == 0.25
    assert found.high - found.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("text", ["", "c"])
def test_clips_without_a_known_label_are_left_out(text):
    features = Features(values=np.eye(6), groups=np.arange(6).astype(str))
    labels = [{"view": name} for name in "ababab"]
    reader = LabelReader(CLASSES, features, labels)
    assert reader.read(features, [{"view": text}] * 6) is None
    assert reader.read(features, [{"view": text}, *labels[1:]]).num_clips == 5
    assert LabelReader(CLASSES, features, [{}] * 6).read(features, labels) is None
    one = Features(values=np.eye(6), groups=np.array(["a"] * 6))
    assert LabelReader(CLASSES, one, labels).read(features, labels) is None
