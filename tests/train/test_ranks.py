"""Several processes train as one: real ones, joined by gloo on this machine."""

import json
import math
import os
import socket
import subprocess
import sys

import pytest
import torch

from tests.thorough import some_of
from tests.train.test_trainer import read_metrics
from vidlat.errors import TrainError
from vidlat.train.ranks import Ranks
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of

SETTINGS = {"steps": 5, "batch": 8, "checkpoint_every": 5, "validate_every": 2, "validation_fraction": 0.3}

TRAIN = """
import atexit, json, os, sys
from pathlib import Path
from tests.train.toys import build_failing, build_small
from vidlat.config import TrainConfig
from vidlat.store.reader import open_cache
from vidlat.train import trainer as module

module.ENOUGH_SECONDS = 0.0  # an estimate is two calls of the network, however long they take

def say(values):
    # In one piece: torchrun makes print write the end of the line apart.
    sys.stdout.write(json.dumps(values) + "\\n")
    sys.stdout.flush()

@atexit.register  # before the trainer registers anything, so called after it
def say_which_threads_are_left():
    say({"threads_left": [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]})

config = TrainConfig.from_mapping(json.loads(sys.argv[3]))
failing = json.loads(sys.argv[5])
build = build_failing(*failing if os.environ["RANK"] == "1" else ()) if failing else build_small
trainer = module.Trainer(config, open_cache(Path(sys.argv[1])), Path(sys.argv[2]), build_model=build)
trainer.estimate_seconds_per_step()
trainer.estimate_seconds_per_validation()
losses, skipped = [], []
validation_error = trainer._optimisation.validation_error
def stopped_by_the_last(noised):
    if trainer.state.step == -int(sys.argv[4]) and trainer.ranks.index == trainer.ranks.count - 1:
        trainer.stop()
    return validation_error(noised)
trainer._optimisation.validation_error = stopped_by_the_last
for record in trainer.steps():
    losses.append(record.loss)
    skipped += [record.step] * record.is_skipped
    if record.step == int(sys.argv[4]) and trainer.ranks.index == trainer.ranks.count - 1:
        trainer.stop()
weight = float(trainer.state.model.mix.weight.sum())
said = {"count": trainer.ranks.count, "losses": losses, "skipped": skipped, "weight": weight}
say({"rank": trainer.ranks.index} | said)
"""


def run_processes(cache, run_dir, num_processes, stop_in=0, failing=(), **settings):
    """Train under torchrun; returns what each process prints.

    stop_in: after this step the last process stops; if it is negative, during the validation of -stop_in.
    failing: calls of the network of process 1 that give NaN; the first two are for the estimate.
    """
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
            json.dumps(failing),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    said = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    left = [one.pop("threads_left") for one in said if "threads_left" in one]
    assert len(left) == num_processes
    assert not [name for names in left for name in names if "gloo" in name]
    return [one for one in said if one]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulate", "objective"),
    [(1, "flow"), (2, "flow"), (2, "mean-flow")],
)
def test_two_processes_train_as_one_does(cache, make_trainer, tmp_path, accumulate, objective):
    alone = make_trainer("alone", objective=objective, **SETTINGS)
    losses = [record.loss for record in alone.steps()]
    said = run_processes(cache, tmp_path / "two", 2, accumulate=accumulate, objective=objective)
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


@pytest.mark.slow
def test_processes_stop_early_after_the_same_step(cache, make_trainer, tmp_path):
    settings = {"patience": 2, "validate_every": 1, "learning_rate": 1e-12}  # too low to change a loss
    alone = make_trainer("alone", **SETTINGS | settings)
    steps = [record.step for record in alone.steps()]
    assert steps == [1, 2, 3]
    said = run_processes(cache, tmp_path / "two", 2, **settings)
    assert [len(one["losses"]) for one in said] == [3, 3]


