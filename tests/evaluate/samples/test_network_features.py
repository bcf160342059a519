"""Features of networks in files: which input they take, what becomes of their output, what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vidlat.errors import ConfigError, WeightsError
from vidlat.evaluate.samples.network_features import NetworkFeatures

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

SHAPE = (6, 12, 12)
FRAMES = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def write(tmp_path):
    def write(network, name="features.pt"):
        path = tmp_path / name
        torch.jit.script(network.eval()).save(str(path))
        return str(path)

    return write


def features_of(path):
    return NetworkFeatures(path, torch.device("cpu"), SHAPE)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_frames_give_mean_spread_and_change(write, channels):
    network = nn.Sequential(nn.Conv2d(channels, 5, 3), nn.ReLU())
    features = features_of(write(network))
    assert features.takes == f"frames of {channels} channel{'s' * (channels > 1)}"
    pixels = torch.from_numpy(FRAMES)[:, None].expand(-1, channels, -1, -1) / 255
    rows = network(pixels).double().mean((2, 3)).detach().numpy()
    expected = [rows.mean(0), rows.std(0), np.sqrt(np.square(np.diff(rows, axis=0)).mean(0))]
    np.testing.assert_allclose(features(FRAMES), np.concatenate(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_clips_see_the_clip_at_once(write, channels):
    network = nn.Conv3d(channels, 4, 3)
    features = features_of(write(network))
    assert features.takes == f"clips of {channels} channel{'s' * (channels > 1)}"
    clip = torch.from_numpy(FRAMES)[None, None].expand(-1, channels, -1, -1, -1) / 255
    np.testing.assert_allclose(
        features(FRAMES), network(clip).mean((2, 3, 4))[0].detach(), rtol=1e-5, atol=1e-6
    )


def test_the_hash_of_the_file_says_which_network_it_was(write):
    path = write(nn.Conv2d(3, 2, 1))
    assert features_of(path).sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.usefixtures("use_hub")
def test_a_network_on_a_hub_gives_the_features_of_its_file(write, hub):
    path = write(nn.Conv2d(3, 2, 1))
    hub.files["someone/features", "networks/features.pt"] = Path(path).read_bytes()
    on_hub = features_of("hub:someone/features/networks/features.pt")
    assert on_hub.sha256 == features_of(path).sha256
    np.testing.assert_array_equal(on_hub(FRAMES), features_of(path)(FRAMES))


class Listed(nn.Module):
    def forward(self, frames):
        return [frames]


class Endless(nn.Module):
    def forward(self, frames):
        return frames.mean((2, 3)) / 0


class Complex(nn.Module):
    def forward(self, frames):
        return torch.complex(frames, frames)


class WithoutForward(nn.Module):
    @torch.jit.export
    def features(self, frames):
        return frames


class Empty(nn.Module):
    def forward(self, frames):
        return frames.flatten(1)[:, :0]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(7, 2), r"takes neither clips \(B, C, 6, 12, 12\) nor frames \(N, C, 12, 12\)"),
        (Listed(), "its output is list, expected"),
        (nn.Flatten(0), "its output is .*, expected"),
        (Endless(), "its features are not finite"),
        (Complex(), "its features are complex numbers, expected real ones"),
        (WithoutForward(), "has no attribute 'forward'"),
        (Empty(), r"its output is \(1, 0\), expected \(1, D\)"),
    ],
)
def test_networks_without_features_of_clips_or_frames_are_refused(write, network, message):
    with pytest.raises(WeightsError, match=message) as caught:
        features_of(write(network))
    assert "\n" not in str(caught.value)


def test_a_reason_that_all_inputs_share_is_given_once(write):
    with pytest.raises(WeightsError) as caught:
        features_of(write(Endless()))
    assert str(caught.value).count("its features are not finite") == 1
    assert "clips of 3 channels, clips of 1 channel, frames of 3 channels, frames of 1 channel: its" in str(
        caught.value
    )


def test_weights_without_a_network_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match=r"holds weights and no network; .*torch\.jit\.script"):
        features_of(str(path))


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "text.pt"
    text.write_text("no network")
    with pytest.raises(WeightsError, match=r"text\.pt: cannot be loaded as TorchScript .*torch\.jit\.script"):
        features_of(str(text))
    with pytest.raises(WeightsError, match=r"gone\.pt: cannot be read: No such file"):
        features_of(str(tmp_path / "gone.pt"))
    with pytest.raises(ConfigError, match=r"features: got hub:x/y; expected hub:OWNER/REPOSITORY/FILE"):
        features_of("hub:x/y")
