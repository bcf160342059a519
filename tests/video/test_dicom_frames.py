"""Frames of enhanced multi-frame files, against the slice and the phase that they were made of."""

import random
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.tag import Tag
from pydicom.uid import RLELossless

from tests.thorough import some_of
from vidlat.errors import DecodeError
from vidlat.pipeline.folder import videos_in_folder
from vidlat.types import WHOLE, Selection, VideoHeader
from vidlat.video import dicom
from vidlat.video.reader import open_video, probe_video

MR = Path(get_testdata_file("MR_small.dcm", download=False))
AXIAL, CORONAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
CELLS = [(z, t) for t in range(4) for z in range(3)]
"""Slice and phase of every frame, as scanners store them."""


def picture(z, t):
    """Rows tell the slice, columns the phase."""
    pixels = np.zeros((6, 8), np.int16)
    pixels[z], pixels[:, t] = 100 * (z + 1), 10 * (t + 1)
    return pixels


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def position(z, t):
    return {"PlanePositionSequence": [item(ImagePositionPatient=[0, 0, 10.0 * z])]}


def content(**elements):
    return {"FrameContentSequence": [item(**elements)]}


def in_stack(z, t):
    return content(StackID="1", InStackPositionNumber=z + 1, TemporalPositionIndex=t + 1)


def temporal_index(z, t):
    return content(TemporalPositionIndex=t + 1)


def trigger(z, t):
    return {"CardiacSynchronizationSequence": [item(NominalCardiacTriggerDelayTime=25 + 40.0 * t)]}


def offset(z, t):
    return {"TemporalPositionSequence": [item(TemporalPositionTimeOffset=1.5 + 0.04 * t)]}


def phase_percentage(z, t):
    return {"CardiacSynchronizationSequence": [item(NominalPercentageOfCardiacPhase=25.0 * t)]}


def moment(z, t):
    return content(FrameAcquisitionDateTime=f"20200101235959.{t}00000")


def indices(z, t):
    return content(DimensionIndexValues=[z + 1, t + 1])


def time_first(z, t):
    return content(DimensionIndexValues=[t + 1, 1, z + 1])


def dimensions(*keywords):
    items = [item(DimensionIndexPointer=Tag(keyword)) for keyword in keywords]
    return {"DimensionIndexSequence": items}


def facing(orientation):
    return {"PlaneOrientationSequence": [item(ImageOrientationPatient=orientation)]}


def write(path, frames, groups, shared=facing(AXIAL), **elements):  # noqa: B008
    """An enhanced file of pydicom's image with other frames."""
    dataset = pydicom.dcmread(MR)
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "WindowCenter", "WindowWidth"):
        del dataset[keyword]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = np.shape(frames)
    dataset.PixelData = np.array(frames).tobytes()
    dataset.SharedFunctionalGroupsSequence = [item(**shared)]
    dataset.PerFrameFunctionalGroupsSequence = [item(**group) for group in groups]
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def write_cells(path, cells, *facts, **elements):
    """A file of slices and phases, about which the given functions tell something."""
    groups = []
    for cell in cells:
        groups.append({})
        for fact in facts:
            for keyword, value in fact(*cell).items():
                groups[-1].setdefault(keyword, [Dataset()])[0].update(value[0])
    return write(path, [picture(*cell) for cell in cells], groups, **elements)


def read(path, selection=WHOLE, told=None):
    def warn(text):
        assert told is not None, text
        told.append(text)

    return [*open_video(path, selection, warn).frames()]


def videos(path, told=None):
    """Name -> frames of every video that is found in a file."""
    found, others = videos_in_folder(path.parent, [path])
    assert others == []
    return {one.name: read(one.path, one.selection, told) for one in found}


def assert_frames(frames, *expected, seconds=None):
    np.testing.assert_array_equal([frame.pixels for frame in frames], [picture(*cell) for cell in expected])
    stated = [frame.pts_seconds for frame in frames]
    assert stated == ([None] * len(frames) if seconds is None else pytest.approx(seconds))


