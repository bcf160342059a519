"""DICOM to gray frames in the unit of the modality: pydicom's own arrays, files made here, two syntaxes."""

import io
import traceback
import tracemalloc
import warnings
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageFile
from pydicom import Dataset, FileDataset
from pydicom.data import get_testdata_file
from pydicom.datadict import tag_for_keyword
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_rescale, get_decoder, pack_bits
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from tests.thorough import some_of
from tests.video.made import opened
from vidlat.errors import DecodeError
from vidlat.pipeline.folder import videos_in_folder
from vidlat.types import WHOLE, VideoHeader
from vidlat.video import dicom, dicom_elements
from vidlat.video.dicom import KEYWORDS, open_dicom, to_header
from vidlat.video.dicom_elements import is_dicom, read_elements
from vidlat.video.reader import open_video

JPIPReferenced = UID("1.2.840.10008.1.2.4.94")
SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom"
NAME = "Doe^Jane"


def wheel(name):
    """A file of the pydicom package; never fetched."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    return Path(path)


def make(pixels, **elements):
    """A minimal DICOM file: (T, H, W) of one sample or (T, H, W, 3) of RGB."""
    dataset = FileDataset(None, {}, preamble=b"\0" * 128)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape[:3]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
    if pixels.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    dataset.PatientName = "Nobody"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    raw = pixels.tobytes()
    dataset.add_new("PixelData", "OW", raw + b"\0" * (len(raw) % 2))
    return dataset


def write(path, pixels, **elements):
    make(pixels, **elements).save_as(path)
    return path


def write_compressed(path, syntax, data, dataset=None, **elements):
    """A file of encapsulated bytes; by default of a gray frame of 10 x 10 pixels."""
    dataset = dataset or make(np.zeros((1, 10, 10), np.uint8))
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.add_new("PixelData", "OB", data)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


def picture(kind, width, height):
    """A gray picture in a format of Pillow's, from noise."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def refuse(warning):
    pytest.fail(f"warned: {warning}")


def read(path, warn=refuse):
    return np.stack([frame.pixels for frame in opened(open_dicom, path, warn).frames()])


def read_range(path):
    return opened(open_dicom, path, refuse).auto_range()


def read_unit(path):
    """The frames with their range taken to [0, 1]."""
    low, high = read_range(path)
    return np.clip((read(path).astype(float) - low) / (high - low), 0, 1)


def times(path):
    return [frame.pts_seconds for frame in opened(open_dicom, path, refuse).frames()]


def failure(path):
    with pytest.raises(DecodeError) as caught:
        read(path, lambda _: None)
    assert "\n" not in str(caught.value)
    return caught.value


def noise(dtype, low, high, num_frames=3):
    return np.random.default_rng(0).integers(low, high, (num_frames, 20, 30), dtype)


def group(slope, intercept):
    """A functional group that holds a rescale."""
    transformation, holder = Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = slope, intercept
    holder.PixelValueTransformationSequence = [transformation]
    return holder


def test_a_file_is_dicom_by_its_content():
    assert is_dicom(wheel("CT_small.dcm").read_bytes()[:132])
    assert not is_dicom(b"\0" * 132)
    assert not is_dicom(b"DICM")


SYNTAXES = {
    ImplicitVRLittleEndian: (True, True),
    ExplicitVRLittleEndian: (False, True),
    ExplicitVRBigEndian: (False, False),
}
"""Of each, whether its VRs are implicit and whether it is little endian."""


def bare(path, dataset, syntax):
    """The data set alone, without preamble and meta group."""
    is_implicit, is_little = SYNTAXES[syntax]
    elements = Dataset({element.tag: element for element in dataset})
    elements.SOPClassUID, elements.SOPInstanceUID, elements.Modality = (
        SecondaryCaptureImageStorage,
        "1.2",
        "US",
    )
    if elements.BitsAllocated == 8:
        elements["PixelData"].VR = "OB"  # pairs of bytes in OW are swapped where words are
    elements.save_as(path, implicit_vr=is_implicit, little_endian=is_little, enforce_file_format=False)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_data_set_without_preamble_and_meta_group_is_read(tmp_path, syntax, dtype):
    pixels = noise(dtype, 0, 255)
    little = make(pixels.astype(pixels.dtype.newbyteorder("<" if SYNTAXES[syntax][1] else ">")), FrameTime=40)
    path = bare(tmp_path / "IM_0001", little, syntax)
    assert is_dicom(path.read_bytes()[:1024])
    assert is_found(path)
    np.testing.assert_array_equal(read(path), pixels)
    assert times(path) == pytest.approx([0, 0.04, 0.08])


@pytest.mark.parametrize("syntax", [RLELossless, ExplicitVRLittleEndian])
def test_a_meta_group_without_preamble_names_the_syntax(tmp_path, syntax):
    pixels = noise(np.uint8, 0, 255)
    dataset = make(pixels)
    if syntax == RLELossless:
        dataset.compress(syntax)
    dataset.save_as(tmp_path / "whole", enforce_file_format=True)
    (tmp_path / "a").write_bytes((tmp_path / "whole").read_bytes()[132:])
    assert is_found(tmp_path / "a")
    np.testing.assert_array_equal(read(tmp_path / "a"), pixels)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_preamble_without_meta_group_is_read(tmp_path, syntax):
    pixels = noise(np.uint8, 0, 255)
    data = bare(tmp_path / "bare", make(pixels), syntax).read_bytes()
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM" + data)
    np.testing.assert_array_equal(read(tmp_path / "a"), pixels)


def test_compressed_pixels_without_a_transfer_syntax_are_refused_as_such(tmp_path):
    dataset = make(noise(np.uint8, 0, 255))
    dataset.compress(RLELossless)
    path = bare(tmp_path / "a", dataset, ExplicitVRLittleEndian)
    assert is_found(path)
    assert failure(path).kind == "no-syntax"
    assert "compressed" in str(failure(path))


def test_real_files_are_dicom_with_and_without_their_preamble():
    whole = [path.read_bytes() for path in wheel("MR_small.dcm").parent.rglob("*.dcm")]
    whole = [data for data in whole if data[128:132] == b"DICM"]
    assert len(whole) > 50
    assert all(is_dicom(data[:1024]) and is_dicom(data[132:1156]) for data in whole)


