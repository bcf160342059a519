"""Files of one series to the frames of one video: real series, and series made of pydicom's own image."""

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_rescale

from tests.video.made import opened, slices_of
from vidlat.errors import DecodeError
from vidlat.pipeline.folder import videos_in_folder
from vidlat.types import Selection, VideoHeader
from vidlat.video.dicom import open_dicom
from vidlat.video.dicom_elements import is_dicom
from vidlat.video.dicom_series import Series, dicom_series, open_dicom_series
from vidlat.video.reader import open_video

SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom"
MR = Path(get_testdata_file("MR_small.dcm", download=False))
REAL = MR.parent / "dicomdirtests"
AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]


def write(path, pixels=None, **elements):
    """An image of pydicom's with other elements; None deletes one."""
    dataset = pydicom.dcmread(MR)
    del dataset["WindowCenter"], dataset["WindowWidth"]
    if pixels is not None:
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
        if value is None:
            del dataset[keyword]
    dataset.save_as(path)
    return path


def write_all(folder, rows):
    """A file for each dict of elements, under names that do not sort as they do; the paths in their order."""
    names = [f"IM{number}" for number in random.Random(0).sample(range(100, 999), len(rows))]
    return [write(folder / name, **row) for name, row in zip(names, rows, strict=True)]


def at(*positions, **elements):
    return [{"ImagePositionPatient": [0, 0, z], **elements} for z in positions]


def series(paths):
    """The names in each series found, whatever the order in which the files are given."""
    found = dicom_series(slices_of(sorted(paths)))
    for seed in range(3):
        shuffled = random.Random(seed).sample(paths, len(paths))
        assert sorted(map(str, dicom_series(slices_of(shuffled)))) == sorted(map(str, found))
    return found


def assert_in_order(paths):
    assert series(paths) == [Series(tuple(paths))]


def assert_none(paths):
    assert series(paths) == []


def refuse(warning):
    pytest.fail(f"warned: {warning}")


def read(paths, warn=refuse):
    frames = [frame.pixels for frame in open_dicom_series(paths, warn).frames()]
    assert len({frame.dtype for frame in frames}) == 1
    return np.stack(frames)


def failure(paths):
    with pytest.raises(DecodeError) as caught:
        read(paths, lambda _: None)
    assert "\n" not in str(caught.value)
    assert str(paths[0].parent) not in str(caught.value)
    return caught.value


# Real series


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared test files")
def test_slices_of_mr_are_the_frames_of_the_video_they_were_taken_from():
    (found,) = series(list((SHARED / "series_mr_10slices_derived").iterdir()))
    whole = opened(open_dicom, SHARED / "multiframe" / "emri_small.dcm", refuse)
    np.testing.assert_array_equal(read(found.files), [frame.pixels for frame in whole.frames()])
    assert found.part is None
    assert list(found.files) != sorted(found.files)


def test_files_taken_from_a_video_are_its_frames(tmp_path):
    whole = pydicom.dcmread(get_testdata_file("rtdose.dcm", download=False)).pixel_array
    paths = write_all(
        tmp_path,
        [{"pixels": frame, **element} for frame, element in zip(whole, at(*range(-30, 30, 4)), strict=True)],
    )
    (found,) = series(paths)
    np.testing.assert_array_equal(read(found.files), whole)


def test_real_ct_without_suffix_runs_from_feet_to_head_and_warns_of_its_gap():
    paths = list((REAL / "77654033" / "CT2").iterdir())
    (found,) = series(paths)
    told = []
    slices = [pydicom.dcmread(path) for path in paths]
    slices.sort(key=lambda dataset: dataset.ImagePositionPatient[2])
    expected = [apply_rescale(dataset.pixel_array, dataset) for dataset in slices]
    np.testing.assert_array_equal(read(found.files, told.append), expected)
    assert told == ["slices are unevenly spaced: gaps from 1.25 to 202.5 mm"]
    assert open_dicom_series(found.files, told.append).auto_range() == (-1000, 1000)


