"""A VAE of diffusers against diffusers' own encode and decode, and its folders against what they may hold."""

import copy
import inspect
import json
import os
import sys

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from tests.thorough import some_of
from vidlat.config import LatentSettings
from vidlat.encode.device import has_bfloat16
from vidlat.encode.diffusers_folder import CONFIG, DEFAULTS, WEIGHTS, WITHOUT_EFFECT, licence_in
from vidlat.encode.vae import load_vae
from vidlat.encode.vae_spec import name_without_path
from vidlat.encode.weights import licence_of, resolve_weights, times_for
from vidlat.encode.weights_file import hash_encoder, hash_weights
from vidlat.errors import ShapeError, WeightsError

SMALL = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
FLOAT32 = LatentSettings(stack=3, precision="float32")
BFLOAT16 = LatentSettings(stack=3, precision="bfloat16")

VARIANTS = {
    "as Stable Diffusion 1": {},
    "as Stable Diffusion 3": {
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "as EchoNet-Synthetic": {"in_channels": 1, "out_channels": 1, "mid_block_add_attention": False},
    "gray in, colours out": {"in_channels": 1},
    "by channel": {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 1.0, 2.0, 3.0]},
}


def save_network(folder, **changes):
    torch.manual_seed(0)
    network = AutoencoderKL(**(SMALL | changes)).eval().requires_grad_(False)
    network.save_pretrained(folder)
    return network


@pytest.fixture
def folder(tmp_path):
    save_network(tmp_path / "kl")
    return tmp_path / "kl"


def edit_config(folder, **changes):
    path = folder / CONFIG
    config = {name: value for name, value in json.loads(path.read_text()).items() if name not in changes}
    path.write_text(json.dumps(config | {k: v for k, v in changes.items() if v != "absent"}))


def frames_of(num_stacks=2, num_frames=3, size=16):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(num_stacks, 1, num_frames, size, size, generator=generator)


def by_diffusers(network, frames):
    """Mean, std and decoded frames of stacks, frame by frame, in the arithmetic of the network."""
    config, dtype = network.config, network.dtype
    scale, shift = config.scaling_factor, config.shift_factor or 0.0
    if config.latents_mean:  # as StableDiffusionXLPipeline decodes them
        shift = torch.tensor(config.latents_mean, dtype=torch.float64).view(1, -1, 1, 1)
        scale = scale / torch.tensor(config.latents_std, dtype=torch.float64).view(1, -1, 1, 1)
    outputs = []
    for frame in frames.to(dtype).transpose(1, 2).flatten(0, 1):
        image = (frame * 2 - 1).expand(1, config.in_channels, -1, -1)
        posterior = network.encode(image).latent_dist
        latent = (posterior.mean - shift) * scale
        decoded = network.decode((latent / scale + shift).to(dtype)).sample
        outputs.append((latent, posterior.std * scale, decoded.mean(1, keepdim=True) / 2 + 0.5))
    joined = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    return [part.view(len(frames), -1, *part.shape[1:]).transpose(1, 2) for part in joined]


def errors_of(outputs, truths):
    """Root mean square of each, relative to the spread of the truth."""
    pairs = zip(outputs, truths, strict=True)
    return [float((output - truth).square().mean().sqrt() / truth.std()) for output, truth in pairs]


@pytest.mark.parametrize("changes", some_of(VARIANTS.values()), ids=some_of(VARIANTS))
def test_stacks_are_encoded_and_decoded_as_diffusers_does_frame_by_frame(tmp_path, changes):
    network = save_network(tmp_path, **changes)
    frames = frames_of()
    truths = by_diffusers(copy.deepcopy(network).double(), frames)
    vae = load_vae(tmp_path, FLOAT32, device="cpu", batch=2)
    assert (vae.time_compression, vae.space_compression) == (1, 2)
    mean, std = vae.encode_stacks(frames)
    assert mean.shape == std.shape == (2, network.config.latent_channels, 3, 8, 8)
    outputs = mean, std, vae.decode_stacks(mean)
    assert max(errors_of(outputs, truths)) <= 1e-5
    # The errors of diffusers itself are of that size.
    assert max(errors_of(by_diffusers(network, frames), truths)) <= 1e-5


