"""A training that is resumed reaches the same weights to the last bit, and refuses what has changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import islice

import pytest

from tests.fit.small import ALL_TERMS, config, files_of, make_clips, start, train, without_times
from vidlat.errors import TrainError, VidlatError
from vidlat.fit.run import read_fit
from vidlat.fit.trainer import VAETrainer
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of

SETTINGS = {"steps": 5, "stack": 8, "shortest_stack": 4, **ALL_TERMS}
"""With a discriminator, a distance of pictures and two lengths of calls."""

PLAIN = {"steps": 3, "size": 16, **{name: 0.0 for name in ALL_TERMS if name.endswith("weight")}}
"""Changes of these to a short training without."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"), side=24)


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    """A training that was not interrupted, and its records."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, train(clips, out, config(**SETTINGS))


def stop_after(clips, out, num_steps, **changes):
    """A training that is asked to stop in the middle of a step, as by Ctrl-C."""
    trainer = start(clips, out, config(**SETTINGS | changes))
    for record in trainer.steps():
        if record.step == num_steps - 1:
            trainer.stop()
    trainer.close()
    return out


@pytest.fixture(scope="module")
def stopped_once(clips, tmp_path_factory):
    return stop_after(clips, tmp_path_factory.mktemp("stopped") / "run", 3)


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of a training that was stopped after three steps."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def refusal(call, *arguments, **more):
    with pytest.raises(VidlatError) as caught:
        call(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("stopped_after", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_training_that_was_stopped_continues_to_the_last_bit(
    stopped_after, clips, whole, tmp_path, request
):
    out, records = whole
    again = tmp_path / "run" if stopped_after == 1 else request.getfixturevalue("stopped")
    if stopped_after == 1:
        trainer = start(clips, again, config(**SETTINGS))
        trainer.stop()  # before the first step
        assert [record.step for record in trainer.steps()] == [0, 1]
        trainer.close()
    assert step_of(list_checkpoints(again / "checkpoints")[-1]) == stopped_after
    later = train(clips, again, config(**SETTINGS), resume=True)
    assert without_times(later) == without_times(records)[stopped_after + 1 :]
    assert without_times(read_fit(again).records) == without_times(records)
    assert files_of(again, 5) == files_of(out, 5)
    assert any(name.startswith("discriminator_optimiser") for name in files_of(again, 5))


@pytest.mark.parametrize(
    "killed_after", [*(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 4)), 3]
)
def test_a_training_that_was_killed_continues_from_its_last_checkpoint(killed_after, clips, whole, tmp_path):
    out, records = whole
    trainer = start(clips, tmp_path / "whole", config(**SETTINGS))
    list(islice(trainer.steps(), killed_after + 1))  # with that of the start
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")  # what a kill would leave
    trainer.close()
    first = killed_after // 2 * 2  # there is a checkpoint every other step
    later = train(clips, tmp_path / "killed", config(**SETTINGS), resume=True)
    assert without_times(later) == without_times(records)[first + (first > 0) :]
    assert files_of(tmp_path / "killed", 5) == files_of(out, 5)
    assert without_times(read_fit(tmp_path / "killed").records) == without_times(records)


PROCESS = """
import json, sys
from tests.fit.small import config, start
trainer = start(sys.argv[1], sys.argv[2], config(**json.loads(sys.argv[3])))
for record in trainer.steps():
    print(record.step, flush=True)
