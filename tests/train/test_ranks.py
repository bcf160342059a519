"""Several processes train as one: real ones, joined by gloo on this machine."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.train.test_trainer import read_metrics
from vidlat.errors import TrainError
from vidlat.train.checkpoint import list_checkpoints, step_of

SETTINGS = {"steps": 5, "batch": 8, "checkpoint_every": 5, "validate_every": 2, "validation_fraction": 0.3}

TRAIN = """
import json, sys
from pathlib import Path
from tests.train.toys import build_small
from vidlat.config import TrainConfig
from vidlat.store.reader import open_cache
from vidlat.train.trainer import Trainer

config = TrainConfig.from_mapping(json.loads(sys.argv[3]))
trainer = Trainer(config, open_cache(Path(sys.argv[1])), Path(sys.argv[2]), build_model=build_small)
trainer.estimate_seconds_per_step()
losses = []
for record in trainer.steps():
    losses.append(record.loss)
    if record.step == int(sys.argv[4]) and trainer.ranks.index == trainer.ranks.count - 1:
        trainer.stop()
print(json.dumps({"rank": trainer.ranks.index, "count": trainer.ranks.count, "losses": losses}))
"""


def run_processes(cache, run_dir, num_processes, stop_in=0, **settings):
    """Train under torchrun, stopping in the last process after a step; returns what each process prints."""
    values = {"frames": 8, "warmup_steps": 2, "device": "cpu"} | SETTINGS | settings
    script = run_dir.parent / "train.py"
    script.write_text(TRAIN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    process = subprocess.run(
        [
            *launch,
            str(num_processes),
            str(script),
            str(cache.path),
            str(run_dir),
            json.dumps(values),
            str(stop_in),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_train_as_one_does(cache, make_trainer, tmp_path, accumulate):
    alone = make_trainer("alone", **SETTINGS)
    losses = [record.loss for record in alone.steps()]
    said = run_processes(cache, tmp_path / "two", 2, accumulate=accumulate)
    assert sorted(one["rank"] for one in said) == [0, 1]
    assert {one["count"] for one in said} == {2}
    for one in said:
        assert one["losses"] == pytest.approx(losses, rel=1e-5)
    for ours, theirs in zip(read_metrics(tmp_path / "alone"), read_metrics(tmp_path / "two"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)  # validation losses and norms too; each step once
    written = [
        [path.name for path in list_checkpoints(tmp_path / name / "checkpoints")] for name in ("alone", "two")
    ]
    assert written[0] == written[1]


@pytest.mark.slow
def test_processes_stop_after_the_same_step_when_one_is_stopped(cache, tmp_path):
    said = run_processes(cache, tmp_path / "two", 2, stop_in=2)
    assert [len(one["losses"]) for one in said] == [3, 3]
    assert step_of(list_checkpoints(tmp_path / "two" / "checkpoints")[-1]) == 3


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_a_step_in_parts_equals_a_whole_one(make_trainer, accumulate):
    """With videos shorter than a clip, so parts differ in the number of values that count."""
    whole, parts = make_trainer("whole", **SETTINGS), make_trainer("parts", accumulate=accumulate, **SETTINGS)
    for one, other in zip(whole.steps(), parts.steps(), strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    for ours, theirs in zip(whole.state.model.parameters(), parts.state.model.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_shared_is_refused(make_trainer):
    message = r"got 8; expected a multiple of 3 \(1 processes of 3 parts each\): the nearest is 9"
    with pytest.raises(TrainError, match=message):
        make_trainer(batch=8, accumulate=3)
