"""Which subjects are trained on and which are held out."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.train.toys import build_small, random_posterior, whole_file
from vidlat.config import TrainConfig
from vidlat.errors import ConfigError, TrainError, VidlatError
from vidlat.labels.split import PARTS, decide_split, split_videos
from vidlat.labels.subjects import subject_notes, subjects_of
from vidlat.train.data.duplicates import near_duplicates
from vidlat.train.data.latents import Whitening
from vidlat.train.runs.notes import split_in_words
from vidlat.train.runs.run_folder import read_run
from vidlat.train.trainer import Trainer
from vidlat.types import Annotation

MANY = [f"patient_{i}/cine.mp4" for i in range(200)]


def alone(video_ids):
    """Each video its own subject."""
    return {video_id: video_id for video_id in video_ids}


def test_split_does_not_depend_on_the_order_of_the_videos():
    assert split_videos(alone(MANY), 0.1) == split_videos(dict(reversed(alone(MANY).items())), 0.1)


def test_split_puts_every_video_on_one_side_in_about_the_given_share():
    training, validation = split_videos(alone(MANY), 0.1)
    assert sorted(training + validation) == sorted(MANY)
    assert 10 <= len(validation) <= 30


def test_a_video_keeps_its_side_when_others_are_added():
    _, before = split_videos(alone(MANY[:100]), 0.1)
    _, after = split_videos(alone(MANY), 0.1)
    assert set(before) == set(after) & set(MANY[:100])


@pytest.mark.parametrize("fraction", [0.0001, 0.5, 0.9999])
@pytest.mark.parametrize("count", [2, 3, 10])
def test_two_videos_or_more_put_one_on_each_side(count, fraction):
    training, validation = split_videos(alone(MANY[:count]), fraction)
    assert training
    assert validation


def test_one_video_is_trained_on():
    assert split_videos(alone(MANY[:1]), 0.9999) == ((MANY[0],), ())


def test_fraction_zero_holds_nothing_out():
    assert split_videos(alone(MANY), 0.0)[1] == ()


@given(
    subjects=st.dictionaries(st.text(max_size=6), st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    fraction=st.floats(0, 0.99),
)
def test_no_subject_is_on_both_sides(subjects, fraction):
    training, validation = split_videos(subjects, fraction)
    assert sorted(training + validation) == sorted(subjects)
    assert not {subjects[video] for video in training} & {subjects[video] for video in validation}
    assert training


def test_the_held_out_share_is_of_subjects_not_of_videos():
    """A subject with most of the videos counts as one."""
    subjects = {f"{n}.mp4": f"s{n % 100}" if n < 100 else "s0" for n in range(1000)}
    _, validation = split_videos(subjects, 0.2)
    assert 8 <= len({subjects[video] for video in validation}) <= 32


def files_of(video_ids):
    """Each video a file of its own."""
    return {video_id: whole_file(video_id) for video_id in video_ids}


def test_subject_is_a_label_or_a_match_or_the_recorded_one_or_the_video():
    told = {
        "a/1.mp4": Annotation("ann", {"site": "x"}),
        "a/2.mp4": Annotation("", {"site": "y"}),
        "b/1.mp4": Annotation("ann", {"site": "y"}),
    }
    sources = files_of(told)
    assert subjects_of(sources, told, None) == {"a/1.mp4": "ann", "a/2.mp4": "a/2.mp4", "b/1.mp4": "ann"}
    assert subjects_of(sources, told, "site") == {"a/1.mp4": "x", "a/2.mp4": "y", "b/1.mp4": "y"}
    whole = {video_id: annotation for video_id, annotation in told.items() if annotation.subject}
    assert subjects_of(files_of(whole), whole, "subject") == {"a/1.mp4": "ann", "b/1.mp4": "ann"}
    assert subjects_of(sources, told, pattern=r"^[^/]+") == {"a/1.mp4": "a", "a/2.mp4": "a", "b/1.mp4": "b"}
    assert subjects_of(sources, told, pattern=r"/(\d)") == {"a/1.mp4": "1", "a/2.mp4": "2", "b/1.mp4": "1"}


@pytest.mark.parametrize("by", [None, "patient"])
def test_a_subject_that_is_written_in_several_ways_is_one(by):
    names = ["3", "3.0", " 3", "caf\u00e9", "cafe\u0301", "3.10", "3.1"]
    told = {f"{n}.mp4": Annotation(name, {"patient": name}) for n, name in enumerate(names)}
    found = subjects_of(files_of(told), told, by)
    assert list(found.values()) == ["3", "3", "3", "caf\u00e9", "caf\u00e9", "3.10", "3.1"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"split_by": "site"}, "split_by: no label 'site' of 1 of 2 videos: b.mp4; choose something"),
        ({"split_by": "subject"}, "split_by: no label 'subject' of 1 of 2 videos: b.mp4"),
        ({"split_by": "patient"}, "split_by: 'patient' is no label of the videos; there are site, subject ("),
        ({"pattern": "patient_(.)"}, "split_by_pattern: no match of 'patient_(.)' in 2 of 2 videos: a.mp4"),
        ({"pattern": "("}, "split_by_pattern: got '('; expected a regular expression"),
    ],
)
def test_a_split_with_a_video_without_subject_is_refused(rule, message):
    told = {"a.mp4": Annotation("ann", {"site": "x"}), "b.mp4": Annotation("", {})}
    with pytest.raises(ConfigError, match=re.escape(message)):
        subjects_of(files_of(told), told, **rule)


def test_a_name_is_never_taken_for_an_expression():
    told = {f"subject{n}/a.mp4": Annotation("", {}) for n in range(3)}
    for name in ("subject", "a.mp4", "^subject"):
        with pytest.raises(ConfigError, match="is no label of the videos; they have none"):
            subjects_of(files_of(told), told, name)


def parts_of_scans():
    """Twelve scans in every way that gives several videos of one source, and twelve whole files."""
    sources = {}
    for n in range(12):
        sources |= {f"{n}.nii/z{z}": whole_file(f"{n}.nii", part=f"z{z}") for z in range(3)}
        sources |= {
            f"series{n}/z{z}": whole_file(f"{n}_{z}", files=(f"{z}",), part=f"z{z}") for z in range(3)
        }
        sources |= {f"{n}.mp4@{t}-{t + 1}s": whole_file(f"{n}.mp4", start_seconds=t) for t in range(2)}
        sources |= {f"{n}.mp4": whole_file(f"{n}.mp4"), f"beat{n}": whole_file(f"{n}.mp4", stop_seconds=1.0)}
        sources |= {f"copy/{n}.avi": whole_file(f"{n}.avi"), f"{n}.avi": whole_file(f"{n}.avi")}
    return sources


@pytest.mark.parametrize("hides_names", [False, True])
def test_parts_stretches_and_copies_of_one_source_are_one_subject(hides_names):
    sources = parts_of_scans()
    if hides_names:
        sources = {video_id: source.without_names() for video_id, source in sources.items()}
    subjects = subjects_of(sources, {}, None)
    assert len(set(subjects.values())) == 4 * 12
    for n in range(12):
        of_one = [{f"{n}.nii/z{z}" for z in range(3)}, {f"series{n}/z{z}" for z in range(3)}]
        of_one += [{f"{n}.mp4", f"{n}.mp4@0-1s", f"{n}.mp4@1-2s", f"beat{n}"}, {f"{n}.avi", f"copy/{n}.avi"}]
        assert all(len({subjects[video_id] for video_id in videos}) == 1 for videos in of_one)
    for fraction in (0.1, 0.5):
        sides = split_videos(subjects, fraction)
        contents = [{sources[video_id].sha256 for video_id in side} for side in sides]
        assert not contents[0] & contents[1]


def test_a_whole_file_keeps_its_side_when_stretches_of_it_are_added():
    whole = files_of(MANY)
    more = {f"{name}@0-1s": whole_file(name, start_seconds=0.0, stop_seconds=1.0) for name in MANY}
    _, before = split_videos(subjects_of(whole, {}, None), 0.2)
    _, after = split_videos(subjects_of(whole | more, {}, None), 0.2)
    assert set(after) == {*before, *(f"{name}@0-1s" for name in before)}


def test_parts_without_a_recorded_subject_take_that_of_another_part():
    sources = {f"a.nii/z{z}": whole_file("a.nii", part=f"z{z}") for z in range(3)}
    told = {"a.nii/z1": Annotation("ann")}
    assert set(subjects_of(sources, told, None).values()) == {"ann"}


def test_run_trains_on_no_part_of_a_held_out_scan_and_a_row_of_the_scan_reaches_its_slices(
    make_cache, make_trainer
):
    names = [f"p{n}.nii.gz" for n in range(8)]
    sources = {f"{name}/z{z}": whole_file(name, part=f"z{z}") for name in names for z in range(3)}
    cache, _ = make_cache(dict.fromkeys(sources, 8), name="scans.zarr", sources=sources)
    rows = {name: Annotation("", {"group": "ab"[n % 2]}) for n, name in enumerate(names)}
    rows["p0.nii.gz/z1"] = Annotation("", {"group": "b"})
    started = make_trainer(cache=cache, validation_fraction=0.3, condition=("group",), labels=rows)
    sides = [
        {video_id.split("/")[0] for video_id in side}
        for side in (started.run.training, started.run.validation)
    ]
    assert all(sides)
    assert not sides[0] & sides[1]
    expected = {video_id: rows.get(video_id, rows[video_id.split("/")[0]]).labels for video_id in sources}
    assert started.run.labels == expected
    started.close()
    again = {"cache": cache, "validation_fraction": 0.3, "condition": ("group",), "resume": True}
    make_trainer(**again, labels=rows).close()
    with pytest.raises(TrainError, match=r"labels of p1\.nii\.gz/z0, .* differ"):
        make_trainer(**again, labels={"p1.nii.gz": Annotation("", {"group": "a"})})


def test_run_is_split_by_subject_and_trains_on_no_held_out_one(make_cache, make_trainer):
    cache, _ = make_cache(
        {f"{patient}/{n}.mp4": 8 for patient in "abcdef" for n in range(3)}, name="split.zarr"
    )
    run = make_trainer(cache=cache, split_by_pattern="^(.)/", validation_fraction=0.3).run
    sides = [{video[0] for video in side} for side in (run.training, run.validation)]
    assert all(sides)
    assert not sides[0] & sides[1]


def echonet(values):
    """A table like EchoNet's FileList.csv: one video per value."""
    return {f"{n}.avi": Annotation("", {"EF": "50", "Split": value}) for n, value in enumerate(values)}


