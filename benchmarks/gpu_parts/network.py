"""The VAE alone, encode and decode, against MONAI's stock network and a matrix product's operations a second.

Inputs lie on the device. Operations are those of the stock network without its splits, so that work which
vidlat leaves out counts too. A stack is 4 frames, a whole clip up to 64.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from gpu_parts.measuring import (
    Row,
    Setting,
    attempted,
    matrix_flops_per_second,
    peak_memory_gb,
    reset_peak_memory,
    seconds_per_call,
)
from gpu_parts.vaes import as_nvidia_runs_it, count_flops, stock_network, vae_file
from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

from vidlat.config import LatentSettings
from vidlat.encode.vae import FrozenVAE, load_vae

STACK, CLIP, COMPRESSION = 4, 64, 4


def measure(setting: Setting) -> Iterator[Row]:
    sizes, batches = ((64,), (2, 4)) if setting.quick else ((256, 128), (8, 32))
    peak = matrix_flops_per_second(setting)
    yield {"way": "matrix product", "network": setting.precision, "TFLOP/s": peak / 1e12, "of the peak": 1.0}
    with tempfile.TemporaryDirectory() as name:
        path, network = vae_file(setting, Path(name))
        settings = LatentSettings(stack=STACK, precision=setting.precision)
        vae = load_vae(path, settings, batch=max(batches), device=setting.device)
        stock = stock_network(path, network, setting)
    for size in sizes:
        for way in ("encode", "decode"):
            flops, stock_rate = count_flops(network, shape_of(way, size, STACK), way), None
            for title, batch, call in calls(way, size, batches, vae, stock, setting):
                what = {"way": way, "network": title, "size": size, "batch": batch}
                for row in attempted(what, lambda batch=batch, call=call: [time_call(call, batch, setting)]):
                    rate = row.get("stacks/s", math.nan)
                    stock_rate = stock_rate or rate  # the first
                    shares = {"TFLOP/s": rate * flops / 1e12, "of the peak": rate * flops / peak}
                    yield row | {"over stock": rate / stock_rate} | shares


def time_call(call: Callable[[], object], batch: int, setting: Setting) -> Row:
    reset_peak_memory(setting)
    rate = batch / seconds_per_call(call, setting)
    return {"stacks/s": rate, "peak GB": peak_memory_gb(setting)}


def calls(
    way: str, size: int, batches: tuple[int, ...], vae: FrozenVAE, stock: AutoencoderKlMaisi, setting: Setting
) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """What is compared: its title, how many stacks a call takes, and the call."""

    def random(num_stacks: int, num_frames: int) -> torch.Tensor:
        return torch.rand(num_stacks, *shape_of(way, size, num_frames)[1:], device=setting.device)

    def call_stock(given: torch.Tensor) -> Callable[[], object]:
        def call() -> None:
            with torch.inference_mode(), as_nvidia_runs_it(setting):
                getattr(stock, way)(given)

        return call

    in_clip = min(max(batches), CLIP // STACK)
    yield "stock, by stacks", 1, call_stock(random(1, STACK))
    yield "stock, whole clip", in_clip, call_stock(random(1, in_clip * STACK))
    for batch in batches:
        given, of_this_batch = random(batch, STACK), vae.with_batch(batch)
        function = of_this_batch.encode_stacks if way == "encode" else of_this_batch.decode_stacks
        yield "vidlat", batch, lambda function=function, given=given: function(given)


def shape_of(way: str, size: int, num_frames: int) -> tuple[int, ...]:
    """Of the input of one stack or clip."""
    if way == "encode":
        return 1, 1, num_frames, size, size
    side = size // COMPRESSION
    return 1, 4, num_frames // COMPRESSION, side, side
