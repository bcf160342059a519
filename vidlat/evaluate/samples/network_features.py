"""Features of a clip from a TorchScript network of the user's choice, of whole clips or of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidlat.encode.torchscript import NetworkFile, read_network
from vidlat.errors import WeightsError, is_out_of_memory, one_line

Array = npt.NDArray[np.float64]
Frames = npt.NDArray[np.uint8]

INPUTS = {
    "clips of 3 channels": (True, 3),
    "clips of 1 channel": (True, 1),
    "frames of 3 channels": (False, 3),
    "frames of 1 channel": (False, 1),
}
"""What a network may take, in the order in which it is tried: whether clips, and how many channels."""

HOW_TO_SCRIPT = "torch.jit.script(network).save('network.pt')"


class NetworkFeatures:
    """The features of a network, which takes clips (B, C, T, H, W) or frames (N, C, H, W) in [0, 1].

    C is 3, gray repeated, or 1; takes says which of INPUTS the network was found to take. Maps (N, D, ...)
    are averaged over their positions. Of frames the features are mean, standard deviation over time and root
    mean square change from frame to frame.

    name: a path or hub:OWNER/REPOSITORY/FILE. sha256: of the file. Raises ConfigError for a name on the hub
    that is not whole, WeightsError for a file that holds no such network.
    """

    def __init__(self, name: str, device: torch.device, clip_shape: tuple[int, int, int]) -> None:
        self.name = name
        file = read_network(name, "features")
        self.sha256 = file.sha256
        self._device = device
        self._network = _load(file, device)
        self.takes = self._find_input(file, clip_shape)

    def __call__(self, frames: Frames) -> Array:
        """Features (D,) of a clip (T, H, W)."""
        is_of_clips, num_channels = INPUTS[self.takes]
        features = self._call(frames, is_of_clips, num_channels)
        if is_of_clips:
            return np.asarray(features[0])
        change = np.square(np.diff(features, axis=0)).mean(0) if len(features) > 1 else 0 * features[0]
        return np.concatenate([features.mean(0), features.std(0), np.sqrt(change)])

    def _find_input(self, file: NetworkFile, clip_shape: tuple[int, int, int]) -> str:
        frames = np.random.default_rng(0).integers(0, 256, clip_shape, np.uint8)
        inputs_by_reason: dict[str, list[str]] = {}
        for name, (is_of_clips, num_channels) in INPUTS.items():
            try:
                self._call(frames, is_of_clips, num_channels)
            # AttributeError: of a script without `forward`.
            except (
                RuntimeError, ValueError, TypeError, AttributeError, torch.jit.Error, WeightsError
            ) as error:  # fmt: skip
                if is_out_of_memory(error):
                    raise
                reason = one_line(error).removeprefix(f"{self.name}: ")
                # TorchScript's messages end with the reason, after the traceback of the script.
                inputs_by_reason.setdefault(reason[-100:], []).append(name)
            else:
                return name
        reasons = [f"{', '.join(names)}: {reason}" for reason, names in inputs_by_reason.items()]
        num_frames, height, width = clip_shape
        raise WeightsError(
            f"{file.path}: takes neither clips (B, C, {num_frames}, {height}, {width}) nor frames (N, C, "
            f"{height}, {width}) of 3 or 1 channels to features (N, ...) ({'; '.join(reasons)})"
        )

    def _call(self, frames: Frames, is_of_clips: bool, num_channels: int) -> Array:
        """Features (1, D) of the clip, or (T, D) of its frames."""
        pixels = torch.from_numpy(frames).to(self._device).float() / 255
        given = pixels[:, None].expand(-1, num_channels, -1, -1)
        num_items = len(given)
        if is_of_clips:
            given, num_items = given.transpose(0, 1)[None], 1
        with torch.inference_mode():
            output: Any = self._network(given)
        is_tensor = isinstance(output, torch.Tensor)
        if not is_tensor or output.ndim < 2 or len(output) != num_items or not output.numel():
            got = tuple(output.shape) if is_tensor else type(output).__name__
            expected = f"({num_items}, D) or ({num_items}, D, ...)"
            raise WeightsError(f"{self.name}: its output is {got}, expected {expected}")
        if output.is_complex():
            raise WeightsError(f"{self.name}: its features are complex numbers, expected real ones")
        features = output.double().flatten(2).mean(2) if output.ndim > 2 else output.double()
        if not features.isfinite().all():
            raise WeightsError(f"{self.name}: its features are not finite")
        found: Array = features.cpu().numpy()
        return found


def _load(file: NetworkFile, device: torch.device) -> torch.jit.ScriptModule:
    if file.content[8:9] == b"{":  # a length of eight bytes, then JSON
        raise WeightsError(
            f"{file.path}: is a safetensors file, which holds weights and no network; load them into theirs, "
            f"and save that: {HOW_TO_SCRIPT}"
        )
    try:
        return file.load(device)
    except (RuntimeError, ValueError, torch.jit.Error) as error:
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"{file.path}: cannot be loaded as TorchScript ({one_line(error)[:200]}); save the network by "
            f"{HOW_TO_SCRIPT}"
        ) from error
