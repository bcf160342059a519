"""The training of a VAE: what it yields, writes and measures, and what it refuses."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.fit.small import ALL_TERMS, config, frames, make_clips, needs_bfloat16, start, train, without_times
from vidlat.config import CompareConfig
from vidlat.encode.vae import load_vae
from vidlat.encode.weights_file import hash_encoder, hash_weights, read_weights, trained_stacks, write_weights
from vidlat.errors import ConfigError, TrainError, WeightsError
from vidlat.evaluate.comparison import Comparison, compare_videos
from vidlat.fit.plan import NOT_VALIDATED
from vidlat.fit.run import FitStep, read_fit
from vidlat.fit.trainer import VAETrainer, VideoRead, fit_vae
from vidlat.labels.split import split_videos
from vidlat.pipeline.discover import discover_videos
from vidlat.train.runs.checkpoint_list import list_checkpoints, step_of
from vidlat.train.unread_steps import NUM_BEHIND


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips"))


def test_videos_are_read_then_trained_on_and_unreadable_ones_left_out(make_videos, tmp_path):
    folder = make_videos(tmp_path / "v", {"a.mp4": 9, "short.mp4": 3})
    (folder / "empty.mp4").write_bytes(b"")
    out = tmp_path / "new" / "run"
    events = list(fit_vae([folder], out, config(validation_fraction=0.0)))
    read = [event for event in events if isinstance(event, VideoRead)]
    assert [(event.video_id, event.number, event.num_stacks, event.num_videos) for event in read] == [
        ("a.mp4", 1, 2, 1),
        ("empty.mp4", 2, 2, 1),
        ("short.mp4", 3, 2, 1),
    ]
    assert [event.failure is None for event in read] == [True, False, True]
    steps = events[len(read) :]
    assert all(isinstance(event, FitStep) and 0 < event.mse < 1 for event in steps)
    assert [event.step for event in steps] == [1, 2, 3]
    assert load_vae(out / "vae.safetensors", device="cpu").latent_dim == 4


def test_a_run_is_read_back_as_it_was_yielded(clips, tmp_path):
    records = train(clips, tmp_path / "run", config(steps=4))
    run = read_fit(tmp_path / "run")
    assert without_times(run.records) == without_times(records)
    assert [record.step for record in records] == [0, 1, 2, 3, 4]
    assert [record.epoch for record in records[1:]] == [2 * step / 8 for step in (1, 2, 3, 4)]
    assert [record.validation is not None for record in records] == [True, False, False, False, True]
    assert run.num_stacks == 8  # of four frames, in two videos of 16
    assert run.steps_per_epoch == 4
    ids = {name: name for name in ("a.npy", "b.npy", "c.npy")}
    assert (run.training, run.validation) == split_videos(ids, 0.1)  # as a diffusion run splits them
    assert run.clips == run.validation
    assert run.network["latent_channels"] == 4
    assert (run.config.steps, run.config.loss, run.config.precision) == (4, "log-mse", "float32")


def test_curves_and_reconstructions_are_in_tensorboard(clips, tmp_path):
    out = tmp_path / "run"
    train(clips, out, config(steps=2))
    events, validation = (EventAccumulator(str(out / name)).Reload() for name in (".", "validation"))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    shown = [event.value for event in validation.Scalars("psnr")]
    assert shown == pytest.approx([lines[0]["validation"]["psnr"], lines[2]["validation"]["psnr"]], rel=1e-6)
    assert [event.step for event in events.Scalars("training/terms/log-mse")] == [1, 2]
    assert {"loss", "mse", "training/epoch", "training/terms/kl"} <= set(events.Tags()["scalars"])
    assert {"mse", "motion/correlation"} <= set(validation.Tags()["scalars"])
    assert [event.step for event in events.Images("reconstructions")] == [0, 2]
    written = sorted(path.name for path in (out / "reconstructions").glob("*.gif"))
    assert written == ["step_00000000.gif", "step_00000002.gif"]


def test_what_is_validated_is_what_compare_measures(tmp_path):
    clips = make_clips(tmp_path / "clips", num_clips=4, num_frames=13)
    out = tmp_path / "run"
    last = train(clips, out, config(steps=2, stack=8))[-1].validation
    settings = CompareConfig(
        vae=(str(out / "vae.safetensors"),), size=16, stack=(8,), frames=32, device="cpu"
    )
    held_out = [clips / name for name in read_fit(out).clips]
    (compared,) = Comparison.of(compare_videos(held_out, tmp_path / "compared", settings)).candidates
    assert last == json.loads(json.dumps(compared.summary.to_dict()))


def test_validations_are_at_fixed_steps_at_ends_of_epochs_and_at_the_end(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("vidlat.fit.trainer.LEAST_BETWEEN", 1)
    settings = config(steps=11, batch=3, validate_every=5, checkpoint_every=100)
    records = train(clips, tmp_path / "run", settings)
    # Eight stacks: an epoch ends in steps 3, 6 and 8, and 11 is the last.
    assert [record.step for record in records if record.validation] == [0, 3, 5, 6, 8, 10, 11]
    kept = {step_of(path) for path in list_checkpoints(tmp_path / "run" / "checkpoints")}
    best = min(records[1:], key=lambda record: record.validation["mse"] if record.validation else math.inf)
    assert kept >= {best.step, 11}


def test_short_epochs_are_validated_together(clips, tmp_path):
    trainer = start(clips, tmp_path / "run", config(steps=2000, validate_every=0))
    ends = [step for step in range(1, 1000) if trainer._ends_epochs(step)]
    assert ends == [step for step in range(1, 1000) if step % 100 == 0]  # of four steps each
    other = start(clips, tmp_path / "other", config(steps=2000, batch=5, validate_every=0, validate_epochs=7))
    ends = [step for step in range(1, 1000) if other._ends_epochs(step)]
    # Epochs of 1.6 steps, seven of 11.2: nine times seven are more than 100 steps.
    assert ends[:3] == [math.ceil(63 * 1.6 * number) for number in (1, 2, 3)]


@pytest.mark.parametrize(
    "asked", [{"validate_every": 5}, {"validate_epochs": 2}, {"validation_fraction": 0.3}]
)
def test_a_single_subject_cannot_be_validated(asked, tmp_path):
    clips = make_clips(tmp_path / "clips", num_clips=1)
    with pytest.raises(ConfigError, match="validation_fraction: nothing can be validated: there is a single"):
        VAETrainer([clips], tmp_path / "run", config(**asked))
    assert not (tmp_path / "run").exists()
    trainer = start(clips, tmp_path / "run", config())
    assert trainer.notes[0].startswith("no video is validated")
    assert [record.validation for record in trainer.steps()] == [None] * 3


def test_frames_too_small_to_be_measured_are_not_validated(tmp_path):
    clips = make_clips(tmp_path / "clips")
    with pytest.raises(ConfigError, match="frames of 8 pixels are too small to be measured; expected 11"):
        VAETrainer([clips], tmp_path / "run", config(size=8, validate_every=5))
    assert len(train(clips, tmp_path / "run", config(size=8))) == 3


def test_reconstructions_are_no_clips_of_a_later_training(tmp_path):
    clips = make_clips(tmp_path / "clips")
    train(clips, clips / "run", config(steps=1))
    assert list((clips / "run" / "reconstructions").glob("*.gif"))
    assert [video.video_id for video in discover_videos([str(clips)]).videos] == ["a.npy", "b.npy", "c.npy"]


def test_it_is_noted_where_no_held_out_clip_can_be_read(tmp_path):
    clips = make_clips(tmp_path / "clips")
    trainer = start(clips, tmp_path / "first", config())
    words = "split by subject: train 2 videos of 2 subjects, val 1 video of 1 subject"
    assert trainer.notes == (words,)
    trainer.close()
    (clips / trainer.run.clips[0]).write_bytes(b"damaged")
    again = start(clips, tmp_path / "run", config())
    assert again.notes == (words, NOT_VALIDATED)
    assert all(step.validation is None for step in again.steps())
    again.close()


def test_no_validation_is_made_that_is_not_wanted(clips, tmp_path):
    records = train(clips, tmp_path / "run", config(validate_every=0, validate_epochs=0))
    assert [record.validation for record in records] == [None] * 3
    assert len(read_fit(tmp_path / "run").training) == 2  # held out all the same


def test_a_label_that_tells_a_split_is_kept(clips, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("video_id,Split\na.npy,VAL\nb.npy,TRAIN\nc.npy,TEST\n")
    trainer = start(clips, tmp_path / "run", config(split_by="Split"), labels=table)
    assert (trainer.run.training, trainer.run.validation) == (("b.npy",), ("a.npy",))
    assert any("test 1 video of 1 subject (not used)" in note for note in trainer.notes)


def test_epochs_are_as_many_steps_as_show_every_stack_so_often(clips, tmp_path):
    records = train(clips, tmp_path / "run", config(steps=None, epochs=1.3, batch=3))
    assert read_fit(tmp_path / "run").config.steps == records[-1].step == 4  # of 8 / 3 steps each: 3.47


def test_fine_tuning_starts_from_the_given_weights(clips, tmp_path):
    train(clips, tmp_path / "first", config(steps=1))
    first = tmp_path / "first" / "vae.safetensors"
    train(clips, tmp_path / "second", config(steps=1, learning_rate=1e-9, init=str(first)))
    before, after = read_weights(first)[0], read_weights(tmp_path / "second" / "vae.safetensors")[0]
    assert all(torch.allclose(before[name], after[name], atol=1e-6, rtol=1e-3) for name in before)
    assert read_fit(tmp_path / "second").init_hash == hash_weights(before)


def test_a_frozen_encoder_has_the_same_hash_in_the_weights_written(clips, small_vae, tmp_path):
    tensors, network = read_weights(small_vae)
    whole = {name: tensor * 1.0001 for name, tensor in tensors.items()}  # no float16
    for tensor in whole.values():
        tensor.flatten()[0] = -0.0  # whose sign is lost where 0.0 is added
    write_weights(tmp_path / "odd.safetensors", whole, network, keeps_encoder=True)
    # More than ten steps: only then does an average take more of itself than of the weights.
    settings = config(init=str(tmp_path / "odd.safetensors"), freeze_encoder=True, steps=12, validate_every=0)
    train(clips, tmp_path / "run", settings)
    after, _ = read_weights(tmp_path / "run" / "vae.safetensors")
    assert hash_encoder(after) == hash_encoder(whole) != hash_encoder(tensors)
    assert hash_weights(after) != hash_weights(whole)


def test_the_start_is_the_linear_code(clips, tmp_path):
    records = train(clips, tmp_path / "run", config(learning_rate=1e-7, latent_dim=16))
    vae = load_vae(tmp_path / "run" / "vae.safetensors", device="cpu")
    assert vae.latent_dim == 16
    video = torch.from_numpy(np.stack(frames(8)))[None, None]
    mean, _ = vae.encode(video)
    assert (vae.decode(mean, 8) - video).square().mean() < 0.01
    # What the code loses of these clips is near the rounding of float32, which differs between machines.
    assert records[0].validation["mse"] == pytest.approx(records[-1].validation["mse"], rel=0.05, abs=1e-6)


def test_the_weights_state_the_stacks_they_were_trained_on(clips, tmp_path):
    train(clips, tmp_path / "run", config(stack=8, shortest_stack=4, change_weight=0.1, steps=1))
    assert trained_stacks(tmp_path / "run" / "vae.safetensors") == (4, 8)


@needs_bfloat16
def test_training_in_bfloat16_starts_like_that_in_float32(clips, tmp_path):
    first = {}
    for precision in ("float32", "bfloat16"):
        settings = config(precision=precision, steps=1, validate_every=0, validate_epochs=0)
        (first[precision],) = train(clips, tmp_path / precision, settings)
    assert first["bfloat16"].mse == pytest.approx(first["float32"].mse, rel=0.3, abs=1e-5)
    assert first["bfloat16"].mse != first["float32"].mse


def test_a_maisi_recipe_trains_a_random_network_against_a_discriminator(tmp_path):
    clips = make_clips(tmp_path / "clips", side=24)
    network = {"network": "maisi", "channels": (8, 8, 8), "res_blocks": (1, 1, 1)}
    records = train(clips, tmp_path / "run", config(size=24, stack=8, **network))
    assert set(records[-1].terms) == {"l1", "kl", "perceptual", "adversarial", "discriminator"}
    run = read_fit(tmp_path / "run")
    assert not run.network["use_convtranspose"]
    files = {path.name for path in (tmp_path / "run" / "checkpoints" / "step_00000003").iterdir()}
    assert {"discriminator.safetensors", "discriminator_optimiser.safetensors"} <= files


@pytest.mark.slow
def test_figures_that_are_read_late_are_the_same(clips, tmp_path):
    settings = config(steps=8, checkpoint_every=5)
    at_once = train(clips, tmp_path / "at_once", settings)
    trainer = start(clips, tmp_path / "late", settings)
    trainer._num_behind = NUM_BEHIND
    known = [(record, trainer.state.step) for record in trainer.steps()]
    assert without_times(record for record, _ in known) == without_times(at_once)
    assert [step for _, step in known] == [0, 3, 4, 5, 5, 5, 8, 8, 8]


def failing(trainer, *steps):
    """Let the loss of some steps be NaN."""
    compute = trainer._optimisation.compute_gradients

    def gradients(*arguments):
        figures = compute(*arguments)
        if trainer.state.step + 1 in steps:
            figures[:2] = math.nan
        return figures

    trainer._optimisation.compute_gradients = gradients
    return trainer


def test_steps_that_are_not_finite_are_skipped(clips, tmp_path):
    trainer = failing(start(clips, tmp_path / "run", config(steps=6)), 3, 4)
    records = list(trainer.steps())
    assert [record.step for record in records if record.is_skipped] == [3, 4]
    assert trainer.state.num_skipped == 2
    assert [record.step for record in read_fit(tmp_path / "run").records if record.is_skipped] == [3, 4]
    assert math.isfinite(records[-1].validation["mse"])


def test_too_many_steps_in_a_row_that_are_not_finite_end_a_training(clips, tmp_path):
    run, settings = tmp_path / "run", config(steps=9, max_skipped=2)
    trainer = failing(start(clips, run, settings), 3, 4, 5)
    last = run / "checkpoints" / "step_00000004"
    advice = (
        "go on with --resume and a lower --learning-rate or --precision float32 from step_00000004; if that "
        f"ends like this again, remove the folder {last} to go on from step_00000002"
    )
    with pytest.raises(TrainError, match=rf"step 5: the loss is nan, .* 3 steps in a row .*; {advice}$"):
        list(trainer.steps())
    trainer.close()
    shutil.rmtree(last)
    assert [record.step for record in train(clips, run, settings, resume=True)] == list(range(3, 10))


def test_too_many_before_the_first_checkpoint_say_that_there_is_none(clips, tmp_path):
    trainer = failing(start(clips, tmp_path / "run", config(steps=9, max_skipped=0)), 1)
    with pytest.raises(TrainError, match=r"or --precision float32; there is no checkpoint yet$"):
        list(trainer.steps())


def test_nothing_to_train_on_is_refused(tmp_path):
    clips = make_clips(tmp_path / "clips", num_frames=3)
    with pytest.raises(TrainError, match="no video with at least 4 frames to train on; lower --stack"):
        start(clips, tmp_path / "run", config())
    assert not (tmp_path / "run" / "config.json").exists()


def test_wrong_settings_are_refused_when_called(clips, tmp_path):
    with pytest.raises(
        ConfigError, match=r"vae\.safetensors: expected a folder, into which vae\.safetensors"
    ):
        fit_vae([clips], tmp_path / "vae.safetensors", config())
    with pytest.raises(ConfigError, match="expected a multiple of 4"):
        fit_vae([clips], tmp_path / "run", config(size=18))
    with pytest.raises(ConfigError, match="at least 24 for the discriminator"):
        fit_vae([clips], tmp_path / "run", config(adversarial_weight=0.1))
    unread = {"perceptual": str(tmp_path / "gone.pt"), "perceptual_hash": "5" * 64}
    with pytest.raises(WeightsError, match=r"gone\.pt: cannot be read"):
        fit_vae([clips], tmp_path / "run", config(**unread, perceptual_weight=0.1))
    with pytest.raises(ConfigError, match="counts nothing with a --perceptual-weight of 0"):
        fit_vae([clips], tmp_path / "run", config(**unread))
    assert not (tmp_path / "run").exists()
    assert ALL_TERMS["size"] == 24


def test_weights_of_another_origin_are_not_overwritten(clips, tmp_path):
    (tmp_path / "vae.safetensors").touch()
    with pytest.raises(
        TrainError, match=r"vae\.safetensors is there already, and caches made with it need it"
    ):
        VAETrainer([clips], tmp_path, config())


def test_two_trainings_in_one_folder_exclude_each_other(clips, tmp_path):
    with pytest.raises(TrainError, match=r"another process trains in .*; wait for it, or choose another"):
        _both = VAETrainer([clips], tmp_path / "r", config()), VAETrainer([clips], tmp_path / "r", config())


def test_weights_that_cannot_be_written_are_named(clips, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    trainer = start(clips, tmp_path / "run", config())
    monkeypatch.setattr("vidlat.fit.trainer.write_weights", full)
    with pytest.raises(
        TrainError, match=r"run/vae.safetensors: the weights cannot be written: No space left"
    ):
        list(trainer.steps())
