import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.thorough import some_of
from tests.train.toys import build_failing, build_small, random_posterior
from vidlat import train_unet
from vidlat.config import TrainConfig
from vidlat.errors import DeviceError, TrainError
from vidlat.train import trainer as trainer_module
from vidlat.train.optimisation import learning_rate, update_average
from vidlat.train.runs.checkpoint import best_checkpoint, validation_loss_of
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of
from vidlat.train.runs.run_folder import load_run

pytestmark = pytest.mark.usefixtures("few_validation_windows")


def read_metrics(run_dir):
    """The lines of metrics.jsonl without timings."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("steps_per_second", "data_wait")}
        for line in lines
    ]


def take(trainer, num_steps):
    """Train some steps, then lose all state as a killed process does."""
    steps = trainer.steps()
    for _ in range(num_steps):
        next(steps)
    steps.close()


def assert_same_state(one, other):
    assert one.step == other.step
    for name in ("model", "ema"):
        theirs = getattr(other, name).state_dict()
        for key, value in getattr(one, name).state_dict().items():
            torch.testing.assert_close(theirs[key], value, rtol=0, atol=0)
    theirs = other.optimiser.state_dict()["state"]
    for index, values in one.optimiser.state_dict()["state"].items():
        for key, value in values.items():
            torch.testing.assert_close(theirs[index][key], value, rtol=0, atol=0)


def assert_continues_as_if_never_ended(whole, run, at_step, make_trainer, **settings):
    """Resumed at that step, the run ends with the weights and metrics of the whole one."""
    resumed = make_trainer(run, resume=True, **settings)
    assert resumed.state.step == at_step
    list(resumed.steps())
    assert_same_state(whole.state, resumed.state)
    assert read_metrics(whole.run_dir) == read_metrics(resumed.run_dir)


SETTINGS = {"steps": 12, "checkpoint_every": 3, "validate_every": 4, "validation_fraction": 0.3}


@pytest.mark.parametrize(
    "settings", [{"latents_as": "sample"}, {"latents_as": "mean"}, {"objective": "mean-flow"}]
)
def test_resumed_run_equals_uninterrupted_run(make_trainer, settings):
    settings = SETTINGS | settings
    whole = make_trainer("whole", **settings)
    list(whole.steps())
    assert [line["step"] for line in read_metrics(whole.run_dir)] == list(range(1, 13))

    for kill_after in some_of((7, 1, 3, 11)):
        run = f"killed after {kill_after}"
        take(make_trainer(run, **settings), kill_after)
        torch.manual_seed(1234)  # nothing may depend on torch's global generator
        saved = max(kill_after // 3 * 3, kill_after // 4 * 4)
        assert_continues_as_if_never_ended(whole, run, saved, make_trainer, **settings)


def test_a_run_killed_while_it_writes_a_checkpoint_resumes_from_the_one_before(
    make_trainer, tmp_path, monkeypatch
):
    whole = make_trainer("whole", **SETTINGS)
    list(whole.steps())

    def write_half_and_die(path, text):
        path.write_bytes(text[: len(text) // 2].encode())
        raise KeyboardInterrupt

    killed = make_trainer("killed", **SETTINGS)
    steps = killed.steps()
    for _ in range(5):  # checkpoints at 3, and at 4 for its validation loss
        next(steps)
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", write_half_and_die)
        with pytest.raises(KeyboardInterrupt):
            next(steps)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')

    killed.close()
    assert_continues_as_if_never_ended(whole, "killed", 4, make_trainer, **SETTINGS)


def test_a_stopped_run_ends_with_a_checkpoint_and_continues_as_if_never_stopped(make_trainer):
    whole = make_trainer("whole", **SETTINGS)
    list(whole.steps())

    stopped = make_trainer("stopped", **SETTINGS)
    for record in stopped.steps():
        if record.step == 4:
            stopped.stop()
    assert stopped.state.step == 5
    stopped.close()
    assert_continues_as_if_never_ended(whole, "stopped", 5, make_trainer, **SETTINGS)


def stop_in_validation(trainer, batch):
    """Let `stop` be called during a batch of the next validation; returns the steps of those computed."""
    compute, computed = trainer._optimisation.validation_error, []

    def error(noised):
        computed.append(trainer.state.step)
        if len(computed) == batch:
            trainer.stop()
        return compute(noised)

    trainer._optimisation.validation_error = error
    return computed


VALIDATED_TWICE = SETTINGS | {"timesteps": "logit-normal"}
"""As spread evenly, then as trained: the 8 windows in 4 batches each."""


@pytest.mark.parametrize("batch", some_of([5, 1, 4]))
@pytest.mark.parametrize("validated", [1, 3])
def test_a_validation_that_is_interrupted_is_done_again(make_trainer, batch, validated):
    """It ends after a batch, and the resumed run has the weights, metrics and losses of a whole one."""
    whole = make_trainer("whole", **VALIDATED_TWICE)
    records = list(whole.steps())
    stopped, step = make_trainer("stopped", **VALIDATED_TWICE), 4 * validated
    computed = stop_in_validation(stopped, 8 * (validated - 1) + batch)
    assert [record.step for record in stopped.steps()] == list(range(1, step))
    assert computed == [at for at in (4, 8, 12) for _ in range(8)][: 8 * (validated - 1) + batch]
    assert (stopped.state.step, stopped.is_finished) == (step, False)
    assert stopped.num_validations_left() == 4 - validated
    stopped.close()
    saved = list_checkpoints(stopped.run_dir / "checkpoints")[-1]
    assert (step_of(saved), validation_loss_of(saved)) == (step, math.inf)
    assert [line["step"] for line in read_metrics(stopped.run_dir)] == list(range(1, step))

    resumed = make_trainer("stopped", resume=True, **VALIDATED_TWICE)
    assert (resumed.state.step, resumed.is_finished) == (step, False)
    assert resumed.num_validations_left() == 4 - validated
    again = list(resumed.steps())
    assert [record.step for record in again] == list(range(step, 13))
    assert again[0].validation_loss == records[step - 1].validation_loss is not None
    assert again[0].validation_loss_as_trained == records[step - 1].validation_loss_as_trained is not None
    assert_same_state(whole.state, resumed.state)
    assert read_metrics(whole.run_dir) == read_metrics(resumed.run_dir)
    assert resumed.is_finished
    best = [best_checkpoint(trainer.run_dir / "checkpoints") for trainer in (whole, resumed)]
    assert best[0].name == best[1].name
    assert validation_loss_of(best[0]) == validation_loss_of(best[1])
    for folder, steps in ((".", range(1, 13)), ("validation", (4, 8, 12))):
        curves = EventAccumulator(str(resumed.run_dir / folder)).Reload()
        assert [event.step for event in curves.Scalars("loss")] == list(steps)


def test_a_validation_may_be_interrupted_again(make_trainer):
    whole = make_trainer("whole", **VALIDATED_TWICE)
    list(whole.steps())
    for attempt in range(3):
        stopped = make_trainer("stopped", resume=attempt > 0, **VALIDATED_TWICE)
        stop_in_validation(stopped, 5)
        assert [record.step for record in stopped.steps()] == ([] if attempt else [1, 2, 3])
        assert stopped.state.step == 4
        stopped.close()
    assert_continues_as_if_never_ended(whole, "stopped", 4, make_trainer, **VALIDATED_TWICE)


def test_a_trainer_whose_validation_was_interrupted_can_continue(make_trainer):
    whole, stopped = make_trainer("whole", **VALIDATED_TWICE), make_trainer("stopped", **VALIDATED_TWICE)
    stop_in_validation(stopped, 5)
    assert [record.step for record in (*stopped.steps(), *stopped.steps())] == list(range(1, 13))
    list(whole.steps())
    assert_same_state(whole.state, stopped.state)
    assert read_metrics(whole.run_dir) == read_metrics(stopped.run_dir)


def test_a_validation_that_is_complete_when_a_stop_comes_is_kept(make_trainer):
    stopped = make_trainer(**VALIDATED_TWICE)
    stop_in_validation(stopped, 8)
    records = list(stopped.steps())
    assert [record.step for record in records] == [1, 2, 3, 4]
    assert records[-1].validation_loss is not None
    (saved,) = (it for it in list_checkpoints(stopped.run_dir / "checkpoints") if step_of(it) == 4)
    assert validation_loss_of(saved) == records[-1].validation_loss


def test_a_skipped_step_whose_validation_was_interrupted_stays_one(make_trainer):
    settings = VALIDATED_TWICE | {"build_model": build_failing(4)}
    whole, stopped = make_trainer("whole", **settings), make_trainer("stopped", **settings)
    list(whole.steps())
    stop_in_validation(stopped, 5)
    list(stopped.steps())
    stopped.close()
    resumed = make_trainer("stopped", resume=True, **settings)
    assert next(iter(resumed.steps())).is_skipped
    resumed.close()
    assert read_metrics(resumed.run_dir) == read_metrics(whole.run_dir)[:4]


@pytest.mark.parametrize(
    "values", some_of([[], {"step": 4}, {"step": 4, "loss": "low"}, {"step": 0}]), ids=str
)
def test_a_damaged_record_of_an_interrupted_validation_is_refused(make_trainer, values):
    stopped = make_trainer(**SETTINGS)
    stop_in_validation(stopped, 1)
    list(stopped.steps())
    stopped.close()
    state = list_checkpoints(stopped.run_dir / "checkpoints")[-1] / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"unvalidated": values}))
    with pytest.raises(TrainError, match=r"state\.json is damaged \("):
        make_trainer(resume=True, **SETTINGS)


def test_a_stopped_trainer_can_continue(make_trainer):
    trainer = make_trainer()
    trainer.stop()
    assert [record.step for record in trainer.steps()] == [1]
    assert [record.step for record in trainer.steps()] == [2, 3, 4, 5, 6]


def test_a_finished_run_can_be_given_more_steps(make_trainer, tmp_path):
    list(make_trainer(steps=4).steps())
    assert list(make_trainer(resume=True, steps=4).steps()) == []
    assert [record.step for record in make_trainer(resume=True, steps=6).steps()] == [5, 6]
    assert len(read_metrics(tmp_path / "run")) == 6


def test_estimating_the_time_changes_nothing(make_trainer):
    plain, timed = make_trainer("plain"), make_trainer("timed")
    assert timed.estimate_seconds_per_step() > 0
    assert timed.estimate_seconds_per_validation() > 0
    list(plain.steps())
    list(timed.steps())
    assert_same_state(plain.state, timed.state)


def test_a_validation_is_estimated_from_one_of_its_parts(make_trainer, monkeypatch):
    trainer, computed = make_trainer(batch=5), []
    seconds_of, predict = trainer._seconds_of, trainer._optimisation.predict

    def predict_and_count(network, noised):
        computed.append((network is trainer.state.ema, len(noised.inputs)))
        return predict(network, noised)

    def count(compute):
        seconds_of(compute)
        return 0.25

    monkeypatch.setattr(trainer._optimisation, "predict", predict_and_count)
    monkeypatch.setattr(trainer, "_seconds_of", count)
    assert trainer.estimate_seconds_per_validation() == 0.25 * 2  # 8 windows in parts of 5
    assert set(computed) == {(True, 5)}
    assert make_trainer("none", validation_fraction=0.0).estimate_seconds_per_validation() == 0


@pytest.mark.parametrize(
    ("done", "steps", "every"), some_of([(0, 6, 2), (0, 7, 2), (3, 7, 2), (0, 1, 200), (6, 6, 4)])
)
def test_as_many_validations_are_foreseen_as_there_are(make_trainer, done, steps, every):
    if done:
        list(make_trainer(steps=done, validate_every=every).steps())
    trainer = make_trainer(resume=bool(done), steps=steps, validate_every=every)
    foreseen = trainer.num_validations_left()
    assert foreseen == sum(record.validation_loss is not None for record in trainer.steps())
    without = make_trainer("without", validation_fraction=0.0, steps=steps)
    assert without.num_validations_left() == 0


def even_latents(video_id, num_latent_frames):
    """The same value everywhere in a frame, which a convolution can tell from noise."""
    mean, std = random_posterior(video_id, num_latent_frames)
    return np.broadcast_to(mean[..., :1, :1], mean.shape), std * 0


@pytest.mark.parametrize("objective", some_of(["flow", "v", "epsilon", "mean-flow"]))
def test_the_loss_falls(make_trainer, make_cache, objective):
    cache, _ = make_cache({"a.mp4": 40, "b.mp4": 40}, name="even.zarr", posterior=even_latents)
    settings = {"steps": 60, "validate_every": 20, "learning_rate": 0.03, "batch": 8, "ema_decay": 0.9}
    records = list(make_trainer(cache=cache, objective=objective, **settings).steps())
    validation = [record.validation_loss for record in records if record.validation_loss is not None]
    assert len(validation) == 3
    assert validation[-1] < validation[0]
    assert sum(r.loss for r in records[-10:]) < 0.7 * sum(r.loss for r in records[:10])


def test_validation_repeats_windows_noise_and_timesteps(make_trainer):
    """With constant weights every validation gives the same loss, while the training loss varies."""
    settings = {"learning_rate": 1e-30, "weight_decay": 0.0, "validate_every": 1}
    records = list(make_trainer(**settings).steps())
    assert len({record.validation_loss for record in records}) == 1
    assert len({record.loss for record in records}) == len(records)


def test_validation_is_of_the_averaged_weights(make_trainer):
    trainer = make_trainer(steps=1)
    before = trainer.validation_loss()
    with torch.no_grad():
        trainer.state.model.mix.weight.add_(1)
    assert trainer.validation_loss() == before
    with torch.no_grad():
        trainer.state.ema.mix.weight.add_(1)
    assert trainer.validation_loss() != before


def test_training_never_touches_a_validation_video(make_trainer):
    trainer = make_trainer(steps=40, validation_fraction=0.5)
    trained = {video_id for batch, _ in trainer.batches(range(40)) for video_id in batch.video_ids}
    assert trained == set(trainer.run.training)
    assert trainer.run.validation
    assert trained.isdisjoint(trainer.run.validation)


def test_checkpoints_are_written_when_due_and_at_the_end(make_trainer, tmp_path):
    list(make_trainer(steps=5, checkpoint_every=2).steps())
    kept = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert [step_of(path) for path in kept] == [2, 4, 5]


def test_the_best_checkpoint_is_kept_however_old_and_can_be_loaded(make_trainer, tmp_path):
    trainer = make_trainer(steps=12, checkpoint_every=3, validate_every=2, keep=2)
    trainer.validation_loss = iter([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]).__next__
    list(trainer.steps())
    directory = tmp_path / "run" / "checkpoints"
    # Steps 2 and 4 were the best so far; of the others the last two remain.
    assert [step_of(path) for path in list_checkpoints(directory)] == [4, 9, 12]
    assert step_of(best_checkpoint(directory)) == 4
    assert load_run(tmp_path / "run", best=True, build_model=build_small).step == 4
    assert load_run(tmp_path / "run", build_model=build_small).step == 12


def test_a_validation_loss_that_is_not_finite_ends_the_run_and_is_never_the_best(make_trainer, tmp_path):
    trainer = make_trainer(steps=6, checkpoint_every=2, validate_every=2, validation_fraction=0.3)
    steps = trainer.steps()
    for _ in range(3):
        next(steps)
    with torch.no_grad():
        next(iter(trainer.state.ema.parameters())).mul_(math.nan)
    with pytest.raises(
        TrainError, match=r"step 4: the validation loss is nan; go on with --resume .* from step_0*2;"
    ):
        list(steps)
    directory = tmp_path / "run" / "checkpoints"
    assert [step_of(path) for path in list_checkpoints(directory)] == [2]
    for content in ('{"validation_loss": NaN}', "{", "[]", '{"validation_loss": null}'):
        damaged = directory / "step_00000009"
        damaged.mkdir(exist_ok=True)
        (damaged / "state.json").write_text(content)
        assert step_of(best_checkpoint(directory)) == 2


@pytest.mark.parametrize("num_removed", [0, 1, 3])
def test_a_kill_while_an_old_checkpoint_is_removed_costs_nothing(
    make_trainer, tmp_path, monkeypatch, num_removed
):
    """A checkpoint is renamed before its first file is removed."""

    def remove_some_and_die(path):
        for file in sorted(path.iterdir())[:num_removed]:
            file.unlink()
        raise KeyboardInterrupt

    settings = {"steps": 8, "checkpoint_every": 1, "keep": 1, "validation_fraction": 0.0}
    steps = make_trainer(**settings).steps()
    next(steps)
    with monkeypatch.context() as patch:
        patch.setattr(
            "vidlat.train.runs.checkpoint.delete_tree",
            lambda path: path.exists() and remove_some_and_die(path),
        )
        with pytest.raises(KeyboardInterrupt):
            next(steps)
    steps.close()
    resumed = make_trainer(resume=True, **settings)
    assert resumed.state.step == 2
    assert [record.step for record in resumed.steps()] == [3, 4, 5, 6, 7, 8]
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step_00000008"]


def test_tensorboard_shows_the_same_numbers_without_those_of_lost_steps(make_trainer, tmp_path):
    take(make_trainer(**SETTINGS), 5)
    list(make_trainer(resume=True, **SETTINGS).steps())
    metrics = read_metrics(tmp_path / "run")
    for folder, name in ((".", "loss"), ("validation", "validation_loss")):
        loss = EventAccumulator(str(tmp_path / "run" / folder)).Reload().Scalars("loss")
        expected = {line["step"]: line[name] for line in metrics if name in line}
        assert [event.step for event in loss] == list(expected)
        assert [event.value for event in loss] == pytest.approx(list(expected.values()))
    assert list(expected) == [4, 8, 12]


def test_one_video_trains_without_validation_and_notes_it(make_trainer, make_cache):
    cache, _ = make_cache({"only.mp4": 16}, name="one.zarr")
    trainer = make_trainer(cache=cache, validation_fraction=0.0)
    assert "no video is held out" in trainer.notes[0]
    assert all(record.validation_loss is None for record in trainer.steps())


def test_a_run_that_ends_within_its_warm_up_notes_it(make_trainer):
    (note,) = make_trainer("short", steps=5, warmup_steps=6).notes
    assert "5 steps end within the warm-up of 6" in note
    assert make_trainer("as long", steps=6, warmup_steps=6).notes == ()


def test_short_videos_are_counted_in_a_note(make_trainer):
    assert make_trainer("long", frames=4).notes == ()
    (note,) = make_trainer("short", frames=64).notes
    assert "4 of 4 training videos are shorter than 64 frames" in note


def test_bfloat16_is_refused_where_the_cpu_lacks_it_also_on_resuming(make_trainer, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    with pytest.raises(DeviceError, match="this CPU does not compute with it"):
        make_trainer(precision="bfloat16")
    assert not (tmp_path / "run").exists()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("torch.cpu.get_capabilities", lambda: {"bf16": True})
        list(make_trainer(precision="bfloat16", steps=2).steps())
    with pytest.raises(DeviceError, match="this CPU does not compute with it"):
        make_trainer(precision="bfloat16", steps=4, resume=True)


def test_bfloat16_trains(make_trainer, cpu_with_bfloat16):
    records = list(make_trainer(precision="bfloat16").steps())
    assert all(math.isfinite(record.loss) for record in records)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(steps=110, warmup_steps=10, learning_rate=1.0)
    assert [learning_rate(config, step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert learning_rate(config, 60) == pytest.approx(0.5)
    assert learning_rate(config, 110) == pytest.approx(0)
    assert learning_rate(TrainConfig(steps=2, warmup_steps=100), 1) > 0
    assert learning_rate(TrainConfig(steps=2, warmup_steps=0), 0) > 0


def test_the_average_follows_fast_at_first_and_slowly_later():
    average, weights = torch.randn(2, 3), torch.randn(2, 3)
    start = average.clone()
    update_average([average], [weights], 0.999, 0)
    torch.testing.assert_close(average, 0.1 * start + 0.9 * weights)
    before = average.clone()
    update_average([average], [weights], 0.999, 1_000_000)
    torch.testing.assert_close(average, 0.999 * before + 0.001 * weights)


def test_train_is_the_whole_run_as_one_call(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module.Trainer, "validation_loss", lambda self: 0.5)
    config = TrainConfig(frames=4, batch=1, steps=1, device="cpu")
    (record,) = train_unet(cache.path, tmp_path / "run", config)
    assert record.step == 1
    assert record.validation_loss == 0.5
    with pytest.raises(TrainError, match="already holds a run"):
        train_unet(cache.path, tmp_path / "run", config)


@pytest.mark.slow
def test_resumed_run_of_the_real_network_equals_uninterrupted_run(cache, tmp_path):
    config = TrainConfig(frames=16, batch=2, steps=6, checkpoint_every=2, validate_every=3, device="cpu")
    whole = trainer_module.Trainer(config, cache, tmp_path / "whole")
    list(whole.steps())
    take(trainer_module.Trainer(config, cache, tmp_path / "killed"), 3)
    resumed = trainer_module.Trainer(config, cache, tmp_path / "killed", resume=True)
    list(resumed.steps())
    assert_same_state(whole.state, resumed.state)
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "killed")


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.thorough import some_of
from tests.train.toys import build_small
from vidlat.config import TrainConfig
from vidlat.store.reader import open_cache
from vidlat.train import trainer
trainer.NUM_VALIDATION_WINDOWS = 8  # as in the other process
config = TrainConfig(frames=8, batch=2, steps=12, warmup_steps=2, device="cpu", checkpoint_every=3,
                     validate_every=4, validation_fraction=0.3)
cache, run_dir = open_cache(Path(sys.argv[1])), Path(sys.argv[2])
for record in trainer.Trainer(config, cache, run_dir, build_model=build_small).steps():
    if record.step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [2, 8, 11])
def test_a_run_killed_by_the_system_resumes_to_the_last_bit(make_trainer, cache, tmp_path, kill_after):
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(cache.path), str(tmp_path / "killed"), str(kill_after)],
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    resume = kill_after >= 3  # before the first checkpoint there is nothing to go on with
    resumed = make_trainer("killed", resume=resume, **SETTINGS)
    assert resumed.state.step in (kill_after // 3 * 3, kill_after // 4 * 4)
    list(resumed.steps())
    whole = make_trainer("whole", **SETTINGS)
    list(whole.steps())
    assert_same_state(whole.state, resumed.state)
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "killed")