STORED = {
    "phase by phase": CELLS,
    "slice by slice": sorted(CELLS),
    "backwards": CELLS[::-1],
    "shuffled": random.Random(0).sample(CELLS, len(CELLS)),
}
HEADERS = {
    "all": ((position, in_stack, trigger, indices), {}, True),
    "position and temporal index": ((position, temporal_index), {}, False),
    "position and trigger delay": ((position, trigger), {}, True),
    "position and time offset": ((position, offset), {}, True),
    "position and phase of the heart": ((position, phase_percentage), {}, False),
    "position and moment": ((position, moment), {}, False),
    "position and dimension indices": ((position, indices), {}, False),
    "numbers in the stack": ((in_stack,), {}, False),
    "numbers in the stack and trigger delay": ((in_stack, trigger), {}, True),
    "dimension indices": (
        (indices,),
        dimensions("InStackPositionNumber", "TemporalPositionIndex"),
        False,
    ),
    "dimension indices, time first": (
        (time_first,),
        dimensions("NominalCardiacTriggerDelayTime", "StackID", "ImagePositionPatient"),
        False,
    ),
    "dimension indices and trigger delay": (
        (indices, trigger),
        dimensions("ImagePositionPatient", "NominalCardiacTriggerDelayTime"),
        True,
    ),
}


@pytest.mark.parametrize("header", some_of(HEADERS))
@pytest.mark.parametrize("order", STORED)
def test_slices_at_several_times_are_a_video_each(tmp_path, header, order):
    facts, elements, is_timed = HEADERS[header]
    found = videos(write_cells(tmp_path / "a.dcm", STORED[order], *facts, **elements))
    assert [*found] == ["a.dcm/z0", "a.dcm/z1", "a.dcm/z2"]
    for z, frames in enumerate(found.values()):
        seconds = [0, 0.04, 0.08, 0.12] if is_timed else None
        assert_frames(frames, *((z, t) for t in range(4)), seconds=seconds)


def test_a_file_and_a_series_of_the_same_frames_are_the_same_videos(tmp_path):
    cells = STORED["shuffled"]
    enhanced = videos(write_cells(tmp_path / "a.dcm", cells, position, trigger))
    (tmp_path / "series").mkdir()
    for number, (z, t) in enumerate(cells):
        dataset = pydicom.dcmread(MR)
        pixels = picture(z, t)
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelData = pixels.tobytes()
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = AXIAL, [0, 0, 10.0 * z]
        dataset.TriggerTime, dataset.InstanceNumber = 25 + 40 * t, number
        del dataset.WindowCenter, dataset.WindowWidth
        dataset.save_as(tmp_path / "series" / str(number))
    files = [*(tmp_path / "series").iterdir()]
    found, _ = videos_in_folder(tmp_path / "series", files)
    assert sorted(f"a.dcm/{one.name}" for one in found) == [*enhanced]
    for one in found:
        single, whole = read(one.path, one.selection), enhanced[f"a.dcm/{one.name}"]
        np.testing.assert_array_equal([f.pixels for f in single], [f.pixels for f in whole])
        assert [f.pts_seconds for f in single] == [f.pts_seconds for f in whole]


def test_phases_that_no_header_tells_apart_are_in_the_order_of_the_file(tmp_path):
    found = videos(write_cells(tmp_path / "a.dcm", CELLS, position))
    for z, frames in enumerate(found.values()):
        assert_frames(frames, *((z, t) for t in range(4)))


@pytest.mark.parametrize("facts", [(position,), (in_stack,), (position, in_stack, indices), (indices,)])
@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_slices_are_ordered_by_what_the_header_tells(tmp_path, facts, order):
    found = videos(write_cells(tmp_path / "a.dcm", [(z, 0) for z in order], *facts))
    assert [*found] == ["a.dcm"]
    assert_frames(found["a.dcm"], (0, 0), (1, 0), (2, 0))


@pytest.mark.parametrize(
    ("orientation", "towards"),
    [(AXIAL, (0, 0, 1)), (CORONAL, (0, -1, 0)), (SAGITTAL, (-1, 0, 0)), ([-1, 0, 0, 0, 1, 0], (0, 0, 1))],
)
def test_slices_run_from_feet_to_head_back_to_front_and_left_to_right(tmp_path, orientation, towards):
    def here(z, t):
        corner = [float(5 * z * step) for step in towards]
        return {"PlanePositionSequence": [item(ImagePositionPatient=corner)]}

    for order in ((0, 1, 2), (2, 0, 1)):
        path = write_cells(tmp_path / "a.dcm", [(z, 0) for z in order], here, shared=facing(orientation))
        assert_frames(read(path), (0, 0), (1, 0), (2, 0))


def test_every_frame_keeps_its_own_rescale(tmp_path):
    def rescale(z, t):
        return {"PixelValueTransformationSequence": [item(RescaleSlope=1, RescaleIntercept=1000 * z)]}

    frames = read(write_cells(tmp_path / "a.dcm", [(2, 0), (0, 0), (1, 0)], position, rescale))
    np.testing.assert_array_equal([f.pixels for f in frames], [picture(z, 0) + 1000 * z for z in range(3)])