def test_every_frame_of_a_video_has_a_latent_frame_of_its_own(folder):
    vae = load_vae(folder, LatentSettings(stack=1, precision="float32"), device="cpu", batch=2)
    video = frames_of(1, 5)
    mean, _ = vae.encode(video)
    assert mean.shape[2] == 5
    changed = video.clone()
    changed[:, :, 3] = 0
    pairs = zip(mean.unbind(2), vae.encode(changed)[0].unbind(2), strict=True)
    same = [torch.equal(before, after) for before, after in pairs]
    assert same == [True, True, True, False, True]
    assert vae.decode(mean, 5).shape == video.shape


def test_a_large_frame_is_neither_tiled_nor_sliced(folder):
    edit_config(folder, sample_size=8)
    network = AutoencoderKL.from_pretrained(folder).requires_grad_(False).double()
    frames = frames_of(1, 2, size=64)
    outputs = load_vae(folder, FLOAT32, device="cpu", batch=1).encode_stacks(frames)
    assert max(errors_of(outputs, by_diffusers(network, frames)[:2])) <= 1e-5


def test_known_settings_are_those_of_the_class():
    arguments = dict(inspect.signature(AutoencoderKL.__init__).parameters)
    del arguments["self"]
    defaults = {name: argument.default for name, argument in arguments.items() if name not in WITHOUT_EFFECT}
    assert json.loads(json.dumps(defaults)) == DEFAULTS


def test_settings_that_are_not_stated_have_the_defaults_of_diffusers(tmp_path):
    network = AutoencoderKL()
    network.save_pretrained(tmp_path)
    (tmp_path / CONFIG).write_text('{"_class_name": "AutoencoderKL", "_diffusers_version": "0.1"}')
    vae = load_vae(tmp_path, FLOAT32, device="cpu")
    assert vae.weights_hash == hash_weights(network.state_dict())
    assert vae.encoder_config["scaling_factor"] == 0.18215


def test_identity_is_what_changes_a_latent(folder):
    plain = load_vae(folder, FLOAT32, device="cpu")
    assert plain.encoder_hash == hash_encoder(load_file(folder / WEIGHTS))
    edit_config(folder, force_upcast=False, sample_size=64)
    assert load_vae(folder, FLOAT32, device="cpu").encoder_config == plain.encoder_config
    for change in ({"scaling_factor": 0.5}, {"shift_factor": 0.1}):
        edit_config(folder, **change)
        other = load_vae(folder, FLOAT32, device="cpu")
        assert other.encoder_hash == plain.encoder_hash
        assert other.encoder_config != plain.encoder_config
    for name, is_encoder in (("decoder.conv_in.bias", False), ("quant_conv.bias", True)):
        tensors = load_file(folder / WEIGHTS)
        tensors[name] += 1
        save_file(tensors, folder / WEIGHTS)
        found = load_vae(folder, FLOAT32, device="cpu")
        assert (found.encoder_hash != plain.encoder_hash) == is_encoder
        assert found.weights_hash != plain.weights_hash


def test_attention_under_its_former_names_and_float16_are_read_as_diffusers_reads_them(folder):
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        for new, old in former.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[name] = tensor.half()
    assert sum("proj_attn" in name for name in tensors) == 4
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    theirs = AutoencoderKL.from_pretrained(folder).float()
    assert load_vae(folder, FLOAT32, device="cpu").weights_hash == hash_weights(theirs.state_dict())


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="this CPU does not compute in bfloat16")
def test_bfloat16_is_closer_to_the_truth_than_autocast(folder):
    network = AutoencoderKL.from_pretrained(folder).requires_grad_(False)
    frames = frames_of(size=32)
    truths = by_diffusers(copy.deepcopy(network).double(), frames)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        autocast = errors_of(by_diffusers(network, frames)[:2], truths[:2])
    vae = load_vae(folder, BFLOAT16, device="cpu", batch=2)
    outputs = vae.encode_stacks(frames)
    assert all(output.dtype == torch.float32 for output in outputs)
    errors = errors_of(outputs, truths[:2])
    assert all(ours <= theirs for ours, theirs in zip(errors, autocast, strict=True))
    assert max(errors_of([vae.decode_stacks(truths[0].float())], truths[2:])) <= 0.05