def split_of(annotations, **settings):
    fraction = settings.setdefault("validation_fraction", 0.1)
    return decide_split(files_of(annotations), annotations, TrainConfig(**settings), fraction)


@pytest.mark.parametrize(
    "words", [("TRAIN", "VAL", "TEST"), ("train", "validation", "test"), ("Training", "dev", "Testing")]
)
@pytest.mark.parametrize("settings", [{}, {"split_by": "Split"}])
def test_a_label_of_train_val_and_test_is_kept_as_the_split(words, settings, make_cache, make_trainer):
    train, val, test = words
    rows = echonet([train] * 6 + [val] * 2 + [test] * 3)
    cache, _ = make_cache(dict.fromkeys(rows, 8), name="echonet.zarr")
    trainer = make_trainer(cache=cache, labels=rows, **settings)
    assert trainer.run.training == tuple(f"{n}.avi" for n in range(6))
    assert trainer.run.validation == ("6.avi", "7.avi")
    assert trainer.notes == ("labels: 11 of 11 videos by file name",)
    assert split_in_words(trainer.run) == (
        "split by label 'Split': train 6 videos of 6 subjects, val 2 videos of 2 subjects, test 3 videos of "
        "3 subjects (not used)"
    )
    trainer.close()
    again = make_trainer(cache=cache, labels=rows, resume=True, **settings)
    assert (again.run.training, again.run.validation) == (trainer.run.training, trainer.run.validation)
    assert split_in_words(again.run) == split_in_words(trainer.run)


