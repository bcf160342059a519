"""Tensors, and dataclasses of them, from host memory to a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch

DataclassType = TypeVar("DataclassType", bound=Any)


def to_device(values: DataclassType, device: torch.device | str) -> DataclassType:
    """The same values on a device; the copy to a GPU is asynchronous, from pinned memory."""
    return _map_tensors(lambda tensor: tensor_to_device(tensor, device), values)


def tensor_to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """As `to_device`, a single tensor."""
    device = torch.device(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def pin_memory(values: DataclassType) -> DataclassType:
    """The same values in pinned memory; those that are there already are not copied."""
    return _map_tensors(torch.Tensor.pin_memory, values)


def _map_tensors(change: Callable[[torch.Tensor], torch.Tensor], values: DataclassType) -> DataclassType:
    attributes = {field.name: getattr(values, field.name) for field in fields(values)}
    changed = {name: change(each) for name, each in attributes.items() if isinstance(each, torch.Tensor)}
    mapped: DataclassType = replace(values, **changed)
    return mapped
