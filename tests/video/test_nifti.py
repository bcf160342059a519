"""NIfTI to gray frames: nibabel's own arrays and files, files made here, headers that lie."""

import contextlib
import gzip
import itertools
import struct
import tracemalloc
from importlib.resources import files
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from hypothesis.extra import numpy as npst
from nibabel.orientations import axcodes2ornt

from tests.thorough import is_thorough
from tests.video.made import opened
from vidlat.errors import DecodeError
from vidlat.video import untrusted
from vidlat.video.nifti import is_nifti, nifti_videos, open_nifti

AS_SHOWN = np.diag([-1.0, -1, 1, 1])  # x to the left, y to the back, z to the head: nothing to turn


def wheel(name):
    """A file of the nibabel package."""
    return Path(str(files("nibabel.tests") / "data" / name))


def write(path, voxels, affine=AS_SHOWN):
    nibabel.Nifti1Image(voxels, affine).to_filename(path)
    return path


def read(path, part=None, warn=lambda _: None):
    return list(opened(open_nifti, path, warn, part).frames())


def pixels(path, part=None):
    return np.stack([frame.pixels for frame in read(path, part)])


def warnings_of(path):
    said = []
    read(path, warn=said.append)
    return said


def failure(path, part=None):
    with pytest.raises(DecodeError) as caught:
        read(path, part)
    assert "\n" not in str(caught.value)
    return caught.value


def noise(*shape, dtype=np.int16):
    return np.random.default_rng(0).integers(0, 1000, shape).astype(dtype)


