"""What a header tells, and the first frames without the rest: neither costs more for a longer video."""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from vidlat.errors import DecodeError
from vidlat.types import WHOLE, VideoHeader
from vidlat.video import container, dicom
from vidlat.video.reader import open_video, probe_video


def write(path, codec, pix_fmt="gray", num_frames=13, fps=10):
    """Noise by PyAV alone."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=fps)
        stream.pix_fmt, stream.height, stream.width = pix_fmt, 16, 32
        for index in range(num_frames):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 32), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="gray").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


CINE = Path(get_testdata_file("examples_ybr_color.dcm", download=False))
"""In pydicom's own package: 30 frames with one frame time."""


def write_dicom(path, **elements):
    """Ten frames of 16 bits of gray."""
    file = pydicom.dcmread(CINE)
    for keyword in ("FrameIncrementPointer", "PixelData", "PlanarConfiguration"):
        del file[keyword]
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.NumberOfFrames, file.Rows, file.Columns, file.SamplesPerPixel = 10, 4, 6, 1
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PhotometricInterpretation = (
        16,
        16,
        15,
        "MONOCHROME2",
    )
    file.add_new("PixelData", "OW", np.arange(240, dtype="<u2").tobytes())
    for keyword, value in elements.items():
        setattr(file, keyword, value)
    file.save_as(path)
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.mp4", "libx264", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p"), ("a.mkv", "ffv1", "gray"),
     ("a.gif", "gif", "gray")],
)  # fmt: skip
def test_header_of_a_container_gives_frames_and_seconds_without_decoding(
    tmp_path, monkeypatch, name, codec, pix_fmt
):
    path = write(tmp_path / name, codec, pix_fmt)
    monkeypatch.setattr(container, "_Decoding", None)
    header = probe_video(path, WHOLE)
    assert header.num_frames == 13  # Matroska and GIF count none: by their duration
    assert header.seconds == pytest.approx(1.3, abs=0.02)


def test_header_of_dicom_gives_frames_and_seconds_without_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "stored_frames", None)
    stated = pydicom.dcmread(CINE, stop_before_pixels=True)
    header = probe_video(CINE, WHOLE)
    assert header.num_frames == stated.NumberOfFrames == 30
    assert header.seconds == pytest.approx(30 * stated.FrameTime / 1000)
    path = write_dicom(tmp_path / "a.dcm", FrameTime=None, CineRate=None, RecommendedDisplayFrameRate=None)
    assert probe_video(path, WHOLE) == VideoHeader(num_frames=10, seconds=None)


def test_one_frame_time_holds_for_every_frame(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", FrameTime="40")
    assert probe_video(path, WHOLE).seconds == pytest.approx(0.4)


@pytest.mark.parametrize("content", [b"", b"no video", b"\0" * 128 + b"DICM" + b"\1" * 40])
def test_file_without_a_header_cannot_be_opened(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    for name in ("a.mp4", "missing.mp4"):
        with pytest.raises(DecodeError):
            probe_video(tmp_path / name, WHOLE)


def test_no_more_frames_of_a_container_are_decoded_than_asked_for(tmp_path, monkeypatch):
    path = write(tmp_path / "a.avi", "mjpeg", "yuvj420p")
    made = []
    real = container.FrameConverter.pixels
    monkeypatch.setattr(container.FrameConverter, "pixels", lambda *a: made.append(1) or real(*a))
    frames = open_video(path, WHOLE, print).frames()
    assert len(list(islice(frames, 4))) == len(made) == 4


def test_no_more_frames_of_dicom_are_decoded_than_asked_for(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm")
    decoded = []
    real = dicom.stored_frames

    def counted(*arguments):
        for pixels in real(*arguments):
            decoded.append(1)
            yield pixels

    monkeypatch.setattr(dicom, "stored_frames", counted)
    video = open_video(path, WHOLE, decoded.append)
    assert len(list(islice(video.frames(), 3))) == len(decoded) == 3
