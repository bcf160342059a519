"""DICOM to gray frames: pydicom's own arrays, files made here, one image in two syntaxes."""

import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, FileDataset
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_rescale, get_decoder
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGExtended12Bit,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
)

from vidlat.errors import DecodeError
from vidlat.video import dicom
from vidlat.video.dicom import is_dicom, read_dicom

SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom"


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


def read(path):
    return np.stack([frame.pixels for frame in read_dicom(path)])


def times(path):
    return [frame.pts_seconds for frame in read_dicom(path)]


def failure(path):
    with pytest.raises(DecodeError) as caught:
        list(read_dicom(path))
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_file_is_dicom_by_its_content():
    assert is_dicom(wheel("CT_small.dcm").read_bytes()[:132])
    assert not is_dicom(b"\0" * 132)
    assert not is_dicom(b"DICM")


def test_colour_cine_becomes_its_luma():
    path = wheel("examples_ybr_color.dcm")
    luma = pydicom.pixels.pixel_array(path, raw=True)[..., 0]  # the Y of YBR, before any conversion
    gray = read(path)
    assert gray.shape == (30, 240, 320)
    assert gray.dtype == np.uint8
    difference = np.abs(gray.astype(int) - luma)
    assert difference.mean() < 0.5
    assert np.percentile(difference, 99.9) <= 2


def test_rgb_becomes_bt601_luma(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), np.uint8)
    red, green, blue = np.moveaxis(pixels.astype(float), -1, 0)
    expected = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    np.testing.assert_allclose(read(write(tmp_path / "a.dcm", pixels)), expected, atol=1)


def test_palette_becomes_the_luma_of_its_colours():
    path = wheel("examples_palette.dcm")
    dataset = pydicom.dcmread(path)
    indices = dataset.pixel_array
    tables = [
        np.frombuffer(dataset[f"{colour}PaletteColorLookupTableData"].value, "<u2") / 65535
        for colour in ("Red", "Green", "Blue")
    ]
    first = dataset.RedPaletteColorLookupTableDescriptor[1]
    red, green, blue = (table[np.clip(indices.astype(int) - first, 0, len(table) - 1)] for table in tables)
    np.testing.assert_allclose(read(path)[0], 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-5)


