"""A fit that was interrupted continues as if it had not been, or says in one line why it cannot."""

import errno
import json
import re
import shutil
from itertools import islice

import pytest

from tests.fit.small import collection, config
from vidlat.encode.weights_file import hash_weights, read_weights
from vidlat.errors import VidlatError
from vidlat.fit import fitting
from vidlat.fit.fitting import fit_to_stacks, fit_vae
from vidlat.fit.unfinished import UnfinishedFit

SETTINGS = config(stack=8, shortest_stack=4, change_weight=0.1, steps=5, save_every=2)


def fit(out, settings=SETTINGS, **more):
    return fit_to_stacks(collection(settings), out, settings, **more)


@pytest.fixture
def unfinished(tmp_path):
    """Weights of a fit that was interrupted after step 3 of 5."""
    out = tmp_path / "unfinished.safetensors"
    events = fit(out)
    list(islice(events, 3))
    events.close()
    return out


def hash_of(out):
    """Of the weights: a file lists its metadata in any order."""
    return hash_weights(read_weights(out)[0])


def refusal(call, *arguments, **more):
    with pytest.raises(VidlatError) as caught:
        list(call(*arguments, **more))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_interrupted_fit_continues_to_the_same_weights(unfinished, tmp_path):
    whole = tmp_path / "whole.safetensors"
    records = list(fit(whole))
    assert list(fit(unfinished, resume=True)) == records[3:]
    assert hash_of(unfinished) == hash_of(whole)


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_a_killed_fit_continues_from_its_last_checkpoint(killed_after, tmp_path):
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    events = fit(whole)
    records = list(islice(events, killed_after))
    shutil.copytree(tmp_path / "whole.fit", tmp_path / "killed.fit")  # what a kill would leave
    records += events
    assert list(fit(killed, resume=True)) == records[killed_after // 2 * 2 :]
    assert hash_of(killed) == hash_of(whole)


def test_a_finished_fit_leaves_only_its_weights(tmp_path):
    list(fit(tmp_path / "vae.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["vae.safetensors"]


def test_an_unfinished_fit_is_not_overwritten(unfinished, make_videos, tmp_path):
    make_videos(tmp_path / "v", {"a.mp4": 9})
    assert "continue it with --resume" in refusal(fit_vae, [tmp_path / "v"], unfinished, SETTINGS)
    shutil.rmtree(tmp_path / "unfinished.fit")
    assert "unfinished.safetensors is there already" in refusal(
        fit_vae, [tmp_path / "v"], unfinished, SETTINGS
    )
    unfinished.unlink()
    fit_vae([tmp_path / "v"], unfinished, SETTINGS)


def test_two_fits_to_the_same_weights_exclude_each_other(make_videos, tmp_path):
    make_videos(tmp_path / "v", {"a.mp4": 9})
    out, others = tmp_path / "vae.safetensors", tmp_path / "others.safetensors"
    first, second = (fit_vae([tmp_path / "v"], out, SETTINGS) for _ in range(2))
    next(first)
    message = refusal(lambda: second)
    assert message == f"another process fits {out}; wait for it, or choose another --out"
    list(first)
    list(fit_vae([tmp_path / "v"], others, SETTINGS))
    assert hash_of(out) == hash_of(others)


def test_a_fit_that_is_closed_before_its_first_step_leaves_nothing(make_videos, tmp_path):
    make_videos(tmp_path / "v", {"a.mp4": 9})
    events = fit_vae([tmp_path / "v"], tmp_path / "vae.safetensors", SETTINGS)
    next(events)
    assert (tmp_path / "vae.fit").is_dir()
    events.close()
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_fit_without_a_checkpoint_is_started_anew(tmp_path):
    out = tmp_path / "vae.safetensors"
    UnfinishedFit(out).start(SETTINGS, "of other stacks")
    UnfinishedFit(out).require_none()
    assert len(list(fit(out))) == 5


def test_other_settings_are_refused_by_name(unfinished, tmp_path):
    other = config(stack=8, shortest_stack=4, change_weight=0.2, steps=6, save_every=2)
    message = refusal(fit_vae, [tmp_path], unfinished, other, resume=True)
    assert "steps: got 6, it has 5; change_weight: got 0.2, it has 0.1" in message


def test_how_often_it_is_saved_may_change(unfinished):
    settings = UnfinishedFit(unfinished).continued_with(
        config(stack=8, shortest_stack=4, change_weight=0.1, steps=5, save_every=1)
    )
    assert [record.step for record in fit(unfinished, settings, resume=True)] == [4, 5]


def test_auto_precision_means_that_of_the_start(tmp_path):
    started = config(precision="float32")
    UnfinishedFit(tmp_path / "v.safetensors").start(started, "")
    assert UnfinishedFit(tmp_path / "v.safetensors").continued_with(config(precision="auto")) == started


def test_other_videos_are_refused(unfinished):
    stacks = collection(SETTINGS, num_videos=3)
    message = refusal(fit_to_stacks, stacks, unfinished, SETTINGS, resume=True)
    assert "the videos give other training stacks" in message


def test_nothing_to_resume_is_refused(tmp_path):
    message = refusal(fit_vae, [tmp_path], tmp_path / "v.safetensors", SETTINGS, resume=True)
    assert "no unfinished fit in" in message


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "expected an object"),
        ('{"settings": {}}', "has no stacks"),
        ('{"settings": 1, "stacks": ""}', "settings: got 1"),
        ('{"settings": {"steps": 0}, "stacks": ""}', "steps: got 0; expected at least 1"),
        (json.dumps({"stacks": "x" * 100_000}), "100000 at most"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(document, reason, unfinished, tmp_path):
    (tmp_path / "unfinished.fit" / "settings.json").write_text(document)
    message = refusal(fit_vae, [tmp_path], unfinished, SETTINGS, resume=True)
    assert re.search(f"settings.json cannot be read as a fit's settings.*{reason}", message)
    assert message.endswith(f"remove {tmp_path}/unfinished.fit to start anew")


def test_weights_that_cannot_be_written_are_named(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fitting, "write_weights", full)
    message = refusal(fit, tmp_path / "v.safetensors")
    assert message == f"{tmp_path}/v.safetensors: the weights cannot be written: No space left on device"


def test_a_damaged_checkpoint_is_refused(unfinished, tmp_path):
    path = tmp_path / "unfinished.fit" / "step_00000003" / "optimiser.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "optimiser.safetensors is damaged" in refusal(fit, unfinished, resume=True)
    shutil.rmtree(path.parent)  # as the message advises
    assert [record.step for record in fit(unfinished, resume=True)] == [3, 4, 5]