def test_real_ct_whose_numbers_run_from_head_to_feet_runs_from_feet_to_head():
    paths = sorted((REAL / "98892001" / "CT5N").iterdir())
    (found,) = series(paths)
    slices = [pydicom.dcmread(path) for path in found.files]
    assert [dataset.InstanceNumber for dataset in slices] == [10, 9, 8, 7, 6]
    assert read(found.files).shape == (5, 16, 16)


@pytest.mark.parametrize("folder", ["98892001/CT2N", "98892003/MR2", "98892003/MR700", "77654033/CR1"])
def test_real_scouts_and_radiographs_are_no_series(folder):
    assert_none(list((REAL / folder).iterdir()))


def test_no_file_of_pydicom_breaks_the_search():
    files = [path for path in MR.parent.rglob("*") if path.is_file()]
    dicom = [path for path in files if is_dicom(path.read_bytes()[:132])]
    assert len(dicom) > 100
    for one in dicom_series(slices_of(dicom)):
        assert len(one.files) > 1


# What belongs together


@pytest.mark.parametrize(
    "other",
    [
        {"SeriesInstanceUID": "1.2.3"},
        {"Rows": 32, "Columns": 128},
        {"ImageOrientationPatient": CORONAL},
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"EchoNumbers": 2},
        {"Modality": "OT"},
    ],
)
def test_files_of_another_format_form_another_series(tmp_path, other):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here = write_all(tmp_path / "a", at(0, 1, 2))
    there = write_all(tmp_path / "b", [{"ImagePositionPatient": [0, -i, i], **other} for i in range(3)])
    assert {one.files for one in series(here + there)} == {tuple(here), tuple(there)}
    assert_in_order(here)


def test_orientations_that_differ_in_their_last_digits_are_one(tmp_path):
    tilted = [[1, 1e-7 * index, 0, 0, 0.96593 + 1e-6 * index, 0.25882] for index in range(3)]
    rows = [{**one, "ImageOrientationPatient": tilted[index]} for index, one in enumerate(at(0, 1, 2))]
    assert_in_order(write_all(tmp_path, rows))


@pytest.mark.parametrize(
    "elements",
    [{"SeriesInstanceUID": None}, {"SeriesInstanceUID": ""}, {"PixelData": None}, {"NumberOfFrames": 2}],
)
def test_multi_frame_files_and_files_without_pixels_are_in_no_series(tmp_path, elements):
    assert_none(write_all(tmp_path, at(0, 1, 2, **elements)))


@pytest.mark.parametrize("is_compressed", [False, True])
def test_files_of_several_frames_that_declare_no_number_are_in_no_series(tmp_path, is_compressed):
    paths = write_all(tmp_path, at(0, 1, 2))
    for path in paths:
        dataset = pydicom.dcmread(path)
        pixels = np.stack([dataset.pixel_array] * 2)
        dataset.PixelData = pixels.tobytes()
        if is_compressed:
            dataset.NumberOfFrames = 2
            dataset.compress(pydicom.uid.RLELossless, pixels)
            del dataset.NumberOfFrames
        dataset.save_as(path)
    assert_none(paths)


def test_compressed_slices_that_declare_no_number_form_a_series(tmp_path):
    paths = write_all(tmp_path, at(0, 1, 2))
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless)
        assert "NumberOfFrames" not in dataset
        dataset.save_as(path)
    assert_in_order(paths)


def test_a_file_alone_is_in_no_series(tmp_path):
    assert_none(write_all(tmp_path, at(0)))
    assert_none([])


def test_a_declared_number_of_one_frame_is_accepted(tmp_path):
    assert_in_order(write_all(tmp_path, at(0, 1, 2, NumberOfFrames=1)))


def test_a_broken_file_leaves_the_others_together(tmp_path):
    paths = write_all(tmp_path, at(0, 1, 2))
    (tmp_path / "broken").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 500)
    (tmp_path / "cut").write_bytes(paths[0].read_bytes()[:900])
    (found,) = dicom_series(slices_of([tmp_path / "absent", tmp_path / "broken", *paths, tmp_path / "cut"]))
    assert found == Series(tuple(paths))


# The order


