"""The size that a picture states, against the size that Pillow, or the DICOM file around it, says."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from vidlat.video.dicom_pixels import codestream_size


def picture(kind, width, height, mode="L", **options):
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def codestream_of(name):
    dataset = pydicom.dcmread(Path(get_testdata_file(name, download=False)))
    return get_frame(dataset.PixelData, 0, number_of_frames=1), (dataset.Columns, dataset.Rows)


@pytest.mark.parametrize("size", [(1, 1), (300, 7), (16, 2000)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"mode": "RGB", "progressive": True}),
        ("JPEG", {"comment": b"\xff\xc0" + b"\1" * 20}),
        ("JPEG", {"exif": b"Exif\0\0" + picture("JPEG", 99, 98)}),  # as cameras embed a preview
        ("JPEG2000", {}),
        ("JPEG2000", {"no_jp2": True}),
        ("JPEG2000", {"no_jp2": True, "mode": "RGB", "offset": (5, 3), "tile_size": (64, 64)}),
    ],
)
def test_pictures_of_pillow(kind, options, size):
    assert codestream_size(picture(kind, *size, **options)) == size


@pytest.mark.parametrize(
    "name",
    ["JPGExtended.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm", "MR_small_jp2klossless.dcm"],
)
def test_pictures_of_other_encoders(name):
    data, size = codestream_of(name)
    assert codestream_size(data) == size


def test_what_decoders_skip_on_their_way_to_a_marker_is_skipped():
    data = picture("JPEG", 300, 7)
    for junk in (b"\xff\xff\xff", b"\0\1\2", b"\xff\x01", b"\xff\xd0", b"\xff\0"):
        assert codestream_size(data[:2] + junk + data[2:]) == (300, 7)
        assert Image.open(io.BytesIO(data[:2] + b"\xff\xff" + data[2:])).size == (300, 7)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_a_picture_that_breaks_off_has_its_size_or_none(kind):
    data = picture(kind, 300, 7)
    found = [codestream_size(data[:end]) for end in range(len(data))]
    first = found.index((300, 7))
    assert found == [None] * first + [(300, 7)] * (len(data) - first)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"GIF89a" + b"\1" * 50, b"\0\0\0\x0cjP  " * 9])
def test_what_is_no_picture_has_none(data):
    assert codestream_size(data) is None


def test_a_jp2_box_of_64_bits_is_followed():
    data = picture("JPEG2000", 300, 7)
    place = data.index(b"jp2c") - 4
    content = data[place + 8 :]
    long_box = b"\0\0\0\1jp2c" + (len(content) + 16).to_bytes(8, "big") + content
    assert codestream_size(data[:place] + long_box) == (300, 7)