def test_a_label_named_otherwise_is_kept_as_the_split_only_where_it_is_asked_for():
    told = {id: Annotation(labels={"fold": row.labels["Split"]}) for id, row in echonet("ab").items()} | {
        "c.avi": Annotation(labels={"fold": "test"})
    }
    assert split_of(told).stated_by == ""
    told = {id: Annotation(labels={"fold": word}) for id, word in zip("abc", PARTS, strict=True)}
    assert split_of(told).stated_by == ""
    assert split_of(told, split_by="fold").test == ("c",)


def test_a_rule_for_subjects_does_not_let_videos_for_testing_into_the_training():
    told = {
        f"{n}.avi": Annotation("", {"patient": patient, "split": word})
        for n, (patient, word) in enumerate([("p", "train"), ("p", "train"), ("q", "val"), ("r", "test")])
    }
    for rule in ({"split_by": "patient"}, {"split_by_pattern": "^[01]|^."}):
        found = split_of(told, **rule)
        assert (found.stated_by, found.test) == ("label 'split'", ("3.avi",))
    assert split_of(told, split_by="patient").num_subjects == {"train": 1, "val": 1, "test": 1}
    told["2.avi"] = Annotation("", {"patient": "p", "split": "val"})
    with pytest.raises(ConfigError, match="label 'split' puts subject 'p' into two parts"):
        split_of(told, split_by="patient")


