"""Samples with the conditions of a run, and settings that a run was not trained for."""

import pytest
import torch

from tests.train.test_conditioning import LENGTHS, SETTINGS, TABLE, two_kinds
from tests.train.toys import build_small
from vidlat.config import SampleConfig
from vidlat.errors import ConfigError
from vidlat.sample.guidance import GuidedDenoiser
from vidlat.sample.sampler import Sampler, sampling_noise
from vidlat.sample.trained_for import check_trained_for
from vidlat.train.objectives.objective import Flow
from vidlat.train.runs.run_folder import load_run


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
