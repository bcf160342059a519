"""Steps whose loss or gradient is not finite, in a whole run; and a device that is behind the host."""

import json
import math
import re
import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.test_trainer import SETTINGS, assert_same_state, read_metrics
from tests.train.toys import SmallNetwork, build_failing
from vidlat.errors import TrainError
from vidlat.train.optimisation import learning_rate
from vidlat.train.runs.checkpoint_list import list_checkpoints
from vidlat.train.runs.run_folder import read_run
from vidlat.train.unread_steps import NUM_BEHIND, UnreadSteps


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped_and_recorded(make_trainer, tmp_path, where):
    trainer = make_trainer(build_model=build_failing(2, 3, 5, where=where), max_skipped=2)
    records = list(trainer.steps())
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.step for record in records if record.is_skipped] == [2, 3, 5]
    rates = [learning_rate(trainer.settings, step) for step in range(6)]
    assert [record.learning_rate for record in records] == rates
    assert trainer.state.num_skipped == 3

    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    name = "loss" if where == "loss" else "grad_norm"
    assert [line["step"] for line in lines if line[name] is None] == [2, 3, 5]
    curves = EventAccumulator(str(tmp_path / "run")).Reload()
    tag = name if name == "loss" else f"training/{name}"
    assert [event.step for event in curves.Scalars(tag)] == [1, 4, 6]
    assert [event.step for event in curves.Scalars("training/learning_rate")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("max_skipped", [0, 2])
def test_too_many_skipped_in_a_row_end_the_run(make_trainer, tmp_path, max_skipped):
    failing = range(4, 100)
    trainer = make_trainer(
        build_model=build_failing(*failing), steps=20, checkpoint_every=2, max_skipped=max_skipped,
        validate_every=100,
    )  # fmt: skip
    taken, last = [], 4 + max_skipped
    with pytest.raises(TrainError, match=rf"step {last}: the loss is nan, .*--max-skipped") as caught:
        taken.extend(record.step for record in trainer.steps())
    message = str(caught.value)
    assert f"{max_skipped + 1} steps in a row were not finite and changed nothing" in message
    last_good = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert f"--precision float32 from {last_good.name}; if that ends like this again, remove the" in message
    ((batch, _),) = trainer.batches([last - 1])
    assert all(video_id in message for video_id in batch.video_ids)
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == list(range(1, last + 1))
    assert all(parameter.isfinite().all() for parameter in trainer.state.model.parameters())


class Exploding(SmallNetwork):
    """Overflows where weights become large."""

    def forward(self, latents, timestep, features=None):
        return self.mix.weight.square().sum().exp() * super().forward(latents, timestep, features)


def test_a_run_that_diverged_goes_on_with_a_lower_learning_rate(make_trainer, tmp_path):
    settings = {"build_model": lambda *_, **__: Exploding(2), "checkpoint_every": 100, "validate_every": 100}
    list(make_trainer(steps=4, learning_rate=1e-3, **settings).steps())
    settings |= {"resume": True, "steps": 40}
    diverging = make_trainer(learning_rate=1e3, **settings)
    with pytest.raises(TrainError, match=r"--max-skipped is 10; .*go on with --resume and a lower"):
        list(diverging.steps())
    diverging.close()
    resumed = make_trainer(learning_rate=1e-4, **settings)
    assert "from step 5 on, --learning-rate is 0.0001, no longer 0.001" in resumed.notes
    records = list(resumed.steps())
    assert [record.step for record in records] == list(range(5, 41))
    assert not any(record.is_skipped for record in records)
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == list(range(1, 41))


def test_a_run_whose_last_checkpoint_is_ruined_goes_on_without_it(make_trainer, tmp_path):
    """Its weights are finite, and no loss is that comes of them."""
    settings = {"build_model": lambda *_, **__: Exploding(2), "validation_fraction": 0.0}
    list(make_trainer(steps=2, checkpoint_every=2, learning_rate=1e-3, **settings).steps())
    settings |= {"resume": True, "steps": 20, "max_skipped": 3, "checkpoint_every": 4}
    ruined = tmp_path / "run/checkpoints/step_00000004"
    for rate in (1e5, 1e-4):
        trainer = make_trainer(learning_rate=rate, **settings)
        with pytest.raises(TrainError, match=rf"remove the folder {ruined} to go on from step_00000002$"):
            list(trainer.steps())
        trainer.close()
    shutil.rmtree(ruined)
    records = list(make_trainer(learning_rate=1e-4, **settings).steps())
    assert [record.step for record in records] == list(range(3, 21))
    assert not any(record.is_skipped for record in records)


class FailsInBfloat16(SmallNetwork):
    def forward(self, latents, timestep, features=None):
        factor = math.nan if torch.is_autocast_enabled("cpu") else 1
        return factor * super().forward(latents, timestep, features)


def test_a_run_that_fails_in_bfloat16_goes_on_in_float32(make_trainer, tmp_path, cpu_with_bfloat16):
    settings = {
        "build_model": lambda *_, **__: FailsInBfloat16(2),
        "max_skipped": 1,
        "validation_fraction": 0.0,
    }
    with pytest.raises(TrainError, match="or --precision float32"):
        list(make_trainer(precision="bfloat16", **settings).steps())
    resumed = make_trainer(resume=True, precision="float32", **settings)
    assert "from step 1 on, --precision is float32, no longer bfloat16" in resumed.notes
    assert not any(record.is_skipped for record in resumed.steps())
    assert read_run(tmp_path / "run").config.precision == "float32"


def test_a_run_with_skipped_steps_resumes_to_the_last_bit(make_trainer):
    settings = SETTINGS | {"build_model": build_failing(2, 6, 7)}
    whole = make_trainer("whole", **settings)
    list(whole.steps())
    stopped = make_trainer("stopped", **settings)
    for record in stopped.steps():
        if record.step == 6:
            stopped.stop()
    stopped.close()
    resumed = make_trainer("stopped", resume=True, **settings)
    assert (resumed.state.step, resumed.state.num_skipped) == (7, 3)
    list(resumed.steps())
    assert_same_state(whole.state, resumed.state)
    assert read_metrics(whole.run_dir) == read_metrics(resumed.run_dir)


def behind(trainer):
    """As on a GPU: figures are read some steps late."""
    trainer._num_behind = NUM_BEHIND
    return trainer


def test_figures_that_are_read_late_are_the_same(make_trainer):
    settings = SETTINGS | {"build_model": build_failing(2, 6, 7), "sample_every": 5}
    at_once, late = make_trainer("at_once", **settings), behind(make_trainer("late", **settings))
    list(at_once.steps())
    known = [(record.step, late.state.step) for record in late.steps()]
    assert_same_state(at_once.state, late.state)
    assert read_metrics(at_once.run_dir) == read_metrics(late.run_dir)
    # Validations are at 4, 8 and 12, checkpoints at 3, 6, 9 and 12, samples at 5 and 10.
    assert known == [
        (1, 3), (2, 3), (3, 3), (4, 4), (5, 5), (6, 6), (7, 8), (8, 8), (9, 9), (10, 10), (11, 12), (12, 12),
    ]  # fmt: skip
    assert [path.name for path in list_checkpoints(at_once.run_dir / "checkpoints")] == [
        path.name for path in list_checkpoints(late.run_dir / "checkpoints")
    ]


def test_a_run_behind_is_stopped_with_all_its_steps_recorded(make_trainer):
    settings = {"steps": 40, "validate_every": 100, "checkpoint_every": 100}
    trainer = behind(make_trainer(**settings))
    recorded = []
    for record in trainer.steps():
        recorded.append(record.step)
        if record.step == 5:
            trainer.stop()
    assert trainer.state.step == 8  # two more had been asked for, and one was next
    assert recorded == list(range(1, 9))
    assert [line["step"] for line in read_metrics(trainer.run_dir)] == recorded
    trainer.close()
    assert make_trainer(resume=True, **settings).state.step == 8


def test_too_many_skipped_are_noticed_behind_too(make_trainer):
    trainer = behind(make_trainer(steps=40, max_skipped=3, build_model=build_failing(*range(4, 40))))
    with pytest.raises(TrainError, match=r"step 7: .* 4 steps in a row"):
        list(trainer.steps())


def test_records_that_are_read_together_share_the_time(monkeypatch):
    now = iter([10.0, 10.0, 11.0, 11.0, 11.0, 14.0, 14.0])
    monkeypatch.setattr("vidlat.train.unread_steps.time.perf_counter", lambda: next(now))
    unread = UnreadSteps()  # at 10
    waiting = unread.waiting("ab")
    for step in (1, 2):
        next(waiting)  # from 10 to 11, then no time
        unread.add(step, 0.1, torch.tensor([0.5, 2.0, 0.0]))
    one, other = unread.read(0)  # at 14
    assert (one.steps_per_second, other.steps_per_second) == (0.5, 0.5)
    assert (one.data_wait, other.data_wait) == (0.25, 0.25)
    assert (one.figures, one.learning_rate) == ([0.5, 2.0, 0.0], 0.1)


def test_resuming_records_what_changes_and_from_which_step_on(make_trainer, tmp_path):
    document = tmp_path / "run" / "config.json"
    settings = {"checkpoint_every": 2, "learning_rate": 1e-3, "validation_fraction": 0.0}
    list(make_trainer(**settings | {"steps": 4}).steps())
    assert json.loads(document.read_text())["changes"] == []

    settings |= {"learning_rate": 1e-4, "clip_norm": 0.5, "steps": 8}
    resumed = make_trainer(resume=True, **settings)
    assert [note for note in resumed.notes if note.startswith("from step 5 on")] == [
        "from step 5 on, --learning-rate is 0.0001, no longer 0.001",
        "from step 5 on, --clip-norm is 0.5, no longer 1.0",
    ]
    list(resumed.steps())
    resumed.close()
    changes = [
        {"from_step": 5, "setting": "steps", "before": 4, "after": 8},
        {"from_step": 5, "setting": "learning_rate", "before": 1e-3, "after": 1e-4},
        {"from_step": 5, "setting": "clip_norm", "before": 1.0, "after": 0.5},
    ]
    assert json.loads(document.read_text())["changes"] == changes

    # The user goes back to step 4, before the changes: those were never made.
    for checkpoint in list_checkpoints(tmp_path / "run" / "checkpoints")[1:]:
        if checkpoint.name > "step_00000004":
            for file in checkpoint.iterdir():
                file.unlink()
            checkpoint.rmdir()
    settings |= {"learning_rate": 2e-4}
    back = make_trainer(resume=True, **settings)
    assert back.state.step == 4
    changes[1]["after"] = 2e-4
    assert json.loads(document.read_text())["changes"] == changes
    assert [note for note in back.notes if "from step 5" in note] == [
        "from step 5 on, --learning-rate is 0.0002, no longer 0.001"
    ]
    assert json.loads(document.read_text())["config"]["learning_rate"] == 2e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"from_step": 0}, "from_step: got 0"),
        ({"setting": "lerning_rate"}, "unknown setting lerning_rate"),
        ({"before": "fast"}, "learning_rate: got 'fast'"),
        ({"after": -1.0}, "learning_rate: got -1.0"),
        ({"after": None}, "after: got None"),
    ],
)
def test_a_change_that_no_run_has_made_is_refused(make_trainer, tmp_path, change, message):
    make_trainer()
    document = tmp_path / "run" / "config.json"
    values = json.loads(document.read_text())
    right = {"from_step": 5, "setting": "learning_rate", "before": 1e-3, "after": 1e-4}
    document.write_text(json.dumps(values | {"changes": [right | change]}))
    with pytest.raises(TrainError, match=rf"config\.json cannot be read .*{re.escape(message)}"):
        read_run(tmp_path / "run")


def test_a_document_from_before_changes_were_recorded_is_read(make_trainer, tmp_path):
    make_trainer()
    document = tmp_path / "run" / "config.json"
    values = json.loads(document.read_text())
    del values["changes"], values["config"]["max_skipped"]
    values["config"]["compile"] = False
    document.write_text(json.dumps(values))
    run = read_run(tmp_path / "run")
    assert run.changes == ()
    assert run.config.max_skipped == 10
