"""A folder in which diffusers has saved an AutoencoderKL: its settings, tensors and licence.

Only JSON, safetensors and the head of a README are read; nothing is unpickled.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from vidlat.documents import Fields, read_json
from vidlat.encode.image_autoencoder import ImageAutoencoder
from vidlat.encode.weights_file import MOST_CHANNELS, MOST_LEVELS, load_strictly, read_weights
from vidlat.errors import WeightsError, one_line, printable, shown
from vidlat.files import read_file
from vidlat.wording import shorten

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
"""The files of the folder."""

DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
    "block_out_channels": [64],
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
}
"""The settings of an AutoencoderKL that change a value, with diffusers' defaults."""

WITHOUT_EFFECT = {"sample_size", "force_upcast"}
"""Settings for tiling and for float16, neither of which is used here."""

BLOCKS = {"DownEncoderBlock2D", "AttnDownEncoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"}
"""Types of blocks that need an image alone."""

FORMER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Of the layers of an attention, in files from before diffusers 0.14, such as Stable Diffusion 1's."""

PICKLES = {".bin", ".ckpt", ".pt", ".pth"}
"""Suffixes of weights that are not read."""

MOST_BYTES = 1_000_000
"""Of a config.json or README.md."""


def load_folder(folder: Path) -> ImageAutoencoder:
    """The autoencoder of a folder.

    Raises WeightsError, in one line, for anything else, and where diffusers is not installed.
    """
    settings = read_settings(folder)
    path = _weights_in(folder)
    build = import_autoencoder_kl()
    try:
        with torch.device("meta"):  # takes no memory: a file may state a network of any size
            planned = build(**settings)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise WeightsError(f"{folder / CONFIG}: is no network of its class ({one_line(error)})") from error
    read = read_weights(path)[0]
    tensors = {_present_name(name): tensor for name, tensor in read.items()}
    if len(tensors) < len(read):
        raise WeightsError(f"{path}: holds a layer under its former name and its present one; expected one")
    return ImageAutoencoder(load_strictly(planned, tensors, path), settings)


def read_settings(folder: Path) -> dict[str, Any]:
    """All of DEFAULTS as the config.json of a folder states them; raises WeightsError."""
    path = folder / CONFIG
    try:
        fields = Fields(read_json(path, MOST_BYTES), CONFIG)
        class_name = fields.text("_class_name")
        if class_name != "AutoencoderKL":
            raise ValueError(f"is of class {shown(class_name)}; expected an AutoencoderKL")
        return _settings_of(fields)
    except FileNotFoundError as error:
        if (folder / "model_index.json").exists():
            raise WeightsError(f"{folder}: is a whole pipeline; give its VAE: {folder / 'vae'}") from error
        raise WeightsError(
            f"{folder}: has no {CONFIG}; expected a folder that save_pretrained of diffusers has written"
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: {one_line(error)}") from error


def licence_in(folder: Path) -> str:
    """What the metadata of README.md state in a folder, or in the one above; else unknown."""
    for readme in (folder / "README.md", folder.parent / "README.md"):
        try:
            page = read_file(readme, MOST_BYTES).decode()
        except (OSError, ValueError):
            continue
        head = re.match(r"---[ \t\r]*\n(.*?)\n---", page, re.DOTALL)
        licence = re.search(r"^license: *['\"]?([\w.-]+)", head[1], re.MULTILINE) if head else None
        if licence:
            return licence[1]
    return "unknown"


def import_autoencoder_kl() -> Any:
    """The class of diffusers, which takes seconds to import; raises WeightsError where it is missing."""
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError as error:
        raise WeightsError(
            f"a VAE of diffusers needs that package ({one_line(error)}); pip install 'diffusers>=0.42', or "
            "vidlat with its extra: vidlat[diffusers]"
        ) from error
    return AutoencoderKL


def _settings_of(fields: Fields) -> dict[str, Any]:
    """DEFAULTS with what is stated; raises ValueError for what an AutoencoderKL cannot have."""
    settings = dict(DEFAULTS)
    for name in fields.names():
        if name.startswith("_") or name in WITHOUT_EFFECT:
            continue
        match name:
            case "in_channels" | "out_channels" | "latent_channels" | "norm_num_groups":
                settings[name] = fields.whole(name, 1, MOST_CHANNELS)
            case "layers_per_block":
                settings[name] = fields.whole(name, 1, MOST_LEVELS)
            case "block_out_channels":
                settings[name] = fields.whole_list(name, MOST_LEVELS, MOST_CHANNELS)
            case "down_block_types" | "up_block_types":
                settings[name] = list(fields.texts(name))
            case "act_fn":
                settings[name] = fields.text(name)
            case "use_quant_conv" | "use_post_quant_conv" | "mid_block_add_attention":
                settings[name] = fields.boolean(name)
            case "scaling_factor":
                settings[name] = fields.number(name, 1e-6, 1e6)
            case "shift_factor" | "latents_mean" | "latents_std" if fields.is_null(name):
                settings[name] = None
            case "shift_factor":
                settings[name] = fields.number(name, -1e6, 1e6)
            case "latents_mean" | "latents_std":
                at_least = 1e-6 if name == "latents_std" else -1e6
                num_channels = fields.whole("latent_channels", 1, MOST_CHANNELS)
                settings[name] = list(fields.numbers(name, num_channels, at_least, 1e6))
            case _:
                raise ValueError(f"unknown {shown(name)}; known are {', '.join(DEFAULTS)}")
    for name in ("in_channels", "out_channels"):
        if settings[name] not in (1, 3):
            raise ValueError(f"{name}: got {settings[name]}; expected 1 for gray or 3 for colours")
    num_levels = len(settings["block_out_channels"])
    for name in ("down_block_types", "up_block_types"):
        if len(settings[name]) != num_levels or not BLOCKS.issuperset(settings[name]):
            raise ValueError(
                f"{name}: got {shown(settings[name])}; expected {num_levels} of {', '.join(sorted(BLOCKS))}"
            )
    return settings


def _weights_in(folder: Path) -> Path:
    path = folder / WEIGHTS
    if path.exists():
        return path
    names = sorted(file.name for file in folder.iterdir())
    pickles = [printable(name) for name in names if Path(name).suffix in PICKLES]
    others = [printable(name) for name in names if name.endswith(".safetensors")]
    found = f"only {pickles[0]}, which may run code when it is loaded and is not read" if pickles else "none"
    if others:
        found = f"but {shorten(others)}; give a whole file that name"
    raise WeightsError(
        f"{folder}: has no {WEIGHTS} ({found}); expected what save_pretrained of diffusers writes"
    )


def _present_name(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts and len(parts) > 1:
        parts[-2] = FORMER_NAMES.get(parts[-2], parts[-2])
    return ".".join(parts)