@pytest.mark.parametrize("name", ["ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm", "rtstruct.dcm"])
def test_real_files_that_never_had_a_preamble_are_dicom(name):
    assert is_dicom(wheel(name).read_bytes()[:1024])
    assert failure(wheel(name)).kind == "no-pixels"


@pytest.mark.parametrize("seed", range(200))
def test_a_data_set_is_not_seen_in_noise(seed):
    rng = np.random.default_rng(seed)
    first = (b"\x08\0", b"\0\x08", b"\x08\0\x05\0", b"\x08\0\x05\0CS")[seed % 4]
    assert not is_dicom(first + rng.bytes(1000))
    assert not is_dicom(first + bytes(1000))
    assert not is_dicom(first)


# The unit of the modality


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (noise(np.uint8, 0, 256), np.uint8),
        (noise(np.int8, -128, 128), np.int16),
        (noise(np.uint16, 0, 65536), np.uint16),
        (noise(np.int16, -32768, 32768), np.int16),
        (noise(np.uint32, 0, 1 << 24), np.float32),
    ],
)
@pytest.mark.parametrize("elements", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}, {"RescaleSlope": 2}])
def test_values_without_rescale_are_as_stored(tmp_path, pixels, expected, elements):
    frames = read(write(tmp_path / "a.dcm", pixels, **elements))
    assert frames.dtype == expected
    np.testing.assert_array_equal(frames, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_rescale_makes_float32(tmp_path, dtype):
    pixels = noise(dtype, 7, 250)
    frames = read(write(tmp_path / "a.dcm", pixels, RescaleSlope=0.25, RescaleIntercept=-3))
    assert frames.dtype == np.float32
    np.testing.assert_array_equal(frames, pixels * 0.25 - 3)


def test_rescale_is_the_frames_own_then_the_shared_then_the_files(tmp_path):
    pixels = np.full((3, 1, 1), 500, np.uint16)
    file = {"RescaleSlope": 3, "RescaleIntercept": 1}
    shared = {"SharedFunctionalGroupsSequence": [group(1, -1000)]}
    own = {"PerFrameFunctionalGroupsSequence": [group(2, -1000), Dataset(), group(1, 0)]}
    for elements, expected in [
        (file, [1501, 1501, 1501]),
        (file | shared, [-500, -500, -500]),
        (file | shared | own, [0, -500, 500]),
        (file | own, [0, 1501, 500]),
        (own, [0, 500, 500]),
    ]:
        frames = read(write(tmp_path / "a.dcm", pixels, **elements))
        assert frames.dtype == np.float32
        assert frames.ravel().tolist() == expected


def test_a_rescale_that_no_frame_uses_changes_nothing(tmp_path):
    elements = {"RescaleSlope": 3, "PerFrameFunctionalGroupsSequence": [group(1, 0)]}
    path = write(tmp_path / "a.dcm", np.full((1, 1, 1), 500, np.uint16), RescaleIntercept=1, **elements)
    assert read(path).dtype == np.uint16


def test_values_beyond_float32_are_refused(tmp_path):
    path = write(
        tmp_path / "a.dcm", np.full((1, 2, 2), 500, np.uint16), RescaleSlope=1e38, RescaleIntercept=0
    )
    assert failure(path).kind == "not-finite"


def test_ct_is_in_hounsfield_units():
    dataset = pydicom.dcmread(wheel("CT_small.dcm"))
    np.testing.assert_array_equal(read(wheel("CT_small.dcm"))[0], apply_rescale(dataset.pixel_array, dataset))
    assert read_range(wheel("CT_small.dcm")) == (-1000, 1000)


def test_monochrome1_is_reported_and_not_inverted(tmp_path):
    pixels = noise(np.uint8, 0, 256)
    for name, is_inverted in (("MONOCHROME1", True), ("MONOCHROME2", False)):
        path = write(tmp_path / "a.dcm", pixels, PhotometricInterpretation=name)
        assert opened(open_dicom, path, refuse).is_inverted is is_inverted
        np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_becomes_bt601_luma_of_the_same_depth(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (2, 5, 6, 3), dtype)
    red, green, blue = np.moveaxis(pixels.astype(float), -1, 0)
    path = write(tmp_path / "a.dcm", pixels, RescaleSlope=2, RescaleIntercept=1, Modality="CT")
    assert read(path).dtype == dtype
    np.testing.assert_allclose(read(path), np.rint(0.299 * red + 0.587 * green + 0.114 * blue), atol=1)
    assert read_range(path) == (0, np.iinfo(dtype).max)


def test_colour_cine_becomes_its_luma():
    path = wheel("examples_ybr_color.dcm")
    luma = pydicom.pixels.pixel_array(path, raw=True)[..., 0]  # the Y of YBR, before any conversion
    gray = read(path)
    assert gray.shape == (30, 240, 320)
    assert gray.dtype == np.uint8
    difference = np.abs(gray.astype(int) - luma)
    assert difference.mean() < 0.5
    assert np.percentile(difference, 99.9) <= 2


def test_palette_becomes_the_luma_of_its_colours():
    path = wheel("examples_palette.dcm")
    dataset = pydicom.dcmread(path)
    indices = dataset.pixel_array
    red, green, blue = (
        np.frombuffer(dataset[f"{colour}PaletteColorLookupTableData"].value, "<u2").astype(float)
        for colour in ("Red", "Green", "Blue")
    )
    first = dataset.RedPaletteColorLookupTableDescriptor[1]
    luma = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    expected = luma[np.clip(indices.astype(int) - first, 0, len(red) - 1)]
    assert read(path).dtype == np.uint16
    np.testing.assert_allclose(read(path)[0], expected, atol=1)
    assert read_range(path) == (0, 65535)


def palette(num_colours, first, dtype):
    """A palette whose colours are gray: 10, 11, 12 and so on."""
    elements = {}
    for colour in ("Red", "Green", "Blue"):
        stated = [num_colours, first, 8 * np.dtype(dtype).itemsize]
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = stated
        elements[f"{colour}PaletteColorLookupTableData"] = np.arange(
            10, 10 + num_colours, dtype=dtype
        ).tobytes()
    return elements | {"PhotometricInterpretation": "PALETTE COLOR"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_indices_beyond_a_palette_take_its_last_colour_and_8_bits_stored_in_16_stay_8(tmp_path, dtype):
    pixels = np.array([[[0, 5, 6, 7, 8, 9, 255]]], np.uint8)
    path = write(tmp_path / "a.dcm", pixels, **palette(4, 5, dtype))
    assert read(path).dtype == np.uint8
    assert read(path).ravel().tolist() == [10, 10, 11, 12, 13, 13, 13]
    assert read_range(path) == (0, 255)


@pytest.mark.filterwarnings("ignore:.*VR US")  # of pydicom, as it makes the file
@pytest.mark.parametrize("descriptor", ["4\\5", "-4\\5\\8", "99999999\\0\\16", "4\\5\\Doe"])
def test_an_invalid_palette_is_refused(tmp_path, descriptor):
    dataset = make(np.zeros((1, 2, 2), np.uint8), **palette(4, 5, np.uint8))
    dataset.add_new(tag_for_keyword("RedPaletteColorLookupTableDescriptor"), "LO", descriptor)
    dataset.save_as(tmp_path / "a.dcm")
    assert failure(tmp_path / "a.dcm").kind == "unreadable"


@pytest.mark.parametrize(
    "elements",
    [{"PhotometricInterpretation": "RGB"}, {"PhotometricInterpretation": "CMYK"}, {"SamplesPerPixel": 3}],
)
def test_unsupported_pixel_formats_are_refused(tmp_path, elements):
    path = write(tmp_path / "a.dcm", np.zeros((1, 2, 2), np.uint8), **elements)
    assert failure(path).kind == "unsupported"


# The range


def by_window(values, center, width):
    """The three cases of LINEAR in PS3.3 C.11.2.1.2, value by value."""

    def gray(value):
        if value <= center - 0.5 - (width - 1) / 2:
            return 0.0
        if value > center - 0.5 + (width - 1) / 2:
            return 1.0
        return (value - (center - 0.5)) / (width - 1) + 0.5

    return np.vectorize(gray, otypes=[float])(values)


def voi(center, width, **elements):
    """A functional group that holds a window."""
    window, holder = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = center, width
    for keyword, value in elements.items():
        setattr(window, keyword, value)
    holder.FrameVOILUTSequence = [window]
    return holder


@pytest.mark.parametrize(
    ("center", "width"),
    [(600, 1600), (2048, 4096), (0, 100), (300.5, 2), (["100", "9"], ["50", "9"])],
)
def test_window_follows_the_formula_of_the_standard(tmp_path, center, width):
    pixels = noise(np.int16, -100, 1000)
    elements = {"RescaleSlope": 0.5, "RescaleIntercept": 10, "WindowCenter": center, "WindowWidth": width}
    first = [float(np.atleast_1d(value)[0]) for value in (center, width)]
    path = write(tmp_path / "a.dcm", pixels, **elements)
    np.testing.assert_allclose(read_unit(path), by_window(pixels * 0.5 + 10, *first), atol=1e-6)


def test_window_of_a_real_file_is_its_range():
    values = pydicom.dcmread(wheel("MR_small.dcm")).pixel_array
    np.testing.assert_allclose(read_unit(wheel("MR_small.dcm"))[0], by_window(values, 600, 1600), atol=1e-6)


def test_exact_window_spans_its_whole_width(tmp_path):
    elements = {"WindowCenter": 15, "WindowWidth": 10, "VOILUTFunction": "LINEAR_EXACT"}
    assert read_range(write(tmp_path / "a.dcm", noise(np.uint16, 0, 30), **elements)) == (10, 20)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowWidth": 0},
        {"WindowWidth": -50},
        {"WindowWidth": 1},
        {"WindowWidth": ""},
        {"WindowCenter": 5000},
        {"WindowCenter": -5000},
        {"WindowCenter": ""},
        {"VOILUTFunction": "SIGMOID"},
    ],
)
def test_without_a_valid_window_there_is_no_range(tmp_path, elements):
    path = write(
        tmp_path / "a.dcm", noise(np.uint16, 0, 500), **{"WindowCenter": 100, "WindowWidth": 50} | elements
    )
    assert read_range(path) is None


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_window_that_is_not_finite_is_none(number):
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth = 100.0, float(number)
    assert dicom._windows(dataset) == []


