"""Choosing device, batch and precision where the user does not."""

from __future__ import annotations

import subprocess
import sys

import torch

from vidlat.config import Precision
from vidlat.config.device import require_device_name
from vidlat.errors import DeviceError


def resolve_device(device: str) -> str:
    """Return cpu, cuda or cuda:N; `auto` is a GPU if there is one.

    Raises ConfigError for any other name, DeviceError for a GPU that does not exist.
    """
    require_device_name(device)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if num_gpus else "cpu"
    if device == "cpu":
        return device
    if not num_gpus:
        raise DeviceError(f"device {device}: no usable GPU on this machine; use --device cpu")
    if int(device.partition(":")[2] or 0) >= num_gpus:
        raise DeviceError(f"device {device}: this machine's last GPU is cuda:{num_gpus - 1}")
    return device


def resolve_batch(batch: int, device: str) -> int:
    """Stacks per call; 0 chooses.

    Every call is padded to this number, which wastes work on short videos; a CPU is as fast with few.
    """
    return batch or (8 if device.startswith("cuda") else 2)


def resolve_precision(precision: Precision, device: str, *, computes_here: bool = True) -> Precision:
    """`auto` is bfloat16 on a GPU that computes with it, else float32.

    computes_here: False where only other processes compute: this one then makes no CUDA context, which would
    take memory of the GPU as long as the process lives.
    Raises DeviceError for bfloat16 on a device without it.
    """
    kind = torch.device(device).type  # Accelerate calls the CPU cpu:0
    if precision == "float32" or (precision == "auto" and kind == "cpu"):
        return "float32"
    has_it = has_bfloat16(device) if computes_here or kind == "cpu" else _ask_process(device)
    if precision == "bfloat16" and not has_it:
        raise DeviceError(f"precision bfloat16: {_LACKS_BFLOAT16[kind]}")
    return "bfloat16" if has_it else "float32"


_LACKS_BFLOAT16 = {
    "cpu": "this CPU does not compute with it (no AVX-512 or AMX, or BF16 of ARM), and would take a hundred "
    "times as long as with float32; use --precision float32, or a GPU",
    "cuda": "this GPU only emulates it (its compute capability is below 8.0); use --precision float32",
}


def has_bfloat16(device: str) -> bool:
    """Whether PyTorch has fast kernels for bfloat16 there.

    On a CPU these are oneDNN's, for which AVX-512 suffices; else it uses loops of its own, on which a stack
    of the embedded VAE took 3.7 s in place of 0.02 s. GPUs before compute capability 8.0, such as a T4 or a
    V100, only emulate it.
    """
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.cpu.get_capabilities()
    avx512 = all(flags.get(name) for name in ("avx512_bw", "avx512_vl", "avx512_dq"))
    return bool(avx512 or flags.get("amx_bf16") or flags.get("bf16"))


_QUESTION = "import sys; from vidlat.encode.device import has_bfloat16; print(has_bfloat16(sys.argv[1]))"


def _ask_process(device: str) -> bool:
    """`has_bfloat16` of a GPU, answered by a process that then ends, and its CUDA context with it."""
    answer = subprocess.run(
        [sys.executable, "-c", _QUESTION, device], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1]
        raise DeviceError(f"device {device}: cannot be asked whether it computes with bfloat16: {reason}")
    return answer.stdout.strip() == "True"


def warning_of_convolutions(precision: str, device: str) -> str | None:
    """One line where PyTorch will not use cuDNN for the VAE's convolutions, which is several times slower.

    For 3-D convolutions in bfloat16 it has passed over cuDNN 9.8 to 9.14, which gave wrong results, since
    PyTorch 2.9 (github.com/pytorch/pytorch/pull/163581 and pull/166480). Reported as 4 times slower
    (issues/166122), and as taking more memory (issues/166643).
    """
    if precision != "bfloat16" or not device.startswith("cuda"):
        return None
    version = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
    if not 90800 <= version < 91500:
        return None
    return (
        f"cuDNN {version // 10000}.{version // 100 % 100} is installed, which PyTorch does not use for a VAE "
        "in bfloat16: it may take several times as long; install cuDNN 9.15 or later"
    )
