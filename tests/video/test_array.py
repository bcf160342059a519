"""NumPy files to gray frames: numpy writes them, numpy says what is in them; the hostile ones by hand."""

import contextlib
import io
import itertools
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from hypothesis.extra import numpy as npst

from tests.video.made import opened
from vidlat.errors import DecodeError
from vidlat.video import untrusted
from vidlat.video.array import is_array, open_array
from vidlat.video.pixels import lie_in_unit_range


def save(path, array):
    np.save(path, array)
    return path


def read(path, warn=lambda _: None, axes="auto"):
    return [frame.pixels for frame in opened(open_array, path, warn, axes).frames()]


def failure(path, axes="auto"):
    with pytest.raises(DecodeError) as caught:
        read(path, axes=axes)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return caught.value


def warnings_of(path):
    said = []
    read(path, said.append)
    return said


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def npy(header, data=b"", version=1):
    """The bytes of an .npy file with any header."""
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode("latin1") + data


def header(descr="|u1", shape=(2, 5, 6), fortran=False):
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}\n"


@pytest.mark.parametrize("writer", [np.save, np.savez, np.savez_compressed])
def test_a_file_is_an_array_by_its_content(writer):
    file = io.BytesIO()
    writer(file, noise(2, 5, 6))
    assert is_array(file.getvalue()[:512])


def test_other_zips_are_no_array():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "a Word document")
        archive.writestr("arr_0.npy", "")
    assert not is_array(file.getvalue()[:512])
    assert not is_array(b"")
    assert not is_array(b"PK\x03\x04")


NUMBERS = ["?", "u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i8", "<f2", ">f4", "<f4", "<f8", ">f8"]
SMALL = {"allow_nan": False, "allow_infinity": False, "min_value": -256, "max_value": 256}


@given(
    st.sampled_from(NUMBERS).flatmap(
        lambda dtype: npst.arrays(
            dtype,
            st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 5])),
            elements=SMALL if "f" in dtype else None,
        )
    ),
    st.booleans(),
    st.sampled_from(["npy", "npz", "compressed"]),
)
def test_saved_values_are_read_back(tmp_path_factory, array, is_fortran, kind):
    path = tmp_path_factory.mktemp("array") / "a"
    array = np.asarray(array, order="F" if is_fortran else "C")
    with path.open("wb") as file:
        {"npy": np.save, "npz": np.savez, "compressed": np.savez_compressed}[kind](file, array)
    video = opened(open_array, path, print)
    exact = {"b1": np.uint8, "u1": np.uint8, "i1": np.int16, "u2": np.uint16, "i2": np.int16}
    dtype = exact.get(array.dtype.str[1:], np.float32)
    frames = np.stack([frame.pixels for frame in video.frames()])
    assert frames.dtype == dtype
    assert frames.dtype.isnative
    np.testing.assert_array_equal(frames, array.astype(dtype))
    assert video.header().num_frames == len(array)


