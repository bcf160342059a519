"""The frozen VAE against MONAI's own network, and its files against the published list of tensors."""

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from safetensors.torch import load_file, save_file

from tests.thorough import some_of
from vidlat.config import LatentSettings
from vidlat.encode import device as device_module
from vidlat.encode.cutting import stretch_video
from vidlat.encode.device import (
    has_bfloat16,
    resolve_batch,
    resolve_device,
    resolve_precision,
    warning_of_convolutions,
)
from vidlat.encode.diffusers_folder import load_folder
from vidlat.encode.maisi import MaisiAutoencoder
from vidlat.encode.network import MAISI_NETWORK, build_network, bypass_wrappers
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import (
    NETWORK_METADATA_KEY,
    STACKS_METADATA_KEY,
    hash_encoder,
    hash_weights,
    load_network,
    trained_stacks,
    write_weights,
)
from vidlat.errors import (
    ConfigError,
    DeviceError,
    EncodeError,
    NotEnoughMemoryError,
    ShapeError,
    TimingError,
    WeightsError,
)

PUBLISHED_TENSORS = json.loads((Path(__file__).parent / "maisi_checkpoint_tensors.json").read_text())

SMALL = {"num_channels": [8, 8, 16], "num_res_blocks": [1, 1, 1], "norm_num_groups": 4}
SMALL_NETWORK = {**MAISI_NETWORK, **SMALL}
THIN_NETWORK = {**SMALL_NETWORK, "num_channels": [4, 4, 8], "norm_num_groups": 2}


FLOAT32, BFLOAT16 = LatentSettings(precision="float32"), LatentSettings(precision="bfloat16")


def stock_network(settings, **extra):
    """MONAI's class as published, without anything of ours."""
    torch.manual_seed(0)
    options = {"num_splits": 1, "dim_split": 1, "norm_float16": False, **extra}
    return AutoencoderKlMaisi(**settings, **options).eval()


@pytest.fixture(scope="module")
def full_network():
    return stock_network(MAISI_NETWORK)


