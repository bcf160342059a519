"""Trainings small enough for tests: settings, clips in a folder, stacks, and what is left of a run."""

import numpy as np
import pytest
from safetensors.torch import load_file

from vidlat.config import FitVAEConfig
from vidlat.encode.device import has_bfloat16
from vidlat.fit.run import FitStep
from vidlat.fit.stacks import TrainingStacks
from vidlat.fit.trainer import VAETrainer

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16("cpu"), reason="this CPU does not compute in bfloat16")

ALL_TERMS = {"size": 24, "change_weight": 0.1, "perceptual_weight": 0.1, "adversarial_weight": 0.1}
"""Of the loss, with frames as large as the discriminator needs."""


def config(**changes):
    usual = {"size": 16, "steps": 3, "batch": 2, "warmup_steps": 2, "device": "cpu", "checkpoint_every": 2}
    return FitVAEConfig(**usual | changes)


def chosen(**changes):
    return config(**{"precision": "float32"} | changes).chosen("tiny")


def frames(num_frames=24, seed=0):
    values = np.random.default_rng(seed).random((num_frames, 4, 4), np.float32)
    return list(np.kron(values, np.ones((1, 4, 4), np.float32)))


def collection(settings, num_videos=2):
    """Training stacks of 16 x 16 pixels."""
    stacks = TrainingStacks(settings)
    for seed in range(num_videos):
        stacks.add_video(frames(seed=seed))
    return stacks


def make_clips(folder, num_clips=3, num_frames=16, side=16):
    """Clips of noise, each a subject of its own: a.npy, b.npy and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(num_clips):
        coarse = np.random.default_rng(seed).integers(0, 256, (num_frames, side // 4, side // 4), np.uint8)
        np.save(folder / f"{chr(97 + seed)}.npy", coarse.repeat(4, 1).repeat(4, 2))
    return folder


def start(clips, out, settings, **more):
    """A trainer that has read its videos."""
    trainer = VAETrainer([clips], out, settings, **more)
    for _ in trainer.read():
        pass
    return trainer


def train(clips, out, settings, **more):
    """The records of all steps of a training, which is closed then."""
    trainer = start(clips, out, settings, **more)
    records = list(trainer.steps())
    trainer.close()
    return records


def without_times(records):
    """The same records as far as another run repeats them; NaN, which equals nothing, as text."""
    return [
        {name: repr(value) for name, value in record.to_dict().items() if name != "steps_per_second"}
        for record in records
        if isinstance(record, FitStep)
    ]


def files_of(out, step):
    """Every tensor of a checkpoint and of the weights, as bytes by name."""
    folder = out / "checkpoints" / f"step_{step:08d}"
    paths = [*sorted(folder.glob("*.safetensors")), out / "vae.safetensors"]
    return {
        f"{path.name} {name}": tensor.numpy().tobytes()
        for path in paths
        for name, tensor in load_file(path).items()
    }