@pytest.mark.parametrize(
    ("shape", "frames"),
    [
        ((5, 6), (1, 5, 6)),
        ((1, 1), (1, 1, 1)),
        ((5, 3), (1, 5, 3)),
        ((7, 5, 6), (7, 5, 6)),
        ((7, 1, 6), (7, 1, 6)),
        ((7, 5, 6, 1), (7, 5, 6)),
        ((7, 1, 5, 6), (7, 5, 6)),
        ((1, 1, 5, 6), (1, 5, 6)),
        ((1, 5, 3, 1), (1, 5, 3)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_supported_axes_are_read(tmp_path, shape, frames, order):
    array = np.asarray(noise(*shape), order=order)
    path = save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read(path), array.reshape(frames))
    assert opened(open_array, path, print).header().num_frames == frames[0]


@pytest.mark.parametrize(
    "shape",
    [(5,), (480, 640, 3), (5, 6, 4), (5, 6, 1), (3, 7, 5, 6), (2, 1, 5, 3), (2, 1, 6, 1), (2, 7, 1, 5, 6)],
)
def test_other_axes_are_refused_with_those_expected(tmp_path, shape):
    error = failure(save(tmp_path / "a.npy", noise(*shape)))
    assert error.kind == "wrong-axes"
    assert str(shape) in str(error)
    assert "(T,H,W)" in str(error)


@pytest.mark.parametrize("shape", [(), (0,), (0, 5, 6), (2, 0, 6), (2, 5, 0)])
def test_no_pixels_are_refused(tmp_path, shape):
    assert failure(save(tmp_path / "a.npy", noise(*shape))).kind == "no-frames"


@pytest.mark.parametrize(
    ("shape", "likely"),
    [
        ((40, 40, 25), "HWT"),
        ((32, 32, 5), "HWT"),
        ((8, 8, 5), None),
        ((20, 16, 24), None),
        ((24, 40, 56), None),
        ((24, 40, 56, 3), None),
        ((64, 80, 20), "HWT"),
        ((80, 64, 20), "HWT"),
        ((64, 80, 60), "HWT"),
        ((64, 80, 100), "HWT"),
        ((48, 64, 200), "HWT"),
        ((64, 80, 20, 3), "HWTC"),
        ((64, 80, 20, 1), "HWTC"),
        ((8, 8, 8), None),
        ((20, 64, 80), None),
        ((200, 64, 80), None),
        ((20, 80, 64), None),
        ((64, 64, 64, 3), None),
        ((20, 64, 80, 3), None),
        ((80, 64, 64), None),
        ((1, 64, 80), None),
        ((64, 80), None),
    ],
)
def test_a_shape_that_is_as_likely_in_the_order_of_matlab_is_warned_of(tmp_path, shape, likely):
    array = noise(*shape)
    told = warnings_of(save(tmp_path / "a.npy", array))
    np.savez(tmp_path / "a.npz", array)
    assert warnings_of(tmp_path / "a.npz") == told
    assert [text.rpartition("--axes ")[2] for text in told] == ([likely] if likely else [])
    assert all(str(shape) in text for text in told)


def test_an_array_with_time_innermost_in_memory_is_warned_of(tmp_path):
    """SciPy's `loadmat` returns such arrays, and `numpy.save` keeps their order."""
    frames = np.asfortranarray(noise(20, 64, 64))
    assert "--axes HWT" in warnings_of(save(tmp_path / "a.npy", frames))[0]


AXES = [
    *map("".join, itertools.permutations("THW")),
    *map("".join, itertools.permutations("THWC")),
    *map("".join, itertools.permutations("HWC")),
    *("HW", "WH"),
]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axes", AXES)
def test_frames_are_the_same_in_every_order_that_is_told(tmp_path, axes, order, channels):
    frames = noise(7, 5, 6) if "T" in axes else noise(1, 5, 6)
    letters = "THWC" if "C" in axes else "THW"
    whole = frames[..., None].repeat(channels, -1) if "C" in axes else frames
    array = np.einsum(f"{letters}->{axes}", whole)  # sums over the one frame where no T is named
    path = save(tmp_path / "a.npy", np.asarray(array, order=order))
    said = []
    np.testing.assert_array_equal(read(path, said.append, axes), frames)
    assert said == []
    assert opened(open_array, path, print, axes).header().num_frames == len(frames)


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((64, 80, 20), "HWTC", "shape (64, 80, 20) has 3 axes; expected 4, by --axes HWTC"),
        ((64, 80, 3, 20), "HWT", "shape (64, 80, 3, 20) has 4 axes; expected 3, by --axes HWT"),
        ((64, 80), "THW", "has 2 axes; expected 3"),
        ((64, 80, 3, 20), "HWTC", "has 20 channels by --axes HWTC; expected 1, 3 or 4"),
    ],
)
def test_an_array_with_other_axes_than_told_is_refused(tmp_path, shape, axes, message):
    error = failure(save(tmp_path / "a.npy", noise(*shape)), axes)
    assert error.kind == "wrong-axes"
    assert message in str(error)


def test_axes_that_are_refused_without_a_word_are_read_with_it(tmp_path):
    frames = noise(20, 8, 9)
    path = save(tmp_path / "a.npy", np.moveaxis(frames[..., None].repeat(3, -1), 0, -1))  # (H, W, C, T)
    assert "--axes" in str(failure(path))
    np.testing.assert_array_equal(read(path, axes="HWCT"), frames)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i1", "<f8", ">f4", "?"])
