"""A run of `--where` trains, validates and is compared on the videos of its condition alone."""

import json

import pytest

from vidlat.errors import ConfigError
from vidlat.train.runs.notes import chosen_in_words
from vidlat.types import Annotation


def test_a_run_trains_and_validates_on_the_videos_of_its_condition_alone(make_cache, make_trainer):
    rows = {
        f"{name}/{number}": Annotation(name, {"view": f"V{number}"}) for name in "abcd" for number in range(3)
    }
    cache, _ = make_cache(dict.fromkeys(rows, 8), name="views.zarr")
    condition = "view in ('V0', 'V1') and subject != 'd'"
    trainer = make_trainer(cache=cache, labels=rows, where=condition, validation_fraction=0.3)
    chosen = {f"{name}/{number}" for name in "abc" for number in range(2)}
    run = trainer.run
    assert {*run.training, *run.validation} == run.checksums.keys() == chosen
    assert run.training
    assert run.validation
    assert chosen_in_words(trainer.run, 12) == f"--where keeps 6 of 12 videos: {condition}"
    assert run.subjects(cache).keys() == chosen
    assert type(run).from_document(json.loads(json.dumps(run.to_dict()))) == run
    trainer.close()
    again = make_trainer(cache=cache, labels=rows, where=condition, validation_fraction=0.3, resume=True)
    assert again.run == run


def test_a_condition_that_no_video_can_meet_is_refused_and_leaves_no_run(make_cache, make_trainer, tmp_path):
    cache, _ = make_cache({"a": 8, "b": 8}, name="two.zarr")
    rows = {"a": Annotation("", {"view": "A4C"})}
    with pytest.raises(ConfigError, match=r"^where: view == 'A2C' holds for none of 2 videos$"):
        make_trainer(cache=cache, labels=rows, where="view == 'A2C'")
    with pytest.raises(ConfigError, match=r"^where: no video has a label 'vew'; known are .*, view$"):
        make_trainer(cache=cache, labels=rows, where="vew == 'A2C'")
    with pytest.raises(ConfigError, match=r"^where: got 'view'; expected comparisons"):
        make_trainer(cache=cache, labels=rows, where="view")
    assert not list(tmp_path.glob("**/config.json"))