@pytest.mark.parametrize(
    "words", [["train", "train"], ["p1", "test", "val"], ["train", ""], ["1", "2", "3"], ["", "", "train"]]
)
def test_a_label_without_parts_is_no_split(words):
    assert split_of(echonet(words)).stated_by == ""


def test_a_split_without_videos_for_validation_holds_none_out_where_none_are_asked_for(
    make_cache, make_trainer
):
    rows = echonet(["train", "train", "test"])
    assert split_of(rows).validation == ()
    cache, _ = make_cache(dict.fromkeys(rows, 8), name="echonet.zarr")
    with pytest.raises(ConfigError, match=r"label 'Split' states no video for validation; .* --validation-f"):
        make_trainer(cache=cache, labels=rows)
    run = make_trainer(cache=cache, labels=rows, validation_fraction=0.0).run
    assert (run.training, run.validation) == (("0.avi", "1.avi"), ())


def test_videos_of_one_subject_are_refused_where_some_are_to_be_held_out(make_cache, make_trainer):
    cache, _ = make_cache({"p/1.avi": 8, "p/2.avi": 8}, name="one.zarr")
    with pytest.raises(
        ConfigError,
        match=r"all 2 videos are of one subject; .* or train without validation, by --validation-f",
    ):
        make_trainer(cache=cache, split_by_pattern="^(.)/")
    make_trainer(cache=cache, split_by_pattern="^(.)/", validation_fraction=0.0)


@pytest.mark.parametrize(
    ("values", "words"), [(["val"] * 3, "val"), (["Test"] * 3, "Test"), (["val", "test", "val"], "test, val")]
)
def test_held_out_videos_are_never_trained_on_for_lack_of_others(values, words):
    with pytest.raises(ConfigError, match=f"of all 3 it is {words}; expected train for those to train on"):
        split_of(echonet(values))


@pytest.mark.parametrize(
    ("values", "found"),
    [(["train", "val", "fold3"], "fold3"), (["train", "val", ""], ""), (["val", "val", ""], "")],
)
def test_a_split_with_other_values_is_refused_with_those_expected(values, found):
    with pytest.raises(
        ConfigError,
        match=f"'Split' says the part of 2 of 3 videos; of the others it is '{found}' .2.avi.; expected "
        "train, val or test for every video, or a --split FILE",
    ):
        split_of(echonet(values))


def test_a_subject_in_two_parts_is_refused():
    told = {
        f"{n}.avi": Annotation("doe", {"Split": word}) for n, word in enumerate(["train", "train", "test"])
    }
    message = "label 'Split' puts subject 'doe' into two parts: 0.avi into train, 2.avi into test; put all"
    with pytest.raises(ConfigError, match=message):
        split_of(told)


def write_split(path, parts, subjects=None):
    columns = "video_id,subject,split" if subjects else "video_id,split"
    rows = (f"{id},{subjects[id]},{part}" if subjects else f"{id},{part}" for id, part in parts.items())
    path.write_text("\n".join((columns, *rows)) + "\n")
    return str(path)


def test_a_file_states_the_part_of_each_video_before_any_label(make_cache, make_trainer, tmp_path):
    rows = echonet(["test"] * 3 + ["train"] * 3)
    file = write_split(
        tmp_path / "s.csv", {"0": "train", "1": "Train", "2": "val"} | dict.fromkeys("345", "test")
    )
    cache, _ = make_cache(dict.fromkeys(rows, 8), name="echonet.zarr")
    trainer = make_trainer(cache=cache, labels=rows, split=file)
    assert (trainer.run.training, trainer.run.validation) == (("0.avi", "1.avi"), ("2.avi",))
    assert f"split by {file}: train 2 videos of 2 subjects, val 1" in split_in_words(trainer.run)
    trainer.close()
    Path(file).unlink()  # what was decided stays with the run
    assert make_trainer(cache=cache, split=file, resume=True).run.training == trainer.run.training