@given(st.integers(0, 255), st.integers(0, 255))
def test_monochrome1_is_the_inverse_of_monochrome2(low, high):
    pixels = np.array([[[low, high]]], np.uint8)
    gray, inverted = (
        dicom._to_gray(pixels[0], make(pixels, PhotometricInterpretation=name), 0, None)
        for name in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_array_equal(gray, pixels[0])
    assert (gray + inverted == 255).all()


def by_percentile(values):
    """Values cut to their 0th to 99.5th percentile, by numpy over all pixels at once."""
    low, high = np.percentile(values, [0, 99.5])
    return np.clip((values - low) / (high - low), 0, 1)


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


def noise(dtype, low, high, num_frames=3):
    return np.random.default_rng(0).integers(low, high, (num_frames, 20, 30), dtype)


@pytest.mark.parametrize(
    ("pixels", "elements"),
    [
        (noise(np.uint16, 0, 500), {"BitsStored": 12}),
        (noise(np.int16, -2000, 300), {}),
        (noise(np.uint16, 0, 65536, 120), {}),  # nearly every value that 16 bits hold
        (noise(np.uint16, 7, 900, 1), {"RescaleSlope": 0.25, "RescaleIntercept": -3}),
        (noise(np.uint16, 7, 900), {"RescaleSlope": -2, "RescaleIntercept": 5}),
        (noise(np.uint32, 795_000, 1_254_000), {}),
    ],
)
def test_more_than_8_bits_go_by_their_percentiles_over_all_frames(tmp_path, pixels, elements):
    gray = read(write(tmp_path / "a.dcm", pixels, **elements))
    assert gray.dtype == np.float32
    values = pixels.astype(float) * elements.get("RescaleSlope", 1) + elements.get("RescaleIntercept", 0)
    np.testing.assert_allclose(gray, by_percentile(values), atol=1e-6)


def test_percentiles_are_those_of_values_that_every_frame_rescales_itself(tmp_path):
    pixels = noise(np.uint16, 0, 4096)
    groups = [group(1, 0), group(2.5, -100), group(0.1, 7)]
    path = write(tmp_path / "a.dcm", pixels, PerFrameFunctionalGroupsSequence=groups)
    values = pixels * np.array([1, 2.5, 0.1])[:, None, None] + np.array([0, -100, 7])[:, None, None]
    np.testing.assert_allclose(read(path), by_percentile(values), atol=1e-6)


def test_more_values_than_the_histogram_holds_cost_little_precision(tmp_path):
    pixels = noise(np.uint32, 0, 1 << 32, 150)  # 90,000 values
    path = write(tmp_path / "a.dcm", pixels)
    values, counts = dicom._histogram(path, dicom._read_header(path))
    assert 16_384 < len(values) <= 65_536
    assert counts.sum() == pixels.size
    np.testing.assert_allclose(read(path), by_percentile(pixels.astype(float)), atol=1e-4)


@pytest.mark.parametrize(
    ("center", "width"),
    [(600, 1600), (2048, 4096), (0, 100), (300.5, 2), (["100", "9"], ["50", "9"])],
)
def test_window_goes_by_the_formula_of_the_standard(tmp_path, center, width):
    pixels = noise(np.int16, -100, 1000)
    elements = {"RescaleSlope": 0.5, "RescaleIntercept": 10, "WindowCenter": center, "WindowWidth": width}
    first = [float(np.atleast_1d(value)[0]) for value in (center, width)]
    expected = by_window(pixels * 0.5 + 10, *first)
    np.testing.assert_allclose(read(write(tmp_path / "a.dcm", pixels, **elements)), expected, atol=1e-6)


def test_exact_window_spans_its_whole_width(tmp_path):
    pixels = np.array([[[0, 10, 15, 20, 30]]], np.uint16)
    elements = {"WindowCenter": 15, "WindowWidth": 10, "VOILUTFunction": "LINEAR_EXACT"}
    assert read(write(tmp_path / "a.dcm", pixels, **elements)).ravel().tolist() == [0, 0, 0.5, 1, 1]


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
def test_window_without_sense_gives_way_to_the_percentiles(tmp_path, elements):
    pixels = noise(np.uint16, 0, 500)
    path = write(tmp_path / "a.dcm", pixels, **{"WindowCenter": 100, "WindowWidth": 50} | elements)
    np.testing.assert_allclose(read(path), by_percentile(pixels), atol=1e-6)


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_window_that_is_not_finite_is_none(number):
    dataset = Dataset()
    dataset.WindowCenter, dataset.WindowWidth = 100.0, float(number)
    assert dicom._windows(dataset) == []


def test_window_of_the_first_frame_then_of_all_frames_then_of_the_file_holds_for_all(tmp_path):
    pixels = noise(np.uint16, 0, 1000)
    elements = {"WindowCenter": 100, "WindowWidth": 50}
    shared = {"SharedFunctionalGroupsSequence": [voi(200, 70)]}
    own = {"PerFrameFunctionalGroupsSequence": [voi(300, 90), Dataset(), voi(400, 20)]}
    lost = {"PerFrameFunctionalGroupsSequence": [voi(9000, 90), Dataset(), voi(400, 20)]}
    for given_elements, window in [
        (elements, (100, 50)),
        (elements | shared, (200, 70)),
        (elements | shared | own, (300, 90)),
        (elements | shared | lost, (200, 70)),
    ]:
        path = write(tmp_path / "a.dcm", pixels, **given_elements)
        np.testing.assert_allclose(read(path), by_window(pixels, *window), atol=1e-6)


def test_windows_of_all_frames_are_united(tmp_path):
    pixels = noise(np.uint16, 0, 1000)
    groups = [voi(300.5, 101), voi(500.5, 201), voi(400.5, 11)]  # 250 to 350, 400 to 600, 395 to 405
    path = write(tmp_path / "a.dcm", pixels, PerFrameFunctionalGroupsSequence=groups)
    np.testing.assert_allclose(read(path), np.clip((pixels - 250.0) / 350, 0, 1), atol=1e-6)


@pytest.mark.parametrize("elements", [{}, {"WindowCenter": 100, "WindowWidth": 50}])
def test_gray_is_inverted_after_it_is_mapped(tmp_path, elements):
    pixels = noise(np.uint16, 0, 500)
    gray, inverted = (
        read(write(tmp_path / "a.dcm", pixels, PhotometricInterpretation=name, **elements))
        for name in ("MONOCHROME2", "MONOCHROME1")
    )
    np.testing.assert_allclose(inverted, 1 - gray, atol=1e-6)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_constant_image_is_black(tmp_path, value):
    assert (read(write(tmp_path / "a.dcm", np.full((2, 3, 4), value, np.uint16))) == 0).all()


def test_image_that_is_nearly_all_background_keeps_the_rest(tmp_path):
    pixels = np.zeros((1, 40, 40), np.uint16)
    pixels[0, 0, :2] = 50, 100
    np.testing.assert_allclose(read(write(tmp_path / "a.dcm", pixels)), pixels / 100)


def test_colour_of_16_bits_keeps_the_whole_range(tmp_path):
    pixels = np.full((1, 2, 2, 3), 500, np.uint16)
    path = write(tmp_path / "a.dcm", pixels, WindowCenter=100, WindowWidth=50)
    np.testing.assert_allclose(read(path), 500 / 65535, rtol=1e-5)


def test_8_bits_ignore_windows(tmp_path):
    pixels = np.full((1, 2, 2), 90, np.uint8)
    assert (read(write(tmp_path / "a.dcm", pixels, WindowCenter=100, WindowWidth=50)) == 90).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared test files")
def test_magnetic_resonance_of_twelve_bits_is_not_near_black():
    path = SHARED / "multiframe" / "emri_small.dcm"
    gray = read(path)
    np.testing.assert_allclose(gray, by_percentile(pydicom.dcmread(path).pixel_array), atol=1e-6)
    assert 0.2 < gray.mean() < 0.6  # by all of its 12 bits it was below 0.05


def test_window_of_a_real_file_is_applied():
    values = pydicom.dcmread(wheel("MR_small.dcm")).pixel_array
    np.testing.assert_allclose(read(wheel("MR_small.dcm"))[0], by_window(values, 600, 1600), atol=1e-6)


def test_ct_is_cut_to_a_thousand_hounsfield_units():
    dataset = pydicom.dcmread(wheel("CT_small.dcm"))
    hounsfield = apply_rescale(dataset.pixel_array, dataset)
    expected = (np.clip(hounsfield, -1000, 1000) + 1000) / 2000
    np.testing.assert_allclose(read(wheel("CT_small.dcm"))[0], expected, atol=1e-6)
    assert expected.std() > 0.1


def group(slope, intercept):
    """A functional group that holds a rescale."""
    transformation, holder = Dataset(), Dataset()
    transformation.RescaleSlope, transformation.RescaleIntercept = slope, intercept
    holder.PixelValueTransformationSequence = [transformation]
    return holder


def test_enhanced_ct_takes_the_rescale_of_the_frame_then_of_the_file(tmp_path):
    pixels = np.full((2, 1, 1), 500, np.uint16)
    shared = {"Modality": "CT", "SharedFunctionalGroupsSequence": [group(1, -1000)]}
    path = write(tmp_path / "shared.dcm", pixels, **shared)
    np.testing.assert_allclose(read(path).ravel(), [0.25, 0.25])
    own = {"PerFrameFunctionalGroupsSequence": [group(2, -1000), group(1, 0)]}
    path = write(tmp_path / "own.dcm", pixels, **shared, **own)
    np.testing.assert_allclose(read(path).ravel(), [0.5, 0.75])
    path = write(tmp_path / "none.dcm", pixels, Modality="CT")
    np.testing.assert_allclose(read(path).ravel(), [0.75, 0.75])


@pytest.mark.parametrize(
    "other",
    ["MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless", "MR_small_expb"],
)
def test_one_image_in_two_syntaxes_reads_the_same(other):
    np.testing.assert_array_equal(read(wheel(f"{other}.dcm")), read(wheel("MR_small.dcm")))


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


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared test files")
def test_a_frame_time_vector_that_changes_is_followed():
    steps = np.diff(times(SHARED / "multiframe" / "us_cine_121f_derived.dcm"))
    assert set(steps.round(6)) == {0.04, 0.05}


def test_deflated_file_reads():
    expected = pydicom.dcmread(wheel("image_dfl.dcm")).pixel_array
    np.testing.assert_array_equal(read(wheel("image_dfl.dcm"))[0], expected)


def test_jpeg2000_that_denies_its_sign_reads():
    dataset = pydicom.dcmread(wheel("J2K_pixelrep_mismatch.dcm"))
    expected = (np.clip(apply_rescale(dataset.pixel_array, dataset), -1000, 1000) + 1000) / 2000
    np.testing.assert_allclose(read(wheel("J2K_pixelrep_mismatch.dcm"))[0], expected, atol=1e-6)


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
def test_times_come_from_the_first_element_that_makes_sense(tmp_path, elements, expected):
    path = write(tmp_path / "a.dcm", np.zeros((3, 2, 2), np.uint8), **elements)
    assert times(path) == pytest.approx(expected)


def test_pixels_that_are_not_square_are_reported(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((1, 2, 2), np.uint8), PixelAspectRatio=[3, 4])
    assert next(read_dicom(path)).sample_aspect_ratio == pytest.approx(4 / 3)  # 4 wide, 3 high


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


def test_syntax_that_nothing_reads_is_named(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((1, 4, 4), np.uint8))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 16])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.save_as(path)
    error = failure(path)
    assert error.kind == "unsupported"
    assert MPEG2MPML.name in str(error)


