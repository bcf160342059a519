"""The VAE in bfloat16, against float64 and against what it replaced: MONAI's network under autocast."""

import copy
from itertools import chain

import pytest
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi, MaisiGroupNorm3D
from torch.nn.functional import group_norm, silu

from vidlat.config import LatentSettings
from vidlat.encode.device import has_bfloat16
from vidlat.encode.maisi import MaisiAutoencoder
from vidlat.encode.network import MAISI_NETWORK, bypass_wrappers, hold_in_bfloat16
from vidlat.encode.vae import FrozenVAE
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import hash_weights, load_network

SMALL_NETWORK = {
    **MAISI_NETWORK,
    "num_channels": [8, 8, 16],
    "num_res_blocks": [1, 1, 1],
    "norm_num_groups": 4,
}
ENDS = ("encoder.blocks.0", "quant_conv_mu", "quant_conv_log_sigma", "post_quant_conv", "decoder.blocks.7")

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16("cpu"), reason="this CPU does not compute in bfloat16")


def stock_network(settings=SMALL_NETWORK):
    torch.manual_seed(0)
    return AutoencoderKlMaisi(**settings, num_splits=1, dim_split=1, norm_float16=False).eval()


def frames_like_an_echo(shape, seed=0):
    """Speckle of a few pixels beside black, (N, 1, S, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    num, _, stack, height, width = shape
    coarse = torch.randn(num, 1, stack // 2, height // 4, width // 4, generator=generator)
    speckle = torch.nn.functional.interpolate(coarse, size=(stack, height, width), mode="trilinear")
    return (0.4 + 0.3 * speckle).clamp(0, 1) * (torch.arange(width) > width // 4)


def errors_of(outputs, truths):
    """Root mean square of each, relative to the spread of the truth."""
    pairs = zip(outputs, truths, strict=True)
    return [float((output - truth).square().mean().sqrt() / truth.std()) for output, truth in pairs]


@pytest.fixture(scope="module", params=["tiny", "tiny-16"])
def trained(request):
    """A trained network, frames, their latents, and the errors of autocast; all against float64."""
    network, _ = load_network(resolve_weights(request.param))
    frames = frames_like_an_echo((1, 1, 16, 32, 32))
    if request.param == "tiny":
        frames = frames[:, :, :4].repeat_interleave(4, 2)
    exact = bypass_wrappers(copy.deepcopy(network)).double()
    with torch.inference_mode():
        truth = exact.encode(frames.double())
        latents = truth[0].float()
        truth = *truth, exact.decode(latents.double())
        with torch.autocast("cpu", torch.bfloat16):
            errors = errors_of((*network.encode(frames), network.decode(latents)), truth)
    return network, frames, latents, truth, errors


@needs_bfloat16
def test_latents_are_closer_to_the_truth_than_those_of_autocast(trained):
    network, frames, latents, truth, autocast = trained
    settings = LatentSettings(stack=16, precision="bfloat16")
    vae = FrozenVAE(
        MaisiAutoencoder(copy.deepcopy(network), MAISI_NETWORK), settings, batch=1, precision="bfloat16"
    )
    errors = errors_of((*vae.encode_stacks(frames), vae.decode_stacks(latents)), truth)
    assert errors[0] <= autocast[0]
    assert errors[1] <= 0.6 * autocast[1]
    assert errors[2] <= 1.1 * autocast[2]


@needs_bfloat16
def test_latents_rounded_as_on_a_gpu_are_about_as_close(trained):
    """There PyTorch's own norm takes and gives bfloat16, weights included, and SiLU rounds once more."""
    network, frames, latents, truth, autocast = trained
    network = bypass_wrappers(copy.deepcopy(network)).eval()
    hold_in_bfloat16(network, "cuda")
    with torch.inference_mode():
        errors = errors_of((*network.encode(frames), network.decode(latents)), truth)
    assert errors[0] <= 1.15 * autocast[0]
    assert errors[1] <= 0.6 * autocast[1]
    assert errors[2] <= 1.15 * autocast[2]


def low_bits_used(latents):
    """The share of values whose float16 has any of its low three bits set."""
    return float((latents.half().view(torch.int16) & 7).ne(0).float().mean())


def test_means_and_deviations_use_all_bits_of_float16():
    network, frames = stock_network(), frames_like_an_echo((1, 1, 4, 32, 32))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert [low_bits_used(latents) for latents in network.encode(frames)] == [0, 0]
    outputs = FrozenVAE(MaisiAutoencoder(network, SMALL_NETWORK), batch=1, precision="bfloat16").encode(
        frames
    )
    assert all(0.8 < low_bits_used(latents) < 0.95 for latents in outputs)  # 7 of 8 by chance


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_all_but_the_ends_is_held_in_bfloat16(device_type):
    network = bypass_wrappers(stock_network())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    hold_in_bfloat16(network, device_type)
    for name, tensor in network.state_dict().items():
        is_norm = "norm" in name or name.startswith(("encoder.blocks.6.", "decoder.blocks.6."))
        if name.startswith(tuple(f"{end}." for end in ENDS)) or (is_norm and device_type == "cpu"):
            assert torch.equal(tensor, before[name])
        else:
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(tensor, before[name].bfloat16())


