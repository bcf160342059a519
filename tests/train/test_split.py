"""Which subjects are trained on and which are held out."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.train.toys import random_posterior, whole_file
from vidlat.errors import ConfigError, TrainError
from vidlat.train.data.latents import Whitening
from vidlat.train.data.split import near_duplicates, split_videos, stated_split, subjects_of
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
    assert subjects_of(sources, told, r"^[^/]+") == {"a/1.mp4": "a", "a/2.mp4": "a", "b/1.mp4": "b"}
    assert subjects_of(sources, told, r"/(\d)") == {"a/1.mp4": "1", "a/2.mp4": "2", "b/1.mp4": "1"}


@pytest.mark.parametrize(
    ("split_by", "error", "message"),
    [
        ("site", TrainError, "1 of 2 videos have no label 'site': b.mp4"),
        ("patient_(.)", TrainError, "2 of 2 videos have no match of 'patient_"),
        ("subject", TrainError, "1 of 2 videos have no label 'subject': b.mp4"),
        ("(", ConfigError, "expected a label or a regular expression"),
    ],
)
def test_a_split_with_a_video_without_subject_is_refused(split_by, error, message):
    told = {"a.mp4": Annotation("ann", {"site": "x"}), "b.mp4": Annotation("", {})}
    with pytest.raises(error, match=message):
        subjects_of(files_of(told), told, split_by)


def test_subject_is_never_taken_for_an_expression():
    told = {f"subject{n}/a.mp4": Annotation("", {}) for n in range(3)}
    with pytest.raises(TrainError, match="3 of 3 videos have no label 'subject'"):
        subjects_of(files_of(told), told, "subject")


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
    run = make_trainer(cache=cache, split_by="^(.)/", validation_fraction=0.3).run
    sides = [{video[0] for video in side} for side in (run.training, run.validation)]
    assert all(sides)
    assert not sides[0] & sides[1]


def echonet(values):
    """A table like EchoNet's FileList.csv: one video per value."""
    return {f"{n}.avi": Annotation("", {"EF": "50", "Split": value}) for n, value in enumerate(values)}


@pytest.mark.parametrize(
    "words", [("TRAIN", "VAL", "TEST"), ("train", "validation", "test"), ("Training", "dev", "Testing")]
)
def test_a_label_of_train_val_and_test_is_kept_as_the_split(words, make_cache, make_trainer):
    train, val, test = words
    rows = echonet([train] * 6 + [val] * 2 + [test] * 3)
    cache, _ = make_cache(dict.fromkeys(rows, 8), name="echonet.zarr")
    trainer = make_trainer(cache=cache, labels=rows, split_by="Split")
    assert trainer.run.training == tuple(f"{n}.avi" for n in range(6))
    assert trainer.run.validation == ("6.avi", "7.avi")
    matched, note = trainer.notes
    assert matched == "labels: 11 of 11 videos by file name"
    assert "6 videos for training, 2 for validation; the 3 for testing are used for neither" in note
    trainer.close()
    again = make_trainer(cache=cache, labels=rows, split_by="Split", resume=True)
    assert (again.run.training, again.run.validation) == (trainer.run.training, trainer.run.validation)


def test_a_split_without_videos_for_validation_holds_none_out():
    rows = echonet(["train", "train", "test"])
    assert stated_split(rows, "Split") == (("0.avi", "1.avi"), ())
    assert stated_split(rows, "EF") is stated_split(rows, "Spl") is stated_split(rows, None) is None
    assert stated_split(echonet(["train", "train"]), "Split") is None
    assert stated_split(echonet(["p1", "test", "val"]), "Split") is None
    assert stated_split(echonet(["train", ""]), "Split") is None


@pytest.mark.parametrize(
    ("values", "words"), [(["val"] * 3, "val"), (["Test"] * 3, "Test"), (["val", "test", "val"], "test, val")]
)
def test_a_split_without_videos_for_training_is_refused(values, words):
    with pytest.raises(
        TrainError, match=f"of all 3 videos it is {words}; expected train for those to train on"
    ):
        stated_split(echonet(values), "Split")


def test_held_out_videos_are_never_trained_on_for_lack_of_others(make_cache, make_trainer, tmp_path):
    rows = echonet(["val"] * 4)
    cache, _ = make_cache(dict.fromkeys(rows, 8), name="held_out.zarr")
    with pytest.raises(TrainError, match=r"split_by: label 'Split' .* expected train for those to train on"):
        make_trainer(cache=cache, labels=rows, split_by="Split")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "found"),
    [(["train", "val", "fold3"], "fold3"), (["train", "val", ""], ""), (["val", "val", ""], "")],
)
def test_a_split_with_other_values_is_refused_with_those_expected(values, found):
    with pytest.raises(
        TrainError, match=f"of 1 of 3 videos it is '{found}' .2.avi.; expected train, val or test"
    ):
        stated_split(echonet(values), "Split")


def test_a_held_out_share_far_from_the_one_asked_for_is_noted(make_cache, make_trainer):
    names = [f"{'ab'[n % 2]}/{n}.mp4" for n in range(16)]  # of two subjects one is held out
    cache, _ = make_cache(dict.fromkeys(names, 8), name="uneven.zarr")
    (note,) = make_trainer(cache=cache, split_by="^(.)/").notes
    assert "8 of 16 videos are held out, 50%, where --validation-fraction asks for 10%" in note
    assert make_trainer("b", cache=cache, split_by="^(.)/", validation_fraction=0.4).notes == ()


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
