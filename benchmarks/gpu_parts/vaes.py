"""The weights that parts of benchmarks/gpu.py measure, and MONAI's network as NVIDIA runs it."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from gpu_parts.measuring import Setting
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
from torch.utils.flop_counter import FlopCounterMode

from vidlat.encode.network import MAISI_NETWORK, TINY_NETWORK, build_network
from vidlat.encode.weights import resolve_weights
from vidlat.encode.weights_file import load_strictly, read_weights, write_weights


def count_flops(network: dict[str, Any], shape: tuple[int, ...], way: str) -> int:
    """Operations of MONAI's network, unsplit, in one call of `encode` or `decode` on such an input."""
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        stock = AutoencoderKlMaisi(**network, num_splits=1, dim_split=1, norm_float16=False).eval()
        getattr(stock, way)(torch.empty(shape))
    return counter.get_total_flops()


def vae_file(setting: Setting, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Weights and settings of full-size MAISI, of random numbers, which cost the same; quick: of `tiny`."""
    if setting.quick:
        return resolve_weights("tiny"), TINY_NETWORK
    path = folder / "maisi.safetensors"
    torch.manual_seed(0)
    write_weights(path, build_network(MAISI_NETWORK).state_dict(), {})
    return path, MAISI_NETWORK


def stock_network(path: Path, network: dict[str, Any], setting: Setting) -> AutoencoderKlMaisi:
    """MONAI's network as NVIDIA's tutorial on MAISI configures it (config_maisi3d-rflow.json).

    Its norms round to float16 there, in an autocast to float16, which a CPU cannot do.
    """
    stock = AutoencoderKlMaisi(**network, num_splits=4, dim_split=1, norm_float16=setting.on_gpu)
    load_strictly(stock, read_weights(path)[0], path)
    return stock.eval().requires_grad_(False).to(setting.device)


def as_nvidia_runs_it(setting: Setting) -> AbstractContextManager[Any]:
    """The autocast of the tutorial's diff_model_create_training_data.py."""
    return torch.autocast("cuda", torch.float16) if setting.on_gpu else nullcontext()
