"""Parts of a collection: together they are the whole, and a job opens no file of another one's."""

import csv
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from tests.thorough import some_of
from vidlat.config import EncodeConfig, Part
from vidlat.errors import ConfigError
from vidlat.pipeline import folder as folder_module
from vidlat.pipeline.discover import discover_videos


@pytest.fixture(scope="module")
def collection(make_videos, tmp_path_factory):
    """Films, cines, stills, series of slices, a volume over time, pictures; some of them in one folder."""
    root = tmp_path_factory.mktemp("collection") / "v"
    film = make_videos(root / "films", {"0.mp4": 2}) / "0.mp4"
    cine, slice_ = (
        Path(get_testdata_file(name, download=False)) for name in ("examples_ybr_color.dcm", "CT_small.dcm")
    )
    for number in range(1, 12):
        shutil.copy(film, root / "films" / f"{number}.mp4")
    for study in ("s1", "s2", "s3"):
        (root / study / "mixed").mkdir(parents=True)
        for number in range(4):
            shutil.copy(cine, root / study / f"cine{number}.dcm")
            shutil.copy(cine, root / study / "mixed" / f"cine{number}.dcm")
            still = dcmread(slice_)
            still.Modality = "US"
            del still.ImagePositionPatient
            still.save_as(root / study / f"still{number}.dcm")
            of_series = dcmread(slice_)
            of_series.ImagePositionPatient = [0, 0, number]
            of_series.save_as(root / study / "mixed" / f"slice{number}.dcm")
            Image.new("L", (8, 8), 40 * number).save(root / study / f"picture{number}.png")
    shutil.copy(files("nibabel.tests") / "data" / "example4d.nii.gz", root / "s1")
    (root / "s2" / "notes.txt").write_text("no video")
    return root


@pytest.mark.parametrize("count", some_of([1, 2, 3, 7, 50]))
def test_every_video_is_in_one_part_as_it_is_in_the_whole(collection, count):
    whole = discover_videos([str(collection)])
    parts = [discover_videos([str(collection)], part=Part(number + 1, count)) for number in range(count)]
    together = sorted((video for part in parts for video in part.videos), key=lambda video: video.video_id)
    assert together == whole.videos
    assert sum(part.num_ignored for part in parts) == whole.num_ignored
    assert sum(part.num_stills for part in parts) == whole.num_stills == 12


def test_rows_of_a_manifest_are_in_one_part_each(collection, tmp_path):
    table = tmp_path / "m.csv"
    with table.open("w", newline="") as file:
        rows = [("path", "id"), *((str(path), "") for path in sorted(collection.rglob("*.dcm")))]
        csv.writer(file).writerows([*rows, (str(collection / "films/1.mp4"), "named")])
    whole = discover_videos([str(table)]).videos
    parts = [discover_videos([str(table)], part=Part(number, 3)).videos for number in (1, 2, 3)]
    assert sorted(video.video_id for part in parts for video in part) == [video.video_id for video in whole]
    assert all(parts)


def test_a_job_opens_only_the_files_of_its_part_and_of_folders_that_are_its_own(collection, monkeypatch):
    opened, kind_of = set(), folder_module.kind_of

    def recording(file):
        opened.add(Path(file.name).relative_to(collection).as_posix())
        return kind_of(file)

    monkeypatch.setattr(folder_module, "kind_of", recording)
    part = Part(2, 5)
    discover_videos([str(collection)], part=part)
    assert opened
    assert all(part.holds(name) or part.holds(Path(name).parent.as_posix()) for name in opened)


def test_labels_of_other_parts_are_not_called_unmatched(collection, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("video_id,EF\n" + "".join(f"films/{number}.mp4,1\n" for number in range(13)))
    assert discover_videos([str(collection)], labels=table).labels.unmatched == ("films/12.mp4",)
    part = discover_videos([str(collection)], labels=table, part=Part(1, 4))
    assert part.labels.unmatched == ()
    assert any(video.annotation for video in part.videos)


@given(st.text(), st.integers(1, 100))
def test_a_name_is_in_exactly_one_part(name, count):
    assert sum(Part(number, count).holds(name) for number in range(1, count + 1)) == 1


def test_parts_are_of_about_equal_size_and_the_same_everywhere():
    names = [f"patient{number:05d}/cine.dcm" for number in range(16_000)]
    sizes = [sum(Part(number, 16).holds(name) for name in names) for number in range(1, 17)]
    assert max(sizes) < 1.15 * 1000
    # SHA-256 of "a" begins with ca978112ca1bbdca, which is 4 modulo 7.
    assert Part(5, 7).holds("a")


@pytest.mark.parametrize(
    "text", ["5/4", "0/4", "1/0", "1/100001", "a/b", "1", "1/2/3", "-1/4", "1.0/4", "", " 1/2"]
)
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"^part: got .*; expected I/N .* such as 3/16$"):
        EncodeConfig(part=text)
    assert EncodeConfig(part="4/4").part == "4/4"