def test_all_but_the_ends_is_held_in_bfloat16(folder, cpu_with_bfloat16):
    exact = load_vae(folder, FLOAT32, device="cpu")
    half = load_vae(folder, BFLOAT16, device="cpu")
    assert (half.weights_hash, half.encoder_hash) == (exact.weights_hash, exact.encoder_hash)
    inner = "encoder.down_blocks.", "encoder.mid_block.", "decoder.mid_block.", "decoder.up_blocks."
    for name, tensor in half._autoencoder.network.state_dict().items():
        assert tensor.dtype == (torch.bfloat16 if name.startswith(inner) else torch.float32), name
    frames = frames_of()
    expected, found = exact.encode(frames)[0], half.encode(frames)[0]
    assert (found - expected).norm() <= 0.05 * expected.norm()


def test_sizes_that_are_no_multiple_of_the_compression_are_refused(folder):
    with pytest.raises(ShapeError, match="compresses 2 times"):
        load_vae(folder, FLOAT32, device="cpu").encode_stacks(frames_of(size=15))


def break_weights(folder, content=None):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)


def only_a_pickle(folder):
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")


def as_pipeline(folder):
    (folder / CONFIG).rename(folder / "model_index.json")


def as_float16_file(folder):
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.fp16.safetensors")


def add_tensor(folder, name, like):
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {name: tensors[like].clone()}, folder / WEIGHTS)


def under_both_names(folder):
    attention = "encoder.mid_block.attentions.0"
    add_tensor(folder, f"{attention}.query.weight", f"{attention}.to_q.weight")


def with_a_newline(folder):
    add_tensor(folder, "x\ny", "quant_conv.bias")


def as_pipe(folder):
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def assert_refused_in_one_line(folder, message):
    with pytest.raises(WeightsError, match=message) as refusal:
        load_vae(folder, FLOAT32, device="cpu")
    assert "\n" not in str(refusal.value)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), rf"has no {WEIGHTS} \(none\); expected what save_pretr"),
        (only_a_pickle, r"\(only diffusion_pytorch_model\.bin, which may run code when it is loaded"),
        (lambda folder: (folder / CONFIG).unlink(), r"has no config\.json; expected a folder that save_"),
        (as_pipeline, r"is a whole pipeline; give its VAE: .*/vae$"),
        (as_pipe, "is a named pipe; expected a regular file"),
        (break_weights, "cannot be read as weights"),
        (lambda folder: break_weights(folder, b""), "cannot be read as weights"),
        (as_float16_file, r"\(but diffusion_pytorch_model\.fp16\.safetensors; give a whole file that name\)"),
        (under_both_names, "holds a layer under its former name and its present one"),
        (with_a_newline, r"124 of 124 tensors fit this network; unexpected: x\\ny$"),
        (lambda folder: (folder / CONFIG).write_text("{"), r"config\.json: Expecting"),
        (lambda folder: (folder / CONFIG).write_text("[]"), r"config\.json: got \[\]; expected an object"),
        (lambda folder: (folder / CONFIG).write_text(" " * 10**6 + "1"), "expected 1000000 at most"),
    ],
)  # fmt: skip
def test_a_folder_of_something_else_is_refused_in_one_line(folder, damage, message):
    damage(folder)
    assert_refused_in_one_line(folder, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "is of class 'UNet2DModel'; expected an AutoencoderKL"),
        ({"_class_name": "AutoencoderKLWan"}, "is of class 'AutoencoderKLWan'"),
        ({"_class_name": "absent"}, "has no _class_name"),
        ({"in_channels": 4}, "in_channels: got 4; expected 1 for gray or 3 for colours"),
        ({"out_channels": 2}, "out_channels: got 2; expected 1"),
        ({"novelty": 1}, "unknown 'novelty'; known are in_channels"),
        ({"scaling_factor": 0}, "scaling_factor: got 0"),
        ({"scaling_factor": None}, "scaling_factor: got None"),
        ({"latents_std": [1.0, 0.0, 1.0, 1.0]}, "latents_std: got 0"),
        ({"latents_mean": [1.0]}, "latents_mean: got"),
        ({"act_fn": "sine"}, "is no network of its class"),
        ({"norm_num_groups": 3}, "is no network of its class"),
        ({"layers_per_block": 10**9}, "layers_per_block: got"),
        ({"block_out_channels": [8]}, "down_block_types: got .*; expected 1 of AttnDown"),
        ({"down_block_types": ["CrossAttnDownBlock2D"] * 2}, "expected 2 of AttnDown"),
        ({"block_out_channels": [4096, 4096]}, "6 of 120 tensors fit"),  # never in memory
        ({"latent_channels": 8}, "misshapen: "),
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_no_such_vae_has_are_refused_in_one_line(folder, changes, message):
    edit_config(folder, **changes)
    assert_refused_in_one_line(folder, message)


