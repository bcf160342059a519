"""The documents of a VAE's training: read back as they were written, or refused in one line."""

import dataclasses
import json
import math

import pytest

from tests.fit.small import chosen
from vidlat.errors import TrainError
from vidlat.fit.run import FitRun, FitStep, read_fit
from vidlat.train.recorder import Recorder
from vidlat.train.runs.changes import Change

RUN = FitRun(
    config=chosen(),
    network={"latent_channels": 4},
    init_hash="",
    training=("a.mp4", "b.mp4"),
    validation=("c.mp4",),
    clips=("c.mp4",),
    num_stacks=7,
    stacks_hash="5" * 64,
    changes=(Change(from_step=3, setting="learning_rate", before=1e-3, after=1e-4),),
)
FIGURES = {
    "mse": 0.001,
    "psnr": 31.5,
    "ssim": 0.5,
    "sharpness": None,
    "motion": {"energy": 0.5, "seam": None},
    "criteria": {"MSE < 1": True},
}
STEPS = (
    FitStep(step=0, epoch=0.0, validation=FIGURES),
    FitStep(
        step=1,
        epoch=0.5,
        loss=0.25,
        terms={"l1": 0.2, "kl": 0.3},
        mse=0.01,
        learning_rate=1e-3,
        grad_norm=2.0,
        steps_per_second=9.0,
    ),
    FitStep(step=2, epoch=1.0, loss=math.inf, terms={"l1": math.inf}, grad_norm=1.0, validation=FIGURES),
)


def validated(**figures):
    """A line of metrics.jsonl with other figures of its validation."""
    return json.dumps(STEPS[1].to_dict() | {"validation": FIGURES | figures})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(RUN.to_dict()))
    recorder = Recorder(tmp_path, 0, {})
    recorder.write(STEPS)
    recorder.close()
    return tmp_path


def test_a_training_is_read_as_it_was_written(folder):
    run = read_fit(str(folder))
    assert dataclasses.replace(run, records=()) == RUN
    assert run.steps_per_epoch == 3.5
    assert [record.validation for record in run.records] == [FIGURES, None, FIGURES]
    assert [record.is_skipped for record in run.records] == [False, False, True]
    first, second, third = run.records
    assert math.isnan(first.loss)
    assert second == STEPS[1]
    assert math.isnan(third.loss)
    assert math.isnan(third.terms["l1"])


def test_a_line_that_is_being_written_is_left_out(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "epo')
    assert len(read_fit(folder).records) == 3


def test_a_training_that_goes_on_after_a_step_drops_the_lines_of_later_ones(folder):
    Recorder(folder, 1, {}).close()
    assert [record.step for record in read_fit(folder).records] == [0, 1]


def test_a_training_without_a_step_has_no_metrics(folder):
    (folder / "metrics.jsonl").unlink()
    assert read_fit(folder).records == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trains": None}, "trains: got None; expected a text"),
        ({"training": []}, "list no video"),
        ({"validation": ["a.mp4"]}, "or the same one"),
        ({"clips": ["d.mp4"]}, "lists a video that validation does not"),
        ({"num_stacks": 0}, "num_stacks: got 0; expected a whole number from 1"),
        ({"config": {"size": -1}}, "size: got -1; expected at least 1"),
        ({"network": 4}, "network: got 4; expected an object"),
    ],
)
def test_documents_that_no_training_has_written_are_refused(changes, message, folder):
    (folder / "config.json").write_text(json.dumps(RUN.to_dict() | changes))
    what = r"config\.json cannot be read as the settings of a VAE's training: "
    with pytest.raises(TrainError, match=f"{what}.*{message}"):
        read_fit(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting"),
        ("[]", "a step: got \\[\\]; expected an object"),
        ('{"step": 1}', "a step: has no terms"),
        (
            json.dumps(STEPS[1].to_dict() | {"loss": "x", "mse": 0}),
            "loss: got 'x'; expected a finite number",
        ),
        (
            json.dumps(STEPS[1].to_dict() | {"grad_norm": 10**400}),
            "grad_norm: got a whole number of 1329 bits",
        ),
        (validated(psnr="x"), "psnr: got 'x'; expected a finite number"),
        (validated(mse=None), "mse: got None; expected a finite number"),
        (validated(mse=-1.0), "mse: got -1.0; expected a finite number"),
        (validated(ssim=True), "ssim: got True; expected a finite number"),
        (validated(sharpness={}), "sharpness: got {}; expected a finite number"),
        (validated(motion=3), "motion: got 3; expected an object"),
        (validated(motion={"correlation": "x"}), "correlation: got 'x'; expected a finite number"),
        (json.dumps(STEPS[1].to_dict() | {"validation": {"x": 1}}), "validation: has no mse"),
    ],
)
def test_metrics_that_no_training_has_written_are_refused(line, message, folder):
    (folder / "metrics.jsonl").write_text(line + "\n")
    what = r"metrics\.jsonl cannot be read as the metrics of a training: "
    with pytest.raises(TrainError, match=f"{what}.*{message}"):
        read_fit(folder)


def test_other_folders_are_no_trainings(tmp_path):
    with pytest.raises(TrainError, match="is no training of a VAE: it has no config"):
        read_fit(tmp_path)
    (tmp_path / "config.json").write_text('{"config": {}}')
    with pytest.raises(TrainError, match="no training of a VAE, but of a diffusion model"):
        read_fit(tmp_path)
