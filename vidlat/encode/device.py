"""Where a network runs and in which arithmetic, when the user leaves it open."""

from __future__ import annotations

import torch

from vidlat.errors import DeviceError


def resolve_device(device: str) -> str:
    """`auto` is a GPU where there is one; raises DeviceError where a GPU is asked for and absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError(f"device {device}: no usable GPU on this machine; use --device cpu")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` is bfloat16 on a GPU that has it, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"
