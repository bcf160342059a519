"""MPEG-2, H.264 and HEVC inside DICOM: the pixels encoded without loss, or those that PyAV decodes."""

import io
from fractions import Fraction

import av
import numpy as np
import pydicom
import pytest
from av.video.reformatter import ColorRange
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HEVCMP51,
    MPEG2MPML,
    MPEG4HP41,
    MPEG4HP41F,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from tests.video.test_container import giant_mov
from tests.video.test_deinterlace import scene, woven, write as write_interlaced
from vidlat.config import Reading
from vidlat.errors import DecodeError
from vidlat.pipeline.folder import videos_in_folder
from vidlat.types import WHOLE, Selection, VideoHeader
from vidlat.video import container
from vidlat.video.reader import kind_of, open_video, probe_video

LOSSLESS = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "lossless=1:log-level=none"}}
SYNTAXES = {"libx264": MPEG4HP41, "libx265": HEVCMP51, "mpeg2video": MPEG2MPML}
NAME = "Doe^Jane"


def clip(num_frames=6, height=48, width=64):
    """Moving blocks of full range."""
    rows, columns = np.mgrid[:height, :width] // 8
    return np.stack([(rows * 37 + (columns + t) * 53 + 7 * t) % 256 for t in range(num_frames)]).astype(
        np.uint8
    )


def encoded(frames, codec="libx264", container="mp4", pix_fmt="yuvj420p", fps=20):
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps, options=LOSSLESS.get(codec, {}))
        stream.pix_fmt, stream.height, stream.width = pix_fmt, *frames.shape[1:]
        stream.codec_context.thread_count = 1
        if pix_fmt == "gray":
            stream.codec_context.color_range = ColorRange.JPEG
        for index, gray in enumerate(frames):
            frame = av.VideoFrame(frames.shape[2], frames.shape[1], pix_fmt)
            for number, plane in enumerate(frame.planes):
                values = np.full((plane.height, plane.line_size), 128, np.uint8)
                if number == 0:
                    values[:, : gray.shape[1]] = gray
                plane.update(values)
            frame.pts, frame.time_base = index, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def write(path, data, syntax=MPEG4HP41, num_fragments=1, **elements):
    """A DICOM file around a stream; None leaves an element out."""
    dataset = pydicom.FileDataset(None, {}, preamble=bytes(128))
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.PatientName, dataset.SeriesInstanceUID, dataset.Modality = NAME, "1.2.4", "ES"
    standard = {"NumberOfFrames": 6, "Rows": 48, "Columns": 64, "SamplesPerPixel": 3, "FrameTime": 40}
    standard |= {"PhotometricInterpretation": "YBR_PARTIAL_420", "PlanarConfiguration": 0}
    standard |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    for keyword, value in (standard | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = encapsulate([data], fragments_per_frame=num_fragments)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def read(path, told=None):
    def warn(text):
        assert told is not None, text
        told.append(text)

    return [*open_video(path, WHOLE, warn).frames()]


def pixels(frames):
    return np.stack([frame.pixels for frame in frames])


def failure(path):
    with pytest.raises(DecodeError) as caught:
        read(path, [])
    assert "\n" not in str(caught.value)
    assert "Doe" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("num_fragments", [1, 5])
@pytest.mark.parametrize(
    ("codec", "container"),
    [("libx264", "mp4"), ("libx264", "mpegts"), ("libx264", "h264"), ("libx265", "mp4"), ("libx265", "hevc")],
)
def test_lossless_streams_give_back_every_pixel(tmp_path, codec, container, num_fragments):
    data = encoded(clip(), codec, container)
    path = write(tmp_path / "IM_0001", data, SYNTAXES[codec], num_fragments)
    frames = read(path)
    np.testing.assert_array_equal(pixels(frames), clip())
    assert [frame.pts_seconds for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2])
    assert open_video(path, WHOLE, print).auto_range() == (0, 255)


@pytest.mark.parametrize("container", ["mpeg2video", "mpeg", "mpegts"])
def test_mpeg2_is_what_pyav_decodes(tmp_path, container):
    data = encoded(clip(), "mpeg2video", container, "yuv420p", fps=25)
    with av.open(io.BytesIO(data)) as file:
        expected = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
    assert len(expected) == 6
    np.testing.assert_array_equal(pixels(read(write(tmp_path / "a.dcm", data, MPEG2MPML))), expected)