@pytest.mark.parametrize(
    ("orientation", "from_feet_back_left"),
    [
        (AXIAL, (0, 0, 1)),
        (CORONAL, (0, -1, 0)),  # DICOM's axes lead to the left, the back, the head
        (SAGITTAL, (-1, 0, 0)),
        ([-1, 0, 0, 0, 1, 0], (0, 0, 1)),  # the same planes, mirrored
        ([-1, 0, 0, 0, 0, -1], (0, -1, 0)),
        ([0, -1, 0, 0, 0, -1], (-1, 0, 0)),
        ([0.8, 0, -0.6, 0, 1, 0], (0.6, 0, 0.8)),
        ([0.6, 0, -0.8, 0, 1, 0], (-0.8, 0, -0.6)),
    ],
)
def test_slices_run_as_in_nifti(tmp_path, orientation, from_feet_back_left):
    # In planes that lie off the axis: positions differ in all their numbers.
    corner = -100 * np.array(orientation[:3]) - 80 * np.array(orientation[3:])
    rows = [
        {
            "ImageOrientationPatient": orientation,
            "ImagePositionPatient": [*(corner + step * np.array(from_feet_back_left)).round(6)],
        }
        for step in (-12.5, -3, 0, 7)
    ]
    assert_in_order(write_all(tmp_path, rows))


ORDERS = {
    "TemporalPositionIdentifier": (1, 2, 10),
    "TriggerTime": (0, 9.5, 400),
    "AcquisitionTime": ("095959.5", "100000", "100000.25"),
    "ContentTime": ("000001", "000002.5", "230000"),
    "InstanceNumber": (7, 8, 30),
}


@pytest.mark.parametrize("place", range(5))
def test_files_of_one_position_are_ordered_by_the_first_distinct_element(tmp_path, place):
    keywords = [*ORDERS]
    rows = at(5, 5, 5)
    for index, row in enumerate(rows):
        row |= {keyword: ORDERS[keyword][0] for keyword in keywords[:place]}  # tells nothing
        row[keywords[place]] = ORDERS[keywords[place]][index]
        row |= {keyword: ORDERS[keyword][-1 - index] for keyword in keywords[place + 1 :]}  # misleads
    assert_in_order(write_all(tmp_path, rows))


def test_positions_that_differ_by_rounding_alone_are_one(tmp_path):
    rows = [row | {"TriggerTime": 40 * index} for index, row in enumerate(at(5, 5.004, 4.998))]
    paths = write_all(tmp_path, rows)
    assert_in_order(paths)
    frames = open_dicom_series(paths, refuse).frames()
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0, 0.04, 0.08])


def test_indistinguishable_files_of_one_position_are_no_series(tmp_path):
    assert_none(write_all(tmp_path, at(5, 5, 5, InstanceNumber=1)))
    assert_none(write_all(tmp_path, at(5, 5, 5, InstanceNumber=None, TriggerTime=0)))


@pytest.mark.parametrize("num_slices", [2, 11])
def test_slices_at_several_times_are_a_video_each(tmp_path, num_slices):
    rows = [
        row
        for z in range(num_slices)
        for row in (at(z, TriggerTime=time, InstanceNumber=99 - z)[0] for time in (0, 40, 80))
    ]
    paths = write_all(tmp_path, rows)
    found = sorted(series(paths), key=lambda one: one.part)
    names = ["z0", "z1"] if num_slices == 2 else [f"z{z:02}" for z in range(11)]
    assert [one.part for one in found] == names
    assert [one.files for one in found] == [tuple(paths[3 * z : 3 * z + 3]) for z in range(num_slices)]
    videos, _ = videos_in_folder(tmp_path, paths)
    assert sorted((video.name, video.selection.part) for video in videos) == [(name, name) for name in names]


def test_slices_with_indistinguishable_times_are_in_no_series(tmp_path):
    assert_none(write_all(tmp_path, at(0, 0, 1, 1, InstanceNumber=1)))


def test_a_duplicate_slice_does_not_make_a_series_over_time(tmp_path):
    paths = write_all(tmp_path, at(0, 1, 1, 2, 3, InstanceNumber=1))
    (found,) = series(paths)
    assert [*found.files[:1], *found.files[3:]] == [paths[0], *paths[3:]]
    assert set(found.files[1:3]) == set(paths[1:3])
    told = []
    assert len(read(found.files, told.append)) == 5
    assert told == ["slices are unevenly spaced: gaps from 0 to 1 mm"]


