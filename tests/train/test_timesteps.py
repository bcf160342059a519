import json
import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from vidlat.config import TrainConfig
from vidlat.errors import TrainError
from vidlat.sample.sampler import sampling_timesteps
from vidlat.train.objectives.timesteps import (
    draw_times,
    shift_timestep,
    validation_times,
    validation_times_as_trained,
)


def test_sampling_runs_from_noise_to_data_in_equal_steps():
    torch.testing.assert_close(sampling_timesteps(4), torch.tensor([1, 0.75, 0.5, 0.25, 0]))


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_shifted_timesteps_are_those_of_diffusers(shift):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=np.linspace(1, 0.1, 10))
    torch.testing.assert_close(sampling_timesteps(10, shift), theirs.sigmas)


def test_a_shift_and_its_reciprocal_undo_each_other_and_1_changes_nothing():
    timesteps = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(shift_timestep(shift_timestep(timesteps, 3.0), 1 / 3), timesteps)
    assert torch.equal(shift_timestep(timesteps, 1.0), timesteps)


def share_below(timestep, distribution, shift):
    """The distribution function of training timesteps."""
    unshifted = shift_timestep(timestep, 1 / shift)
    if distribution == "uniform":
        return unshifted
    return (1 + math.erf(math.log(unshifted / (1 - unshifted)) / math.sqrt(2))) / 2


EVERY = pytest.mark.parametrize(
    "settings",
    [
        TrainConfig(timesteps=distribution, shift=shift)
        for distribution in ("uniform", "logit-normal")
        for shift in (1.0, 2.5)
    ],
)


def shares(settings, keys):
    drawn = [draw_times(key, settings).timestep for key in keys]
    return np.array([share_below(each, settings.timesteps, settings.shift) for each in drawn])


@EVERY
def test_drawn_timesteps_have_their_distribution(settings):
    """Kolmogorov and Smirnov's distance within the interval of an item, at the 0.1 % level."""
    places = np.sort(shares(settings, [(0, 0, step, 3) for step in range(4000)]) * 8 - 3)
    assert np.abs(places - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / math.sqrt(4000)


@EVERY
def test_of_equally_likely_intervals_each_has_one_item_of_a_step(settings):
    for step in range(50):
        places = shares(settings, [(7, 0, step, index) for index in range(8)]) * 8
        assert np.floor(places).tolist() == list(range(8))


def test_the_loss_of_a_step_varies_less_than_with_independent_timesteps():
    """With a loss that depends on the timestep alone, as losses do for the most part."""
    settings, random = TrainConfig(batch=8), np.random.default_rng(0)
    keys = [[(0, 0, step, index) for index in range(8)] for step in range(500)]
    stratified = [[draw_times(key, settings).timestep for key in of_step] for of_step in keys]
    losses = [(np.square(1 - np.array(each))).mean(axis=1) for each in (stratified, random.random((500, 8)))]
    assert losses[0].mean() == pytest.approx(1 / 3, abs=0.005)
    assert losses[0].var() < 0.05 * losses[1].var()


@EVERY
def test_validation_as_trained_takes_the_quantiles_of_the_training(settings):
    timesteps = [each.timestep for each in validation_times_as_trained(64, settings)]
    found = [share_below(each, settings.timesteps, settings.shift) for each in timesteps]
    np.testing.assert_allclose(found, (np.arange(64) + 0.5) / 64, atol=1e-9)
    if settings.timesteps == "uniform" and settings.shift == 1:
        assert timesteps == [each.timestep for each in validation_times(64, settings)]


def test_validation_as_trained_has_as_many_spans_as_the_training():
    settings = TrainConfig(objective="mean-flow", plain_flow=0.75)
    times = validation_times_as_trained(64, settings)
    assert sum(each.span > 0 for each in times) == pytest.approx(16, abs=2)
    assert all(0 <= each.timestep - each.span < 1 for each in times)


def test_both_validation_losses_are_recorded_and_equal_where_timesteps_are_even(make_trainer):
    for name, settings, is_same in (("even", {}, True), ("shifted", {"shift": 3.0}, False)):
        last = list(make_trainer(name, steps=1, **settings).steps())[-1]
        assert (last.validation_loss == last.validation_loss_as_trained) == is_same
    weighted = list(make_trainer("weighted", steps=1, objective="v", min_snr=1.0).steps())[-1]
    assert weighted.validation_loss_as_trained < weighted.validation_loss  # weights are below 1


def test_a_run_that_drew_timesteps_in_another_way_is_not_resumed(make_trainer, tmp_path):
    list(make_trainer(steps=1).steps())
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text())
    del document["draws_version"]  # as runs of before
    path.write_text(json.dumps(document))
    with pytest.raises(
        TrainError, match=r"drew other timesteps of the same seed; start .* with --init .*run "
    ):
        make_trainer(resume=True)
    make_trainer("new", init=str(tmp_path / "run"))