@pytest.mark.parametrize("photometric", ["YBR_PARTIAL_420", "YBR_FULL_422", "YBR_FULL", "RGB", None])
def test_the_transfer_syntax_decides_not_the_photometric_interpretation(tmp_path, photometric):
    path = write(tmp_path / "a.dcm", encoded(clip()), PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(pixels(read(path)), clip())


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_gray_streams_are_read(tmp_path, photometric):
    data = encoded(clip(), pix_fmt="gray")
    path = write(tmp_path / "a.dcm", data, SamplesPerPixel=1, PhotometricInterpretation=photometric)
    np.testing.assert_array_equal(pixels(read(path)), clip())
    assert open_video(path, WHOLE, print).is_inverted is (photometric == "MONOCHROME1")


@pytest.mark.parametrize("syntax", [MPEG4HP41, MPEG4HP41F])
def test_fragmentable_syntaxes_are_known(tmp_path, syntax):
    path = write(tmp_path / "a.dcm", encoded(clip()), syntax, 3)
    np.testing.assert_array_equal(pixels(read(path)), clip())


@pytest.mark.parametrize("how", ["auto", "off"])
def test_interlaced_streams_are_deinterlaced(tmp_path, how):
    fields = scene(12)
    data = write_interlaced(tmp_path / "a.mp4", woven(fields)).read_bytes()
    path, told = write(tmp_path / "a.dcm", data, Rows=96, Columns=128), []
    got = pixels(open_video(path, WHOLE, told.append, Reading(deinterlace=how)).frames())
    errors = [
        np.abs(got[:, lines].astype(int) - fields[::2, lines]).mean()
        for lines in (slice(0, None, 2), slice(1, None, 2))
    ]
    assert len(got) == 6
    assert (errors[1] > 10 * errors[0]) == (how == "off")
    assert [text.partition(":")[0] for text in told] == ["interlaced"]


# What the header says


@pytest.mark.parametrize(
    ("elements", "step"),
    [({}, 0.04), ({"FrameTime": None, "CineRate": 10}, 0.1), ({"FrameTime": None}, 0.05)],
)
def test_times_are_the_headers_else_the_streams(tmp_path, elements, step):
    path = write(tmp_path / "a.dcm", encoded(clip(), fps=20), **elements)
    assert [frame.pts_seconds for frame in read(path)] == pytest.approx([step * t for t in range(6)])


def test_the_header_is_read_without_the_stream(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", b"no stream at all")
    monkeypatch.setattr(container, "av", None)
    assert probe_video(path, WHOLE) == VideoHeader(num_frames=6, seconds=pytest.approx(0.24))


@pytest.mark.parametrize(
    ("elements", "warning"),
    [
        ({"NumberOfFrames": 5}, "its video stream has 6 frames, its header declares 5"),
        ({"NumberOfFrames": 60}, "its video stream has 6 frames, its header declares 60"),
        ({"Rows": 40}, "its video stream has frames of 64x48 pixels, unlike its header"),
        ({"Rows": None}, "its video stream has frames of 64x48 pixels, unlike its header"),
    ],
)
def test_the_stream_wins_over_the_header(tmp_path, elements, warning):
    told = []
    path = write(tmp_path / "a.dcm", encoded(clip()), **elements)
    np.testing.assert_array_equal(pixels(read(path, told)), clip())
    assert told == [warning]


@pytest.mark.parametrize("num_frames", [None, 1])
def test_a_stream_without_a_number_of_frames_is_a_video_of_its_own(tmp_path, num_frames):
    paths = [write(tmp_path / name, encoded(clip()), NumberOfFrames=num_frames) for name in ("a", "b", "c")]
    found, others = videos_in_folder(tmp_path, paths)
    assert ([one.name for one in found], others) == (["a", "b", "c"], [])
    assert len(read(paths[0], [])) == 6


# Damage and malice


def test_a_truncated_stream_yields_the_frames_before_the_cut(tmp_path):
    path = write(tmp_path / "a.dcm", encoded(clip(20), container="mpegts"), NumberOfFrames=20)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    told = []
    found = pixels(read(path, told))
    assert 3 < len(found) < 20
    np.testing.assert_array_equal(found[:3], clip(20)[:3])
    assert f"its video stream has {len(found)} frames, its header declares 20" in told


def test_a_stream_truncated_before_its_index_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", encoded(clip()))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cannot be decoded as video" in str(failure(path))


@pytest.mark.parametrize(
    "data",
    [
        bytes(2),
        bytes(1000),
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
    ],
)
def test_other_content_is_refused_in_one_line(tmp_path, data):
    assert str(failure(write(tmp_path / "a.dcm", data)))


def test_a_damaged_offset_table_is_one_line(tmp_path):
    path = write(tmp_path / "a.dcm", encoded(clip()))
    content = path.read_bytes()
    table = content.index(b"\xfe\xff\x00\xe0")
    path.write_bytes(content[:table] + b"Doe^Jane" + content[table + 8 :])
    assert failure(path).kind == "unreadable"


def test_a_header_cut_off_before_its_pixels_is_refused_as_such(tmp_path):
    path = write(tmp_path / "a.dcm", encoded(clip()))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\xe0\x7f\x10\x00")])
    assert failure(path).kind == "no-pixels"


def test_a_stream_of_giant_frames_is_never_decoded(tmp_path):
    giant_mov(tmp_path / "a.mov", 12_000, 12_000)
    path = write(tmp_path / "a.dcm", (tmp_path / "a.mov").read_bytes())
    assert failure(path).kind == "too-large"


def test_a_part_of_it_is_none(tmp_path):
    path = write(tmp_path / "a.dcm", encoded(clip()))
    with pytest.raises(DecodeError, match="a single video"):
        open_video(path, Selection(part="z0"), print)


def test_frames_can_be_read_repeatedly_and_after_the_range(tmp_path):
    video = open_video(write(tmp_path / "a.dcm", encoded(clip())), WHOLE, pytest.fail)
    assert video.auto_range() == (0, 255)
    for _ in range(2):
        np.testing.assert_array_equal(pixels(video.frames()), clip())


def test_a_label_of_another_syntax_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", encoded(clip()))
    content = path.read_bytes()
    label = MPEG4HP41.encode()
    path.write_bytes(content.replace(label, ExplicitVRLittleEndian.encode().ljust(len(label), b"\0")))
    with path.open("rb") as file:
        assert kind_of(file) == "dicom"
    assert failure(path).kind in ("no-syntax", "unsupported")