@pytest.mark.parametrize("lost", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_without_positions_the_numbers_order(tmp_path, lost):
    rows = [{**row, lost: None, "InstanceNumber": 8 + index} for index, row in enumerate(at(3, 1, 2))]
    assert_in_order(write_all(tmp_path, rows))


def test_without_positions_and_numbers_there_is_no_series(tmp_path):
    assert_none(write_all(tmp_path, at(1, 2, 3, ImageOrientationPatient=None, InstanceNumber=None)))
    assert_none(write_all(tmp_path, at(1, 2, 3, ImageOrientationPatient=None, InstanceNumber=4)))


@pytest.mark.parametrize("modality", ["US", "CR", "DX", "MG"])
def test_single_pictures_of_one_series_are_no_video_unless_they_have_positions(tmp_path, modality):
    rows = [{"Modality": modality, "InstanceNumber": index} for index in range(3)]
    assert_none(write_all(tmp_path, [{**row, "ImagePositionPatient": None} for row in rows]))
    placed = [row | place for row, place in zip(rows, at(1, 2, 3), strict=True)]
    assert_in_order(write_all(tmp_path, placed))


@pytest.mark.parametrize("orientation", [[0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 0, 0]])
def test_an_invalid_orientation_is_none(tmp_path, orientation):
    rows = [{**row, "ImageOrientationPatient": orientation} for row in at(3, 1, 2)]
    assert_in_order(write_all(tmp_path, [{**row, "InstanceNumber": i} for i, row in enumerate(rows)]))


# The video


def gray(value, dtype=np.uint16):
    return np.full((4, 6), value, dtype)


def test_frames_come_in_the_order_given_and_again(tmp_path):
    paths = [write(tmp_path / f"{value}", gray(value)) for value in (5, 3, 4)]
    assert read(paths)[:, 0, 0].tolist() == [5, 3, 4]
    video = open_dicom_series(paths, refuse)
    for _ in range(2):
        assert [frame.pixels[0, 0] for frame in video.frames()] == [5, 3, 4]
        assert [frame.pts_seconds for frame in video.frames()] == [None] * 3
    assert video.header() == VideoHeader(num_frames=3, seconds=None)
    assert not video.is_inverted


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"pixels": gray(7)}, {"pixels": gray(8)}], np.uint16),
        ([{"pixels": gray(7, np.uint8)}, {"pixels": gray(8, np.uint8)}], np.uint8),
        ([{"pixels": gray(7)}, {"pixels": gray(8, np.int16)}], np.float32),
        (
            [{"pixels": gray(7)}, {"pixels": gray(4), "RescaleSlope": 2, "RescaleIntercept": 0}],
            np.float32,
        ),
    ],
)
def test_frames_are_of_one_type(tmp_path, rows, expected):
    frames = read(write_all(tmp_path, rows))
    assert frames.dtype == expected
    assert frames[:, 0, 0].tolist() == [7, 8]


def test_monochrome1_is_reported(tmp_path):
    paths = write_all(tmp_path, at(0, 1, PhotometricInterpretation="MONOCHROME1"))
    assert open_dicom_series(paths, refuse).is_inverted


def windows(*pairs):
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 50
    return [
        {"pixels": values, "WindowCenter": center, "WindowWidth": width} if width else {"pixels": values}
        for center, width in pairs
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (windows((300.5, 101), (500.5, 201), (400.5, 11)), (250, 600)),
        (windows((300.5, 101), (None, None)), (250, 350)),
        (windows((300.5, 101), (9000, 10)), (250, 350)),  # off the values
        (windows((9000, 10), (None, None)), None),
        ([{"pixels": gray(7, np.uint8)}] * 2, (0, 255)),
    ],
)
def test_one_range_serves_all_files(tmp_path, rows, expected):
    assert open_dicom_series(write_all(tmp_path, rows), refuse).auto_range() == expected


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ((0, 3, 6, 9), []),
        ((9, 6, 3, 0), []),
        ((0, 3, 6.1, 9.05), []),  # as far as scanners round
        ((0, 3, 6, 12, 15), ["slices are unevenly spaced: gaps from 3 to 6 mm"]),
        ((0, 0, 0, 0), []),
    ],
)
def test_uneven_spacing_is_warned_of(tmp_path, positions, expected):
    told = []
    assert len(read(write_all(tmp_path, at(*positions)), told.append)) == len(positions)
    assert told == expected