def test_compressed_frames_are_ordered_too(tmp_path):
    path = write_cells(tmp_path / "a.dcm", STORED["shuffled"], position, trigger)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    for z, frames in enumerate(videos(path).values()):
        assert_frames(frames, *((z, t) for t in range(4)), seconds=[0, 0.04, 0.08, 0.12])


# Other kinds of frames


@pytest.mark.parametrize("kind", ["orientation", "stack", "echo", "dimension"])
def test_frames_of_another_kind_are_other_videos(tmp_path, kind):
    """Two kinds of two slices, stored in turn."""
    cells = [(z, kind) for z in (1, 0) for kind in (0, 1)]

    def groups(z, t):
        return (
            position(z, t)
            | {
                "orientation": facing([AXIAL, [0, 1, 0, -1, 0, 0]][t]),
                "stack": content(StackID="AB"[t], InStackPositionNumber=z + 1),
                "echo": {"MREchoSequence": [item(EffectiveEchoTime=10.0 + t)]},
                "dimension": content(DimensionIndexValues=[t + 1, z + 1]),
            }[kind]
        )

    elements = dimensions("DiffusionBValue", "ImagePositionPatient") if kind == "dimension" else {}
    shared = {} if kind == "orientation" else facing(AXIAL)
    found = videos(write_cells(tmp_path / "a.dcm", cells, groups, shared=shared, **elements))
    assert [*found] == ["a.dcm/s0", "a.dcm/s1"]
    assert_frames(found["a.dcm/s0"], (0, 0), (1, 0))
    assert_frames(found["a.dcm/s1"], (0, 1), (1, 1))