@pytest.mark.parametrize(
    ("page", "licence"),
    [
        (None, "unknown"),
        ("# A VAE\n\nlicense: mit\n", "unknown"),
        ("---\nlicense: mit\n---\n# A VAE\n", "mit"),
        ("---\r\ntags:\r\n- vae\r\nlicense: 'creativeml-openrail-m'\r\n---\r\n", "creativeml-openrail-m"),
        ("---\nlanguage: en\n---\nlicense: mit\n", "unknown"),
        ("---\nlicense: \x1b[2J\n---\n", "unknown"),
        ("---\nlicense: mit", "unknown"),
        ("---" + " \n" * 400_000, "unknown"),  # in the time of one look at each letter
    ],
)
def test_the_licence_is_what_the_metadata_of_the_readme_state(tmp_path, page, licence):
    (tmp_path / "vae").mkdir()
    if page is not None:
        (tmp_path / "README.md").write_bytes(page.encode())
    assert licence_in(tmp_path) == licence_in(tmp_path / "vae") == licence
    assert licence_of(f"diffusers:{tmp_path}", tmp_path) == licence


def test_what_a_spec_means(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_weights(f"diffusers:{folder}") == folder
    assert str(resolve_weights("diffusers:kl")) == "kl"
    assert times_for("diffusers:kl", folder) == {"stack": 1}
    assert name_without_path("diffusers:kl") == "diffusers:kl"
    assert name_without_path(f"diffusers:{folder}") == "kl"
    assert name_without_path("diffusers:owner/name/vae") == "diffusers:owner/name/vae"
    with pytest.raises(WeightsError, match=rf"\(is a folder; .* give diffusers:{folder}$"):
        resolve_weights(str(folder))
    for spec in ("diffusers:nowhere", "diffusers:/no/where", "diffusers:../no/where", "diffusers:~/no/where"):
        with pytest.raises(WeightsError, match=f"^{spec}: no folder at .*OWNER/NAME"):
            resolve_weights(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("diffusers:", "names no VAE; expected a folder, or OWNER/NAME"),
        ("diffusers:~nobody-has-this-name/kl", "names a home folder that is not known; .* of a hub$"),
        ("diffusers:https://example.org/kl", "is a URL; .* or give OWNER/NAME"),
        (f"diffusers:{'a' * 300}", r"cannot be looked up \(File name too long\)$"),
        (
            "diffusers:owner/na--me",
            r"^diffusers:\S+: no such folder here, and (Repo|Cannot have)",
        ),
        (
            "diffusers:owner/name.git/vae",
            r"^diffusers:\S+: no such folder here, and (Repo|Cannot have)",
        ),
        (
            "diffusers:öwner/name",
            r"^diffusers:\S+: no such folder here, and (Repo|Cannot have)",
        ),
        ("~nobody-has-this-name/vae.pt", "names a home folder that is not known"),
        ("a" * 300, "no weights file at .*File name too long"),
    ],
    ids=range(9),
)
def test_a_spec_that_can_be_no_vae_is_refused_in_one_line(spec, message):
    with pytest.raises(WeightsError, match=message) as refusal:
        resolve_weights(spec)
    assert "\n" not in str(refusal.value)


def test_without_diffusers_one_line_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models.autoencoders.autoencoder_kl", None)
    for use in (lambda: load_vae(folder), lambda: resolve_weights("diffusers:owner/name")):
        with pytest.raises(WeightsError, match=r"pip install 'diffusers>=.* vidlat\[diffusers\]$") as refusal:
            use()
        assert "\n" not in str(refusal.value)