@pytest.mark.slow
def test_processes_end_a_validation_that_one_of_them_is_to_stop(cache, make_trainer, tmp_path):
    said = run_processes(cache, tmp_path / "two", 2, stop_in=-2)
    assert [len(one["losses"]) for one in said] == [1, 1]
    assert [line["step"] for line in read_metrics(tmp_path / "two")] == [1]
    resumed = make_trainer("two", resume=True, **SETTINGS)
    assert [record.step for record in resumed.steps()] == [2, 3, 4, 5]
    whole = run_processes(cache, tmp_path / "whole", 2)
    assert len(whole[0]["losses"]) == 5
    for ours, theirs in zip(read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "two"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)


@pytest.mark.slow
def test_processes_skip_a_step_that_is_not_finite_in_one_of_them(cache, tmp_path):
    said = run_processes(cache, tmp_path / "two", 2, failing=[4, 5])
    assert [one["skipped"] for one in said] == [[2, 3], [2, 3]]
    assert said[0]["weight"] == said[1]["weight"]
    assert math.isfinite(said[0]["weight"])
    lines = read_metrics(tmp_path / "two")
    assert [line["step"] for line in lines if line["loss"] is None] == [2, 3]
    assert len(lines) == 5


FAIL = """
import os, sys
import torch
from vidlat.train.ranks import Ranks

ranks = Ranks("cpu")
network = ranks.wrap(torch.nn.Linear(3, 3))
for step in range(3):
    if step == 2 and ranks.index == 1:
        sys.exit("fails alone")
    network(torch.ones(1, 3)).sum().backward()
    ranks.wait()
"""


@pytest.mark.slow
def test_a_process_that_fails_ends_and_so_do_those_that_wait_for_it(tmp_path):
    """Each by itself: torchrun, which would kill the others, is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FAIL], env=variables | {"RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    waiting, failed = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], waiting + failed
    assert failed == "fails alone\n"


PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is 2, and MASTER_ADDR and MASTER_PORT are not set"),
        ({"WORLD_SIZE": "2", **PLACE}, "and RANK is not set; start the processes with torchrun"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "RANK is '0' and WORLD_SIZE 'two': expected numbers"),
        ({"WORLD_SIZE": "2", "RANK": "2", **PLACE}, "0 <= RANK < WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "0 <= RANK < WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "expected numbers as torchrun sets them"),
    ],
)
def test_variables_that_no_launcher_sets_are_refused_in_one_line(
    make_trainer, monkeypatch, variables, message
):
    for name in ("WORLD_SIZE", "RANK", *PLACE):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match=message):
        make_trainer()


def test_processes_that_do_not_meet_are_refused_in_one_line(make_trainer, monkeypatch):
    def fails(**_):
        raise RuntimeError("The client socket has timed out\nwhile it tried to connect to (nowhere, 29500)")

    monkeypatch.setattr("accelerate.Accelerator", fails)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", **PLACE}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match=r"2 processes of WORLD_SIZE do not find each other \(The client"):
        make_trainer()


def test_a_single_rank_needs_no_meeting_place(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "")
    assert (Ranks("cpu").index, Ranks("cpu").count) == (0, 1)


@pytest.mark.parametrize(
    ("accumulate", "objective"), some_of([(2, "flow"), (4, "flow"), (8, "flow"), (4, "mean-flow")])
)
def test_a_step_in_parts_equals_a_whole_one(make_trainer, monkeypatch, accumulate, objective):
    """With videos shorter than a clip, so parts differ in the number of values that count."""
    monkeypatch.setattr("vidlat.train.trainer.NUM_VALIDATION_WINDOWS", 8)
    settings = SETTINGS | {"objective": objective}
    whole, parts = make_trainer("whole", **settings), make_trainer("parts", accumulate=accumulate, **settings)
    for one, other in zip(whole.steps(), parts.steps(), strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    for ours, theirs in zip(whole.state.model.parameters(), parts.state.model.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_shared_is_refused(make_trainer):
    message = r"got 8; expected a multiple of 3 \(1 processes of 3 parts each\): the nearest is 9"
    with pytest.raises(TrainError, match=message):
        make_trainer(batch=8, accumulate=3)