@pytest.mark.parametrize("name", ["rtplan.dcm", "waveform_ecg.dcm", "reportsi.dcm"])
def test_dicom_without_pixels_says_so(name):
    assert failure(wheel(name)).kind == "no-pixels"


def test_header_that_ends_before_its_pixels_says_so(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((1, 4, 4), np.uint8))
    path.write_bytes(path.read_bytes()[:-28])  # 16 bytes of pixels and the element's 12
    assert failure(path).kind == "no-pixels"


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 128 + b"DICN" + b"\0" * 99])
def test_other_content_is_not_dicom(tmp_path, content):
    (tmp_path / "a.dcm").write_bytes(content)
    assert failure(tmp_path / "a.dcm").kind == "not-dicom"


def test_garbage_after_the_magic_word_is_one_line(tmp_path):
    noise = np.random.default_rng(0).bytes(1000)
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + noise)
    assert failure(tmp_path / "a.dcm").kind in ("unreadable", "no-pixels")


def test_missing_file_is_one_line(tmp_path):
    assert failure(tmp_path / "absent.dcm").kind == "unreadable"


def test_raw_file_that_breaks_off_is_refused_before_its_first_frame():
    frames = read_dicom(wheel("MR_truncated.dcm"))
    with pytest.raises(DecodeError, match="breaks off") as caught:
        next(frames)
    assert caught.value.kind == "truncated"