@pytest.fixture(scope="module")
def full_checkpoint(full_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("full") / "autoencoder.pt"
    torch.save(full_network.state_dict(), path)
    return path


@pytest.fixture
def small_file(tmp_path):
    path = tmp_path / "small.safetensors"
    save_file(
        stock_network(SMALL_NETWORK).state_dict(), path, metadata={NETWORK_METADATA_KEY: json.dumps(SMALL)}
    )
    return path


def small_vae(instead=lambda network: {}, *, batch=8, precision="float32", **settings):
    """instead: what takes the place of methods of the network, by name."""
    network = stock_network(SMALL_NETWORK)
    vars(network).update(instead(network))
    return FrozenVAE(
        MaisiAutoencoder(network, SMALL_NETWORK), LatentSettings(**settings), batch=batch, precision=precision
    )


def test_the_network_has_the_published_tensors_and_no_other(full_network):
    shapes = {name: list(tensor.shape) for name, tensor in build_network(MAISI_NETWORK).state_dict().items()}
    assert shapes == PUBLISHED_TENSORS
    assert len(shapes) == 130
    assert sum(tensor.numel() for tensor in full_network.state_dict().values()) == 20_944_897


@pytest.mark.slow
def test_a_full_size_checkpoint_encodes_and_decodes_as_monai_does(full_network, full_checkpoint):
    vae = load_vae(full_checkpoint, FLOAT32, device="cpu", batch=1)
    assert vae.size == (130, 20_944_897)
    stack = torch.rand(1, 1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        stock = *full_network.encode(stack), full_network.decode(latents := full_network.encode(stack)[0])
        # MONAI's norm casts to float32: without it the network can run in float64.
        exact = bypass_wrappers(copy.deepcopy(full_network)).double()
        truth = *exact.encode(stack.double()), exact.decode(latents.double())
    ours = *vae.encode(stack), vae.decode(latents, 4)
    for our, monais, true in zip(ours, stock, truth, strict=True):
        require_float32_of(our, monais, true)


def require_float32_of(ours, monais, truth):
    """Both differ from float64 by rounding alone, whose size depends on the order in which a CPU adds."""
    for values in (ours, monais):
        assert (values - truth).square().mean().sqrt() <= 1e-5 * truth.std()
        assert (values - truth).abs().max() <= 5e-5 * truth.std()


@pytest.mark.parametrize(
    ("size", "stack"),
    [
        (64, 4),
        (120, 8),
        *(pytest.param(size, 4, marks=pytest.mark.slow) for size in (112, 120, 128, 256, 512)),
        pytest.param(64, 8, marks=pytest.mark.slow),
        pytest.param(112, 16, marks=pytest.mark.slow),
    ],
)
def test_every_size_and_stack_is_as_close_to_the_truth_as_monai_is(size, stack):
    """The truth is float64, which MONAI's norm does not allow: the same network without its wrappers."""
    network = stock_network(THIN_NETWORK)
    exact = bypass_wrappers(copy.deepcopy(network)).double()
    vae = FrozenVAE(
        MaisiAutoencoder(copy.deepcopy(network), THIN_NETWORK), LatentSettings(stack=stack), batch=1
    )
    frames = torch.rand(1, 1, stack, size, size, generator=torch.Generator().manual_seed(size + stack))
    with torch.inference_mode():
        stock = *network.encode(frames), network.decode(latents := network.encode(frames)[0])
        truth = *exact.encode(frames.double()), exact.decode(latents.double())
    for ours, monais, true in zip(
        (*vae.encode(frames), vae.decode(latents, stack)), stock, truth, strict=True
    ):
        require_float32_of(ours, monais, true)


@pytest.mark.parametrize("brightness", [0.0, 1.0])
def test_flat_frames_are_as_close_to_the_truth(brightness):
    """Their activations hardly vary about a mean that is large beside."""
    network = stock_network(THIN_NETWORK)
    exact = bypass_wrappers(copy.deepcopy(network)).double()
    frames = torch.full((1, 1, 4, 64, 64), brightness)
    with torch.inference_mode():
        truth, monais = exact.encode(frames.double())[0], network.encode(frames)[0]
    require_float32_of(
        FrozenVAE(MaisiAutoencoder(network, THIN_NETWORK), batch=1).encode(frames)[0], monais, truth
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "stack"), [(64, 4), (112, 4), (120, 4), (128, 4), (128, 8), (128, 16), (256, 4)]
)
def test_every_size_is_encoded_by_the_full_network_as_monai_does(full_network, size, stack):
    """Up to 256: the truth, in float64, takes 22 GB at 512, where the thin network above stands in."""
    vae = FrozenVAE(
        MaisiAutoencoder(copy.deepcopy(full_network), MAISI_NETWORK), LatentSettings(stack=stack), batch=1
    )
    frames = torch.rand(1, 1, stack, size, size, generator=torch.Generator().manual_seed(size))
    with torch.inference_mode():
        expected = full_network.encode(frames)
        truth = bypass_wrappers(copy.deepcopy(full_network)).double().encode(frames.double())
    for ours, monais, true in zip(vae.encode(frames), expected, truth, strict=True):
        require_float32_of(ours, monais, true)


def test_flat_wrapped_and_safetensors_files_give_one_weights_hash(full_network, full_checkpoint, tmp_path):
    tensors = full_network.state_dict()
    torch.save({"unet_state_dict": tensors}, tmp_path / "wrapped.pt")
    save_file(tensors, tmp_path / "plain.safetensors")
    paths = full_checkpoint, tmp_path / "wrapped.pt", tmp_path / "plain.safetensors"
    assert len({load_vae(path, device="cpu").weights_hash for path in paths}) == 1


def test_a_missing_an_unexpected_and_a_misshapen_tensor_are_refused_by_name(full_network, tmp_path):
    tensors = dict(full_network.state_dict())
    del tensors["decoder.blocks.0.conv.conv.bias"]
    tensors["discriminator.weight"] = torch.zeros(1)
    tensors["quant_conv_mu.conv.bias"] = torch.zeros(5)
    torch.save(tensors, tmp_path / "wrong.pt")
    with pytest.raises(WeightsError) as refusal:
        load_vae(tmp_path / "wrong.pt")
    message = str(refusal.value)
    assert "128 of 130 tensors fit" in message
    assert "missing: decoder.blocks.0.conv.conv.bias" in message
    assert "unexpected: discriminator.weight" in message
    assert "misshapen: quant_conv_mu.conv.bias is (5,), not (4,)" in message


TEXTS = [f"{chr(first)}ello text\n".encode() for first in range(33, 127)]


@pytest.mark.parametrize("content", TEXTS)
def test_a_text_of_any_first_letter_is_no_weights(tmp_path, content):
    """Pickle takes each letter for an instruction, and fails in its own way."""
    (tmp_path / "vae.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"cannot be read as weights|holds no state dict"):
        load_vae(tmp_path / "vae.pt")


@pytest.mark.parametrize("content", [b"", b"not weights", b"version https://git-lfs.github.com/spec/v1\n"])
@pytest.mark.parametrize("name", ["vae.pt", "vae.safetensors"])
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as weights") as refusal:
        load_vae(tmp_path / name)
    assert "\n" not in str(refusal.value)
    assert "weights_only=False" not in str(refusal.value)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was-run",))

    torch.save({"weights": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="weights_only"):
        load_vae(tmp_path / "evil.pt")
    assert not (tmp_path / "was-run").exists()


@pytest.mark.slow
def test_a_user_without_a_name_and_a_home_can_load_a_network(small_file):
    """As in a container that runs as some number: MONAI asks for the name as it is imported."""
    code = (
        "import os, pwd, sys\n"
        "def lost(uid): raise KeyError('getpwuid(): uid not found')\n"
        "pwd.getpwuid = lost\n"
        "from pathlib import Path\n"
        "from vidlat.encode.vae import load_vae\n"
        "import vidlat.train.networks.monai_unet\n"
        "print(load_vae(Path(sys.argv[1]), device='cpu').time_compression, 'diffusers' in sys.modules)"
    )
    names = ("USER", "LOGNAME", "LNAME", "USERNAME")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["HOME"] = "/proc/1/nowhere"  # where nobody can write
    answer = subprocess.run(
        [sys.executable, "-c", code, small_file], env=environment, capture_output=True, text=True
    )
    assert (answer.returncode, answer.stdout) == (0, "4 False\n"), answer.stderr


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(small_file, value):
    tensors = load_file(small_file)
    tensors["quant_conv_mu.conv.bias"][1] = value
    save_file(tensors, small_file, metadata={NETWORK_METADATA_KEY: json.dumps(SMALL)})
    with pytest.raises(WeightsError, match=r"not finite, in quant_conv_mu\.conv\.bias"):
        load_vae(small_file)


def test_weights_are_finite_in_the_float32_that_they_are_used_in(small_file):
    tensors = load_file(small_file)
    for name, kept in (("quant_conv_mu.conv.bias", torch.float8_e4m3fn), ("decoder.bias", torch.float64)):
        tensors[name] = torch.ones(4).to(kept)
    tensors["decoder.bias"][1] = 1e300
    save_file(tensors, small_file)
    with pytest.raises(WeightsError, match=r"not finite, in decoder\.bias$"):
        load_vae(small_file)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("[]", r"vidlat_network: got \[\]; expected an object"),
        ("3", "vidlat_network: got 3"),
        ('{"x": 1}', "unknown 'x'; known are spatial_dims"),
        ('{"\\u001b[2J": 1}', "unknown '.x1b.2J'"),
        ('{"num_channels": 64}', "num_channels: got 64; expected up to 8 whole numbers"),
        ('{"num_channels": [4, 8, 7], "norm_num_groups": 2}', "multiple of norm_num_groups"),
        ('{"num_channels": []}', "no network of MAISI's class"),
        ('{"num_channels": [1099511627776]}', "num_channels: got"),
        ('{"num_res_blocks": [1]}', "num_res_blocks"),
        ('{"latent_channels": true}', "latent_channels: got True"),
        ('{"spatial_dims": 2}', "spatial_dims: got 2"),
        ('{"in_channels": 3}', "in_channels: got 3"),
        ('{"use_convtranspose": 1}', "use_convtranspose: got 1"),
        ('{"attention_levels": [0, 0, 0]}', "attention_levels: got"),
        ('{"norm_eps": NaN}', "holds NaN"),
        ("[" * 100_000, "nested too deeply"),
        ('{"num_channels": [4096, 4096, 4096]}', "0 of 122 tensors fit"),  # 6 GB, which are never taken
    ],
    ids=lambda value: value[:30],
)
def test_a_stated_network_that_none_can_be_is_refused_in_one_line(tmp_path, stated, message):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={NETWORK_METADATA_KEY: stated})
    with pytest.raises(WeightsError, match=rf"w\.safetensors: .*{message}") as refusal:
        load_vae(path)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # PyTorch 2.11 mentions them
