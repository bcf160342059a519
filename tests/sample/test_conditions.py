"""Samples with the conditions of a run, and settings that a run was not trained for."""

import numpy as np
import pytest
import torch

from tests.train.test_conditioning import LENGTHS, SETTINGS, TABLE, two_kinds
from tests.train.toys import build_small
from vidlat.config import SampleConfig
from vidlat.errors import ConfigError
from vidlat.sample.guidance import GuidedDenoiser
from vidlat.sample.sampler import Sampler, sampling_noise
from vidlat.sample.trained_for import beyond_training, check_trained_for
from vidlat.sample.wanted import wanted_samples
from vidlat.train.objectives.objective import Flow
from vidlat.train.runs.run_folder import load_run
from vidlat.types import Annotation


def sample_of(run_dir, condition, guidance=1.0):
    trained = load_run(run_dir, build_model=build_small)
    features = torch.from_numpy(trained.run.conditions.parse(condition))
    denoiser = GuidedDenoiser(network=trained.model, window=2, stride=1, features=features, guidance=guidance)
    noise = sampling_noise(range(4), trained.run.latent_shape())
    latents = Sampler(objective=Flow(), num_steps=30).sample(denoiser, noise)
    return trained.run.whitening.unwhiten(latents)


def test_samples_have_the_condition_they_are_given(make_cache, make_trainer, tmp_path):
    cache, _ = make_cache(LENGTHS, name="kinds.zarr", posterior=two_kinds)
    list(make_trainer(cache=cache, labels=TABLE, **SETTINGS).steps())
    for guidance in (1.0, 2.0):
        bright, dark = (
            sample_of(tmp_path / "run", [f"kind={kind}"], guidance).mean((1, 2, 3, 4))
            for kind in ("bright", "dark")
        )
        assert (bright > 0).all()
        assert (dark < 0).all()


def test_a_run_that_dropped_every_condition_ignores_it(make_cache, make_trainer, tmp_path):
    cache, _ = make_cache(LENGTHS, name="kinds.zarr", posterior=two_kinds)
    settings = SETTINGS | {"condition_dropout": 1.0, "steps": 20}
    list(make_trainer(cache=cache, labels=TABLE, **settings).steps())
    bright, dark = (sample_of(tmp_path / "run", [f"kind={kind}"]) for kind in ("bright", "dark"))
    assert torch.equal(bright, dark)


@pytest.mark.parametrize(
    ("trained", "settings", "message"),
    [
        ({}, {"guidance": 2}, "guidance: got 2"),
        ({"condition": ("kind",)}, {"guidance": 2}, "needs a --condition"),
        (
            {"condition": ("kind",), "condition_dropout": 0.0},
            {"guidance": 2, "condition": ("kind=dark",)},
            "guidance: .*--condition-dropout above 0",
        ),
        (
            {"condition": ("kind",), "condition_dropout": 0.0},
            {},
            "kind missing; the run was trained with --condition-dropout 0",
        ),
        ({"condition": ("kind",)}, {"condition": ("kind=",)}, "got 'kind='"),
        ({}, {"first_frame": "a.png"}, "trained without --first-frame"),
        ({"first_frame": 1.0}, {}, "with --first-frame 1 and needs one"),
        ({"frames": 4}, {"frames": 8}, "frames: got 8; .* expected 4 at most, .* --frames 8"),
    ],
)
def test_samples_that_a_run_was_not_trained_for_are_refused(
    make_cache, make_trainer, trained, settings, message
):
    cache, _ = make_cache(LENGTHS, name="kinds.zarr")
    run = make_trainer(cache=cache, labels=TABLE, **trained).run
    with pytest.raises(ConfigError, match=message):
        check_trained_for(run, SampleConfig(**settings))


def test_samples_that_a_run_was_trained_for_are_not_refused(make_cache, make_trainer):
    cache, _ = make_cache(LENGTHS, name="kinds.zarr")
    run = make_trainer(cache=cache, labels=TABLE, condition=("kind",), first_frame=0.5).run
    check_trained_for(run, SampleConfig())
    check_trained_for(run, SampleConfig(condition=("kind=dark",), guidance=3, first_frame="a.png", frames=80))


def make_numbered(make_cache, make_trainer, **settings):
    """A run whose training videos have a class, three of c and one of each other, and an age of 20 to 80."""
    names = [f"{number}.mp4" for number in range(5)]
    table = {
        name: Annotation("", {"class": kind, "age": age})
        for name, kind, age in zip(names, "cacbc", ("20", "80.0", "30", "40", "50"), strict=True)
    }
    cache, _ = make_cache(dict.fromkeys(names, 8), name="numbered.zarr")
    condition = ("class", "age:float")
    return make_trainer(
        cache=cache, labels=table, condition=condition, validation_fraction=0.0, **settings
    ).run


def test_an_unknown_class_is_refused_with_the_classes_and_their_counts(make_cache, make_trainer):
    run = make_numbered(make_cache, make_trainer)
    message = r"got class=d; expected a class of the training videos: c \(3\), a \(1\), b \(1\)$"
    with pytest.raises(ConfigError, match=message):
        wanted_samples(run, SampleConfig(condition=("class=d",)))
    with pytest.raises(ConfigError, match=r"class: got 'd'; expected one of a, b, c"):
        wanted_samples(run.model, SampleConfig(condition=("class=d",)))  # as exported


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("20", []),
        ("80", []),
        ("19", ["age=19 lies 1 below the training videos, which have 20 to 80: samples may not follow it."]),
        ("82.50", ["age=82.5 lies 2.5 above the training videos, which have 20 to 80: samples may not foll"]),
    ],
)
def test_a_number_beyond_those_of_training_is_told_with_their_range(make_cache, make_trainer, age, expected):
    run = make_numbered(make_cache, make_trainer)
    samples = wanted_samples(run, SampleConfig(condition=(f"age={age}", "class=c"))).values()
    found = list(beyond_training(run, samples))
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))


def test_an_exported_model_tells_by_standard_deviations(make_cache, make_trainer):
    model = make_numbered(make_cache, make_trainer).model
    ages = np.array([20, 80, 30, 40, 50])
    for factor, expected in ((1.9, 0), (2.5, 1), (-2.5, 1)):
        age = ages.mean() + factor * ages.std()
        samples = wanted_samples(model, SampleConfig(condition=(f"age={age}",))).values()
        found = list(beyond_training(model, samples))
        assert len(found) == expected
        side = "above" if factor > 0 else "below"
        assert all(f"lies 2.5 standard deviations {side} the mean of the training" in line for line in found)
    assert set(model.to_dict()["conditions"][1]) == {"name", "mean", "std"}


def test_samples_have_conditions_in_canonical_form(make_cache, make_trainer):
    run = make_numbered(make_cache, make_trainer)
    (sample,) = wanted_samples(run, SampleConfig(num=1, condition=("age=35.0", "class=c"))).values()
    assert sample.condition == ("class=c", "age=35")
    conditions = [["class=a"], ["age=30.50"]]
    both = wanted_samples(run, SampleConfig(num=2, seed=3, format="gif"), conditions)
    assert {name: sample.condition for name, sample in both.items()} == {
        "sample-0003.gif": ("class=a",), "sample-0004.gif": ("age=30.5",)
    }  # fmt: skip