def test_slices_at_several_times_of_two_stacks_have_both_in_their_names(tmp_path):
    def stack(z, t):
        return content(StackID="AB"[z // 2], InStackPositionNumber=z % 2 + 1, TemporalPositionIndex=t + 1)

    cells = [(z, t) for t in range(3) for z in range(4)]
    found = videos(write_cells(tmp_path / "a.dcm", cells, stack))
    assert [*found] == ["a.dcm/s0/z0", "a.dcm/s0/z1", "a.dcm/s1/z0", "a.dcm/s1/z1"]
    for z, frames in enumerate(found.values()):
        assert_frames(frames, *((z, t) for t in range(3)))


def test_planes_that_turn_are_one_video(tmp_path):
    def turned(z, t):
        angle = np.pi * t / 4
        return facing([float(np.cos(angle)), float(np.sin(angle)), 0, 0, 0, -1])

    cells = [(0, t) for t in (2, 0, 3, 1)]
    path = write_cells(tmp_path / "a.dcm", cells, position, turned, temporal_index, shared={})
    assert_frames(videos(path)["a.dcm"], *((0, t) for t in range(4)))
    path = write_cells(tmp_path / "a.dcm", cells, position, turned, shared={})
    assert_frames(videos(path)["a.dcm"], *cells)


def vectors(cells, **functions):
    return {keyword: [function(*cell) for cell in cells] for keyword, function in functions.items()}


@pytest.mark.parametrize("order", STORED)
def test_slices_and_times_of_nuclear_medicine_are_those_of_its_vectors(tmp_path, order):
    cells = STORED[order]
    elements = vectors(cells, SliceVector=lambda z, t: z + 1, TimeSlotVector=lambda z, t: t + 1)
    path = write(tmp_path / "a.dcm", [picture(*cell) for cell in cells], [], **elements)
    found = videos(path)
    assert [*found] == ["a.dcm/z0", "a.dcm/z1", "a.dcm/z2"]
    for z, frames in enumerate(found.values()):
        assert_frames(frames, *((z, t) for t in range(4)))


def test_a_dynamic_study_of_nuclear_medicine_is_one_video_per_detector(tmp_path):
    cells = [(detector, t) for t in (3, 1, 2, 0) for detector in range(2)]
    elements = vectors(
        cells,
        DetectorVector=lambda z, t: z + 1,
        PhaseVector=lambda z, t: t // 2 + 1,
        TimeSliceVector=lambda z, t: t % 2 + 1,
    )
    found = videos(write(tmp_path / "a.dcm", [picture(*cell) for cell in cells], [], **elements))
    assert [*found] == ["a.dcm/s0", "a.dcm/s1"]
    for z, frames in enumerate(found.values()):
        assert_frames(frames, *((z, t) for t in range(4)))


def test_vectors_of_another_number_of_frames_order_nothing(tmp_path):
    told = []
    elements = vectors(CELLS[:5], SliceVector=lambda z, t: 9 - z) | vectors(CELLS, PhaseVector=lambda z, t: t)
    path = write(tmp_path / "a.dcm", [picture(*cell) for cell in CELLS], [], **elements)
    assert_frames(videos(path, told)["a.dcm"], *CELLS)
    assert "describes the order of 5 frames, its header declares 12" in told[0]


# Times


@pytest.mark.parametrize(
    ("facts", "seconds"),
    [((position, trigger), [0, 0.04, 0.08, 0.12]), ((position,), [0, 0.5, 1, 1.5]), ((), [0, 0.5, 1, 1.5])],
)
def test_times_of_one_slice_are_the_functional_groups_before_the_files(tmp_path, facts, seconds):
    cells = [(0, t) for t in range(4)]
    path = write_cells(tmp_path / "a.dcm", cells, *facts, FrameTime=500)
    assert_frames(videos(path)["a.dcm"], *cells, seconds=seconds)
    assert probe_video(path, WHOLE) == VideoHeader(num_frames=4, seconds=pytest.approx(4 * seconds[1]))


def test_the_step_between_frames_as_stored_is_not_that_of_other_orders(tmp_path):
    path = write_cells(tmp_path / "a.dcm", CELLS, position, temporal_index, FrameTime=500)
    assert_frames(videos(path)["a.dcm/z1"], *((1, t) for t in range(4)))
    path = write_cells(tmp_path / "a.dcm", [(1, 0), (0, 0)], position, FrameTime=500)
    assert_frames(videos(path)["a.dcm"], (0, 0), (1, 0))


def test_trigger_delays_that_do_not_increase_are_no_times(tmp_path):
    def stuck(z, t):
        return {"CardiacSynchronizationSequence": [item(NominalCardiacTriggerDelayTime=7.0)]}

    cells = [(0, t) for t in range(4)]
    path = write_cells(tmp_path / "a.dcm", cells[::-1], temporal_index, stuck)
    assert_frames(videos(path)["a.dcm"], *cells)


def test_the_header_of_a_part_is_read_without_decoding(tmp_path, monkeypatch):
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger)
    monkeypatch.setattr(dicom, "stored_frames", None)
    header = probe_video(path, Selection(part="z1"))
    assert header == VideoHeader(num_frames=4, seconds=pytest.approx(0.16))


def test_uneven_spacing_is_warned_of(tmp_path):
    told = []
    path = write_cells(tmp_path / "a.dcm", [(3, 0), (0, 0), (1, 0)], position)
    assert_frames(videos(path, told)["a.dcm"], (0, 0), (1, 0), (3, 0))
    assert told == ["slices are unevenly spaced: gaps from 10 to 20 mm"]


# Headers that are broken


def without(index, *keywords):
    def remove(dataset):
        group = dataset.PerFrameFunctionalGroupsSequence[index]
        for keyword in keywords or [element.keyword for element in group]:
            del group[keyword]

    return remove


def spoil(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    "change", [without(5), without(5, "PlanePositionSequence"), without(0, "PlanePositionSequence")]
)
def test_where_a_position_is_missing_frames_stay_as_stored_with_a_warning(tmp_path, change):
    told = []
    path = spoil(write_cells(tmp_path / "a.dcm", CELLS, position, trigger), change)
    assert_frames(videos(path, told)["a.dcm"], *CELLS)
    assert told == ["only some of its frames state their position: frames are in the order of the file"]


def test_where_positions_are_incomplete_the_numbers_in_the_stack_order(tmp_path):
    path = write_cells(tmp_path / "a.dcm", CELLS[::-1], position, in_stack)
    found = videos(spoil(path, without(5, "PlanePositionSequence")))
    for z, frames in enumerate(found.values()):
        assert_frames(frames, *((z, t) for t in range(4)))


def test_where_trigger_delays_are_incomplete_the_temporal_index_orders(tmp_path):
    path = write_cells(tmp_path / "a.dcm", CELLS[::-1], position, in_stack, trigger)
    found = videos(spoil(path, without(5, "CardiacSynchronizationSequence")))
    for z, frames in enumerate(found.values()):
        broken = CELLS[::-1][5][0]
        seconds = None if z == broken else [0, 0.04, 0.08, 0.12]
        assert_frames(frames, *((z, t) for t in range(4)), seconds=seconds)


def test_where_all_times_are_incomplete_the_order_of_the_file_is_warned_of(tmp_path):
    told = []
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger)
    found = videos(spoil(path, without(4, "CardiacSynchronizationSequence")), told)
    assert_frames(found["a.dcm/z1"], *((1, t) for t in range(4)))
    assert {*told} == {"only some of its frames state their time: they are in the order of the file"}


