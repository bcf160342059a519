"""Pictures to gray frames: Pillow and tifffile write them, numpy says what is in them."""

import contextlib
import io
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from tests.video.made import opened
from vidlat.errors import DecodeError
from vidlat.pipeline.folder import FoundVideo, videos_in_folder
from vidlat.video.images import has_pages, image_sequences, is_image, open_images, open_tiff


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def save_all(folder, array, suffix=".png"):
    return [save(folder / f"f{index}{suffix}", frame) for index, frame in enumerate(array)]


def read(*paths, warn=lambda _: None):
    return np.stack([frame.pixels for frame in open_images(paths, warn).frames()])


def read_tiff(path):
    return np.stack([frame.pixels for frame in opened(open_tiff, path, print).frames()])


def failure(*paths, opening=open_images):
    with pytest.raises(DecodeError) as caught:
        list((opening(paths, print) if opening is open_images else opened(opening, *paths, print)).frames())
    assert "\n" not in str(caught.value)
    assert "/" not in str(caught.value)  # a name of a file, never of its folders
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_file_is_a_picture_by_its_content(kind):
    file = io.BytesIO()
    Image.fromarray(noise(5, 6)).save(file, kind)
    assert is_image(file.getvalue()[:8])


@pytest.mark.parametrize("head", [b"", b"GIF89a\0\0", b"BM\0\0\0\0\0\0", b"%!PS-Adobe", b"RIFF\0\0\0\0WEBP"])
def test_other_content_is_no_picture_read_here(head):
    assert not is_image(head)


@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: npst.arrays(dtype, st.tuples(*[st.integers(1, 5)] * 3))
    ),
    st.sampled_from([".png", ".tif"]),
)
def test_saved_values_are_read_back(tmp_path_factory, array, suffix):
    files = save_all(tmp_path_factory.mktemp("images"), array, suffix)
    frames = read(*files)
    assert frames.dtype == array.dtype
    np.testing.assert_array_equal(frames, array)
    assert open_images(files, print).header().num_frames == len(array)


def test_frame_2_comes_before_frame_10(tmp_path):
    files = [save(tmp_path / f"frame{index}.png", np.full((2, 3), index, np.uint8)) for index in range(12)]
    random.Random(0).shuffle(files)
    assert read(*files)[:, 0, 0].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("dtype", "auto_range"), [(np.uint8, (0, 255)), (np.uint16, None), (np.bool, (0, 255)), (np.int32, None)]
)
def test_eight_bits_have_the_range_of_their_type(tmp_path, dtype, auto_range):
    path = save(tmp_path / "a.tif", noise(2, 3).astype(dtype))
    assert open_images([path], print).auto_range() == auto_range


@pytest.mark.parametrize(("top", "auto_range"), [(1.0, (0, 1)), (1.5, None)])
def test_floats_have_the_range_0_to_1_where_they_lie_in_it(tmp_path, top, auto_range):
    array = np.linspace(0, top, 24, dtype=np.float32).reshape(4, 2, 3)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    assert opened(open_tiff, path, print).auto_range() == auto_range
    np.testing.assert_array_equal(read_tiff(path), array)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colour_becomes_bt601_luma(tmp_path, mode):
    image = Image.fromarray(noise(5, 6, 3)).convert(mode)
    image.save(tmp_path / "a.tif")
    luma = np.asarray(image.convert("RGB")) @ [0.299, 0.587, 0.114]
    frame = read(tmp_path / "a.tif")[0]
    assert frame.dtype == np.uint8
    np.testing.assert_allclose(frame, luma, atol=0.501)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_ignored(tmp_path, mode):
    gray = noise(5, 6)
    image = Image.fromarray(gray).convert(mode)
    image.putalpha(Image.fromarray(noise(5, 6)[::-1].copy()))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], gray)


def test_a_transparent_palette_becomes_the_luma_of_its_colours(tmp_path):
    image = Image.new("P", (3, 2))
    image.putdata([0, 1, 2, 3, 4, 5])
    image.putpalette([value for index in range(6) for value in [40 * index] * 3])
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], [[0, 40, 80], [120, 160, 200]])


