"""A split that is written once: whole subjects, every video, and nobody moves when it is extended."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st

from tests.train.toys import CacheMaker, whole_file
from vidlat.cli import commands
from vidlat.config import SplitConfig, TrainConfig
from vidlat.errors import ConfigError, InputError
from vidlat.labels.assigning import place_videos
from vidlat.labels.split import decide_split
from vidlat.labels.split_file import create_split, extend_split, read_split_rows
from vidlat.types import Annotation


def videos(subjects, **labels):
    """Sources and annotations of videos with these subjects; labels: a text each, by name."""
    sources = {id: whole_file(id) for id in subjects}
    told = {
        id: Annotation(subject, {name: texts[id] for name, texts in labels.items() if texts.get(id)})
        for id, subject in subjects.items()
    }
    return sources, told


def place(subjects, rows=None, labels=None, **settings):
    return place_videos(*videos(subjects, **labels or {}), SplitConfig(**settings), rows or {})


def parts_of(found):
    placed, _ = found
    return {id: of.part for id, of in placed.items()}


def counts(found):
    placed, _ = found
    subjects = {(of.subject, of.part) for of in placed.values()}
    return [sum(part == each for _, part in subjects) for each in ("train", "val", "test")]


names = st.integers(0, 99).map("{:02d}.mp4".format)
subjects = st.dictionaries(names, st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=40).filter(
    lambda each: len(set(each.values())) >= 3
)
seeds = st.integers(0, 5)


@given(subjects=subjects, seed=seeds, classes=st.dictionaries(names, st.sampled_from("xyz")))
def test_every_video_is_in_one_part_with_its_subject_in_about_the_shares_asked_for(subjects, seed, classes):
    settings = {"labels": {"view": classes}, "stratify": "view"} if set(classes) & set(subjects) else {}
    found = place(subjects, seed=seed, fractions=(0.5, 0.25, 0.25), **settings)
    parts = parts_of(found)
    assert parts.keys() == subjects.keys()
    assert len({(subjects[id], part) for id, part in parts.items()}) == len(set(subjects.values()))
    total = len(set(subjects.values()))
    for count, fraction in zip(counts(found), (0.5, 0.25, 0.25), strict=True):
        assert count >= 1
        assert abs(count - fraction * total) <= 1


@given(
    subjects=subjects, more=st.dictionaries(names, st.sampled_from("klmnopqrstuvw"), max_size=40), seed=seeds
)
def test_an_extension_moves_nobody_whatever_subjects_are_called_by_then(
    tmp_path_factory, subjects, more, seed
):
    file = tmp_path_factory.mktemp("split") / "s.csv"
    before, new = place(subjects, seed=seed)
    create_split(file, {id: before[id] for id in new})
    later = {id: f"renamed {subject}" for id, subject in (more | subjects).items()}
    after, new = place(later, read_split_rows(file), seed=seed)
    assert {id: of.part for id, of in after.items() if id in before} == parts_of((before, new))
    assert new == later.keys() - before.keys()
    assert len({(later[id], of.part) for id, of in after.items()}) == len(set(later.values()))
    extend_split(file, {id: after[id] for id in new})
    split = decide_split(*videos(later), TrainConfig(split=str(file)), 0.1)
    for part, ids in (("train", split.training), ("val", split.validation), ("test", split.test)):
        assert set(ids) == {id for id, of in after.items() if of.part == part}


def test_the_same_seed_gives_the_same_split_and_another_one_another():
    many = {f"{n}.mp4": f"p{n}" for n in range(50)}
    assert parts_of(place(many)) == parts_of(place(dict(reversed(many.items()))))
    assert parts_of(place(many)) != parts_of(place(many, seed=1))


def test_a_class_and_a_number_are_spread_evenly():
    many = {f"{n}.mp4": f"p{n}" for n in range(200)}
    views = {id: "rare" if n % 10 == 0 else "common" for n, id in enumerate(many)}
    parts = parts_of(place(many, labels={"view": views}, stratify="view"))
    rare = [sum(parts[id] == part for id in many if views[id] == "rare") for part in ("train", "val", "test")]
    assert np.abs(np.subtract(rare, [16, 2, 2])).max() <= 1
    numbers = {id: str(n**2) for n, id in enumerate(many)}  # by far more small ones
    parts = parts_of(place(many, labels={"EF": numbers}, stratify="EF"))
    for part, share in (("train", 32), ("val", 4), ("test", 4)):
        ranks = [n for n, id in enumerate(many) if parts[id] == part]
        assert np.abs(np.histogram(ranks, 5, (0, 200))[0] - share).max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": (0.8, 0.1)}, "fractions: got 0.8,0.1; expected three"),
        ({"fractions": (0.8, 0.1, 0.2)}, "which are 1 together"),
        ({"fractions": (0.0, 0.5, 0.5)}, "the first above 0"),
        ({"by": "patient"}, "^by: 'patient' is no label of the videos; there are subject"),
        ({"by": "patient"}, "an expression for their ids is given by --by-pattern"),
        ({"by_pattern": "^x"}, "^by_pattern: no match of"),
        ({"stratify": "EF"}, "stratify: 'EF' is no label of the videos; there are subject"),
        ({"by": "subject", "by_pattern": "^p"}, "by_pattern: has no effect beside --by"),
        ({}, "fractions: 2 subjects cannot be in 3 parts"),
    ],
)
def test_a_split_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        place({"a.mp4": "p1", "b.mp4": "p2"}, **settings)


def test_a_subject_that_the_file_has_in_two_parts_is_refused():
    rows = {"a.mp4": Annotation("", {"split": "train"}), "b.mp4": Annotation("", {"split": "test"})}
    with pytest.raises(ConfigError, match="the file puts subject 'p' into two parts"):
        place({"a.mp4": "p", "b.mp4": "p", "c.mp4": "q"}, rows)


def test_a_new_video_joins_its_subject_that_other_videos_of_the_file_show():
    rows = {"gone.mp4": Annotation("p", {"split": "test"})}
    assert parts_of(place({"a.mp4": "p", "b.mp4": "q", "c.mp4": "r"}, rows))["a.mp4"] == "test"


def test_new_subjects_are_divided_as_the_file_is():
    rows = {f"{n}.mp4": Annotation("", {"split": "val" if n < 10 else "train"}) for n in range(20)}
    found = place({f"{n}.mp4": f"p{n}" for n in range(40)}, rows)
    assert counts(found) == [20, 20, 0]
    assert counts(place({f"{n}.mp4": f"p{n}" for n in range(40)}, rows, fractions=(0.7, 0.25, 0.05))) == [
        28,
        10,
        2,
    ]


@pytest.mark.parametrize("mark", [",", ";"])
def test_an_extended_file_keeps_what_else_stands_in_it(tmp_path, mark):
    file = tmp_path / "s.csv"
    text = "FileName,note,Split\na,kept,TRAIN\nb,,VAL\nx,elsewhere,TEST\n"
    file.write_text(text.replace(",", mark) + "\n")
    found, new = place({"a.mp4": "p", "b.mp4": "q", "c.mp4": "p"}, read_split_rows(file))
    extend_split(file, {id: found[id] for id in new})
    assert file.read_text() == f"{text}c.mp4,,train\n".replace(",", mark)


def test_spaces_in_the_header_of_an_extended_file_do_not_matter(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("video_id, subject, split\na, p, train\nb, q, val\n")
    found, new = place({"a.mp4": "p", "b.mp4": "q", "c.mp4": "p"}, read_split_rows(file))
    extend_split(file, {id: found[id] for id in new})
    assert read_split_rows(file)["c.mp4"] == Annotation("", {"split": "train"}).updated(Annotation("p", {}))


def test_a_file_that_is_not_there_cannot_be_extended(tmp_path):
    with pytest.raises(InputError, match=r"s\.csv: cannot be extended"):
        extend_split(tmp_path / "s.csv", {})


def run(*arguments):
    answer = CliRunner().invoke(commands, ["split", *map(str, arguments)])
    return answer.exit_code, answer.stdout, answer.stderr


def test_the_command_names_new_videos_without_a_subject_and_the_training_that_comes_next(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    maker = CacheMaker(tmp_path / "l.zarr", stack=4)
    names = [f"{n}.mp4" for n in range(6)]
    maker.add(dict.fromkeys(names, 4))
    (tmp_path / "t.csv").write_text("video_id,subject,view\n" + "".join(f"{n},p{n},a\n" for n in names[:5]))
    code, out, _ = run("l.zarr", "--out", "s.csv", "--labels", "t.csv", "--stratify", "view")
    assert code == 0
    assert (
        "Note: 1 of 6 videos has no subject and counts as its own, though others have one: 5.mp4; add" in out
    )
    assert out.endswith(
        "next: vidlat train --latents l.zarr --split s.csv --labels t.csv --condition view --out runs/first\n"
    )
    for taken, proposed in (("first", "2"), ("2", "3")):
        (tmp_path / "runs" / taken).mkdir(parents=True)
        _, out, _ = run("l.zarr", "--out", "s.csv", "--labels", "t.csv", "--extend")
        assert "no subject" not in out  # said when it was placed
        assert out.endswith(f"next: vidlat train --latents l.zarr --split s.csv --out runs/{proposed}\n")
    assert "no subject" not in run("l.zarr", "--out", "o.csv", "--labels", "t.csv", "--by-pattern", ".")[1]
    assert "no subject" not in run("l.zarr", "--out", "p.csv")[1]


def test_the_command_writes_a_file_shows_its_parts_and_replaces_none(tmp_path):
    maker, file = CacheMaker(tmp_path / "l.zarr", stack=4), tmp_path / "s.csv"
    names = {f"p{n:02d}_{view}.mp4": 4 for n in range(10) for view in "ab"}
    maker.add(names)
    labels = tmp_path / "l.csv"
    labels.write_text(
        "video_id,view,EF\n" + "".join(f"{n},{n[4]},{20 + 2 * k}\n" for k, n in enumerate(names))
    )
    by = ("--by-pattern", "^(p..)", "--labels", labels)
    code, out, _ = run(maker.path, "--out", file, *by, "--stratify", "view")
    assert code == 0
    assert "20 videos ->" in out
    assert "a 8, b 8" in out
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["video_id"] for row in rows] == sorted(names)
    assert [sum(row["split"] == part for row in rows) for part in ("train", "val", "test")] == [16, 2, 2]
    assert all(row["subject"] == row["video_id"][:3] for row in rows)
    before = file.read_bytes()
    code, _, err = run(maker.path, "--out", file, *by, "--seed", 7)
    assert (code, file.read_bytes()) == (1, before)
    assert "is there already; --extend adds the videos that it lacks" in err
    maker.add({"p03_c.mp4": 4})
    code, out, _ = run(maker.path, "--out", file, "--extend", *by, "--stratify", "EF")
    assert code == 0
    assert "1 video added to" in out
    assert "EF from 20 to 58" in out
    old = next(row for row in rows if row["subject"] == "p03")
    assert file.read_bytes() == before + f"p03_c.mp4,p03,{old['split']}\n".encode()
    code, out, _ = run(maker.path, "--out", file, "--extend", *by)
    assert "0 videos added to" in out
    assert run(maker.path, "--out", tmp_path / "none.csv", "--extend")[0] == 1
    assert run(maker.path, "--out", tmp_path / "s.txt")[0] == 2