def test_window_is_the_first_frames_else_the_shared_else_the_files(tmp_path):
    pixels = noise(np.uint16, 0, 1000)
    elements = {"WindowCenter": 100, "WindowWidth": 50}
    shared = {"SharedFunctionalGroupsSequence": [voi(200, 70)]}
    own = {"PerFrameFunctionalGroupsSequence": [voi(300, 90), Dataset(), voi(400, 20)]}
    lost = {"PerFrameFunctionalGroupsSequence": [voi(9000, 90), Dataset(), voi(400, 20)]}
    for given_elements, window in [
        (elements, (75, 124)),
        (elements | shared, (165, 234)),
        (elements | shared | own, (255, 344)),
        (elements | shared | lost, (165, 234)),
    ]:
        assert read_range(write(tmp_path / "a.dcm", pixels, **given_elements)) == window


def test_windows_of_all_frames_are_united(tmp_path):
    groups = [voi(300.5, 101), voi(500.5, 201), voi(400.5, 11)]  # 250 to 350, 400 to 600, 395 to 405
    path = write(tmp_path / "a.dcm", noise(np.uint16, 0, 1000), PerFrameFunctionalGroupsSequence=groups)
    assert read_range(path) == (250, 600)


def test_only_a_window_needs_a_pass(tmp_path, monkeypatch):
    paths = [
        write(tmp_path / "a.dcm", noise(np.uint16, 0, 1000)),
        write(tmp_path / "b.dcm", noise(np.uint16, 0, 1000), WindowCenter=100, WindowWidth=50),
    ]
    monkeypatch.setattr(dicom, "stored_frames", None)
    assert read_range(paths[0]) is None
    with pytest.raises(DecodeError, match="NoneType"):
        read_range(paths[1])