@pytest.mark.parametrize(
    "tensors",
    [
        {1: torch.zeros(1), "a": torch.zeros(1)},
        {"a": torch.zeros(1).expand(2**40)},
        {"a": torch.zeros(1, dtype=torch.complex64)},
        {"a": torch.zeros(1, dtype=torch.int64)},
        {"a": torch.zeros(3).to_sparse()},
        {"a": torch.zeros(1, device="meta")},
        [torch.zeros(1)],
    ],
    ids=["integer key", "repeated", "complex", "whole", "sparse", "meta", "list"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path, tensors):
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_vae(tmp_path / "w.pt")


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_vae(tmp_path / "odd.pt")


def test_other_channel_widths_come_from_the_weights_file(small_file):
    vae = load_vae(small_file, device="cpu")
    assert vae.encoder_config["num_channels"] == [8, 8, 16]
    assert (vae.time_compression, vae.space_compression) == (4, 4)
    mean, std = vae.encode(torch.rand(1, 1, 4, 8, 8))
    assert mean.shape == std.shape == (1, 4, 1, 2, 2)


def test_written_weights_load_again_rounded_to_float16(tmp_path):
    network = stock_network(SMALL_NETWORK)
    write_weights(tmp_path / "w.safetensors", network.state_dict(), SMALL_NETWORK)
    rounded = {name: tensor.half().float() for name, tensor in network.state_dict().items()}
    assert load_vae(tmp_path / "w.safetensors", device="cpu").weights_hash == hash_weights(rounded)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("kind", ["small_vae", "kl_folder"])
def test_a_loaded_network_does_not_change_with_its_file(kind, request, tmp_path):
    original, copied = request.getfixturevalue(kind), tmp_path / "copied.safetensors"
    (shutil.copytree if original.is_dir() else shutil.copyfile)(original, copied)
    network = load_folder(copied).network if copied.is_dir() else load_network(copied)[0]
    before = hash_weights(network.state_dict())
    file = next(copied.glob("*.safetensors")) if copied.is_dir() else copied
    with file.open("r+b") as opened:  # in place: another file of this name would not matter
        opened.write(b"\xff" * file.stat().st_size)
    assert hash_weights(network.state_dict()) == before


def test_the_encoders_hash_is_that_of_what_makes_latents():
    tensors = stock_network(SMALL_NETWORK).state_dict()
    frames = torch.rand(1, 1, 4, 8, 8)
    before = small_vae().encode_stacks(frames)
    for name in some_of(tensors):
        network = stock_network(SMALL_NETWORK)
        changed = network.state_dict()[name]
        changed += torch.randn(changed.shape, generator=torch.Generator().manual_seed(0))
        vae = FrozenVAE(MaisiAutoencoder(network, SMALL_NETWORK), batch=8)
        same = all(torch.equal(*pair) for pair in zip(vae.encode_stacks(frames), before, strict=True))
        assert (vae.encoder_hash == hash_encoder(tensors)) is same, name
        assert vae.weights_hash != hash_weights(tensors)


def test_settings_of_the_decoder_alone_are_not_part_of_the_encoder():
    transposed = {**SMALL_NETWORK, "use_convtranspose": True}
    vae = FrozenVAE(MaisiAutoencoder(stock_network(transposed), transposed))
    assert vae.encoder_config == small_vae().encoder_config
    fewer_groups = {**SMALL_NETWORK, "norm_num_groups": 2}
    assert (
        FrozenVAE(MaisiAutoencoder(stock_network(fewer_groups), fewer_groups)).encoder_config
        != vae.encoder_config
    )


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("stack", [4, 8])
def test_any_number_of_frames_is_encoded_and_decoded(num_frames, stack):
    vae = small_vae(stack=stack, batch=2)
    video = torch.rand(2, 1, num_frames, 8, 12)
    mean, std = vae.encode(video)
    assert mean.shape == std.shape == (2, 4, -(-num_frames // stack) * stack // 4, 2, 3)
    assert vae.decode(mean, num_frames).shape == video.shape
    assert (std > 0).all()


def test_each_stack_is_encoded_as_monai_encodes_it_alone():
    network = stock_network(SMALL_NETWORK)
    video = torch.rand(2, 1, 7, 8, 8)
    mean, std = small_vae(batch=3).encode(video)
    for owner in range(2):
        padded = torch.cat([video[owner], video[owner, :, -1:]], dim=1)
        for index in range(2):
            with torch.inference_mode():
                alone_mean, alone_std = network.encode(padded[None, :, 4 * index : 4 * index + 4])
            torch.testing.assert_close(mean[owner, :, index], alone_mean[0, :, 0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(std[owner, :, index], alone_std[0, :, 0], atol=1e-5, rtol=1e-5)


def test_the_latents_of_a_stack_do_not_depend_on_the_others_in_its_call():
    vae = small_vae(batch=4)
    stacks = torch.rand(4, 1, 4, 16, 16)
    together = vae.encode_stacks(stacks)[0]
    others = torch.rand(4, 1, 4, 16, 16)
    for position in range(4):
        others[position] = stacks[0]
        assert torch.equal(vae.encode_stacks(others)[0][position], together[0])
    assert torch.equal(vae.encode_stacks(stacks[:1])[0], together[:1])


@pytest.mark.parametrize(("stack", "stretch"), [(4, 2), (4, 4), (8, 2)])
def test_slow_motion_is_the_stock_network_on_repeated_frames_and_the_mean_of_what_it_decodes(stack, stretch):
    network, num_frames = stock_network(SMALL_NETWORK), 5
    vae = small_vae(stack=stack, stretch=stretch, batch=2)
    video = torch.rand(1, 1, num_frames, 16, 16, generator=torch.Generator().manual_seed(0))
    shown = [video[:, :, frame] for frame in range(num_frames) for _ in range(stretch)]
    shown += shown[-1:] * (-len(shown) % stack)
    calls = [torch.stack(shown[first : first + stack], 2) for first in range(0, len(shown), stack)]
    with torch.inference_mode():
        latents = [network.encode(call)[0] for call in calls]
        decoded = torch.cat([network.decode(latent) for latent in latents], 2)
    mean, _ = vae.encode(video)
    torch.testing.assert_close(mean, torch.cat(latents, 2), rtol=1e-4, atol=1e-4)
    frames = vae.decode(mean, num_frames)
    assert frames.shape == video.shape
    for frame in range(num_frames):
        copies = decoded[:, :, frame * stretch : (frame + 1) * stretch]
        torch.testing.assert_close(frames[:, :, frame], copies.mean(2), rtol=1e-4, atol=1e-4)


TIMES = [
    {"overlap": 2},
    {"overlap": 3},
    {"stack": 8, "overlap": 4},
    {"stack": 12, "overlap": 8},
    {"stack": 12, "overlap": 8, "blend": "center"},
    {"stack": 8, "overlap": 4, "stretch": 2},
    {"stack": 8, "overlap": 2, "stretch": 2, "stretch_by": "linear"},
]


@pytest.mark.parametrize("settings", TIMES, ids=str)
def test_overlapping_calls_are_those_of_the_stock_network_and_their_latents_are_blended(settings):
    network, vae = stock_network(SMALL_NETWORK), small_vae(**settings, batch=2)
    timing = vae.timing
    video = torch.rand(1, 1, 13, 8, 8, generator=torch.Generator().manual_seed(0))
    shown = stretch_video(video, timing)
    step = timing.stack - timing.overlap
    held: dict[tuple, list] = {}
    for number in range(timing.num_calls(13)):
        places = [min(number * step + place, shown.shape[2] - 1) for place in range(timing.stack)]
        with torch.inference_mode():
            mean, std = network.encode(shown[:, :, places])
        for place in range(timing.latents_per_call):
            begins = number * step + 4 * place
            key = (begins,) if timing.overlap % 4 == 0 else (begins, number)
            nearness = min(place + 1, timing.latents_per_call - place)
            held.setdefault(key, []).append((nearness, mean[:, :, place], std[:, :, place]))
    in_order = [held[key] for key in sorted(held, key=lambda key: key[::-1])]
    found = vae.encode(video)
    assert found[0].shape[2] == timing.num_latent_frames(13) == len(in_order)
    for place, calls in enumerate(in_order):
        for which, latents in enumerate(found, 1):
            each = torch.stack([call[which] for call in calls])
            nearest = each[int(np.argmax([call[0] for call in calls]))]
            expected = nearest if timing.blend == "center" else each.mean(0)
            torch.testing.assert_close(latents[:, :, place], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", some_of(TIMES), ids=str)
def test_frames_that_calls_share_are_cross_faded_when_they_are_decoded(settings):
    network, vae = stock_network(SMALL_NETWORK), small_vae(**settings, batch=2)
    timing, num_frames = vae.timing, 13
    shape = (1, 4, timing.num_latent_frames(num_frames), 2, 2)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    sums, weights = torch.zeros(1, 1, 99, 8, 8), torch.zeros(99)
    for number in range(timing.num_calls(num_frames)):
        first = number * timing.latent_step
        with torch.inference_mode():
            call = network.decode(latents[:, :, first : first + timing.latents_per_call])
        for place in range(timing.stack):
            weight = min(place + 1, timing.stack - place)
            time = number * (timing.stack - timing.overlap) + place
            sums[:, :, time] += weight * call[:, :, place]
            weights[time] += weight
    frames = vae.decode(latents, num_frames)
    assert frames.shape == (1, 1, num_frames, 8, 8)
    for number in range(num_frames):
        copies = [number * timing.stretch + copy for copy in range(timing.stretch)]
        if timing.stretch_by == "linear":
            copies = copies[:1]
        expected = torch.stack([sums[:, :, time] / weights[time] for time in copies]).mean(0)
        torch.testing.assert_close(frames[:, :, number], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stretch": 3}, "stretch: got 3; expected a divisor of the stack of 4 frames"),
        ({"stack": 5}, "stack: got 5; expected a multiple of 4"),
        ({"stack": 2}, "nearest that works: 4$"),
        ({"stack": 6}, "nearest that works: 4 and 8$"),
        ({"overlap": 4}, "overlap: got 4; expected less than the stack of 4 frames: 3 at most"),
    ],
)
def test_time_settings_the_network_cannot_process_are_refused_before_it_runs(settings, message):
    with pytest.raises(TimingError, match=message):
        small_vae(**settings)


@pytest.mark.parametrize("shape", [(1, 2, 4, 8, 8), (1, 4, 8, 8), (1, 1, 4, 10, 8), (1, 1, 4, 8, 9)])
def test_shapes_the_network_would_crop_are_refused(shape):
    with pytest.raises(ShapeError):
        small_vae().encode(torch.rand(shape))


def test_latents_of_another_width_are_refused():
    with pytest.raises(ShapeError, match="multiple of 2"):
        small_vae(stack=8).decode(torch.rand(1, 4, 3, 2, 2), 12)
    with pytest.raises(ShapeError, match="3 and a multiple of 2"):
        small_vae(stack=12, overlap=4).decode(torch.rand(1, 4, 4, 2, 2), 12)
    with pytest.raises(ShapeError, match=r"\(B, 4,"):
        small_vae().decode(torch.rand(1, 3, 1, 2, 2), 4)


AVX512 = {"architecture": "x86_64", "avx512_bw": True, "avx512_vl": True, "avx512_dq": True}


@pytest.mark.parametrize(
    ("capabilities", "has_it"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bw": False}, False),
        (AVX512 | {"avx512_bf16": False}, True),
        (AVX512 | {"avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({"architecture": "aarch64", "bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_refused_on_a_cpu_without_it(small_file, monkeypatch, capabilities, has_it):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert has_bfloat16("cpu") == has_it
    assert resolve_precision("auto", "cpu") == resolve_precision("float32", "cpu") == "float32"
    assert resolve_precision("auto", "cpu:0") == "float32"  # as Accelerate calls it, which counts devices
    elsewhere = load_vae(small_file, BFLOAT16, device="cpu", computes_here=False)
    assert elsewhere.precision == "bfloat16"
    if has_it:
        assert load_vae(small_file, BFLOAT16, device="cpu").precision == "bfloat16"
    else:
        with pytest.raises(DeviceError, match="use --precision float32, or a GPU"):
            load_vae(small_file, BFLOAT16, device="cpu")


@pytest.fixture
def two_gpus(monkeypatch):
    """An A100 and a T4; PyTorch answers for the current one."""
    current = [0]

    @contextmanager
    def make_current(device):
        before, current[0] = current[0], torch.device(device).index or 0
        yield
        current[0] = before

    def is_supported(including_emulation=True):
        return including_emulation or current[0] == 0

    monkeypatch.setattr(torch.cuda, "device", make_current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_emulated_bfloat16_of_a_gpu_is_not_taken_for_real(two_gpus, cpu_without_bfloat16):
    devices = "cuda", "cuda:0", "cuda:1"
    assert [has_bfloat16(device) for device in devices] == [True, True, False]
    assert [resolve_precision("auto", device) for device in devices] == ["bfloat16", "bfloat16", "float32"]
    assert resolve_precision("bfloat16", "cuda:0") == "bfloat16"
    with pytest.raises(DeviceError, match="this GPU only emulates it"):
        resolve_precision("bfloat16", "cuda:1")


def test_a_process_that_does_not_compute_has_another_ask_the_gpu(small_file, monkeypatch):
    def make_context():
        raise AssertionError("a CUDA context was made")

    monkeypatch.setattr(torch.cuda, "_lazy_init", make_context)
    for answer, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(device_module, "_QUESTION", f"print({answer})")
        assert resolve_precision("auto", "cuda", computes_here=False) == precision
    with pytest.raises(DeviceError, match="only emulates"):
        resolve_precision("bfloat16", "cuda", computes_here=False)
    monkeypatch.setattr(device_module, "_QUESTION", "raise SystemExit('no driver')")
    with pytest.raises(DeviceError, match=r"device cuda: cannot be asked .*: no driver") as refusal:
        resolve_precision("auto", "cuda", computes_here=False)
    assert "\n" not in str(refusal.value)
    assert load_vae(small_file, BFLOAT16, device="cuda", computes_here=False).device.type == "cpu"


TORCH_WITH_GPUS = """
from contextlib import contextmanager
class cuda:
    @contextmanager
    def device(name):
        cuda.current = name
        yield
    def is_bf16_supported(including_emulation=True):
        return including_emulation or cuda.current == "cuda:1"
"""


def test_the_other_process_asks_for_the_right_gpu_and_for_no_emulation(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(TORCH_WITH_GPUS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert resolve_precision("auto", "cuda:0", computes_here=False) == "float32"
    assert resolve_precision("auto", "cuda:1", computes_here=False) == "bfloat16"


@pytest.mark.parametrize(
    ("version", "warned"), [(90701, None), (90800, "9.8"), (91002, "9.10"), (91401, "9.14"), (91500, None)]
)
def test_a_cudnn_that_pytorch_passes_over_is_warned_of(monkeypatch, version, warned):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    warning = warning_of_convolutions("bfloat16", "cuda:1")
    assert warning is None if warned is None else f"cuDNN {warned} " in warning
    assert warning_of_convolutions("float32", "cuda") is warning_of_convolutions("bfloat16", "cpu") is None


def test_the_vae_is_frozen():
    vae = small_vae()
    mean, _ = vae.encode(torch.rand(1, 1, 4, 8, 8, requires_grad=True))
    assert not mean.requires_grad
    assert not vae._autoencoder.network.training
    assert not any(parameter.requires_grad for parameter in vae._autoencoder.network.parameters())


def test_half_precision_stays_close_and_finite_also_on_black_constant_and_extreme_input():
    exact, half = small_vae(), small_vae(precision="bfloat16")
    black = torch.zeros(1, 1, 4, 16, 16)
    extreme = torch.rand(1, 1, 4, 16, 16).round()
    lone = black.clone()
    lone[..., 7, 7] = 1
    for video in (torch.rand(1, 1, 8, 16, 16), black, black + 1, black + 0.5, extreme, lone):
        expected, found = exact.encode(video)[0], half.encode(video)[0]
        assert found.dtype == torch.float32
        assert (found - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    assert resolve_device("auto") == "cpu"
    with pytest.raises(DeviceError, match="no usable GPU"):
        resolve_device("cuda")


@pytest.mark.parametrize("device", ["foo", "mps", "cuda:", "cuda:x", "cuda:01", "cudax", "cpu:0", ""])
def test_only_cpu_and_cuda_are_devices(device):
    with pytest.raises(ConfigError, match=r"expected cpu, cuda, cuda:N or auto"):
        resolve_device(device)


def test_stacks_per_call_follow_the_device_by_default():
    assert [resolve_batch(0, device) for device in ("cpu", "cuda", "cuda:1")] == [2, 8, 8]
    assert [resolve_batch(5, device) for device in ("cpu", "cuda")] == [5, 5]


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(name) for name in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(DeviceError, match="last GPU is cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("benchmark", [False, True])
def test_a_call_runs_without_tf32_and_leaves_the_settings_as_they_were(benchmark):
    def settings():
        cudnn = torch.backends.cudnn
        return cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark

    def watch(network):
        encode = network.encode
        return {"encode": lambda part: seen.append(settings()) or encode(part)}

    vae, seen, before = small_vae(watch), [], settings()
    vae.cudnn_benchmark = benchmark
    vae.encode(torch.rand(1, 1, 4, 8, 8))
    assert seen == [(False, False, benchmark)]
    assert settings() == before
    assert before[0]  # PyTorch's default


@pytest.mark.parametrize("allocate", [lambda _: torch.empty(10**15), lambda _: out_of_gpu_memory()])
@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_insufficient_memory_ends_in_one_line(allocate, direction):
    vae = small_vae(lambda _: {direction: allocate})
    shape = (1, 1, 4, 8, 8) if direction == "encode" else (1, 4, 1, 2, 2)
    with pytest.raises(EncodeError, match=r"not enough memory on cpu for \d+ stacks? of [\dx]+; ") as refusal:
        vae.encode(torch.rand(shape)) if direction == "encode" else vae.decode(torch.rand(shape), 4)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried",
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "could not create a primitive",
    ],
)
def test_lack_of_memory_is_recognised_whichever_library_reports_it(message):
    def fails(_):
        raise RuntimeError(message)

    vae = small_vae(lambda _: {"encode": fails})
    with pytest.raises(NotEnoughMemoryError) as refusal:
        vae.encode_stacks(torch.rand(1, 1, 4, 8, 8))
    # The traceback of the first error would keep the memory of the call alive.
    assert refusal.value.__cause__ is refusal.value.__context__ is None


def test_network_that_does_not_fit_on_its_device_is_refused():
    with pytest.raises(NotEnoughMemoryError, match="not enough memory on cpu for the VAE itself; free some"):
        small_vae(lambda _: {"to": lambda *_, **__: out_of_gpu_memory()})


def test_the_same_vae_with_another_number_of_stacks_per_call():
    def watch(network):
        encode = network.encode
        return {"encode": lambda part: shapes.append(len(part)) or encode(part)}

    shapes = []
    vae = small_vae(watch, batch=8)
    fewer = vae.with_batch(3)
    assert (vae.batch, fewer.batch) == (8, 3)
    assert fewer._autoencoder.network is vae._autoencoder.network
    stacks = torch.rand(7, 1, 4, 8, 8)
    expected = vae.encode_stacks(stacks)[0]
    torch.testing.assert_close(fewer.encode_stacks(stacks)[0], expected, atol=1e-5, rtol=1e-5)
    assert shapes == [8, 3, 3, 3]


def out_of_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")


def test_other_errors_of_the_network_are_not_mistaken_for_lack_of_memory():
    vae = small_vae(lambda _: {"encode": lambda _: torch.zeros(2) + torch.zeros(3)})
    with pytest.raises(RuntimeError, match="size of tensor"):
        vae.encode(torch.rand(1, 1, 4, 8, 8))


def test_weights_tell_the_stacks_they_were_trained_on(small_file, tmp_path):
    assert trained_stacks(resolve_weights("tiny")) == (4, 8, 16)
    assert trained_stacks(small_file) == trained_stacks(tmp_path / "any.pt") == ()
    network = stock_network(SMALL_NETWORK)
    write_weights(tmp_path / "w.safetensors", network.state_dict(), SMALL_NETWORK, trained_stacks=[8, 16])
    assert trained_stacks(tmp_path / "w.safetensors") == (8, 16)
    plain = load_vae(small_file, device="cpu")
    assert load_vae(tmp_path / "w.safetensors", device="cpu").encoder_config == plain.encoder_config


@pytest.mark.parametrize("stated", ["{", "4", '["4"]', "[0]", "[1e9]", str([4] * 1000)])
def test_stacks_that_no_weights_were_trained_on_are_refused(tmp_path, stated):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata={STACKS_METADATA_KEY: stated})
    with pytest.raises(WeightsError, match="vidlat_trained_stacks cannot be read") as refusal:
        trained_stacks(path)
    assert "\n" not in str(refusal.value)