def test_hash_and_size_are_those_of_the_float32_tensors():
    network = stock_network()
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    vae = FrozenVAE(MaisiAutoencoder(network, SMALL_NETWORK), precision="bfloat16")
    assert vae.weights_hash == hash_weights(tensors)
    assert vae.size == (len(tensors), sum(tensor.numel() for tensor in tensors.values()))


def test_a_network_with_attention_computes_in_bfloat16():
    settings = {
        **SMALL_NETWORK,
        "attention_levels": [False, False, True],
        "with_encoder_nonlocal_attn": True,
        "with_decoder_nonlocal_attn": True,
    }
    network, frames = stock_network(settings), frames_like_an_echo((1, 1, 4, 16, 16))
    with torch.inference_mode():
        mean, _ = network.encode(frames)
        decoded = network.decode(mean)
    vae = FrozenVAE(MaisiAutoencoder(network, settings), batch=1, precision="bfloat16")
    errors = errors_of((vae.encode(frames)[0], vae.decode(mean, 4)), (mean, decoded))
    assert max(errors) <= 0.1


@pytest.mark.parametrize("num_channels", [8, 32])
@pytest.mark.parametrize("offset", [0, 100])
def test_norms_of_bfloat16_have_exact_statistics_and_are_rounded_once(num_channels, offset):
    generator = torch.Generator().manual_seed(num_channels)
    x = (torch.randn(2, num_channels, 4, 96, 96, generator=generator) + offset).bfloat16()
    norm = MaisiGroupNorm3D(4, num_channels, eps=1e-6)
    torch.nn.init.normal_(norm.weight, generator=generator)
    torch.nn.init.normal_(norm.bias, generator=generator)
    truth = group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), 1e-6)
    plain = bypass_wrappers(torch.nn.ModuleList([norm]))[0]
    with torch.inference_mode():
        given = x.contiguous(memory_format=torch.channels_last_3d)
        for output, exact in ((plain(given), truth), (plain.then_silu(given), silu(truth))):
            assert output.dtype == torch.bfloat16
            assert output.is_contiguous(memory_format=torch.channels_last_3d)
            torch.testing.assert_close(output, exact.bfloat16(), rtol=2**-7, atol=1e-4)
            # All but those that lie within the rounding of float32 of the middle between two numbers.
            assert (output == exact.bfloat16()).float().mean() >= 0.995
        assert torch.equal(given, x)


def test_frames_come_from_an_exact_convolution():
    network, x = bypass_wrappers(stock_network()), torch.randn(2, 8, 4, 12, 20)
    layer = copy.deepcopy(network.decoder.blocks[-1].conv.conv).double()
    hold_in_bfloat16(network, "cpu")
    with torch.inference_mode():
        truth = layer(x.bfloat16().double())
        output = network.decoder.blocks[-1](x.bfloat16().contiguous(memory_format=torch.channels_last_3d))
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.double(), truth, rtol=1e-5, atol=1e-6)


def former_norm(self, x):
    """Group norm as it was before bfloat16 was given a path of its own."""
    pixels = x.permute(0, 2, 3, 4, 1).flatten(1, 3)
    means = pixels.mean(1, keepdim=True)
    centred = pixels - means
    groups = len(x), self.num_groups, -1
    means, variances = means.reshape(groups), centred.square().mean(1).reshape(groups)
    offsets = means - means.mean(2, keepdim=True)
    variance = (variances + offsets.square()).mean(2, keepdim=True)
    scale = self.weight.reshape(groups[1:]) * torch.rsqrt(variance + self.eps)
    shift = self.bias.reshape(groups[1:]) + offsets * scale
    normed = torch.addcmul(shift.flatten(1)[:, None], centred, scale.flatten(1)[:, None], out=centred)
    return normed.reshape(len(x), *x.shape[2:], -1).permute(0, 4, 1, 2, 3)


def test_float32_is_bit_for_bit_what_it_was(monkeypatch):
    vae = FrozenVAE(MaisiAutoencoder(stock_network(), SMALL_NETWORK), batch=2)
    frames = frames_like_an_echo((3, 1, 4, 40, 40))
    found = *vae.encode(frames), vae.decode(vae.encode(frames)[0], 4)
    norms = [
        module for module in vae._autoencoder.network.modules() if isinstance(module, torch.nn.GroupNorm)
    ]
    for norm in norms:
        monkeypatch.setattr(norm, "forward", former_norm.__get__(norm))
        monkeypatch.setattr(norm, "then_silu", lambda x, norm=norm: silu(norm.forward(x)))
    former = *vae.encode(frames), vae.decode(vae.encode(frames)[0], 4)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, former, strict=True))
    weights = chain.from_iterable(module.parameters() for module in vae._autoencoder.network.modules())
    assert {weight.dtype for weight in weights} == {torch.float32}