def test_a_file_goes_before_a_label_that_tells_the_parts_of_some_videos(tmp_path):
    rows = echonet(["train", "val", "fold3"])
    with pytest.raises(ConfigError, match="or a --split FILE, which goes before labels"):
        split_of(rows, split_by="Split")
    file = write_split(tmp_path / "s.csv", {"0": "train", "1": "val", "2": "test"})
    assert split_of(rows, split=file, split_by="Split").test == ("2.avi",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "video_id,split\na,train\nb,val\n",
            "does not tell the part of 1 of 3 videos: c.mp4; `vidlat",
        ),
        ("video_id,part\na,train\n", "s.csv has no column split; expected train, val or test there"),
        ("video_id,split\na,train\nb,\n", "the split of 'b' is ''; expected train, val or test in a column"),
        ("video_id,split\na,train\nb,fold1\n", "the split of 'b' is 'fold1'; expected train, val or test"),
        ("video_id,split\nx,train\n", "split: none of the 1 rows is about one of the 3 videos"),
        ("video_id,split\na,test\nb,val\nc,val\n", "has no video for training"),
        (
            "video_id,subject,split\na,doe,train\nb,roe,val\nc,doe,test\n",
            "puts subject 'doe' into two parts: a.mp4 into train, c.mp4 into test",
        ),
    ],
)
def test_a_file_that_states_no_whole_split_is_refused(tmp_path, text, message):
    file = tmp_path / "s.csv"
    file.write_text(text)
    with pytest.raises(VidlatError, match=re.escape(message)):
        split_of({f"{name}.mp4": Annotation() for name in "abc"}, split=str(file))


def test_subjects_of_the_cache_may_have_other_names_than_in_the_file(tmp_path):
    parts = {"a.mp4": "train", "b.mp4": "train", "c.mp4": "val"}
    file = write_split(tmp_path / "s.csv", parts, {"a.mp4": "1", "b.mp4": "1", "c.mp4": "2"})
    renamed = {"a.mp4": Annotation("one"), "b.mp4": Annotation("one"), "c.mp4": Annotation("two")}
    for told in (renamed, dict.fromkeys(parts, Annotation())):
        assert split_of(told, split=file).training == ("a.mp4", "b.mp4")
    merged = renamed | {"c.mp4": Annotation("one")}
    with pytest.raises(ConfigError, match="puts subject 'one' into two parts"):
        split_of(merged, split=file)


@pytest.mark.parametrize("before", ["^(.)/", "smith|jones", "subject", "Split", None])
def test_a_run_of_before_expressions_had_their_own_flag_is_resumed(
    before, make_cache, make_trainer, tmp_path
):
    cache, _ = make_cache({f"{patient}/{n}.mp4": 8 for patient in "abcd" for n in range(2)}, name="old.zarr")
    started = make_trainer(cache=cache, split_by_pattern="^(.)/")
    list(started.steps())
    started.close()
    file = tmp_path / "run" / "config.json"
    document = json.loads(file.read_text())
    document["config"]["split_by"] = before
    for name in ("split", "split_by_pattern"):
        del document["config"][name]
    for name in ("num_subjects", "split_stated_by"):
        del document[name]
    file.write_text(json.dumps(document))
    run = read_run(tmp_path / "run")
    is_expression = before in ("^(.)/", "smith|jones")
    assert (run.config.split_by, run.config.split_by_pattern) == (
        (None, before) if is_expression else (before, None)
    )
    assert (
        split_in_words(run)
        == f"split by subject: train {len(run.training)} videos, val {len(run.validation)} videos"
    )
    if before == "^(.)/":
        assert set(run.subjects(cache).values()) == set("abcd")
    again = Trainer(run.config, cache, tmp_path / "run", resume=True, build_model=build_small)
    assert again.run.training == started.run.training