@pytest.mark.parametrize("num_groups", [1, 11])
def test_functional_groups_of_another_number_of_frames_order_nothing(tmp_path, num_groups):
    def cut(dataset):
        dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:num_groups]

    told = []
    path = spoil(write_cells(tmp_path / "a.dcm", CELLS, position, trigger), cut)
    assert_frames(videos(path, told)["a.dcm"], *CELLS)
    assert len(told) == 1
    assert f"describes the order of {num_groups} frames, its header declares 12" in told[0]


def test_functional_groups_that_tell_nothing_of_order_change_nothing(tmp_path):
    assert_frames(videos(write_cells(tmp_path / "a.dcm", CELLS))["a.dcm"], *CELLS)


def test_invalid_dimension_indices_order_nothing(tmp_path):
    def uneven(z, t):
        return content(DimensionIndexValues=[1] * (z + t))

    elements = dimensions("InStackPositionNumber", "TemporalPositionIndex")
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger, uneven, **elements)
    assert [*videos(path)] == ["a.dcm/z0", "a.dcm/z1", "a.dcm/z2"]


def test_frames_that_are_cut_off_are_missing_at_the_end_of_their_slices(tmp_path):
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData[: 10 * 96]  # ten frames: only slice 0 has its last phase
    dataset.save_as(path)
    told = []
    found = videos(path, told)
    for z, frames in enumerate(found.values()):
        num_phases = 4 if z == 0 else 3
        seconds = [0, 0.04, 0.08, 0.12][:num_phases]
        assert_frames(frames, *((z, t) for t in range(num_phases)), seconds=seconds)
    assert {*told} == {"only 10 of the 12 frames that its header declares: truncated?"}


def test_frames_beyond_the_functional_groups_are_warned_of(tmp_path):
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger)
    dataset = pydicom.dcmread(path)
    dataset.PixelData += bytes(2 * 96)
    dataset.save_as(path)
    told = []
    assert_frames(videos(path, told)["a.dcm/z0"], *((0, t) for t in range(4)), seconds=[0, 0.04, 0.08, 0.12])
    assert {*told} == {"holds 14 frames, its header declares 12: those in its functional groups are read"}


# Naming a part


@pytest.mark.parametrize(
    ("part", "kind", "message"),
    [(None, "ambiguous-axes", "3 videos, z0 to z2"), ("z3", "no-part", "3 videos, z0 to z2")],
)
def test_a_part_has_to_be_named(tmp_path, part, kind, message):
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger)
    with pytest.raises(DecodeError, match=message) as caught:
        open_video(path, Selection(part=part), print)
    assert caught.value.kind == kind


def test_a_part_of_a_single_video_is_none(tmp_path):
    for facts in ((), (position,)):
        path = write_cells(tmp_path / "a.dcm", [(0, 0), (1, 0)], *facts)
        with pytest.raises(DecodeError, match="a single video") as caught:
            open_video(path, Selection(part="z0"), print)
        assert caught.value.kind == "no-part"


def test_a_file_of_several_videos_is_opened_once_to_find_them_and_twice_to_read_one(tmp_path, monkeypatch):
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger)
    opened, real = [], Path.open
    monkeypatch.setattr(
        Path, "open", lambda *arguments, **options: opened.append(1) or real(*arguments, **options)
    )
    videos_in_folder(tmp_path, [path])
    assert len(opened) == 1
    read(path, Selection(part="z1"))
    assert len(opened) <= 3


def test_nothing_of_a_patient_is_shown(tmp_path):
    def named(z, t):
        return content(StackID="Doe^Jane", FrameComments="Doe^Jane", FrameLabel="Doe^Jane")

    told = []
    path = write_cells(tmp_path / "a.dcm", CELLS, position, trigger, named)
    found, _ = videos_in_folder(tmp_path, [path])
    frames = videos(spoil(path, without(4, "CardiacSynchronizationSequence")), told)
    with pytest.raises(DecodeError) as caught:
        open_video(path, WHOLE, told.append)
    assert told
    assert "Doe" not in f"{found} {[*frames]} {told} {caught.value}"
