"""A training ends once its validation loss has not fallen for as many validations as --patience says."""

import signal

import pytest
from hypothesis import given, strategies as st

from tests.test_cli import vidlat
from tests.thorough import some_of
from tests.train.test_trainer import assert_same_state, read_metrics, take
from vidlat.errors import ConfigError
from vidlat.train.early_stopping import BestValidation
from vidlat.train.runs.checkpoint import best_checkpoint, validation_loss_of
from vidlat.train.runs.checkpoint_list import last_step, step_of
from vidlat.train.runs.summary import summarise_run
from vidlat.train.trainer import Trainer

pytestmark = pytest.mark.usefixtures("few_validation_windows")

LOSSES = {2: 1.0, 4: 0.5, 6: 0.7, 8: 0.5, 10: 0.6, 12: 0.4}
SETTINGS = {"steps": 12, "validate_every": 2, "checkpoint_every": 3, "keep": 1, "validation_fraction": 0.3}


@pytest.fixture
def scripted(monkeypatch):
    """The validation loss of each step is that of LOSSES."""
    monkeypatch.setattr(Trainer, "validation_loss", lambda self, **_: LOSSES[self.state.step])


def without_end(lines):
    return [{name: value for name, value in line.items() if name != "stopped_early"} for line in lines]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(("patience", "ends"), some_of([(0, 12), (1, 6), (2, 8), (3, 10), (4, 12), (9, 12)]))
def test_it_ends_with_a_checkpoint_and_says_so_in_its_metrics(make_trainer, patience, ends):
    trainer = make_trainer(patience=patience, **SETTINGS)
    records = list(trainer.steps())
    assert [record.step for record in records] == list(range(1, ends + 1))
    assert last_step(trainer.run_dir / "checkpoints") == ends
    assert (trainer.is_finished, trainer.stopped_early) == (True, ends < 12)
    told = [line["step"] for line in read_metrics(trainer.run_dir) if "stopped_early" in line]
    assert told == [ends] * (ends < 12)
    trainer.close()
    assert summarise_run(trainer.run_dir).state == ("stopped early" if ends < 12 else "done")


@pytest.mark.usefixtures("scripted")
def test_of_equal_losses_the_first_is_the_best_and_kept(make_trainer):
    trainer = make_trainer(patience=3, **SETTINGS)
    list(trainer.steps())
    best = best_checkpoint(trainer.run_dir / "checkpoints")
    assert (step_of(best), validation_loss_of(best)) == (4, 0.5)


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("killed_after", some_of([1, 4, 5, 7, 8, 9]))
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make_trainer, killed_after):
    whole = make_trainer("whole", patience=3, **SETTINGS)
    list(whole.steps())
    take(make_trainer("killed", patience=3, **SETTINGS), killed_after)
    resumed = make_trainer("killed", resume=True, patience=3, **SETTINGS)
    list(resumed.steps())
    assert resumed.state.step == 10
    assert_same_state(whole.state, resumed.state)
    assert read_metrics(whole.run_dir) == read_metrics(resumed.run_dir)


@pytest.mark.usefixtures("scripted")
def test_resumed_with_more_patience_it_goes_on_as_if_never_stopped(make_trainer):
    whole = make_trainer("whole", **SETTINGS)
    list(whole.steps())
    list(make_trainer("early", patience=1, **SETTINGS).steps())
    again = make_trainer("early", resume=True, patience=1, **SETTINGS)
    assert again.is_finished
    assert list(again.steps()) == []
    again.close()
    resumed = make_trainer("early", resume=True, patience=0, **SETTINGS)
    assert not resumed.is_finished
    assert [record.step for record in resumed.steps()] == list(range(7, 13))
    assert_same_state(whole.state, resumed.state)
    assert read_metrics(whole.run_dir) == without_end(read_metrics(resumed.run_dir))
    resumed.close()
    assert summarise_run(resumed.run_dir).state == "done"


def test_an_interrupted_validation_that_ends_the_training_does_so_when_it_is_done_again(
    make_trainer, monkeypatch
):
    trainer = make_trainer(patience=1, **SETTINGS)

    def interrupted(self, **_):
        return None if self.state.step == 6 and not resumed else LOSSES[self.state.step]

    resumed = []
    monkeypatch.setattr(Trainer, "validation_loss", interrupted)
    list(trainer.steps())
    assert (trainer.state.step, trainer.is_finished, trainer.stopped_early) == (6, False, False)
    trainer.close()
    resumed.append(make_trainer(resume=True, patience=1, **SETTINGS))
    (record,) = resumed[0].steps()
    assert (record.step, record.validation_loss, record.stopped_early) == (6, 0.7, True)
    assert resumed[0].is_finished


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 5))
def test_validations_are_counted_as_one_by_one(losses, patience, every):
    best, lowest, num_without = BestValidation(every=every, patience=patience, step=0), 5, 0
    for number, loss in enumerate(losses, 1):
        best.take(number * every, loss)
        num_without = 0 if loss < lowest else num_without + 1
        lowest = min(loss, lowest)
        assert best.loss == lowest
        assert best.is_too_long_ago(number * every) == (num_without >= patience)
        if num_without >= patience:
            return


def test_patience_is_refused_where_nothing_is_validated(make_trainer):
    with pytest.raises(ConfigError, match="patience: has no effect with nothing held out"):
        make_trainer(patience=2, validation_fraction=0.0)


@pytest.mark.usefixtures("scripted")
def test_the_command_says_why_it_ends_and_from_where_it_goes_on(cache, tmp_path, monkeypatch):
    command = ["train", "--latents", cache.path, "--out", tmp_path / "r"]
    flags = [
        "--steps",
        12,
        "--batch",
        2,
        "--frames",
        8,
        "--device",
        "cpu",
        "--channels",
        "8,8",
        "--blocks",
        1,
    ]
    flags += ["--validate-every", 2, "--patience", 2]

    def interrupt_at_5(self, every):
        if self.state.step == 5 and not interrupted:
            interrupted.append(signal.SIGINT)
            self.stop()
        return is_due(self, every)

    interrupted, is_due = [], Trainer._is_due
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_is_due", interrupt_at_5)
        code, said, _ = vidlat(*command, *flags)
    assert code == 130
    assert "Resuming" not in said
    code, said, _ = vidlat(*command, "--resume")
    assert code == 0
    assert f"Resuming {tmp_path / 'r'} from step 5 of 12." in said
    why = "no validation loss below 0.5, that of step 4, in 2 validations"
    assert f"stopped early after step 8: {why}" in said
    assert f"8 steps -> {tmp_path / 'r'}; next: vidlat sample --run" in said
    assert "--checkpoint best" in said
    said = vidlat(*command, "--resume")[1]
    assert (
        f"Nothing to do: {tmp_path / 'r'} was stopped early, {why}; a larger --patience, or 0, goes on."
        in said
    )
    assert "12 steps ->" in vidlat(*command, "--resume", "--patience", 0)[1]