def test_one_bit_becomes_black_and_white(tmp_path):
    pixels = noise(5, 6) > 99
    np.testing.assert_array_equal(read(save(tmp_path / "a.png", pixels))[0], 255 * pixels.astype(np.uint8))


def test_jpeg_is_read_back_approximately(tmp_path):
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    frame = read(save(tmp_path / "a.jpg", smooth, quality=95))[0]
    assert np.abs(frame.astype(int) - smooth).max() <= 3


def test_16_bit_colour_is_warned_of(tmp_path):
    array = noise(5, 6, 3, dtype=np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    said = []
    frame = read(tmp_path / "a.tif", warn=said.append)[0]
    assert said == ["16-bit colour is read with 8 bits"]
    np.testing.assert_allclose(frame, array / 257 @ [0.299, 0.587, 0.114], atol=1.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_converted_or_reported_as_inverted(tmp_path, dtype):
    array = noise(5, 6, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    video = open_images([tmp_path / "a.tif"], print)
    assert video.is_inverted == (dtype == np.uint16)
    frame = next(iter(video.frames())).pixels
    np.testing.assert_array_equal(frame, array if video.is_inverted else 255 - array)
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="minisblack")
    assert not open_images([tmp_path / "b.tif"], print).is_inverted


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda shown: shown),
        (2, lambda shown: shown[:, ::-1]),
        (3, lambda shown: shown[::-1, ::-1]),
        (4, lambda shown: shown[::-1]),
        (5, lambda shown: shown.T),
        (6, lambda shown: np.rot90(shown, 1)),  # stored a quarter to the left: to be turned to the right
        (7, lambda shown: np.rot90(shown, 2).T),
        (8, lambda shown: np.rot90(shown, -1)),
    ],
)
def test_rotation_by_exif_is_applied(tmp_path, suffix, orientation, turned):
    shown = np.repeat(np.repeat(np.arange(0, 240, 20, dtype=np.uint8).reshape(3, 4), 8, 0), 8, 1)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 100} if suffix == ".jpg" else {}
    path = save(tmp_path / f"a{suffix}", np.ascontiguousarray(turned(shown)), exif=exif, **options)
    np.testing.assert_allclose(read(path)[0], shown, atol=2)


def test_rotation_holds_for_every_page_of_16_bits(tmp_path):
    shown = noise(3, 4, 5, dtype=np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in shown:
            stored = np.ascontiguousarray(page[::-1])
            writer.write(stored, photometric="minisblack", extratags=[(274, "H", 1, 4, True)])
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif"), shown)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"bigtiff": True}, {"byteorder": ">"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_pages_of_a_tiff_are_the_frames_of_a_video(tmp_path, dtype, options):
    pages = noise(7, 5, 6, dtype=dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pages, photometric="minisblack", **options)
    assert opened(has_pages, path)
    np.testing.assert_array_equal(read_tiff(path), pages)


def test_a_picture_of_one_page_is_no_tiff_video(tmp_path):
    assert not opened(has_pages, save(tmp_path / "a.tif", noise(5, 6)))
    assert not opened(has_pages, save(tmp_path / "a.png", noise(5, 6)))


def test_cyclic_pages_end_at_the_first(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(2, 5, 6), photometric="minisblack", metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        first, second = (page.offset for page in file.pages)
    num_tags = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * num_tags, first)
    path.write_bytes(data)
    assert len(read_tiff(path)) == 2


@pytest.mark.parametrize("change", [(5, 7), (6, 6), (1, 1)])
def test_a_size_that_changes_is_refused_by_the_name_of_the_file(tmp_path, change):
    files = [*save_all(tmp_path, noise(3, 5, 6)), save(tmp_path / "f7.png", noise(*change))]
    error = failure(*files)
    assert error.kind == "size-change"
    assert "f7.png" in str(error)
    assert f"{change[1]}x{change[0]} pixels; expected 6x5" in str(error)


def test_a_changing_dtype_is_refused(tmp_path):
    files = [*save_all(tmp_path, noise(3, 5, 6)), save(tmp_path / "f7.png", noise(5, 6, dtype=np.uint16))]
    assert failure(*files).kind == "type-change"


def test_pages_of_other_sizes_are_refused(tmp_path):
    pages = [Image.fromarray(noise(5, 6)), Image.fromarray(noise(5, 7))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    error = failure(tmp_path / "a.tif", opening=open_tiff)
    assert error.kind == "size-change"
    assert "page 2" in str(error)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_file_of_several_pictures_is_no_frame(tmp_path, suffix):
    pages = [Image.fromarray(frame) for frame in noise(2, 5, 6)]
    pages[0].save(tmp_path / f"f1{suffix}", save_all=True, append_images=pages[1:])
    assert failure(tmp_path / f"f1{suffix}").kind == "several-pages"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused_by_its_name(tmp_path, suffix, share):
    files = save_all(tmp_path, noise(3, 50, 60), suffix)
    data = files[1].read_bytes()
    files[1].write_bytes(data[: int(share * len(data))])
    frames = open_images(files, print).frames()
    next(frames)
    with pytest.raises(DecodeError, match=files[1].name):
        next(frames)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"version https://git-lfs"])