def test_colour_becomes_bt601_luma(tmp_path, dtype, channels):
    array = noise(2, 5, 6, channels).astype(dtype)
    frames = np.stack(read(save(tmp_path / "a.npy", array)))
    is_rounded = "u" in dtype
    assert frames.dtype == ({"1": np.uint8, "2": np.uint16}[dtype[-1]] if is_rounded else np.float32)
    luma = array[..., :3].astype(float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(frames, luma, atol=0.501 if is_rounded else 1e-4)


@pytest.mark.parametrize("white", [np.uint8(255), np.uint16(65535), np.float32(1), np.float64(1), np.True_])
def test_white_stays_white(tmp_path, white):
    frames = read(save(tmp_path / "a.npy", np.full((2, 5, 6, 3), white)))
    assert (np.stack(frames) == np.float32(white)).all()


@pytest.mark.parametrize(
    ("array", "auto_range"),
    [
        (noise(2, 5, 6), (0, 255)),
        (noise(2, 5, 6) > 99, (0, 1)),
        (noise(2, 5, 6, dtype=np.uint16), None),
        (noise(2, 5, 6, dtype=np.int64) // 255, None),
        (noise(2, 5, 6) / 255, (0, 1)),
        (np.zeros((2, 5, 6), np.float16), (0, 1)),
        (np.array([[[0, np.nan]], [[1, 0.5]]]), (0, 1)),
        (np.array([[[0, 0.5]], [[1, 1.001]]]), None),
        (np.array([[[0, 0.5]], [[1, -0.001]]]), None),
        (np.array([[[0, 0.5]], [[1, np.inf]]]), None),
        (np.ones((2, 5, 6, 3), np.float32), (0, 1)),
    ],
)
def test_range_follows_from_dtype_and_values(tmp_path, array, auto_range):
    assert opened(open_array, save(tmp_path / "a.npy", array), print).auto_range() == auto_range


def test_reading_stops_at_the_first_frame_beyond_0_to_1():
    frames = iter([np.float32([[0, 1]]), np.float32([[0, 2]]), np.float32([[0, 1]])])
    assert not lie_in_unit_range(lambda: frames)
    assert len(list(frames)) == 1


def test_nan_becomes_the_lowest_value_of_all_frames(tmp_path):
    array = noise(3, 5, 6, dtype=np.float32)
    array[0, 0, 0] = array[1, 1, 1] = np.nan
    array[2, 2, 2] = -9
    path = save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read(path), np.where(np.isnan(array), -9, array))
    assert warnings_of(path) == ["2 values are NaN: replaced by the lowest value, -9"]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_infinity_is_refused(tmp_path, value):
    array = noise(3, 5, 6, dtype=np.float64)
    array[1, 0, :2] = value
    error = failure(save(tmp_path / "a.npy", array))
    assert error.kind == "not-finite"
    assert "2 values of frame 1" in str(error)


class Bomb:
    """Unpickled, it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("writer", [np.save, np.savez, np.savez_compressed])
def test_objects_are_refused_and_never_unpickled(tmp_path, writer):
    with (tmp_path / "a").open("wb") as file:
        writer(file, np.array([[Bomb(), 1], [2, 3]], object), allow_pickle=True)
    error = failure(tmp_path / "a")
    assert error.kind == "unsupported"
    assert "Python objects" in str(error)


def test_a_bare_pickle_is_no_array(tmp_path):
    data = pickle.dumps(Bomb())
    assert not is_array(data)
    (tmp_path / "a.npy").write_bytes(data)
    failure(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.ones((2, 5, 6), complex), "complex"),
        (np.zeros((2, 5, 6), "M8[s]"), "dates"),
        (np.zeros((2, 5, 6), "m8[s]"), "durations"),
        (np.full((2, 5, 6), "DOE^JANE"), "text"),
        (np.full((2, 5, 6), b"DOE^JANE"), "text"),
        (np.zeros((2, 5, 6), [("name", "u1")]), "records"),
        (np.zeros((2, 5, 6), [("näme中", "u1")]), "records"),
    ],
)
@pytest.mark.filterwarnings("ignore:Stored array in format")
def test_values_that_are_not_numbers_are_refused(tmp_path, array, word):
    error = failure(save(tmp_path / "a.npy", array))
    assert error.kind == "unsupported"
    assert word in str(error)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_every_version_are_read(tmp_path, version):
    array = noise(2, 5, 6)
    (tmp_path / "a.npy").write_bytes(npy(header(), array.tobytes(), version))
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), array)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "__import__('os').abort()",
        "(" * 5000 + ")" * 5000,
        "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
        header("|u1")[:-3],
        header("no type"),
        header(shape=(2.5, 3)),
        header(shape="DOE^JANE"),
        header() + " " * 20_000,
        "DOE^JANE\nDOE^JANE" * 100,
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_an_invalid_header_is_refused_without_quoting_it(tmp_path, text, version):
    (tmp_path / "a.npy").write_bytes(npy(text, bytes(100), version))
    assert str(failure(tmp_path / "a.npy")) == "its NPY header cannot be read: the file is damaged"


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(50 << 20))
    tracemalloc.start()
    failure(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("shape", [(10**12, 5, 6), (10**30, 5, 6), (2, 5, 7), (-2, -5, 6), (2, 8001, 8000)])
def test_a_header_that_lies_about_its_shape_is_refused(tmp_path, shape):
    (tmp_path / "a.npy").write_bytes(npy(header(shape=shape), bytes(60)))
    failure(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", npy(header(shape=shape), bytes(60)))
    failure(tmp_path / "a.npz")


def test_frames_of_too_many_pixels_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:  # a sparse file
        file.write(npy(header(shape=(1, 8001, 8000))))
        file.truncate(70_000_000)
    assert failure(path).kind == "too-large"


def test_a_truncated_file_is_refused(tmp_path):
    path = save(tmp_path / "a.npy", noise(2, 5, 6))
    path.write_bytes(path.read_bytes()[:-1])
    assert failure(path).kind == "truncated"
    assert "187 of 188 bytes" in str(failure(path))


def test_a_second_array_in_one_file_is_warned_of(tmp_path):
    array = noise(2, 5, 6)
    with (tmp_path / "a.npy").open("wb") as file:
        np.save(file, array)
        np.save(file, array)
    np.testing.assert_array_equal(read(tmp_path / "a.npy"), array)
    assert warnings_of(tmp_path / "a.npy") == [
        "holds more data than its header declares: the rest is ignored"
    ]


@pytest.mark.parametrize("name", ["video", "frames", "arr_0"])
def test_one_of_several_arrays_is_read_by_its_name(tmp_path, name):
    array, path = noise(2, 5, 6), tmp_path / "a.npz"
    np.savez(path, other=np.zeros(3), **{name: array}, mask=np.zeros(4))
    np.testing.assert_array_equal(read(path), array)
    assert warnings_of(path) == [f"only its array {name} is read, not the 2 others"]


def test_the_only_array_may_have_any_name(tmp_path):
    np.savez(tmp_path / "a.npz", anything=noise(2, 5, 6))
    np.testing.assert_array_equal(read(tmp_path / "a.npz"), noise(2, 5, 6))
    assert warnings_of(tmp_path / "a.npz") == []


def test_several_arrays_without_such_a_name_are_listed(tmp_path):
    np.savez(tmp_path / "a.npz", left=noise(2, 5, 6), right=noise(2, 5, 6))
    error = failure(tmp_path / "a.npz")
    assert "2 arrays ('left', 'right')" in str(error)
    assert "video or frames or arr_0" in str(error)


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, np.zeros((1000, 250, 200), np.uint8))  # 50 MB
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(untrusted, "MAX_INFLATED_BYTES", 40_000_000)
    tracemalloc.start()
    error = failure(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert error.kind == "too-large"
    assert "at most 40,000,000 bytes" in str(error)


@pytest.mark.parametrize("stated", [0, 100, 10**9])
def test_a_member_of_another_size_than_its_array_is_refused(tmp_path, stated):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, np.zeros((2, 50, 60), np.uint8))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, stated)
    path.write_bytes(data)
    tracemalloc.start()
    failure(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_member_whose_bits_flipped_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, noise(2, 50, 60))
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    assert "CRC" in str(failure(path))


def test_compression_that_numpy_does_not_write_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("arr_0.npy", npy(header(), bytes(60)))
    assert failure(tmp_path / "a.npz").kind == "unsupported"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_memory_is_a_few_frames_whatever_the_length(tmp_path, name, order):
    array = np.zeros((200, 256, 256), np.int16, order)  # 26 MB
    path = tmp_path / name
    np.save(path, array) if name == "a.npy" else np.savez_compressed(path, array)
    video = opened(open_array, path, print)
    tracemalloc.start()
    assert sum(1 for _ in video.frames()) == 200
    assert tracemalloc.get_traced_memory()[1] < 6 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("writer", [np.save, np.savez])
def test_frames_can_be_read_twice_and_their_pixels_be_written_to(tmp_path, writer):
    with (tmp_path / "a").open("wb") as file:
        writer(file, noise(2, 5, 6))
    video = opened(open_array, tmp_path / "a", print)
    for frame in video.frames():
        assert type(frame.pixels) is np.ndarray
        frame.pixels[:] = 1
    np.testing.assert_array_equal([frame.pixels for frame in video.frames()], noise(2, 5, 6))


def test_arrays_have_no_times(tmp_path):
    video = opened(open_array, save(tmp_path / "a.npy", noise(2, 5, 6)), print)
    assert {frame.pts_seconds for frame in video.frames()} == {None}


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.sampled_from([np.save, np.savez, np.savez_compressed]),
    st.sampled_from([np.uint8, np.float32]),
)
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_gives_frames_or_a_decode_error(tmp_path, changes, writer, dtype):
    file = io.BytesIO()
    writer(file, noise(2, 5, 6, dtype=dtype))
    data = bytearray(file.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    (tmp_path / "a").write_bytes(data)
    with contextlib.suppress(DecodeError):
        assert all(np.isfinite(frame).all() for frame in read(tmp_path / "a"))


def test_every_cut_of_a_file_is_refused(tmp_path):
    for writer, cut in itertools.product([np.save, np.savez_compressed], range(8, 180, 9)):
        file = io.BytesIO()
        writer(file, noise(2, 5, 6))
        (tmp_path / "a").write_bytes(file.getvalue()[:cut])
        failure(tmp_path / "a")