"""


@pytest.mark.slow
def test_a_training_killed_by_the_system_continues_to_the_last_bit(clips, tmp_path):
    settings = SETTINGS | {"steps": 60, "checkpoint_every": 7, "validate_every": 10}
    train(clips, tmp_path / "whole", config(**settings))
    command = [sys.executable, "-c", PROCESS, str(clips), str(tmp_path / "run"), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        for line in process.stdout:
            if int(line) == 25:
                process.send_signal(signal.SIGKILL)
                break
    train(clips, tmp_path / "run", config(**settings), resume=True)
    assert files_of(tmp_path / "run", 60) == files_of(tmp_path / "whole", 60)
    runs = [without_times(read_fit(tmp_path / name).records) for name in ("run", "whole")]
    assert runs[0] == runs[1]


def test_activations_may_be_computed_again_in_a_resumed_training(clips, whole, stopped):
    saving = config(**SETTINGS, checkpoint_activations=True)
    assert len(train(clips, stopped, saving, resume=True)) == 2
    assert files_of(stopped, 5) == files_of(whole[0], 5)


def test_a_frozen_encoder_is_resumed_without_the_file_it_came_from(clips, whole, tmp_path):
    weights = tmp_path / "first.safetensors"
    shutil.copy(whole[0] / "vae.safetensors", weights)
    more = PLAIN | {"init": str(weights), "freeze_encoder": True, "latent_dim": None}
    train(clips, tmp_path / "whole", config(**SETTINGS | more))
    again = stop_after(clips, tmp_path / "run", 2, **more)
    weights.unlink()
    train(clips, again, config(**SETTINGS | more), resume=True)
    assert files_of(again, 3) == files_of(tmp_path / "whole", 3)


def test_more_steps_and_another_rate_are_recorded(clips, stopped):
    trainer = start(clips, stopped, config(**SETTINGS | {"steps": 7, "learning_rate": 1e-4}), resume=True)
    notes = [note for note in trainer.notes if "from step 4 on" in note]
    assert len(notes) == 2
    list(trainer.steps())
    trainer.close()
    run = read_fit(stopped)
    assert [(it.from_step, it.setting, it.before, it.after) for it in run.changes] == [
        (4, "steps", 5, 7),
        (4, "learning_rate", 1e-3, 1e-4),
    ]
    assert run.records[-1].step == 7


def test_epochs_count_from_the_start_of_a_resumed_training(clips, stopped):
    records = train(clips, stopped, config(**SETTINGS | {"steps": None, "epochs": 4.0}), resume=True)
    assert records[-1].step == 8  # four stacks in two steps an epoch


def test_a_finished_training_has_nothing_left_to_do(clips, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    assert train(clips, tmp_path / "run", config(**SETTINGS), resume=True) == []


def test_other_settings_are_refused_by_name(clips, whole):
    message = refusal(VAETrainer, [clips], whole[0], config(**SETTINGS | {"change_weight": 0.2}), resume=True)
    assert "cannot be resumed with other settings (change_weight: got 0.2, the run has 0.1)" in message
    assert message.endswith("choose another --out, and --init with its weights to train them further")


def test_a_run_is_not_overwritten(clips, whole):
    message = refusal(VAETrainer, [clips], whole[0], config(**SETTINGS))
    assert message.endswith("already holds a run; continue it with --resume, or choose another --out")


def test_a_run_without_a_checkpoint_is_started_anew(clips, tmp_path):
    start(clips, tmp_path / "run", config(**SETTINGS)).close()
    other = config(**SETTINGS | {"steps": 1})
    assert [record.step for record in train(clips, tmp_path / "run", other)] == [0, 1]
    assert read_fit(tmp_path / "run").config.steps == 1


def test_nothing_to_resume_is_refused(clips, tmp_path):
    message = refusal(VAETrainer, [clips], tmp_path / "run", config(), resume=True)
    assert "is no training of a VAE: it has no config.json" in message
    assert not (tmp_path / "run").exists()


def test_videos_that_have_changed_or_are_gone_are_refused(tmp_path):
    clips = make_clips(tmp_path / "clips", side=24)
    out = stop_after(clips, tmp_path / "run", 3)
    trained = read_fit(out).training[0]
    shutil.copy(clips / read_fit(out).validation[0], clips / trained)
    with pytest.raises(TrainError, match="the videos give other training stacks than those it was started"):
        start(clips, out, config(**SETTINGS), resume=True)
    (clips / trained).unlink()
    message = refusal(VAETrainer, [clips], out, config(**SETTINGS), resume=True)
    assert f"videos are gone: {trained}; restore them" in message


@pytest.mark.slow
def test_videos_that_come_later_are_not_used(whole, tmp_path):
    clips = make_clips(tmp_path / "clips", side=24)
    out = stop_after(clips, tmp_path / "run", 3)
    make_clips(clips, num_clips=6, side=24)
    train(clips, out, config(**SETTINGS), resume=True)
    assert files_of(out, 5) == files_of(whole[0], 5)


def test_a_damaged_checkpoint_is_refused(clips, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "step_00000005" / "discriminator_optimiser.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainError, match=r"discriminator_optimiser\.safetensors is damaged"):
        start(clips, tmp_path / "run", config(**SETTINGS), resume=True)


def test_other_weights_to_fine_tune_are_refused_in_a_resumed_training(clips, tmp_path):
    for seed in (0, 1):
        train(clips, tmp_path / f"{seed}", config(steps=1, seed=seed, start="random"))
    weights = tmp_path / "0" / "vae.safetensors"
    settings = config(**SETTINGS | PLAIN | {"init": str(weights)})
    start(clips, tmp_path / "run", settings).close()
    weights.write_bytes((tmp_path / "1" / "vae.safetensors").read_bytes())
    message = refusal(start, clips, tmp_path / "run", settings, resume=True)
    assert f"{weights}: holds other weights than when the training in" in message


@pytest.mark.parametrize("network", [{"num_channels": "x"}, {"colour": 1}, {"num_channels": [8, 8]}])
def test_a_damaged_network_is_refused_in_a_resumed_training(network, clips, whole, tmp_path):
    document = json.loads((whole[0] / "config.json").read_text())
    document["network"] |= network
    (tmp_path / "config.json").write_text(json.dumps(document))
    message = refusal(VAETrainer, [clips], tmp_path, config(**SETTINGS), resume=True)
    assert "cannot be resumed: the network of its config.json is none of MAISI's class" in message


def test_a_resumed_training_makes_its_folder_of_pictures_again(clips, stopped):
    shutil.rmtree(stopped / "reconstructions")
    train(clips, stopped, config(**SETTINGS), resume=True)
    assert [path.name for path in (stopped / "reconstructions").glob("*.gif")] == ["step_00000005.gif"]