def test_compressed_file_that_breaks_off_yields_its_whole_frames_and_then_fails(tmp_path):
    content = wheel("examples_ybr_color.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:100_000])
    frames = []
    with pytest.raises(DecodeError) as caught:
        frames.extend(read_dicom(tmp_path / "a.dcm"))
    assert caught.value.kind == "truncated"
    whole = read(wheel("examples_ybr_color.dcm"))
    assert 5 < len(frames) < 30
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in frames]), whole[: len(frames)])


@pytest.mark.parametrize("stated", [29, 30, 31])
def test_frames_are_counted_by_decoding(tmp_path, stated):
    dataset = pydicom.dcmread(wheel("examples_ybr_color.dcm"))
    dataset.NumberOfFrames = stated
    dataset.save_as(tmp_path / "a.dcm")
    if stated <= 30:
        assert len(read(tmp_path / "a.dcm")) == 30
    else:
        assert failure(tmp_path / "a.dcm").kind == "truncated"


def test_giant_frames_are_refused_before_they_are_decoded(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((1, 4, 4), np.uint8), Rows=60_000, Columns=60_000)
    assert failure(path).kind == "too-large"


def test_no_warning_escapes_and_the_callers_filters_stay(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((2, 4, 4), np.uint8), CineRate="1234")
    path.write_bytes(path.read_bytes().replace(b"1234", b"12A4"))
    with pytest.warns(UserWarning, match="VR IS"):
        _ = pydicom.dcmread(path).CineRate
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        for _ in read_dicom(path):
            assert list(warnings.filters) == filters
    assert not caught


def test_patient_data_is_not_even_parsed(tmp_path):
    path = write(tmp_path / "a.dcm", np.zeros((1, 4, 4), np.uint8))
    assert "PatientName" in pydicom.dcmread(path)
    assert "PatientName" not in dicom._read_header(path)


def test_deflated_patient_data_is_not_kept(tmp_path, monkeypatch):
    dataset = make(np.zeros((1, 4, 4), np.uint8))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm")
    assert "PatientName" in pydicom.dcmread(tmp_path / "a.dcm")
    parsed = []

    def recording(*args, **kwargs):
        parsed.append(pydicom.dcmread(*args, **kwargs))
        return parsed[-1]

    monkeypatch.setattr(dicom, "dcmread", recording)
    assert len(read(tmp_path / "a.dcm")) == 1
    assert len(parsed) == 2
    assert "PixelData" in parsed[1]
    assert all("PatientName" not in dataset for dataset in parsed)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_memory_does_not_grow_with_the_video(tmp_path, dtype):
    path = write(tmp_path / "a.dcm", np.zeros((400, 128, 128), dtype))  # 6.5 MB or twice that
    next(read_dicom(path))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_dicom(path)) == 400
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