@pytest.mark.parametrize(
    ("dtype", "elements", "expected"),
    [
        (np.uint8, {"WindowCenter": 100, "WindowWidth": 50}, (0, 255)),
        (np.uint8, {"Modality": "CT"}, (0, 255)),
        (np.uint8, {"BitsStored": 7}, (0, 127)),
        (np.uint16, {"BitsStored": 8}, (0, 255)),
        (np.int8, {}, (-128, 127)),
        (np.uint8, {"RescaleSlope": 2, "RescaleIntercept": -10}, (-10, 500)),
        (np.uint8, {"RescaleSlope": -2, "RescaleIntercept": 5}, (-505, 5)),
        (np.uint8, {"PerFrameFunctionalGroupsSequence": [group(1, -9), group(1, 0), group(3, 0)]}, (-9, 765)),
        (np.uint16, {}, None),
        (np.uint16, {"BitsStored": 9}, None),
    ],
)
def test_up_to_8_bits_range_over_all_stored_bits(tmp_path, dtype, elements, expected):
    assert read_range(write(tmp_path / "a.dcm", np.zeros((3, 2, 2), dtype), **elements)) == expected


# Syntaxes


@pytest.mark.parametrize(
    "other",
    ["MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless", "MR_small_expb"],
)
def test_one_image_in_two_syntaxes_reads_the_same(other):
    np.testing.assert_array_equal(read(wheel(f"{other}.dcm")), read(wheel("MR_small.dcm")))
    assert read_range(wheel(f"{other}.dcm")) == read_range(wheel("MR_small.dcm"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared test files")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("multiframe/emri_small.dcm", "multiframe/emri_small_RLE.dcm"),
        ("multiframe/emri_small.dcm", "multiframe/emri_small_big_endian.dcm"),
        ("multiframe/emri_small.dcm", "multiframe/emri_small_jpeg_2k_lossless.dcm"),
        ("multiframe/OBXXXX1A_2frame.dcm", "multiframe/OBXXXX1A_rle_2frame.dcm"),
        ("single/color-px.dcm", "single/color-pl.dcm"),
        ("single/693_UNCR.dcm", "single/693_J2KR.dcm"),
    ],
)
def test_one_video_in_two_syntaxes_reads_the_same(one, other):
    np.testing.assert_array_equal(read(SHARED / one), read(SHARED / other))


def test_jpeg2000_with_a_wrong_sign_flag_is_read():
    dataset = pydicom.dcmread(wheel("J2K_pixelrep_mismatch.dcm"))
    expected = apply_rescale(dataset.pixel_array, dataset)
    np.testing.assert_array_equal(read(wheel("J2K_pixelrep_mismatch.dcm"))[0], expected)


def test_every_frame_of_subsampled_colour_reads(tmp_path):
    dataset = pydicom.dcmread(wheel("SC_ybr_full_422_uncompressed.dcm"))
    expected = read(wheel("SC_ybr_full_422_uncompressed.dcm"))[0]
    dataset.NumberOfFrames, dataset.PixelData = 3, 3 * dataset.PixelData
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm"), [expected] * 3)


def test_single_bits_are_unpacked(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (3, 3, 3), np.uint8)
    dataset = make(pixels, BitsAllocated=1, BitsStored=1)
    dataset.PixelData = pack_bits(pixels)  # 27 bits: frames start amid bytes
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm"), pixels)
    assert read_range(tmp_path / "a.dcm") == (0, 1)


@pytest.mark.parametrize(
    ("name", "syntax"),
    [("MR_small_jpeg_ls_lossless.dcm", JPEGLSLossless), ("JPGExtended.dcm", JPEGExtended12Bit)],
)
def test_missing_plugin_names_the_syntax_and_the_packages(name, syntax):
    if not any("pylibjpeg" in line for line in get_decoder(syntax).missing_dependencies):
        pytest.skip("the plugin is installed")
    error = failure(wheel(name))
    assert error.kind == "missing-plugin"
    assert syntax.name in str(error)
    assert "install" in str(error)
    assert "pylibjpeg-libjpeg" in str(error)
    assert "numpy" not in str(error)


def test_an_unsupported_syntax_is_named(tmp_path):
    error = failure(write_compressed(tmp_path / "a.dcm", JPIPReferenced, encapsulate([b"\0" * 16])))
    assert error.kind == "unsupported"
    assert JPIPReferenced.name in str(error)


def jpeg(pixels, segment=b"", **options):
    """A JPEG without the segment JFIF; with another one in its place."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **options)
    data = file.getvalue()
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + segment + data[4 + int.from_bytes(data[4:6], "big") :]


ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1"
"""The segment by which Adobe's programs say that the components are YCbCr."""


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:2:0"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0", "progressive": True},
        {"subsampling": "4:4:4", "segment": ADOBE},
        {"subsampling": "4:2:0", "segment": ADOBE},
    ],
)
def test_the_colour_space_of_a_jpeg_is_the_one_of_its_own_stream(tmp_path, photometric, options):
    blocks = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    pixels = blocks.repeat(16, axis=0).repeat(16, axis=1)
    dataset = make(pixels[None], PhotometricInterpretation=photometric)
    data = jpeg(pixels, **options)
    path = write_compressed(tmp_path / "a.dcm", JPEGBaseline8Bit, encapsulate([data]), dataset)
    expected = Image.open(io.BytesIO(data)).convert("L")  # Pillow assumes YCbCr, and weighs as BT.601
    np.testing.assert_allclose(read(path)[0], np.asarray(expected, int), atol=2)
    assert np.abs(read(path)[0] - pixels @ [0.299, 0.587, 0.114]).mean() < 1


def test_a_jpeg_whose_stream_does_not_tell_has_the_colour_space_of_the_header(tmp_path):
    blocks = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    pixels = blocks.repeat(16, axis=0).repeat(16, axis=1)
    as_stored = Image.merge("YCbCr", [*Image.fromarray(pixels).split()])
    file = io.BytesIO()
    as_stored.save(file, "JPEG", quality=95, subsampling="4:4:4")
    data = file.getvalue()
    data = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]  # without JFIF
    path = write_compressed(tmp_path / "a.dcm", JPEGBaseline8Bit, encapsulate([data]), make(pixels[None]))
    assert np.abs(read(path)[0] - pixels @ [0.299, 0.587, 0.114]).mean() < 1


