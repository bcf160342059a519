"""Fitting a VAE: the start is as documented, training improves on it, and the file written loads."""

import numpy as np
import pytest
import torch

from vidlat.config import FitVAEConfig
from vidlat.encode.vae import load_vae
from vidlat.encode.weights_file import read_weights
from vidlat.errors import ConfigError, ShapeError, TrainError
from vidlat.fit.fitting import FitStep, VideoRead, fit_to_stacks, fit_vae
from vidlat.fit.stacks import TrainingStacks


def config(**changes):
    return FitVAEConfig(
        **{"size": 16, "steps": 3, "batch": 2, "warmup_steps": 2, "device": "cpu", "save_every": 2} | changes
    )


def frames(num_frames=24, seed=0):
    values = np.random.default_rng(seed).random((num_frames, 4, 4), np.float32)
    return list(np.kron(values, np.ones((1, 4, 4), np.float32)))


def collection(settings, num_videos=2):
    stacks = TrainingStacks(settings)
    for seed in range(num_videos):
        stacks.add_video(frames(seed=seed))
    return stacks


def test_fitting_yields_a_record_per_step_and_writes_a_vae_that_loads(tmp_path):
    settings, out = config(learning_rate=1e-5), tmp_path / "vae.safetensors"
    records = list(fit_to_stacks(collection(settings), out, settings))
    assert [record.step for record in records] == [1, 2, 3]
    vae = load_vae(out, device="cpu")
    video = torch.from_numpy(np.stack(frames(8)))[None, None]
    mean, _ = vae.encode(video)
    assert (vae.decode(mean, 8) - video).square().mean() < 0.01


def test_fine_tuning_starts_from_the_given_weights(tmp_path):
    settings = config(steps=1, learning_rate=1e-8)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    list(fit_to_stacks(collection(settings), first, settings))
    list(fit_to_stacks(collection(settings), second, settings, first))
    before, after = read_weights(first)[0], read_weights(second)[0]
    assert all(torch.allclose(before[name], after[name], atol=1e-6, rtol=1e-3) for name in before)


def test_a_step_depends_on_seed_and_step_alone():
    settings = config()
    stacks = collection(settings)
    later = stacks.draw(7)
    stacks.draw(1)
    assert torch.equal(stacks.draw(7), later)
    assert not torch.equal(stacks.draw(8), later)
    assert later.shape == (2, 1, 4, 16, 16)
    assert 0 <= later.min() <= later.max() <= 1


def test_the_stacks_held_are_bounded_and_every_stack_is_kept_with_the_same_probability():
    settings = config(max_stacks=10)
    kept = np.zeros(40)
    for seed in range(200):
        stacks = TrainingStacks(config(max_stacks=10, seed=seed))
        stacks.add_video(np.full((16, 16), value / 255, np.float32) for value in np.repeat(np.arange(40), 4))
        assert len(stacks) == 10
        kept[[stack[0, 0, 0] for stack in stacks._stacks]] += 1
    # Each of 40 stacks is held with probability 1/4: 50 of 200 times, give or take five standard deviations.
    assert abs(kept - 50).max() < 5 * np.sqrt(200 * 0.25 * 0.75)
    assert settings.max_stacks == 10


def test_nothing_to_train_on_is_refused(tmp_path):
    stacks = TrainingStacks(config())
    stacks.add_video(frames(3))
    with pytest.raises(TrainError, match="no video with at least 4 frames"):
        next(fit_to_stacks(stacks, tmp_path / "vae.safetensors", config()))


def test_a_stack_the_network_cannot_process_is_refused(tmp_path):
    settings = config(stack=6)
    with pytest.raises(ShapeError, match="nearest that works: 4 and 8"):
        next(fit_to_stacks(collection(settings), tmp_path / "vae.safetensors", settings))


def test_a_loss_that_is_not_finite_stops_the_fit(tmp_path):
    settings = config(learning_rate=1e9, steps=50, warmup_steps=0)
    with pytest.raises(TrainError, match="try a lower --learning-rate"):
        list(fit_to_stacks(collection(settings), tmp_path / "vae.safetensors", settings))


def test_videos_are_read_then_trained_on_and_unreadable_ones_left_out(make_videos, tmp_path):
    make_videos(tmp_path / "v", {"a.mp4": 9, "short.mp4": 3})
    (tmp_path / "v" / "empty.mp4").write_bytes(b"")
    out = tmp_path / "new" / "vae.safetensors"
    events = list(fit_vae([tmp_path / "v"], out, config()))
    read = [event for event in events if isinstance(event, VideoRead)]
    assert [(event.video_id, event.number, event.num_stacks, event.num_videos) for event in read] == [
        ("a.mp4", 1, 2, 1),
        ("empty.mp4", 2, 2, 1),
        ("short.mp4", 3, 2, 1),
    ]
    assert [event.failure is None for event in read] == [True, False, True]
    steps = events[len(read) :]
    assert all(isinstance(event, FitStep) and 0 < event.mse < 1 for event in steps)
    assert [event.step for event in steps] == [1, 2, 3]
    assert load_vae(out, device="cpu").latent_dim == 4


def test_wrong_settings_are_refused_when_called(make_videos, tmp_path):
    make_videos(tmp_path / "v", {"a.mp4": 9})
    with pytest.raises(ConfigError, match=r"vae\.pt: weights are written as \.safetensors"):
        fit_vae([tmp_path / "v"], tmp_path / "vae.pt", config())
    with pytest.raises(ConfigError, match="expected a multiple of 4"):
        fit_vae([tmp_path / "v"], tmp_path / "vae.safetensors", config(size=18))
