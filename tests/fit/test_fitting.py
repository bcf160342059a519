"""Fitting a VAE: the start is as documented, training improves on it, and the file written loads."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.fit.small import collection, config, frames
from vidlat.encode.device import has_bfloat16
from vidlat.encode.network import TINY_NETWORK, build_network, bypass_wrappers
from vidlat.encode.vae import load_vae
from vidlat.encode.weights_file import read_weights, trained_stacks
from vidlat.errors import ConfigError, TimingError, TrainError
from vidlat.fit.fitting import VideoRead, _loss, _step_smoothly, fit_to_stacks, fit_vae
from vidlat.fit.run import FitStep
from vidlat.fit.stacks import TrainingStacks
from vidlat.train.checkpoint import TrainState


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


class Echo:
    """A VAE whose reconstruction of every stack is known, and which notes how it was called."""

    def __init__(self, error):
        self.error, self.calls = error, []

    def encode(self, calls):
        self.calls.append(tuple(calls.shape))
        self.target = calls
        return torch.zeros_like(calls), torch.ones_like(calls)

    def decode(self, latent):
        return self.target + self.error.expand(-1, -1, -1, *self.target.shape[-2:]).reshape(self.target.shape)


@pytest.mark.parametrize(
    ("signs", "change"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], 0.0),  # a wrong brightness changes nothing from frame to frame
        ([1, -1, 1, -1, 1, -1, 1, -1], 0.04),
        ([1, 1, 1, 1, -1, -1, -1, -1], 0.04 / 7),  # one of seven changes, at the border of two calls
    ],
)
@pytest.mark.parametrize("step", [0, 1])  # of one call per stack, of two
def test_the_loss_weighs_the_error_of_frames_and_of_their_changes(signs, change, step):
    error = 0.1 * torch.tensor(signs).reshape(1, 1, 8, 1, 1).expand(2, 1, 8, 1, 1)
    settings = config(stack=8, shortest_stack=4, change_weight=0.5, kl_weight=0.0)
    loss, log_mse = _loss(Echo(error), torch.rand(2, 1, 8, 16, 16), settings, step)
    assert log_mse.item() == pytest.approx(math.log(0.01 + 1e-5), abs=1e-4)
    assert loss.item() == pytest.approx(log_mse.item() + 0.5 * math.log(change + 1e-5), abs=2e-2)


def test_steps_take_turns_in_the_length_of_calls():
    network = Echo(torch.zeros(2, 1, 16, 1, 1))
    settings = config(stack=16, shortest_stack=4)
    for step in range(4):
        _loss(network, torch.rand(2, 1, 16, 16, 16), settings, step)
    assert network.calls == [
        (2, 1, 16, 16, 16),
        (4, 1, 8, 16, 16),
        (8, 1, 4, 16, 16),
        (2, 1, 16, 16, 16),
    ]


def test_calls_of_a_stack_keep_the_order_of_its_frames():
    network = Echo(torch.zeros(2, 1, 16, 1, 1))
    numbered = torch.arange(32.0).reshape(2, 1, 16, 1, 1).expand(2, 1, 16, 4, 4)
    _loss(network, numbered, config(stack=16, shortest_stack=8), 1)
    assert network.target[:, 0, :, 0, 0].tolist() == [list(range(a, a + 8)) for a in (0, 8, 16, 24)]


def test_longer_stacks_are_drawn_whole_and_the_weights_state_their_calls(tmp_path):
    settings, out = config(stack=8, shortest_stack=4, change_weight=0.1), tmp_path / "vae.safetensors"
    stacks = collection(settings)
    assert stacks.draw(1).shape == (2, 1, 8, 16, 16)
    list(fit_to_stacks(stacks, out, settings))
    assert trained_stacks(out) == (4, 8)


@pytest.mark.parametrize("latent_dim", [1, 16])
def test_the_network_from_scratch_has_the_latent_channels_asked_for(latent_dim, tmp_path):
    settings, out = config(steps=1, latent_dim=latent_dim), tmp_path / "vae.safetensors"
    list(fit_to_stacks(collection(settings), out, settings))
    assert load_vae(out, device="cpu").latent_dim == latent_dim


def test_weights_of_another_number_of_latent_channels_are_refused(make_videos, small_vae, tmp_path):
    make_videos(tmp_path / "v", {"a.mp4": 9})
    with pytest.raises(ConfigError, match="latent_dim: got 5, but the weights of --init have 4"):
        fit_vae([tmp_path / "v"], tmp_path / "v.safetensors", config(init=str(small_vae), latent_dim=5))


needs_bfloat16 = pytest.mark.skipif(not has_bfloat16("cpu"), reason="this CPU does not compute in bfloat16")


@needs_bfloat16
@pytest.mark.parametrize("stack", [4, 8, 16])  # the deeper levels of the network see two frames, or one
def test_gradients_in_bfloat16_are_those_of_float32(stack):
    gradients = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        network = bypass_wrappers(build_network(TINY_NETWORK)).train()
        clips = torch.rand(1, 1, stack, 16, 16, generator=torch.Generator().manual_seed(1))
        _loss(network, clips, config(stack=stack, precision=precision), 0)[0].backward()
        gradients[precision] = dict(network.named_parameters())
    for name, parameter in gradients["float32"].items():
        expected, got = parameter.grad, gradients["bfloat16"][name].grad
        assert (got - expected).norm() <= 0.2 * expected.norm() + 1e-3, name


@needs_bfloat16
def test_training_in_bfloat16_starts_like_that_in_float32(tmp_path):
    first = {}
    for precision in ("float32", "bfloat16"):
        settings = config(precision=precision, steps=1)
        (first[precision],) = fit_to_stacks(collection(settings), tmp_path / "v.safetensors", settings)
    assert first["bfloat16"].mse == pytest.approx(first["float32"].mse, rel=0.3)
    assert first["bfloat16"].mse != first["float32"].mse


def test_patches_are_squares_cut_from_the_frames():
    settings = config(patch=8)
    stacks = TrainingStacks(settings)
    stacks.add_video([np.arange(256, dtype=np.float32).reshape(16, 16) / 255] * 4)
    seen = set()
    for step in range(60):
        patch = stacks.draw(step)[0, 0, 0]
        assert patch.shape == (8, 8)
        across, down = patch.diff(dim=1), patch.diff(dim=0)  # 1 and 16 levels, up to the dimming and flips
        inner = (patch[:-1, :-1] < 1) & (patch[1:, :-1] < 1) & (patch[:-1, 1:] < 1)  # not clipped
        assert torch.allclose((16 * across[:-1]).abs()[inner], down[:, :-1].abs()[inner], atol=1e-4)
        seen.add(round(patch.min().item(), 4))
    assert len(seen) > 30


def test_a_patch_larger_than_the_frames_or_unfit_for_the_network_is_refused(make_videos, tmp_path):
    with pytest.raises(ConfigError, match="patch: got 20; expected at most --size, 16"):
        config(patch=20)
    make_videos(tmp_path / "v", {"a.mp4": 9})
    with pytest.raises(ConfigError, match="patch: got 6; expected a multiple of 4"):
        fit_vae([tmp_path / "v"], tmp_path / "vae.safetensors", config(patch=6))


def test_a_step_moves_the_mean_of_a_kernel_by_a_twentieth_of_what_adamw_would():
    torch.manual_seed(0)
    network = nn.Conv3d(2, 2, 3)
    plain = copy.deepcopy(network)
    state = TrainState(model=network, ema=network, optimiser=torch.optim.AdamW(network.parameters(), 0.1))
    for module in (network, plain):
        module(torch.ones(1, 2, 4, 4, 4)).square().sum().backward()
    before = network.weight.detach().clone()
    _step_smoothly(state)
    torch.optim.AdamW(plain.parameters(), 0.1).step()
    got, whole = network.weight.detach() - before, plain.weight.detach() - before
    taps = (2, 3, 4)
    assert torch.allclose(got.mean(taps), whole.mean(taps) / 20, atol=1e-6)
    assert torch.allclose(
        got - got.mean(taps, keepdim=True), whole - whole.mean(taps, keepdim=True), atol=1e-6
    )
    assert torch.equal(network.bias, plain.bias)


def test_a_stack_the_network_cannot_process_is_refused(tmp_path):
    settings = config(stack=6)
    with pytest.raises(TimingError, match="nearest that works: 4 and 8"):
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


def test_shorter_calls_are_the_stack_halved():
    assert config(stack=24, shortest_stack=6).call_lengths == (24, 12, 6)
    assert config(stack=12).call_lengths == (12,)
    for shortest in (1, 8, 24):
        with pytest.raises(
            ConfigError, match="expected --stack 12 halved any number of times, one of 12, 6, 3"
        ):
            config(stack=12, shortest_stack=shortest)