def test_deflated_file_reads():
    expected = pydicom.dcmread(wheel("image_dfl.dcm")).pixel_array
    np.testing.assert_array_equal(read(wheel("image_dfl.dcm"))[0], expected)


def write_bomb(path, num_bytes):
    """A deflated file of a small picture behind an element of zeros."""
    dataset = make(np.zeros((1, 4, 4), np.uint8))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = io.BytesIO()
    dataset.save_as(whole, enforce_file_format=True)
    with path.open("wb") as file:
        # The meta elements are not deflated; the first one states how long the others are.
        num_meta_bytes = 144 + int.from_bytes(whole.getvalue()[140:144], "little")
        file.write(whole.getvalue()[:num_meta_bytes])
        deflator = zlib.compressobj(wbits=-15)
        head = b"\x09\x00\x10\x00OB\0\0" + num_bytes.to_bytes(4, "little")
        for piece in (head, *[bytes(1 << 20)] * (num_bytes >> 20)):
            file.write(deflator.compress(piece))
        file.write(deflator.compress(zlib.decompress(whole.getvalue()[num_meta_bytes:], -15)))
        file.write(deflator.flush())
    return path


def peak_bytes(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_deflated_file_is_never_held_in_memory(tmp_path):
    path = write_bomb(tmp_path / "a.dcm", 64 << 20)
    read(path)
    assert peak_bytes(lambda: read(path)) < 4 << 20


def test_deflated_bomb_is_refused(tmp_path, monkeypatch):
    path = write_bomb(tmp_path / "a.dcm", 64 << 20)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(dicom_elements, "MAX_INFLATED_BYTES", 5_000_000)
    error = failure(path)
    assert error.kind == "too-large"
    assert "5,000,000 bytes" in str(error)
    assert peak_bytes(lambda: failure(path)) < 4 << 20


def test_deflated_garbage_is_one_line(tmp_path):
    content = wheel("image_dfl.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:400] + b"\xff" * 999)
    assert failure(tmp_path / "a.dcm").kind in ("unreadable", "no-pixels")


# Pictures that are not what their header states


@pytest.fixture
def no_decoder(monkeypatch):
    """Pillow decodes nothing."""

    def refuse_to_load(_):
        pytest.fail("a picture was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse_to_load)


@pytest.mark.parametrize(("kind", "syntax"), [("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)])
@pytest.mark.parametrize("size", [(2000, 1000), (11, 10), (10, 9)])
@pytest.mark.usefixtures("no_decoder")
def test_a_frame_of_another_size_than_declared_is_never_decoded(tmp_path, kind, syntax, size):
    path = write_compressed(tmp_path / "a.dcm", syntax, encapsulate([picture(kind, *size)]))
    error = failure(path)
    assert error.kind == "wrong-size"
    assert "{}x{}".format(*size) in str(error)
    assert "10x10" in str(error)


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
def test_a_frame_of_the_declared_size_is_decoded(tmp_path, kind):
    data = picture(kind, 10, 10)
    syntax = {"JPEG": JPEGBaseline8Bit, "JPEG2000": JPEG2000Lossless}[kind]
    frame = read(write_compressed(tmp_path / "a.dcm", syntax, encapsulate([data])))[0]
    np.testing.assert_array_equal(frame, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xd9", b"no picture at all", b"\0" * 50])
@pytest.mark.usefixtures("no_decoder")
def test_data_that_is_no_image_is_never_decoded(tmp_path, data):
    path = write_compressed(tmp_path / "a.dcm", JPEGBaseline8Bit, encapsulate([data]))
    assert failure(path).kind == "unreadable"


def test_run_lengths_far_beyond_a_frame_are_never_expanded(tmp_path):
    header = np.array([1, 64, *[0] * 14], "<u4").tobytes()
    bomb = header + b"\x81\x07" * 1_000_000  # of 128 bytes each
    path = write_compressed(tmp_path / "a.dcm", RLELossless, encapsulate([bomb]))
    assert failure(path).kind == "wrong-size"
    assert peak_bytes(lambda: failure(path)) < 20_000_000
    good = write_compressed(tmp_path / "b.dcm", RLELossless, encapsulate([header + b"\x9d\x07" * 1]))
    assert (read(good) == 7).all()


def test_giant_frames_are_refused_before_they_are_decoded(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((1, 4, 4), np.uint8), Rows=60_000, Columns=60_000)
    assert failure(path).kind == "too-large"


@pytest.mark.parametrize(
    "elements",
    [{"Rows": 0}, {"BitsAllocated": 24}, {"BitsStored": None}, {"BitsStored": 17}, {"SamplesPerPixel": 2}],
)
def test_an_invalid_header_is_an_error_of_one_line(tmp_path, elements):
    dataset = make(np.zeros((1, 4, 4), np.uint8))
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(tmp_path / "a.dcm")
    assert failure(tmp_path / "a.dcm").kind in ("unreadable", "unsupported")


# How many frames there are


@pytest.mark.parametrize("num_there", [2, 3])
@pytest.mark.parametrize("stated", [3, 9999])
def test_missing_uncompressed_frames_are_warned_of(tmp_path, num_there, stated):
    pixels = noise(np.uint16, 0, 999)
    path = write(tmp_path / "a.dcm", pixels, NumberOfFrames=stated)
    num_lost_bytes = (3 - num_there) * 1200 - 100  # the last one is there in part
    if num_lost_bytes > 0:
        path.write_bytes(path.read_bytes()[:-num_lost_bytes])
    told = []
    np.testing.assert_array_equal(read(path, told.append), pixels[:num_there])
    if stated == num_there:
        assert not told
    else:
        assert told == [f"only {num_there} of the {stated} frames that its header declares: truncated?"]


def test_a_truncated_frame_is_not_read(tmp_path):
    assert failure(wheel("MR_truncated.dcm")).kind == "truncated"
    assert "truncated" in str(failure(wheel("MR_truncated.dcm")))


def test_elements_after_the_pixels_are_no_pixels(tmp_path):
    dataset = make(np.ones((2, 4, 4), np.uint8), NumberOfFrames=3)
    dataset.add_new(0xFFFCFFFC, "OB", b"\7" * 100)  # data set trailing padding
    dataset.save_as(tmp_path / "a.dcm")
    assert read(tmp_path / "a.dcm", lambda _: None).tolist() == np.ones((2, 4, 4)).tolist()


def lossless(path, pixels, **elements):
    """The same frames as `write`, each of them a JPEG 2000."""
    data = []
    for frame in pixels:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG2000", irreversible=False)
        data.append(file.getvalue())
    return write_compressed(path, JPEG2000Lossless, encapsulate(data), make(pixels), **elements)


@pytest.mark.parametrize("save", [write, lossless])
@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (1, "declares 1"),
        (2, "declares 2"),
        (None, "does not say how many"),
    ],
)
def test_all_frames_that_the_pixel_data_holds_are_read(tmp_path, save, stated, expected):
    pixels = noise(np.uint8, 0, 255)
    path = save(tmp_path / "a.dcm", pixels, NumberOfFrames=stated)
    if stated is None:
        dataset = pydicom.dcmread(path)
        del dataset.NumberOfFrames
        dataset.save_as(path)
    told = []
    np.testing.assert_array_equal(read(path, told.append), pixels)
    assert told == [f"holds 3 frames, its header {expected}: all are read"]
    assert opened(open_dicom, path, refuse).header().num_frames == (stated or 3)


@pytest.mark.parametrize("save", [write, lossless])
def test_one_frame_needs_no_declared_number(tmp_path, save):
    pixels = noise(np.uint8, 0, 255, num_frames=1)
    path = save(tmp_path / "a.dcm", pixels)
    dataset = pydicom.dcmread(path)
    del dataset.NumberOfFrames
    dataset.save_as(path)
    np.testing.assert_array_equal(read(path), pixels)
    assert opened(open_dicom, path, refuse).header().num_frames == 1


@pytest.mark.parametrize("num_frames", [1, 3, 5])
def test_padding_is_no_frame(tmp_path, num_frames):
    pixels = np.arange(num_frames, dtype=np.uint8).reshape(-1, 1, 1)
    path = write(tmp_path / "a.dcm", pixels)  # which makes the number of bytes even
    np.testing.assert_array_equal(read(path), pixels)


def test_data_beyond_the_last_frame_is_warned_of(tmp_path):
    pixels = noise(np.uint8, 0, 255)
    dataset = make(pixels)
    dataset.PixelData = pixels.tobytes() + b"\7" * 100
    dataset.save_as(tmp_path / "a.dcm")
    told = []
    np.testing.assert_array_equal(read(tmp_path / "a.dcm", told.append), pixels)
    assert told == ["holds more data than its header declares: the rest is ignored"]


def test_frames_without_a_declared_number_have_their_own_rescale(tmp_path):
    pixels = np.full((3, 1, 2), 500, np.uint16)
    groups = [group(1, 1), group(1, 2), group(1, 3)]
    dataset = make(pixels, PerFrameFunctionalGroupsSequence=groups)
    del dataset.NumberOfFrames
    dataset.save_as(tmp_path / "a.dcm")
    assert read(tmp_path / "a.dcm", lambda _: None)[:, 0, 0].tolist() == [501, 502, 503]


def write_with_number(path, raw_number, dataset):
    """NumberOfFrames of eight letters, whatever they are."""
    dataset.NumberOfFrames = "12345678"
    dataset.save_as(path)
    content = path.read_bytes()
    assert content.count(b"12345678") == 1
    path.write_bytes(content.replace(b"12345678", raw_number))
    return path


@pytest.mark.parametrize("raw_number", [b"0       ", b"        ", b"-3      ", b"Doe^Jane", b"2\\2     "])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_an_invalid_number_of_frames_is_replaced_by_those_present(tmp_path, raw_number, is_compressed):
    cine = pydicom.dcmread(wheel("examples_ybr_color.dcm"))
    dataset = cine if is_compressed else make(noise(np.uint8, 0, 255))
    path = write_with_number(tmp_path / "a.dcm", raw_number, dataset)
    told = []
    assert len(read(path, told.append)) == (30 if is_compressed else 3)
    assert told == [f"its number of frames is invalid: {30 if is_compressed else 3} are read"]
    assert opened(open_dicom, path, refuse).header().num_frames is None


@pytest.mark.parametrize("stated", some_of([1, 29, 30, 31, 9999]))
@pytest.mark.parametrize(("num_fragments", "has_table"), [(1, True), (1, False), (3, True), (3, False)])
def test_compressed_frames_are_counted_by_their_ends(tmp_path, stated, num_fragments, has_table):
    dataset = pydicom.dcmread(wheel("examples_ybr_color.dcm"))
    frames = list(generate_frames(dataset.PixelData, number_of_frames=30))
    dataset.PixelData = encapsulate(frames, fragments_per_frame=num_fragments, has_bot=has_table)
    dataset.NumberOfFrames = stated
    dataset.save_as(tmp_path / "a.dcm")
    told = []
    np.testing.assert_array_equal(
        read(tmp_path / "a.dcm", told.append), read(wheel("examples_ybr_color.dcm"))
    )
    assert len(told) == (stated != 30)
    assert all("30" in text and str(stated) in text for text in told)


@pytest.mark.parametrize("num_lost_bytes", [0, 8, 200, 2000])
def test_a_truncated_compressed_file_yields_its_complete_frames(tmp_path, num_lost_bytes):
    cine = wheel("examples_ybr_color.dcm")
    content = cine.read_bytes()
    end = content.rindex(b"\xfe\xff\xdd\xe0")  # of the frames: then come elements
    (tmp_path / "a.dcm").write_bytes(content[: end - num_lost_bytes])
    told = []
    whole, frames = read(cine), read(tmp_path / "a.dcm", told.append)
    np.testing.assert_array_equal(frames, whole[: len(frames)])
    if num_lost_bytes == 0:
        assert len(frames) == 30
        assert not told
    else:
        assert len(frames) == 29
        assert told == ["only 29 of the 30 frames that its header declares: truncated?"]


def test_a_frame_with_missing_fragments_is_not_read(tmp_path):
    dataset = pydicom.dcmread(wheel("examples_ybr_color.dcm"))
    frames = list(generate_frames(dataset.PixelData, number_of_frames=30))
    dataset.PixelData = encapsulate(frames, fragments_per_frame=3)
    dataset.save_as(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    third_last = content.rindex(b"\xfe\xff\x00\xe0", 0, content.rindex(b"\xfe\xff\x00\xe0"))
    (tmp_path / "a.dcm").write_bytes(content[:third_last])
    told = []
    assert len(read(tmp_path / "a.dcm", told.append)) == 29
    assert told == ["only 29 of the 30 frames that its header declares: truncated?"]


def test_a_compressed_file_truncated_within_its_first_frame_fails(tmp_path):
    content = wheel("examples_ybr_color.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[: content.index(b"\xff\xd8\xff") + 500])
    assert failure(tmp_path / "a.dcm").kind == "truncated"


def test_each_warning_is_given_once(tmp_path):
    told = []
    video = open_video(write(tmp_path / "a.dcm", noise(np.uint8, 0, 9), NumberOfFrames=4), WHOLE, told.append)
    assert len(list(video.frames())) == len(list(video.frames())) == 3
    assert len(told) == 1


# Time and shape


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"FrameTime": "40"}, [0, 0.04, 0.08]),
        ({"FrameTimeVector": [0, 40, 50]}, [0, 0.04, 0.09]),
        ({"FrameTimeVector": [33, 40, 50]}, [0, 0.04, 0.09]),
        ({"CineRate": "20"}, [0, 0.05, 0.1]),
        ({"RecommendedDisplayFrameRate": 20}, [0, 0.05, 0.1]),
        ({"FrameTime": "0", "CineRate": "20"}, [0, 0.05, 0.1]),
        ({"FrameTimeVector": [0, 40], "CineRate": "20"}, [0, 0.05, 0.1]),
        ({"FrameTimeVector": [0, 40, -40]}, [None, None, None]),
        ({"CineRate": "0"}, [None, None, None]),
        ({"FrameTime": ""}, [None, None, None]),
        ({}, [None, None, None]),
    ],
)
def test_times_come_from_the_first_usable_element(tmp_path, elements, expected):
    path = write(tmp_path / "a.dcm", np.zeros((3, 2, 2), np.uint8), **elements)
    assert times(path) == pytest.approx(expected)


def test_an_unreadable_number_affects_only_its_own_element(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((2, 2, 2), np.uint8), FrameTime="123456", CineRate="20")
    content = path.read_bytes()
    assert content.count(b"DS\x06\x00123456") == 1
    path.write_bytes(content.replace(b"DS\x06\x00123456", b"FL\x06\x00123456"))  # which takes four or eight
    assert times(path) == [0, 0.05]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared test files")
def test_a_frame_time_vector_that_changes_is_followed():
    steps = np.diff(times(SHARED / "multiframe" / "us_cine_121f_derived.dcm"))
    assert set(steps.round(6)) == {0.04, 0.05}


def measures(height, width):
    spacing, holder = Dataset(), Dataset()
    spacing.PixelSpacing = [height, width]
    holder.PixelMeasuresSequence = [spacing]
    return holder


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PixelAspectRatio": [3, 4]}, 4 / 3),  # 4 wide, 3 high
        ({"PixelSpacing": [0.5, 1]}, 2),
        ({"PixelAspectRatio": [3, 4], "PixelSpacing": [0.5, 1]}, 4 / 3),
        ({"SharedFunctionalGroupsSequence": [measures(2, 1)], "PixelSpacing": [1, 1]}, 0.5),
        ({"PerFrameFunctionalGroupsSequence": [measures(1, 3)]}, 3),
        ({"PixelSpacing": [0, 1]}, 1),
        ({"PixelSpacing": [1, 1e6]}, 1),
        ({}, 1),
    ],
)
def test_non_square_pixels_are_reported(tmp_path, elements, expected):
    path = write(tmp_path / "a.dcm", np.zeros((1, 2, 2), np.uint8), **elements)
    assert next(opened(open_dicom, path, refuse).frames()).sample_aspect_ratio == pytest.approx(expected)


# Files that are no video


def is_found(path):
    """Whether the file counts as a video."""
    return videos_in_folder(path.parent, [path])[1] == []


@pytest.mark.parametrize("name", ["rtplan.dcm", "waveform_ecg.dcm", "reportsi.dcm"])
def test_dicom_without_pixels_is_refused_as_such(name):
    assert failure(wheel(name)).kind == "no-pixels"
    assert not is_found(wheel(name))


def test_a_header_truncated_before_its_pixels_is_refused_as_such(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((1, 4, 4), np.uint8))
    path.write_bytes(path.read_bytes()[:-28])  # 16 bytes of pixels and the element's 12
    assert failure(path).kind == "no-pixels"
    assert is_found(path)  # once: a picture that was cut off is not passed over in silence


def test_images_and_unreadable_files_may_hold_pixels(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 99)
    assert is_found(tmp_path / "a.dcm")
    assert is_found(wheel("CT_small.dcm"))


def test_an_image_truncated_before_its_size_is_not_ignored(tmp_path):
    content = wheel("CT_small.dcm").read_bytes()
    size = content.index(b"\x28\x00\x10\x00")  # the element of its rows
    (tmp_path / "a.dcm").write_bytes(content[:size])
    assert is_found(tmp_path / "a.dcm")
    assert failure(tmp_path / "a.dcm").kind == "no-pixels"


def test_floating_point_pixels_are_named(tmp_path):
    dataset = make(np.zeros((1, 4, 4), np.uint8))
    del dataset["PixelData"]
    dataset.FloatPixelData = bytes(64)
    dataset.save_as(tmp_path / "a.dcm")
    assert failure(tmp_path / "a.dcm").kind == "unsupported"
    assert "floating point" in str(failure(tmp_path / "a.dcm"))


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 128 + b"DICN" + b"\0" * 99])
def test_other_content_is_not_dicom(tmp_path, content):
    (tmp_path / "a.dcm").write_bytes(content)
    assert failure(tmp_path / "a.dcm").kind == "not-dicom"


