"""The terms of the loss against plain formulas, MONAI and torch; the discriminator among them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from torch import nn
from torch.distributions import Normal, kl_divergence

from tests.fit.small import chosen
from vidlat.config import RECIPES
from vidlat.errors import ConfigError, WeightsError
from vidlat.fit.adversary import Adversary
from vidlat.fit.losses import divergence, loss_terms, size_of_error, weights_of_terms
from vidlat.fit.perceptual import FeatureDistance, gradient_distance, load_perceptual
from vidlat.train.ranks import Ranks

RANDOM = torch.Generator().manual_seed(0)
DECODED, TARGET = torch.rand(2, 2, 1, 8, 24, 24, generator=RANDOM)
POSTERIOR = torch.randn(2, 4, 2, 4, 4, generator=RANDOM), torch.rand(2, 4, 2, 4, 4, generator=RANDOM) + 0.1


def test_the_size_of_an_error_is_that_of_its_formula():
    error = (DECODED - TARGET).double().numpy()
    expected = {
        "l1": np.abs(error).mean(),
        "mse": (error**2).mean(),
        "log-mse": np.mean([np.log((stack**2).mean() + 1e-5) for stack in error]),
    }
    for loss, value in expected.items():
        assert size_of_error(DECODED - TARGET, loss).item() == pytest.approx(value, rel=1e-5)


def test_the_divergence_is_torchs():
    expected = kl_divergence(Normal(*POSTERIOR), Normal(0.0, 1.0)).mean()
    assert divergence(*POSTERIOR).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_weight_of_the_divergence_is_nvidias_of_the_sum_over_a_patch():
    shape = (1, 4, 16, 16, 16)  # of the latents of 64 x 64 x 64 values
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    std = torch.full(shape, 0.3, dtype=torch.float64)
    # As its script has it.
    theirs = 0.5 * torch.sum(mean.pow(2) + std.pow(2) - torch.log(std.pow(2)) - 1, dim=[1, 2, 3, 4])
    nvidias = 1e-7 * torch.sum(theirs) / theirs.shape[0]
    ours = RECIPES["maisi"]["kl_weight"] * divergence(mean, std)
    assert ours.item() == pytest.approx(nvidias.item(), rel=1e-12)


@pytest.mark.parametrize("loss", ["l1", "mse", "log-mse"])
def test_terms_with_a_weight_are_computed_and_no_others(loss):
    few = loss_terms(DECODED, TARGET, POSTERIOR, chosen(loss=loss), gradient_distance)
    assert set(few) == {loss, "kl"}
    settings = chosen(loss=loss, change_weight=0.5, perceptual_weight=0.2, size=24)
    terms = loss_terms(DECODED, TARGET, POSTERIOR, settings, gradient_distance)
    assert set(terms) == {loss, "kl", "change", "perceptual"}
    changes = (DECODED[:, :, 1:] - DECODED[:, :, :-1]) - (TARGET[:, :, 1:] - TARGET[:, :, :-1])
    assert terms["change"].item() == pytest.approx(size_of_error(changes, loss).item(), rel=1e-4)
    weights = weights_of_terms(settings)
    assert [weights[name] for name in (loss, "kl", "change", "perceptual")] == [1, 1e-4, 0.5, 0.2]


def test_a_wrong_brightness_changes_nothing_from_frame_to_frame():
    settings = chosen(change_weight=1.0, loss="mse")
    terms = loss_terms(TARGET + 0.1, TARGET, POSTERIOR, settings, gradient_distance)
    assert terms["change"].item() < 1e-12
    assert terms["mse"].item() == pytest.approx(0.01, rel=1e-4)


def test_gradients_are_compared_at_three_scales():
    ours = gradient_distance(DECODED[0, 0][:, None], TARGET[0, 0][:, None]).item()
    parts = []
    one, other = DECODED[0, 0].double().numpy(), TARGET[0, 0].double().numpy()
    for _ in range(3):
        for axis in (1, 2):
            parts.append(np.abs(np.diff(one, axis=axis) - np.diff(other, axis=axis)).mean())
        one, other = (
            (it[:, ::2, ::2] + it[:, 1::2, ::2] + it[:, ::2, 1::2] + it[:, 1::2, 1::2]) / 4
            for it in (one, other)
        )
    assert ours == pytest.approx(np.mean(parts), rel=1e-5)


def test_gradients_of_small_frames_have_fewer_scales():
    assert gradient_distance(torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)).isfinite()


class Features(nn.Module):
    """Two layers of features of a picture of three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3)
        self.second = nn.Conv2d(5, 7, 3, stride=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        one = self.first(x)
        return [one, self.second(torch.relu(one))]


def test_features_are_compared_after_normalising_their_channels():
    torch.manual_seed(0)
    network = Features()
    one, other = torch.rand(2, 3, 1, 16, 16)
    total = 0.0
    with torch.no_grad():
        both = zip(network(one.repeat(1, 3, 1, 1)), network(other.repeat(1, 3, 1, 1)), strict=True)
        for ours, theirs in both:
            a, b = ours.double().numpy(), theirs.double().numpy()
            a, b = (it / np.sqrt((it**2).sum(1, keepdims=True)) for it in (a, b))
            total += ((a - b) ** 2).sum(1).mean()
    assert FeatureDistance(network)(one, other).item() == pytest.approx(total, rel=1e-4)


pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture
def scripted(tmp_path):
    """A TorchScript network in a file, and the settings that name it."""
    torch.manual_seed(0)
    path = tmp_path / "features.pt"
    torch.jit.script(Features()).save(str(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"perceptual": str(path), "perceptual_hash": sha256, "perceptual_weight": 0.1}


def test_a_network_in_a_file_is_loaded_once_its_hash_is_verified(scripted):
    torch.manual_seed(0)
    own = FeatureDistance(Features())
    loaded = load_perceptual(chosen(**scripted), torch.device("cpu"))
    one, other = torch.rand(2, 3, 1, 16, 16)
    assert loaded(one, other).item() == pytest.approx(own(one, other).item(), rel=1e-5)
    one.requires_grad_(True)
    loaded(one, other).backward()
    assert one.grad.abs().max() > 0


@pytest.mark.usefixtures("use_hub")
def test_a_network_on_the_hub_is_fetched_once_and_verified(scripted, hub):
    file = Path(scripted["perceptual"])
    hub.files["someone/features", "networks/features.pt"] = file.read_bytes()
    on_hub = scripted | {"perceptual": "hub:someone/features/networks/features.pt"}
    from_file, from_hub, again = (
        load_perceptual(chosen(**settings), torch.device("cpu")) for settings in (scripted, on_hub, on_hub)
    )
    pair = torch.rand(2, 3, 1, 16, 16)
    assert from_file(*pair) == from_hub(*pair) == again(*pair)
    assert len(hub.downloads()) == 1
    with pytest.raises(WeightsError, match=r"features\.pt"):
        load_perceptual(chosen(**on_hub | {"perceptual_hash": "5" * 64}), torch.device("cpu"))


@pytest.mark.parametrize("sha256", [None, "", "5" * 63, "X" * 64])
def test_a_network_without_a_hash_is_refused(sha256):
    with pytest.raises(ConfigError, match=r"perceptual_hash: got .*; expected the SHA-256 of f\.pt, 64 hex"):
        chosen(perceptual="f.pt", perceptual_hash=sha256)


def test_a_network_of_another_hash_is_refused(scripted):
    with pytest.raises(WeightsError, match=r"features.pt: its SHA-256 is .*, and --perceptual-hash 5555"):
        load_perceptual(chosen(**scripted | {"perceptual_hash": "5" * 64}), torch.device("cpu"))


def test_a_network_without_a_weight_is_refused(scripted):
    with pytest.raises(
        ConfigError, match=r"^perceptual: got .*, which counts nothing with a --perceptual-wei"
    ):
        load_perceptual(chosen(**scripted | {"perceptual_weight": 0.0}), torch.device("cpu"))


def test_files_that_hold_no_such_network_are_refused_in_one_line(tmp_path):
    def refusal(path):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        settings = chosen(perceptual=str(path), perceptual_hash=sha256, perceptual_weight=0.1)
        with pytest.raises(WeightsError) as caught:
            load_perceptual(settings, torch.device("cpu"))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    text, flat = tmp_path / "text.pt", tmp_path / "flat.pt"
    text.write_text("no network")
    assert "text.pt: cannot be used as a perceptual network" in refusal(text)
    torch.jit.script(nn.Flatten()).save(str(flat))
    assert "its output is no tensor (N, C, h, w) and no list of such" in refusal(flat)
    with pytest.raises(WeightsError, match=r"gone\.pt: cannot be read: No such file"):
        load_perceptual(
            chosen(perceptual=str(tmp_path / "gone.pt"), perceptual_hash="5" * 64, perceptual_weight=0.1),
            torch.device("cpu"),
        )
    with pytest.raises(ConfigError, match="expected hub:OWNER/REPOSITORY/FILE"):
        load_perceptual(
            chosen(perceptual="hub:x/y", perceptual_hash="5" * 64, perceptual_weight=0.1), torch.device("cpu")
        )


class NotFinite(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x - 2)


class Detached(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


class OneChannel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1]


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 0:
            raise ValueError("not these")
        return x


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NotFinite(), "the gradient of its features is not finite"),
        (Detached(), "does not require grad"),
        (OneChannel(), "its features, normalised over channels, do not depend on the picture"),
        (Raises(), "not these"),
    ],
)
def test_a_network_from_which_nothing_is_learned_is_refused(network, message, tmp_path):
    path = tmp_path / "features.pt"
    torch.jit.script(network).save(str(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = chosen(perceptual=str(path), perceptual_hash=sha256, perceptual_weight=0.1)
    with pytest.raises(WeightsError, match=rf"cannot be used as a perceptual network \(.*{message}"):
        load_perceptual(settings, torch.device("cpu"))


@pytest.fixture
def adversary():
    torch.manual_seed(0)
    return Adversary(8, 24, 1e-3, Ranks("cpu"))


def test_the_discriminator_sees_the_frames_of_a_stack_at_once(adversary):
    criterion = PatchAdversarialLoss(criterion="least_squares")
    judged = adversary.model(DECODED[:, 0])[-1]
    expected = criterion(judged, target_is_real=True, for_discriminator=False)
    assert adversary.term(DECODED).item() == pytest.approx(expected.item(), rel=1e-5)
    real = adversary.model(TARGET[:, 0])[-1]
    false_part = criterion(judged, target_is_real=False, for_discriminator=True)
    real_part = criterion(real, target_is_real=True, for_discriminator=True)
    expected = ((false_part + real_part) * 0.5).item()  # as NVIDIA's script has it
    assert adversary.loss(DECODED, TARGET).item() == pytest.approx(expected, rel=1e-5)


def test_each_side_gets_the_gradient_of_its_own_loss_alone(adversary):
    decoded = DECODED.clone().requires_grad_(True)
    adversary.term(decoded).backward()
    assert decoded.grad.abs().max() > 0
    assert all(weight.grad is None for weight in adversary.weights)
    decoded.grad = None
    adversary.loss(decoded, TARGET).backward()
    assert decoded.grad is None
    assert all(weight.grad is not None for weight in adversary.weights)


def test_frames_too_small_for_the_discriminator_are_refused():
    with pytest.raises(ConfigError, match="frames or patches of 20 pixels; expected at least 24"):
        Adversary(4, 20, 1e-3, Ranks("cpu"))