def patched(path, offset, layout, *values):
    """A plain file with other values at a place of its header."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, offset, *values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name", ["functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "nifti2.hdr"]
)
def test_a_file_is_nifti_by_its_content(name):
    assert is_nifti(wheel(name).read_bytes()[:1024])


@pytest.mark.parametrize("head", [b"", b"\x1f\x8b", b"\0" * 1024, gzip.compress(b"no image" * 99, mtime=0)])
def test_other_content_is_not_nifti(head):
    assert not is_nifti(head)


def test_the_head_of_a_bomb_is_inflated_no_further_than_a_header():
    head = gzip.compress(bytes(100 << 20))
    tracemalloc.start()
    assert not is_nifti(head)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"])
def test_every_slice_of_a_file_of_times_is_a_video(name):
    expected = nibabel.load(wheel(name)).get_fdata(dtype=np.float32)  # stored as LAS
    parts = opened(nifti_videos, wheel(name))
    assert len(parts) == expected.shape[2]
    assert parts == sorted(parts)
    for index, part in enumerate(parts):
        shown = expected[:, ::-1, index].transpose(2, 1, 0)
        np.testing.assert_array_equal(pixels(wheel(name), part), shown)


def test_a_volume_is_a_video_of_its_slices_in_either_byte_order():
    stored = np.asarray(nibabel.load(wheel("anatomical.nii")).dataobj)
    assert stored.dtype == ">i2"
    video = pixels(wheel("anatomical.nii"))
    assert video.dtype == np.int16
    assert video.dtype.isnative
    np.testing.assert_array_equal(video, stored[:, ::-1].T)
    assert opened(nifti_videos, wheel("anatomical.nii")) == []


def test_slices_at_several_times_are_no_single_video():
    error = failure(wheel("functional.nii"))
    assert error.kind == "ambiguous-axes"
    assert "3 slices at 20 times" in str(error)
    assert "z0 to z2" in str(error)


@pytest.mark.parametrize("part", ["z3", "", "z00", "y"])
def test_a_missing_part_is_refused(part):
    assert failure(wheel("functional.nii"), part).kind == "no-part"
    assert failure(wheel("anatomical.nii"), part).kind == "no-part"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("signs", [*itertools.product(range(2), repeat=3)])
@pytest.mark.parametrize("axes", [*itertools.permutations(range(3))])
def test_planes_are_in_radiological_convention_however_they_are_stored(tmp_path, axes, signs, suffix):
    canonical = noise(3, 4, 5)  # to the right, the front, the head
    codes = ["LR"[signs[0]], "PA"[signs[1]], "IS"[signs[2]]]
    directions = [codes[axis] for axis in axes]
    image = nibabel.Nifti1Image(canonical, np.eye(4))
    # as_reoriented takes where each axis of the source goes.
    to_stored = nibabel.orientations.ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(directions))
    path = tmp_path / f"a{suffix}"
    image.as_reoriented(to_stored).to_filename(path)
    assert list(nibabel.aff2axcodes(nibabel.load(path).affine)) == directions
    shown = {
        0: [canonical[k, ::-1, ::-1].T for k in range(3)],  # sagittal: head up, front on the left
        1: [canonical[::-1, k, ::-1].T for k in range(4)],  # coronal: head up, the right on the left
        2: [canonical[::-1, ::-1, k].T for k in range(5)],  # axial: front up, the right on the left
    }[axes[2]]
    np.testing.assert_array_equal(pixels(path), shown)


@pytest.mark.parametrize(
    "affine", [None, np.zeros((4, 4)), np.diag([np.nan, 1, 1, 1]), np.diag([1, 1, np.inf, 1])]
)
def test_a_file_without_orientation_is_read_as_las_with_a_warning(tmp_path, affine):
    voxels = noise(3, 4, 5)
    path = patched(write(tmp_path / "a.nii", voxels), 252, "<2h", 0, 0)
    if affine is not None:
        patched(path, 254, "<h24x12f", 1, *affine[:3].ravel())
    assert len(warnings_of(path)) == 1
    np.testing.assert_array_equal(pixels(path), voxels[:, ::-1].T)


def test_pixels_are_as_wide_as_the_spacing_of_the_axis_shown_across(tmp_path):
    axial = write(tmp_path / "a.nii", noise(3, 4, 5), np.diag([-2.0, -1, 5, 1]))
    assert read(axial)[0].sample_aspect_ratio == 2
    turned = write(
        tmp_path / "b.nii", noise(3, 4, 5), [[0, -1.0, 0, 0], [-2, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]]
    )
    assert read(turned)[0].sample_aspect_ratio == 0.5


@pytest.mark.parametrize("spacing", [0.0, -1, np.nan, np.inf, 1e-20])
def test_an_invalid_spacing_is_ignored(tmp_path, spacing):
    path = patched(write(tmp_path / "a.nii", noise(3, 4, 5)), 80, "<f", spacing)
    assert read(path)[0].sample_aspect_ratio == 1


@pytest.mark.parametrize(
    ("unit", "step", "seconds"),
    [("sec", 0.5, 0.5), ("msec", 40, 0.04), ("usec", 5000, 0.005), ("unknown", 1, None), ("hz", 1, None)]
    + [("sec", bad, None) for bad in (0, -1, np.nan, np.inf)],
)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_time_comes_from_the_fourth_spacing_in_its_unit(tmp_path, kind, unit, step, seconds):
    image = kind(noise(3, 4, 1, 3), AS_SHOWN)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = step
    image.to_filename(tmp_path / "a.nii")
    expected = [None] * 3 if seconds is None else [0, pytest.approx(seconds), pytest.approx(2 * seconds)]
    assert [frame.pts_seconds for frame in read(tmp_path / "a.nii")] == expected


def test_slices_have_no_time(tmp_path):
    assert {frame.pts_seconds for frame in read(write(tmp_path / "a.nii", noise(3, 4, 5)))} == {None}


NUMBERS = ["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4", "<i8", "<u8", "<f4", ">f4", "<f8", ">f8"]


@given(
    st.sampled_from(NUMBERS).flatmap(
        lambda dtype: npst.arrays(
            dtype,
            st.tuples(*[st.integers(1, 4)] * 2, st.just(1), st.integers(1, 3)),
            elements={
                "allow_nan": False,
                "allow_infinity": False,
                "min_value": -(2.0**99),
                "max_value": 2.0**99,
            }
            if "f" in dtype
            else None,
        )
    ),
    st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    st.booleans(),
)
def test_written_values_are_read_back(tmp_path_factory, voxels, kind, is_gzip):
    path = tmp_path_factory.mktemp("nifti") / ("a.nii.gz" if is_gzip else "a.nii")
    header = kind.header_class(endianness="<" if voxels.dtype.isnative else ">")
    kind(voxels, AS_SHOWN, header, dtype=voxels.dtype).to_filename(path)
    assert nibabel.load(path).dataobj.slope == 1
    video = pixels(path)
    exact = {"u1": np.uint8, "i1": np.int16, "u2": np.uint16, "i2": np.int16}
    expected = exact.get(voxels.dtype.str[1:], np.float32)
    assert video.dtype == expected
    np.testing.assert_array_equal(video, voxels[:, :, 0].T.astype(expected))


def test_slope_and_intercept_are_applied(tmp_path):
    voxels = noise(3, 4, 5)
    path = write(tmp_path / "a.nii", voxels)
    patched(path, 112, "<2f", 0.25, -1024)
    assert pixels(path).dtype == np.float32
    np.testing.assert_array_equal(pixels(path), voxels.T * np.float32(0.25) - 1024)


def test_a_slope_of_zero_is_none(tmp_path):
    voxels = noise(3, 4, 5)
    path = patched(write(tmp_path / "a.nii", voxels), 112, "<2f", 0, 7)
    np.testing.assert_array_equal(pixels(path), voxels.T)


@pytest.mark.parametrize(("slope", "auto_range"), [(1.0, (0, 255)), (2.0, None)])
def test_only_unscaled_bytes_have_the_range_of_their_type(tmp_path, slope, auto_range):
    path = patched(write(tmp_path / "a.nii", noise(3, 4, 5, dtype=np.uint8)), 112, "<2f", slope, 0)
    assert opened(open_nifti, path, print).auto_range() == auto_range
    assert opened(open_nifti, wheel("anatomical.nii"), print).auto_range() is None


@pytest.mark.parametrize("names", ["RGB", "RGBA"])
def test_colour_becomes_bt601_luma(tmp_path, names):
    channels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, len(names)), np.uint8)
    voxels = channels.view([(name, "u1") for name in names])[..., 0]
    video = pixels(write(tmp_path / "a.nii", voxels))
    assert video.dtype == np.uint8
    np.testing.assert_allclose(video, (channels[..., :3] @ [0.299, 0.587, 0.114]).T, atol=0.501)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_numbers_are_refused(tmp_path, dtype):
    error = failure(write(tmp_path / "a.nii", np.ones((3, 4, 5), dtype)))
    assert error.kind == "unsupported"
    assert "complex" in str(error)


@pytest.mark.parametrize("name", ["nifti1.hdr", "nifti2.hdr"])
def test_the_header_of_a_pair_is_refused(name):
    assert "pair" in str(failure(wheel(name)))


@pytest.mark.parametrize(
    ("shape", "num_frames"),
    [((3, 4), 1), ((3, 4, 1), 1), ((3, 4, 5), 5), ((3, 4, 1, 6), 6), ((3, 4, 5, 1), 5), ((3, 4, 1, 6, 1), 6)],
)
def test_supported_axes_are_read(tmp_path, shape, num_frames):
    voxels = noise(*shape)
    path = write(tmp_path / "a.nii", voxels)
    assert opened(open_nifti, path, print).header().num_frames == num_frames
    np.testing.assert_array_equal(pixels(path), voxels.reshape(3, 4, num_frames).T)


@pytest.mark.parametrize("num_slices", [1, 2])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_times_in_the_fifth_axis_are_read(tmp_path, num_slices, kind, name):
    voxels = noise(3, 4, num_slices, 1, 6)
    image = kind(voxels, AS_SHOWN)
    image.header["pixdim"][4:6] = 7, 0.05
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / name)
    parts = opened(nifti_videos, tmp_path / name)
    assert list(parts) == [f"z{z}" for z in range(num_slices)] * (num_slices > 1)
    for z, part in enumerate(parts or [None]):
        frames = read(tmp_path / name, part)
        np.testing.assert_array_equal([frame.pixels for frame in frames], voxels[:, :, z, 0].T)
        assert [frame.pts_seconds for frame in frames] == pytest.approx(np.arange(6) * 0.05)


def test_a_step_of_one_in_the_fifth_axis_is_no_time(tmp_path):
    image = nibabel.Nifti1Image(noise(3, 4, 1, 1, 6), AS_SHOWN)
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "a.nii")
    assert {frame.pts_seconds for frame in read(tmp_path / "a.nii")} == {None}


@pytest.mark.parametrize(("side", "intent"), [(3, 0), (4, 0), (6, 1007), (6, 1006)])
def test_a_fifth_axis_that_may_hold_colours_or_vectors_is_refused(tmp_path, side, intent):
    image = nibabel.Nifti1Image(noise(3, 4, 5, 1, side), AS_SHOWN)
    image.header["intent_code"] = intent
    image.to_filename(tmp_path / "a.nii")
    assert f"axes of 3x4x5x1x{side} voxels; expected x, y, slices" in str(failure(tmp_path / "a.nii"))


@pytest.mark.parametrize("dims", [(1, 5), (3, 3, 0, 5), (3, 3, -4, 5), (5, 3, 4, 1, 1, 3)])
def test_other_axes_are_refused(tmp_path, dims):
    path = patched(write(tmp_path / "a.nii", noise(6, 7, 8)), 40, f"<{len(dims)}h", *dims)
    error = failure(path)
    assert error.kind == "wrong-axes"
    assert "x".join(map(str, dims[1:])) in str(error)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nan_becomes_the_lowest_value_of_all_frames(tmp_path, suffix):
    voxels = noise(3, 4, 5, dtype=np.float32)
    voxels[1, 1, 1] = voxels[0, 0, 0] = np.nan
    voxels[2, 2, 4] = -7
    path = write(tmp_path / f"a{suffix}", voxels)
    np.testing.assert_array_equal(pixels(path), np.where(np.isnan(voxels), -7, voxels).T)
    assert warnings_of(path) == ["2 values are NaN: replaced by the lowest value, -7"]


@pytest.mark.parametrize(("value", "dtype"), [(np.inf, "f4"), (-np.inf, "f4"), (1e300, "f8"), (-1e300, "f8")])
def test_values_infinite_in_32_bits_are_refused(tmp_path, value, dtype):
    voxels = noise(3, 4, 5, dtype=dtype)
    voxels[1, 2, 3] = value
    error = failure(write(tmp_path / "a.nii", voxels))
    assert error.kind == "not-finite"
    assert "1 values of frame 3" in str(error)


def test_only_nan_is_refused(tmp_path):
    assert failure(write(tmp_path / "a.nii", np.full((3, 4, 5), np.nan, "f4"))).kind == "not-finite"


def test_a_truncated_file_is_refused_at_once(tmp_path):
    path = write(tmp_path / "a.nii", noise(3, 4, 5))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DecodeError, match="truncated: 471 of 472 bytes"):
        opened(open_nifti, path, print)


def gzipped(tmp_path, data):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data))
    return path


@pytest.fixture
def plain(tmp_path):
    return write(tmp_path / "plain.nii", noise(30, 40, 5)).read_bytes()


@pytest.mark.parametrize("direction", [1, -1])
def test_a_truncated_stream_is_refused(tmp_path, direction):
    affine = np.diag([-1.0, -1, direction, 1])
    data = write(tmp_path / "plain.nii", noise(30, 40, 5), affine).read_bytes()
    whole = gzip.compress(data)
    for path in (gzipped(tmp_path, data[:-1]), gzipped(tmp_path, whole[: len(whole) // 2])):
        assert failure(path).kind == "truncated"
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # of the checksum
    assert failure(gzipped(tmp_path, bytes(damaged))).kind == "unreadable"


def test_frames_before_the_damage_are_yielded(tmp_path, plain):
    frames = opened(open_nifti, gzipped(tmp_path, plain[:-1]), print).frames()
    for _ in range(4):
        next(frames)
    with pytest.raises(DecodeError, match="4 of 5 frames"):
        next(frames)


@pytest.mark.parametrize("direction", [pytest.param(1, marks=pytest.mark.slow), -1])
def test_a_stream_is_read_no_further_than_its_header_declares(tmp_path, direction):
    affine = np.diag([-1.0, -1, direction, 1])
    voxels = noise(30, 40, 5)
    data = write(tmp_path / "plain.nii", voxels, affine).read_bytes()
    bomb = gzipped(tmp_path, data + bytes(50 << 20))
    tracemalloc.start()
    np.testing.assert_array_equal(pixels(bomb), voxels.T[::direction])
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert warnings_of(bomb) == ["holds more data than its header declares: the rest is ignored"]


def test_a_header_that_declares_more_than_the_limit_is_refused(tmp_path, plain, monkeypatch):
    path = gzipped(tmp_path, plain)
    monkeypatch.setattr(untrusted, "MAX_INFLATED_BYTES", len(plain))
    read(path)
    monkeypatch.setattr(untrusted, "MAX_INFLATED_BYTES", len(plain) - 1)
    error = failure(path)
    assert error.kind == "too-large"
    assert f"{len(plain):,} bytes" in str(error)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_frames_of_gigabytes_are_refused_before_they_are_read(tmp_path, suffix):
    path = patched(write(tmp_path / "plain.nii", noise(3, 4, 5)), 42, "<2h", 32767, 32767)
    if suffix == ".nii.gz":
        path = gzipped(tmp_path, path.read_bytes())
    tracemalloc.start()
    assert failure(path).kind == "too-large"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_memory_is_a_few_frames_whatever_the_length(tmp_path, suffix, direction):
    voxels = np.zeros((256, 256, 200), np.int16)  # 26 MB, a frame 131 kB
    path = write(tmp_path / f"a{suffix}", voxels, np.diag([-1.0, -1, direction, 1]))
    video = opened(open_nifti, path, print)
    tracemalloc.start()
    assert sum(1 for _ in video.frames()) == 200
    assert tracemalloc.get_traced_memory()[1] < 6 << 20
    tracemalloc.stop()


def test_frames_can_be_read_twice_and_their_pixels_be_written_to(tmp_path):
    video = opened(open_nifti, write(tmp_path / "a.nii.gz", noise(3, 4, 5)), print)
    for frame in video.frames():
        frame.pixels[:] = 1
    assert np.stack([frame.pixels for frame in video.frames()]).max() > 1


def test_no_text_of_the_header_is_shown(tmp_path):
    image = nibabel.Nifti1Image(noise(3, 4, 5, dtype=np.float32) * np.nan, None)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"DOE^JANE"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    image.to_filename(tmp_path / "a.nii")
    assert b"DOE^JANE" in (tmp_path / "a.nii").read_bytes()
    said = []
    video = opened(open_nifti, tmp_path / "a.nii", said.append)
    with pytest.raises(DecodeError) as caught:
        list(video.frames())
    assert said
    assert "DOE" not in f"{said} {video} {caught.value}"


@given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), max_size=6), st.booleans())
@hypothesis_settings(
    max_examples=300 if is_thorough() else 100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_mutated_header_gives_frames_or_a_decode_error(tmp_path, changes, is_gzip):
    data = bytearray(nibabel.Nifti1Image(noise(3, 4, 5), AS_SHOWN).to_bytes())
    for place, value in changes:
        data[place] = value
    path = tmp_path / "mutated"
    path.write_bytes(gzip.compress(bytes(data)) if is_gzip else data)
    with contextlib.suppress(DecodeError):
        parts = opened(nifti_videos, path)
        assert all(np.isfinite(frame.pixels).all() for frame in read(path, parts[0] if parts else None))