def test_garbage_after_the_magic_word_is_one_line(tmp_path):
    noise = np.random.default_rng(0).bytes(1000)
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + noise)
    assert failure(tmp_path / "a.dcm").kind in ("unreadable", "no-pixels", "no-syntax")


def first_error(path):
    """What is wrong with a file, empty where it is a video of finite pixels."""
    try:
        video = opened(open_dicom, path, lambda _: None)
        video.auto_range()
        assert all(np.isfinite(frame.pixels).all() for frame in islice(video.frames(), 3))
    except DecodeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ["examples_ybr_color", "MR_small_RLE", "MR_small_implicit", "image_dfl"])
def test_damage_anywhere_is_an_error_of_one_line_or_a_video(tmp_path, name):
    content = wheel(f"{name}.dcm").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = bytearray(content)
        for place in rng.integers(132, min(3000, len(content)), 5):
            damaged[place] = rng.integers(256)
        (tmp_path / "a.dcm").write_bytes(damaged)
        assert "\n" not in first_error(tmp_path / "a.dcm")


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        opened(open_dicom, tmp_path / "absent.dcm", refuse)


# Nothing of a patient


def test_patient_data_is_not_even_parsed(tmp_path, monkeypatch):
    dataset = make(np.zeros((1, 4, 4), np.uint8))
    dataset.save_as(tmp_path / "a.dcm")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm")
    parsed = []

    def recording(*args, **kwargs):
        parsed.append(pydicom.filereader.read_dataset(*args, **kwargs))
        return parsed[-1]

    monkeypatch.setattr(dicom_elements, "read_dataset", recording)
    for name in ("a.dcm", "b.dcm"):
        assert "PatientName" in pydicom.dcmread(tmp_path / name)
        read(tmp_path / name)
    assert sum("Rows" in elements for elements in parsed) == 2
    for elements in parsed:
        assert not {"PatientName", "MediaStorageSOPInstanceUID"} & set(elements.dir())


