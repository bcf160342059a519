"""Our space-time U-Net against MONAI's on one cache, each for as many minutes: who has learnt more?

    python benchmarks/networks.py CACHE [--minutes 10] [--preset tiny] [--batch 8] [--seeds 0]
                                  [--learning-rate 4e-4] [--out FOLDER] [--json FILE]

Each gets as many steps as fit in the minutes by its own measured time a step, and a learning rate that falls
to 0 at their end. Windows, noise and timesteps of the validation are the same for both.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from vidlat.config import TrainConfig
from vidlat.store.reader import open_cache
from vidlat.train.trainer import Trainer

NETWORKS = ("space-time", "monai")


def train(options: argparse.Namespace, network: str, seed: int, out: Path) -> dict:
    cache = open_cache(options.cache)
    settings = {
        "network": network, "preset": options.preset, "batch": options.batch, "seed": seed,
        "learning_rate": options.learning_rate, "ema_decay": 0.995, "validation_fraction": 0.15,
    }  # fmt: skip
    timing = Trainer(TrainConfig(**settings), cache, out / f"{network}-timing")
    timing.estimate_seconds_per_step()
    seconds = timing.estimate_seconds_per_step()
    timing.close()
    steps = max(int(60 * options.minutes / seconds), 1)
    every = max(steps // 8, 1)
    config = TrainConfig(**settings, steps=steps, validate_every=every, checkpoint_every=steps)
    trainer = Trainer(config, cache, out / f"{network}-{seed}")
    began = time.perf_counter()
    curve = [
        (record.step, record.validation_loss)
        for record in trainer.steps()
        if record.validation_loss is not None
    ]
    return {
        "network": network,
        "seed": seed,
        "parameters, M": sum(p.numel() for p in trainer.state.model.parameters()) / 1e6,
        "steps": steps,
        "minutes": (time.perf_counter() - began) / 60,
        "validation loss": curve[-1][1],
        "curve": curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'network':<12}{'seed':>5}{'parameters, M':>15}{'steps':>7}{'minutes':>9}  validation loss")
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            for network in NETWORKS:
                row = train(options, network, seed, options.out or Path(folder))
                rows.append(row)
                curve = " ".join(f"{loss:.4f}" for _, loss in row["curve"])
                print(f"{network:<12}{seed:>5}{row['parameters, M']:>15.1f}{row['steps']:>7}"
                      f"{row['minutes']:>9.1f}  {curve}", flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