def test_videos_without_a_subject_beside_others_with_one_are_noted(make_cache, make_trainer):
    cache, _ = make_cache({f"{n}.mp4": 8 for n in range(6)}, name="partly.zarr")
    told = {f"{n}.mp4": Annotation(f"p{n // 2}") for n in range(5)}
    start = "1 of 6 videos has no subject and counts as its own, though others have one: 5.mp4; add it to"

    def notes(name, **settings):
        trainer = make_trainer(name, cache=cache, validation_fraction=0.4, **settings)
        trainer.close()
        return [note for note in trainer.notes if "no subject" in note]

    (note,) = notes("a", labels=told)
    assert note.startswith(start)
    assert "`vidlat encode --labels`" in note
    assert notes("b", labels=told, split_by_pattern="^.") == []
    assert notes("c", labels=told | {"5.mp4": Annotation("p5")}) == []
    assert notes("d") == []


def test_a_part_of_a_video_with_a_subject_has_it_and_is_not_noted():
    told = {"a.nii/z1": Annotation("ann"), "b.mp4": Annotation("bob")}
    parts = {f"a.nii/z{n}": whole_file("a.nii", part=f"z{n}") for n in range(2)}
    sources = parts | files_of(["b.mp4"])
    assert list(subject_notes(sources, told)) == []
    (note,) = subject_notes(sources | files_of(["c.mp4", "d.mp4"]), told)
    assert note.startswith(
        "2 of 5 videos have no subject and count as their own, though others have one: c.mp4, "
    )


def test_a_held_out_share_far_from_the_one_asked_for_is_noted(make_cache, make_trainer):
    names = [f"{'ab'[n % 2]}/{n}.mp4" for n in range(16)]  # of two subjects one is held out
    cache, _ = make_cache(dict.fromkeys(names, 8), name="uneven.zarr")
    (note,) = make_trainer(cache=cache, split_by_pattern="^(.)/").notes
    assert "8 of 16 videos are held out, 50%, where --validation-fraction asks for 10%" in note
    assert make_trainer("b", cache=cache, split_by_pattern="^(.)/", validation_fraction=0.4).notes == ()
    told = {name: Annotation("", {"split": "train" if n % 2 else "val"}) for n, name in enumerate(names)}
    assert not [note for note in make_trainer("c", cache=cache, labels=told).notes if "held out" in note]


def test_one_held_out_video_of_a_few_needs_no_note(make_cache, make_trainer):
    cache, _ = make_cache({f"{number}.mp4": 8 for number in range(4)}, name="few.zarr")
    trainer = make_trainer(cache=cache)
    assert len(trainer.run.validation) == 1
    assert trainer.notes == ()


def copies(video_id, num_latent_frames):
    """b is a copy of a from another codec, c resembles no other."""
    mean, std = random_posterior("c" if video_id.startswith("c") else "a", num_latent_frames)
    noise = np.random.default_rng(len(video_id)).normal(size=mean.shape) * 0.1
    return (mean + noise).astype(np.float16), std


def test_copy_of_a_training_video_on_the_other_side_is_reported(make_cache, make_trainer):
    cache, _ = make_cache({"a.mp4": 40, "b.mp4": 40, "c.mp4": 40, "c_2.mp4": 12}, posterior=copies)
    records = cache.records()
    whitening = Whitening.from_records(records.values(), "mean")
    sides = [records["a.mp4"], records["c.mp4"]], [records["b.mp4"]]
    assert near_duplicates(cache, *sides, whitening) == [("b.mp4", "a.mp4")]
    assert near_duplicates(cache, [records["c.mp4"]], [records["b.mp4"]], whitening) == []
    assert near_duplicates(cache, [], sides[1], whitening) == []


def test_a_run_with_copies_on_both_sides_notes_and_records_them(make_cache, make_trainer):
    lengths = {f"{letter}.mp4": 40 for letter in "abdefg"}
    trainer = make_trainer(
        cache=make_cache(lengths, name="copies.zarr", posterior=copies)[0], validation_fraction=0.3
    )
    assert {held_out for held_out, _ in trainer.run.duplicates} == set(trainer.run.validation)
    num = len(trainer.run.validation)
    start = (
        f"{num} of {num} validation videos {'is' if num == 1 else 'are'} nearly the same as a training video,"
    )
    assert any(note.startswith(start) and "--split-by" in note for note in trainer.notes)
    assert trainer.run.to_dict()["duplicates"]
