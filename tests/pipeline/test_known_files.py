"""A second look at a collection opens only what is new, and finds what a first look would."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from vidlat.pipeline import folder as folder_module
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.known_files import KnownFiles

CINE, SLICE = "examples_ybr_color.dcm", "CT_small.dcm"


@pytest.fixture(scope="module")
def samples(make_videos, tmp_path_factory):
    """A file of each kind, by its suffix."""
    folder = make_videos(tmp_path_factory.mktemp("samples"), {"film.mp4": 2})
    Image.new("L", (8, 8)).save(folder / "picture.png")
    (folder / "notes.txt").write_text("no video")
    cine, slice_ = (Path(get_testdata_file(name, download=False)) for name in (CINE, SLICE))
    return {
        "film": folder / "film.mp4",
        "picture": folder / "picture.png",
        "notes": folder / "notes.txt",
        "cine": cine,
        "slice": slice_,
    }


@pytest.fixture
def opened(monkeypatch):
    """Names of the files whose content was looked at."""
    names, kind_of = [], folder_module.kind_of

    def recording(file):
        names.append(Path(file.name).name)
        return kind_of(file)

    monkeypatch.setattr(folder_module, "kind_of", recording)
    return names


def put(samples, root, kind, folder, number):
    suffix = {"film": ".mp4", "picture": ".png", "notes": ".txt"}.get(kind, ".dcm")
    path = root / folder / f"{kind}{number}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "slice":
        dataset = dcmread(samples[kind])
        dataset.ImagePositionPatient = [0, 0, number]
        dataset.save_as(path)
    else:
        shutil.copy(samples[kind], path)
    return path


def known_of(root):
    return KnownFiles(video.source for video in discover_videos([str(root)]).videos)


def by_id(root, **options):
    return {video.video_id: video.source for video in discover_videos([str(root)], **options).videos}


def test_nothing_known_is_opened_again(samples, tmp_path, opened):
    for folder in ("a", "b"):
        for kind in ("film", "cine", "slice", "picture"):
            for number in range(3):
                put(samples, tmp_path, kind, folder, number)
    known, before = known_of(tmp_path), by_id(tmp_path)
    opened.clear()
    assert by_id(tmp_path, known=known) == before
    assert opened == []
    put(samples, tmp_path, "film", "a", 9)
    os.utime(tmp_path / "b" / "cine1.dcm", ns=(5, 5))
    found = by_id(tmp_path, known=known)
    assert sorted(opened) == ["cine1.dcm", "film9.mp4"]
    assert found == by_id(tmp_path)


FILES = st.tuples(
    st.sampled_from(["film", "cine", "slice", "picture", "notes"]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 3),
)
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "remove", "touch"]), FILES), max_size=4)


@given(before=st.lists(FILES, min_size=1, max_size=8, unique=True), changes=CHANGES, where=st.integers(0, 9))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_second_look_finds_what_a_first_one_would(samples, tmp_path, before, changes, where):
    root = tmp_path / str(where)
    shutil.rmtree(root, ignore_errors=True)
    put(samples, root, "film", "always", 0)
    for kind, folder, number in before:
        put(samples, root, kind, folder, number)
    known = known_of(root)
    for change, (kind, folder, number) in changes:
        if change == "add":
            put(samples, root, kind, folder, number)
            continue
        for path in (root / folder).glob(f"{kind}{number}.*"):
            path.unlink() if change == "remove" else os.utime(path, ns=(7, 7))
    assert by_id(root, known=known) == by_id(root)


def test_a_part_of_a_file_is_no_reason_to_leave_it_closed(tmp_path, opened):
    from importlib.resources import files

    shutil.copy(files("nibabel.tests") / "data" / "example4d.nii.gz", tmp_path)
    first, *others = discover_videos([str(tmp_path)]).videos
    opened.clear()
    assert len(by_id(tmp_path, known=KnownFiles([first.source]))) == 1 + len(others)
    assert opened == ["example4d.nii.gz"]


def test_many_files_of_a_folder_are_found_in_order(samples, tmp_path):
    for number in range(80):
        put(samples, tmp_path, "film", "flat", number)
    names = [f"flat/film{number}.mp4" for number in range(80)]
    assert list(by_id(tmp_path)) == sorted(names)