@pytest.mark.parametrize(
    ("positions", "triggers", "expected"),
    [
        ((5, 5, 5), (10, 50, 90.5), [0, 0.04, 0.0805]),
        ((5, 5, 5), (10, 50, 50), [None] * 3),
        ((5, 5, 5), (90, 50, 10), [None] * 3),
        ((5, 5, 5), (10, 50, None), [None] * 3),
        ((1, 2, 3), (10, 50, 90), [None] * 3),
        ((5,), (10,), [None]),
    ],
)
def test_trigger_times_of_one_slice_are_its_times(tmp_path, positions, triggers, expected):
    rows = [
        {"ImagePositionPatient": [0, 0, z]} | ({"TriggerTime": time} if time is not None else {})
        for z, time in zip(positions, triggers, strict=True)
    ]
    video = open_dicom_series(write_all(tmp_path, rows), refuse)
    assert [frame.pts_seconds for frame in video.frames()] == pytest.approx(expected)


def test_another_size_names_the_file(tmp_path):
    paths = [write(tmp_path / "a", gray(0)), write(tmp_path / "b", np.zeros((3, 6), np.uint16))]
    error = failure(paths)
    assert error.kind == "size-change"
    assert "'b' has 6x3 pixels; expected 6x4" in str(error)


def test_another_kind_of_gray_names_the_file(tmp_path):
    paths = [write(tmp_path / "a"), write(tmp_path / "b", PhotometricInterpretation="MONOCHROME1")]
    assert failure(paths).kind == "type-change"
    assert "'b'" in str(failure(paths))


def test_several_frames_name_the_file(tmp_path):
    paths = [write(tmp_path / "a"), write(tmp_path / "b", np.zeros((64, 64), np.int16))]
    dataset = pydicom.dcmread(paths[1])
    dataset.NumberOfFrames, dataset.PixelData = 2, 2 * dataset.PixelData
    dataset.save_as(paths[1])
    assert failure(paths).kind == "several-frames"
    assert "'b'" in str(failure(paths))


@pytest.mark.parametrize("end", [900, -5000])
def test_a_broken_file_is_named(tmp_path, end):
    paths = [write(tmp_path / "a"), write(tmp_path / "b")]
    paths[1].write_bytes(paths[1].read_bytes()[:end])
    assert failure(paths).kind in ("no-pixels", "truncated")
    assert str(failure(paths)).startswith("'b': ")


def test_a_vanished_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_dicom_series([write(tmp_path / "a"), tmp_path / "b"], refuse)


def test_a_warning_of_all_files_is_given_once(tmp_path):
    paths = write_all(tmp_path, at(0, 1, 2))
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.PixelData += bytes(100)
        dataset.save_as(path)
    told = []
    selection = Selection(files=tuple(path.name for path in paths))
    video = open_video(tmp_path, selection, told.append)
    assert len(list(video.frames())) == len(list(video.frames())) == 3
    assert told == ["holds more data than its header declares: the rest is ignored"]


# Nothing of a patient


def test_the_series_uid_is_not_shown(tmp_path):
    paths = write_all(tmp_path, at(0, 1, 2, SeriesInstanceUID="1.2.840.777"))
    video = open_dicom_series(paths, refuse)
    assert "777" not in f"{series(paths)} {video} {video.header()}"


def test_a_name_in_place_of_a_number_is_never_shown(tmp_path):
    paths = write_all(tmp_path, at(12345678, 2, 5, InstanceNumber=12345678, TriggerTime=12345678))
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"12345678", b"Doe^Jane"))
    told = [str(dicom_series(slices_of(paths)))]
    video = open_dicom_series(paths, told.append)
    told += [str(frame) for frame in video.frames()]
    assert "Doe" not in "".join(told)