def test_a_file_that_is_no_image_is_refused_by_name_only(tmp_path, content):
    (tmp_path / "f1.png").write_bytes(content)
    assert str(failure(tmp_path / "f1.png")) == "'f1.png': not a PNG, JPEG or TIFF image"


def test_a_vanished_image_is_refused_by_name(tmp_path):
    assert str(failure(tmp_path / "f1.png")) == "'f1.png': cannot be decoded: No such file or directory"


def test_no_other_format_is_ever_opened(tmp_path):
    Image.fromarray(noise(5, 6)).save(tmp_path / "f1.png", "GIF")
    assert failure(tmp_path / "f1.png").kind == "not-image"


def png(width, height, data=b""):
    """A PNG of one bit with any size in its header."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    start = chunk(b"IHDR", struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(8001, 8000), (10_000, 10_000), (40_000, 40_000), (1 << 30, 1)]
)
def test_giants_are_refused_by_the_name_of_the_file(tmp_path, width, height):
    (tmp_path / "f1.png").write_bytes(png(width, height))
    error = failure(tmp_path / "f1.png")
    assert error.kind == "too-large"
    assert "f1.png" in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on memory that holds")
def test_giants_are_refused_without_memory_for_their_pixels(tmp_path):
    path = tmp_path / "f1.png"
    path.write_bytes(png(9000, 9000, bytes(9000 * 1126)))  # 10 kB for 81 MB
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from vidlat.errors import DecodeError; from vidlat.video.images import open_images, Image\n"
        "Image.init()\n"
        "num_bytes = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (num_bytes + (32 << 20), -1))\n"
        "try: open_images([Path(sys.argv[1])], print)\n"
        "except DecodeError as error: print(error.kind)\n"
        "try: Image.open(sys.argv[1]).load()\n"
        "except MemoryError: print('the limit holds')\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["too-large", "the limit holds"]


def test_a_giant_among_the_pages_of_a_tiff_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(5, 6), photometric="minisblack")
        writer.write(np.zeros((8001, 8000), np.uint8), photometric="minisblack", compression="zlib")
    assert failure(tmp_path / "a.tif", opening=open_tiff).kind == "too-large"


def test_memory_is_a_few_frames_whatever_the_length(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((200, 256, 256), np.uint16), photometric="minisblack")
    video = opened(open_tiff, tmp_path / "a.tif", print)
    tracemalloc.start()
    assert sum(1 for _ in video.frames()) == 200
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_frames_can_be_read_twice_and_their_pixels_be_written_to(tmp_path):
    video = open_images(save_all(tmp_path, noise(3, 5, 6)), print)
    for frame in video.frames():
        frame.pixels[:] = 1
    np.testing.assert_array_equal([frame.pixels for frame in video.frames()], noise(3, 5, 6))
    assert {frame.pts_seconds for frame in video.frames()} == {None}


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["f10.png", "f9.png", "f1.png"], [["f1.png", "f9.png", "f10.png"]]),
        (["f1.png"], []),
        (["a.png", "b.png"], []),
        (["a1.png", "b1.png"], []),
        (["a1.png", "a2.png", "b7.png"], [["a1.png", "a2.png"]]),
        (["f1.png", "f2.jpg"], []),
        (["x/f1.png", "y/f2.png"], []),
        (
            ["x/f1.png", "x/f2.png", "y/f1.png", "y/f2.png"],
            [["x/f1.png", "x/f2.png"], ["y/f1.png", "y/f2.png"]],
        ),
        (["0001.png", "0002.png"], [["0001.png", "0002.png"]]),
        (
            ["p1_f1.png", "p1_f2.png", "p2_f1.png", "p2_f2.png"],
            [["p1_f1.png", "p1_f2.png"], ["p2_f1.png", "p2_f2.png"]],
        ),
        (["1_of_3.png", "2_of_3.png", "3_of_3.png"], [["1_of_3.png", "2_of_3.png", "3_of_3.png"]]),
        (["f1_640x480.png", "f2_640x480.png"], [["f1_640x480.png", "f2_640x480.png"]]),
        (["p1_f1.png", "p2_f2.png"], []),
        ([], []),
    ],
)
def test_numbered_pictures_of_one_folder_are_a_video(names, groups):
    found = image_sequences([Path(name) for name in names])
    assert [[path.as_posix() for path in group] for group in found] == groups


@given(st.permutations([f"p{patient}_{frame:03}.png" for patient in range(3) for frame in (1, 2, 30)]))
def test_groups_do_not_depend_on_the_order_of_the_files_but_for_their_own(names):
    found = image_sequences([Path(name) for name in names])
    expected = [[Path(f"p{p}_{f:03}.png") for f in (1, 2, 30)] for p in range(3)]
    assert sorted(found) == expected


def test_numbered_tiffs_of_several_pages_are_videos_of_their_own(tmp_path):
    files = [tmp_path / f"patient{index}.tif" for index in range(4)]
    for path in files[:2]:
        tifffile.imwrite(path, noise(3, 5, 6), photometric="minisblack")
    for path in files[2:]:
        save(path, noise(5, 6))
    own = [FoundVideo(name=path.name, path=path) for path in files[:2]]
    assert videos_in_folder(tmp_path, files[:2]) == (own, [])
    (sequence, *others), _ = videos_in_folder(tmp_path, files)
    assert sequence.selection.files == ("patient2.tif", "patient3.tif")
    assert others == own


@pytest.mark.parametrize("name", ["f1\n.png", "f1'\".png", "f1\udcff.png"])
def test_a_strange_name_is_one_line_of_text(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing")
    str(failure(tmp_path / name)).encode()


@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.sampled_from(["PNG", "JPEG", "TIFF"]),
)
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_image_gives_a_frame_or_a_decode_error(tmp_path, changes, kind):
    file = io.BytesIO()
    Image.fromarray(noise(20, 30)).save(file, kind)
    data = bytearray(file.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    (tmp_path / "f1").write_bytes(data)
    for open_path in (lambda path: open_images([path], print), lambda path: opened(open_tiff, path, print)):
        with contextlib.suppress(DecodeError):
            assert all(frame.pixels.ndim == 2 for frame in open_path(tmp_path / "f1").frames())


BESIDE_ANOTHER = """
import io
from pathlib import Path
from PIL import Image
from vidlat.video.images import _decoding

file = io.BytesIO()
cut = b"Exif" + bytes(2) + b"II*" + bytes(1) + (8).to_bytes(4, "little") + (1).to_bytes(2, "little")
Image.new("L", (8, 8)).save(file, "JPEG", exif=cut)
one, other = _decoding(Path("a.jpg")), _decoding(Path("b.jpg"))
one.__enter__()
other.__enter__()
one.__exit__(None, None, None)  # as another thread that is done first
assert dict(Image.open(file).getexif()) == {}
"""


def test_a_reader_that_ends_first_does_not_let_warnings_of_another_through():
    run = subprocess.run([sys.executable, "-c", BESIDE_ANOTHER], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