def texts(path):
    """All that is ever said of a file."""
    said = []
    try:
        video = opened(open_dicom, path, said.append)
        said.append(str(video.header()))
        said.append(str(video.auto_range()))
        said += [str(frame) for frame in video.frames()]
    except DecodeError as error:
        said.append(str(error))
    return "\n".join(said)


PLACES = [keyword for keyword in dicom.KEYWORDS if not keyword.endswith("Sequence")]


@pytest.mark.parametrize("keyword", [*PLACES, "TransferSyntaxUID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "PALETTE COLOR"])
def test_a_name_in_the_wrong_element_is_never_shown(tmp_path, keyword, photometric):
    dataset = make(noise(np.uint16, 0, 9), **palette(4, 5, np.uint8))
    dataset.PhotometricInterpretation = photometric
    if keyword == "TransferSyntaxUID":
        dataset.save_as(tmp_path / "a.dcm")
        uid, planted = ExplicitVRLittleEndian.encode(), NAME.encode() + b"@home.example"
        path = tmp_path / "a.dcm"
        path.write_bytes(path.read_bytes().replace(uid, planted[: len(uid)]))
    else:
        dataset.add_new(tag_for_keyword(keyword), "LO", NAME)
        dataset.save_as(tmp_path / "a.dcm")
    assert NAME.encode() in (tmp_path / "a.dcm").read_bytes()
    assert "Doe" not in texts(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    "keyword",
    ["NumberOfFrames", "FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate",
     "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelSpacing", "PixelAspectRatio"],
)  # fmt: skip
def test_a_name_in_place_of_a_number_is_never_shown(tmp_path, keyword):
    dataset = make(noise(np.uint16, 0, 9), WindowCenter=5, WindowWidth=5, RescaleSlope=2, RescaleIntercept=1)
    setattr(dataset, keyword, 12345678)
    dataset.save_as(tmp_path / "a.dcm")
    content = (tmp_path / "a.dcm").read_bytes()
    assert b"12345678" in content
    (tmp_path / "a.dcm").write_bytes(content.replace(b"12345678", NAME.encode()))
    assert "Doe" not in texts(tmp_path / "a.dcm")


def test_messages_of_pydicom_about_unparsable_bytes_are_not_shown():
    with pytest.raises(DecodeError, match="ValueError") as caught, dicom_elements.parsing():
        int(NAME)
    assert "Doe" not in "".join(traceback.format_exception(caught.value))


# Manners


def test_no_warning_escapes_and_the_callers_filters_stay(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((2, 4, 4), np.uint8), CineRate="1234")
    path.write_bytes(path.read_bytes().replace(b"1234", b"12A4"))
    with pytest.warns(UserWarning, match="VR IS"):
        _ = pydicom.dcmread(path).CineRate
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        for _ in opened(open_dicom, path, refuse).frames():
            assert list(warnings.filters) == filters
    assert not caught


def test_frames_can_be_read_repeatedly_and_are_read_lazily(tmp_path):
    pixels = noise(np.uint16, 0, 999)
    video = opened(open_dicom, write(tmp_path / "a.dcm", pixels), refuse)
    for _ in range(2):
        np.testing.assert_array_equal([frame.pixels for frame in islice(video.frames(), 2)], pixels[:2])
    assert video.header() == VideoHeader(num_frames=3, seconds=None)


@pytest.mark.parametrize(
    "name",
    ["MR_small", "MR_small_bigendian", "CT_small", "examples_palette", "examples_ybr_color", "JPEG2000",
     "SC_rgb_rle_16bit", "SC_rgb_rle_32bit", "rtdose", "liver_1frame"],
)  # fmt: skip
def test_header_gives_the_dtype_of_the_pixels(name):
    path = wheel(f"{name}.dcm")
    with path.open("rb") as file:
        header = to_header(path, read_elements(file, KEYWORDS))
    assert read(path).dtype == header.pixel_type


@pytest.mark.parametrize("elements", [{}, {"RescaleSlope": 2, "RescaleIntercept": 0}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_memory_does_not_grow_with_the_video(tmp_path, dtype, elements):
    path = write(tmp_path / "a.dcm", np.zeros((400, 128, 128), dtype), **elements)  # 6.5 MB or twice that
    video = opened(open_dicom, path, refuse)
    next(video.frames())
    assert peak_bytes(lambda: sum(1 for _ in video.frames())) < 1_000_000
