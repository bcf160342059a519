"""Hostile files through the whole encode: each is read, refused in one line, or passed over and counted.

Whatever a file is, the good videos beside it come out bit for bit as without it.
"""

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import nibabel
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from tests.pipeline.one_thread import OneThread
from vidlat.cli import commands
from vidlat.config import EncodeConfig, Preprocessing
from vidlat.errors import DecodeError, InputError
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.encode_videos import encode_videos
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.video import dicom_elements, untrusted
from vidlat.video.preprocessing import prepare_video
from vidlat.video.reader import open_video

ALL = 20
"""Frames of the videos here, unless they say otherwise."""

Make = Callable[[Path], object]
"""Puts files into a folder, or makes the file of that path."""


def grays(num_frames=ALL, height=16, width=24):
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width), np.uint8)


# Whole files of every format, none of them by the product's own writers


def video(path, frames, codec="ffv1", pix_fmt="gray", **container):
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.pix_fmt, (stream.height, stream.width) = pix_fmt, frames.shape[1:]
        # On a busy machine x264's threads do not write the same file twice.
        stream.codec_context.thread_count = 1
        for index, gray in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def mp4(path, frames=None, **container):
    return video(path, grays() if frames is None else frames, "libx264", "yuv420p", **container)


def avi(path, frames=None):
    return video(path, grays() if frames is None else frames, "rawvideo")


def dicom(path, frames=None, pictures=None, **elements):
    """A file of gray frames; pictures: compressed ones, which take their place."""
    frames = grays() if frames is None else frames
    dataset = pydicom.FileDataset(None, {}, preamble=bytes(128), file_meta=pydicom.dataset.FileMetaDataset())
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if pictures else ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.FrameTime = 7, 0, "40"
    raw = encapsulate(pictures) if pictures else frames.tobytes() + bytes(frames.size % 2)
    dataset.add_new("PixelData", "OB", raw)
    dataset["PixelData"].is_undefined_length = bool(pictures)
    for keyword, value in elements.items():
        setattr(dataset.file_meta if keyword == "TransferSyntaxUID" else dataset, keyword, value)
    dataset.save_as(path)


def jpeg_dicom(path, **elements):
    dicom(path, pictures=[picture(gray, "JPEG") for gray in grays()], **elements)


def nifti(path, voxels=None):
    nibabel.save(nibabel.Nifti1Image(grays().T if voxels is None else voxels, np.eye(4)), path)


def picture(gray, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(gray).save(file, kind)
    return file.getvalue()


def tiff(path):
    first, *others = map(Image.fromarray, grays())
    first.save(path, "TIFF", save_all=True, append_images=others)


def sequence(folder, change=lambda content: content):
    """Numbered pictures, the bytes of the fourth changed."""
    for index, gray in enumerate(grays()):
        content = picture(gray)
        (folder / f"f{index:02d}.png").write_bytes(change(content) if index == 3 else content)


WHOLE = {
    "mp4": lambda path: mp4(path, options={"movflags": "faststart"}),
    "mkv": lambda path: video(path, grays()),
    "avi": avi,
    "mpg": lambda path: video(path, grays(height=32, width=48), "mpeg2video", "yuv420p"),
    "gif": lambda path: video(path, grays(), "gif"),
    "dcm": dicom,
    "nii": nifti,
    "nii.gz": nifti,
    "npy": lambda path: np.save(path, grays()),
    "npz": lambda path: np.savez_compressed(path, video=grays()),
    "tif": tiff,
}


def sound(path, **container):
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def two_streams(path):
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream in streams:
            stream.pix_fmt, stream.height, stream.width = "gray", 16, 24
        for gray in grays():
            for stream in streams:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(gray, format="gray")))
        for stream in streams:
            file.mux(stream.encode())


def two_sizes(path):
    parts = []
    for side in (16, 32):
        mp4(path, grays(8, side, side), format="mpegts")
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))


# What is done to them


def at(name, make, *arguments, **options):
    """The case of a file that `make` makes."""
    return lambda folder: make(folder / name, *arguments, **options)


def holds(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def array(values, **options):
    return lambda folder: np.save(folder / "a.npy", values, **options)


def cut(name, make=None, share=0.6):
    """A file of which the end is lost."""

    def cut_off(folder):
        path = folder / f"a.{name}"
        (make or WHOLE[name])(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return cut_off


def flipped(name):
    """A file of which a bit in a hundred bytes is another from its middle on."""

    def flip(folder):
        path = folder / f"a.{name}"
        WHOLE[name](path)
        content = bytearray(path.read_bytes())
        for place in range(len(content) // 2, len(content), 97):
            content[place] ^= 0x10
        path.write_bytes(content)

    return flip


def patched(name, make, *patches):
    """A file with other bytes in some places, each told by a mark and the distance from its start."""

    def patch(folder):
        make(folder / name)
        content = bytearray((folder / name).read_bytes())
        for mark, distance, new in patches:
            place = content.index(mark) + distance
            content[place : place + len(new)] = new
        (folder / name).write_bytes(content)

    return patch


def little(value):
    return struct.pack("<I", value)


def big(value):
    return struct.pack(">I", value)


def counting_avi(count):
    return patched("a.avi", avi, (b"avih", 24, little(count)), (b"strh", 40, little(count)))


def counting_mp4(count):
    return patched("a.mp4", mp4, (b"stsz", 12, big(count)))


def counting_nifti(count):
    return patched("a.nii", nifti, (little(348), 46, struct.pack("<h", count)))


def lasting_mp4(milliseconds):
    places = [(b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)]
    return patched("a.mp4", mp4, *((*place, big(milliseconds)) for place in places))


def npy_text(text):
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def npy_header(*shape):
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape})
    return npy_text(text.encode().ljust(117) + b"\n")


def npz_outside(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../outside.npy", npy_header(*grays().shape) + grays().tobytes())


def nested_dicom(path, depth=5000):
    dicom(path)
    content = path.read_bytes()
    start = content.index(b"\x18\0\x63\x10")  # the first element of the data set
    begin = b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(content[:start] + depth * begin + depth * end + content[start:])


# Bombs


def giant_gif(side):
    screen = struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    image = b"," + struct.pack("<4HB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\0"
    return (b"GIF89a" + screen + b"!\xf9\x04\0\x04\0\0\0" + image + b";").ljust(1000, b"\0")


def giant_pictures(kind, **options):
    def make(folder):
        content = io.BytesIO()
        Image.new("1", (9000, 9000)).save(content, kind, **options)
        for index in range(3):
            (folder / f"f{index}.{kind}").write_bytes(content.getvalue())

    return make


def giant_pages(path):
    page = Image.new("1", (9000, 9000))
    page.save(path, save_all=True, append_images=[page], compression="group4")


def write_zeros(file, num_bytes):
    for left in range(num_bytes, 0, -(1 << 20)):
        file.write(bytes(min(left, 1 << 20)))


def nifti_bomb(path, num_bytes, *shape):
    """Gzipped zeros under a header that states a shape."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_qform(np.eye(4))
    header["magic"], header["vox_offset"] = b"n+1", 352
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        write_zeros(file, num_bytes)


def npz_bomb(path, num_bytes, *shape):
    """Deflated zeros under a header that states a shape, as the archive does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("video.npy", "w") as member:
            member.write(npy_header(*shape))
            write_zeros(member, num_bytes)
        archive.getinfo("video.npy").file_size = len(npy_header(*shape)) + int(np.prod(shape))


def deflated_bomb(path, num_bytes):
    """A small DICOM picture behind an element of zeros."""
    dicom(path, grays(1))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    num_meta_bytes = 144 + int.from_bytes(content[140:144], "little")  # not deflated, and known by the first
    deflator = zlib.compressobj(wbits=-15)
    zeros = b"\x09\x00\x10\x00OB\0\0" + little(num_bytes) + bytes(num_bytes)
    rest = zlib.decompress(content[num_meta_bytes:], -15)
    path.write_bytes(
        content[:num_meta_bytes] + deflator.compress(zeros) + deflator.compress(rest) + deflator.flush()
    )


def with_text_bomb(png):
    """A PNG with a comment that inflates to 100 MB."""
    chunk = b"zTXtComment\0\0" + zlib.compress(bytes(100_000_000), 1)
    return png[:33] + big(len(chunk) - 4) + chunk + big(zlib.crc32(chunk)) + png[33:]


RUN_LENGTHS = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x07" * 100_000  # of 128 bytes each


# Files that are none of the above


def archive(path):
    member = zipfile.ZipInfo("readme.txt")  # of 1980: FFmpeg takes some times for the beginning of a VVC
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(member, "no array")


def loops(folder):
    (folder / "a").symlink_to(folder, target_is_directory=True)
    (folder / "b.mp4").symlink_to("b.mp4")


def pipe(folder):
    os.mkfifo(folder / "a.mp4")


def folder_called_mp4(folder):
    (folder / "a.mp4").mkdir()
    mp4(folder / "a.mp4" / "a.mp4")


def one_stem(folder):
    for suffix in ("npy", "dcm", "mkv"):
        WHOLE[suffix](folder / f"a.{suffix}")


def equal_names(folder):
    for name in ("one", "two"):
        (folder / name).mkdir()
        avi(folder / name / "a.avi")


# The table


@dataclass(frozen=True, slots=True)
class Case:
    """Files in a folder of their own.

    expected: of every video in it: `ok`, the kind of the failure, or `noticed`: a failure of any kind or a
    warning; or `ignored`, if none is there. words: in the reason of the failure, in a warning of the record,
    which has none where they are empty, or in what is said of a folder without a video. num_frames: of each
    record.
    """

    make: Make
    expected: str = "ok"
    words: str = ""
    num_frames: int | None = None
    num_videos: int = 1


CUT_OFF, BREAKS_OFF = "truncated?", "truncated"
NO_FORMAT, GIANT = "cannot be decoded as video: Invalid data", "at most 64,000,000 pixels are decoded"
SINGLE, PAGE = "single image", "web page"
AXES, NUMBERS = "expected (T,H,W), (H,W)", "expected integers, floats or bool"
NONE_SUCH = "its number of frames is invalid"
IGNORED = "(1 other file: "

CASES = {
    # Cut off
    "cut mp4": Case(cut("mp4"), words=CUT_OFF),
    "cut mp4 without its index": Case(cut("mp4", mp4), "unreadable", NO_FORMAT),
    "cut mkv": Case(cut("mkv"), words=CUT_OFF),
    "cut avi": Case(cut("avi"), words=CUT_OFF),
    "cut mpg": Case(cut("mpg"), words="damaged frames"),
    "cut gif": Case(cut("gif"), words=CUT_OFF),
    "cut dcm": Case(cut("dcm"), words=CUT_OFF, num_frames=11),
    "cut encapsulated dcm": Case(cut("dcm", jpeg_dicom), words=CUT_OFF, num_frames=11),
    "cut header of dcm": Case(cut("dcm", share=0.03), "no-pixels", "without pixel data"),
    "cut nii": Case(cut("nii"), "truncated", BREAKS_OFF),
    "cut nii.gz": Case(cut("nii.gz"), "truncated", BREAKS_OFF),
    "cut npy": Case(cut("npy"), "truncated", BREAKS_OFF),
    "cut npz": Case(cut("npz"), "unreadable", "File is not a zip file"),
    "cut tif": Case(cut("tif"), "noticed"),
    "tif without its directory": Case(patched("a.tif", tiff, (b"II*\0", 4, little(10**6))), "noticed"),
    "cut picture of a sequence": Case(at("", sequence, lambda png: png[:150]), "unreadable", "'f03.png'"),
    # Bits flipped. Numbers that are stored as they are tell of nothing.
    **{f"flipped {name}": Case(flipped(name), "noticed") for name in ("mp4", "mkv", "avi", "mpg", "gif")},
    **{f"flipped {name}": Case(flipped(name), num_frames=ALL) for name in ("dcm", "nii")},
    "flipped npy": Case(flipped("npy"), num_frames=ALL),
    "flipped nii.gz": Case(flipped("nii.gz"), "noticed"),
    "flipped npz": Case(flipped("npz"), "unreadable", "Bad CRC-32"),
    "flipped picture of a sequence": Case(
        at("", sequence, lambda png: png[:60] + b"\x55" + png[61:]), "unreadable", "'f03.png'"
    ),
    # Empty
    **{f"empty {name}": Case(holds(f"a.{name}", b""), "empty", "empty file") for name in [*WHOLE][:-1]},
    "empty picture of a sequence": Case(at("", sequence, lambda _: b""), "not-image", "'f03.png'"),
    "web page in a sequence": Case(at("", sequence, lambda _: b"<html>"), "not-image", "'f03.png'"),
    # Something else than the name promises
    "mp4 called avi": Case(at("a.avi", mp4, format="mp4"), num_frames=ALL),
    "dcm called mp4": Case(at("a.mp4", dicom), num_frames=ALL),
    "nii.gz called npy": Case(
        lambda folder: (nifti(folder / "a.nii.gz"), (folder / "a.nii.gz").rename(folder / "a.npy"))
    ),
    "png called mp4": Case(holds("a.mp4", picture(grays()[0])), "no-video", SINGLE),
    "tif called npy": Case(holds("a.npy", picture(grays()[0], "TIFF")), "no-video", SINGLE),
    "zip called npz": Case(at("a.npz", archive), "unreadable"),
    "text called nii.gz": Case(holds("a.nii.gz", b"these are no voxels\n" * 50), "unreadable", NO_FORMAT),
    "text called mp4": Case(holds("a.mp4", b"this is no video\n" * 50), "unreadable", NO_FORMAT),
    "zeros called mp4": Case(holds("a.mp4", bytes(5000)), "unreadable", NO_FORMAT),
    "pdf called mp4": Case(holds("a.mp4", b"%PDF-1.7\n" + bytes(500)), "unreadable", NO_FORMAT),
    "playlist called mp4": Case(
        holds("a.mp4", b"#EXTM3U\n#EXTINF:1.0,\n/etc/hosts\n"), "unreadable", NO_FORMAT
    ),
    "pickle called npy": Case(holds("a.npy", pickle.dumps(grays())), "unreadable", NO_FORMAT),
    "web page": Case(holds("a.mp4", b"\n<!DOCTYPE html><html><body>404</body></html>"), "no-media", PAGE),
    "web page called dcm": Case(holds("a.dcm", b"<html><body>log in</body></html>"), "no-media", PAGE),
    "xml error": Case(
        holds("a.mp4", b'<?xml version="1.0"?><Error>AccessDenied</Error>'), "no-media", "XML text"
    ),
    "pointer of git lfs": Case(
        holds("a.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        "no-media",
        "run `git lfs pull`",
    ),
    # Headers that lie
    "avi of 0 frames": Case(counting_avi(0), num_frames=ALL),
    "avi of 5 frames": Case(counting_avi(5), num_frames=ALL),
    "avi of 9999 frames": Case(counting_avi(9999), words=CUT_OFF, num_frames=ALL),
    "mp4 of 0 frames": Case(counting_mp4(0), "no-frames", "no decodable frame"),
    "mp4 of 5 frames": Case(counting_mp4(5), words=CUT_OFF, num_frames=5),
    "mp4 of 9999 frames": Case(counting_mp4(9999), "no-frames", "no decodable frame"),
    "mp4 of 9999 seconds": Case(lasting_mp4(9_999_000), num_frames=ALL),
    "dcm of 0 frames": Case(at("a.dcm", dicom, NumberOfFrames=0), words=NONE_SUCH, num_frames=ALL),
    "dcm of 5 frames": Case(at("a.dcm", dicom, NumberOfFrames=5), words="all are read", num_frames=ALL),
    "dcm of 9999 frames": Case(at("a.dcm", dicom, NumberOfFrames=9999), words=CUT_OFF, num_frames=ALL),
    "jpeg dcm of 0 frames": Case(at("a.dcm", jpeg_dicom, NumberOfFrames=0), words=NONE_SUCH, num_frames=ALL),
    "jpeg dcm of 5 frames": Case(
        at("a.dcm", jpeg_dicom, NumberOfFrames=5), words="all are read", num_frames=ALL
    ),
    "jpeg dcm of 9999 frames": Case(
        at("a.dcm", jpeg_dicom, NumberOfFrames=9999), words=CUT_OFF, num_frames=ALL
    ),
    "dcm of more rows": Case(at("a.dcm", dicom, Rows=17), words=CUT_OFF, num_frames=18),
    "jpeg dcm of more rows": Case(at("a.dcm", jpeg_dicom, Rows=17), "wrong-size", "expected 24x17"),
    "nii of 0 slices": Case(counting_nifti(0), "wrong-axes", "24x16x0"),
    "nii of -5 slices": Case(counting_nifti(-5), "wrong-axes", "24x16x-5"),
    "nii of 9999 slices": Case(counting_nifti(9999), "truncated", BREAKS_OFF),
    "nii that starts at NaN": Case(
        patched("a.nii", nifti, (little(348), 108, b"\0\0\xc0\x7f")), "unreadable"
    ),
    "npy of signs": Case(holds("a.npy", npy_text(b"-" * 9000 + b"1")), "unreadable", "NPY header"),
    "npz that leads outside": Case(at("a.npz", npz_outside), num_frames=ALL),
    "dcm of sequences in sequences": Case(at("a.dcm", nested_dicom), "unreadable", "cannot be parsed"),
    # Bombs
    "gif of 60000x60000": Case(holds("a.gif", giant_gif(60_000)), "too-large", GIANT),
    "pngs of 9000x9000": Case(giant_pictures("png"), "too-large", GIANT),
    "tiffs of 9000x9000": Case(giant_pictures("tiff", compression="group4"), "too-large", GIANT),
    "pages of 9000x9000": Case(at("a.tif", giant_pages), "too-large", GIANT),
    "dcm of 60000x60000": Case(at("a.dcm", dicom, Rows=60_000, Columns=60_000), "too-large", GIANT),
    "nii.gz that states 19 GB": Case(
        at("a.nii.gz", nifti_bomb, 99, 8000, 8000, 300), "too-large", "inflates to 19,200,000,352 bytes"
    ),
    "npz that states 19 GB": Case(
        at("a.npz", npz_bomb, 99, 300, 8000, 8000), "too-large", "inflates to 19,200,000,128 bytes"
    ),
    "npy that states a terabyte": Case(
        holds("a.npy", npy_header(10**6, 1000, 1000)), "truncated", "of 1000000000128 bytes"
    ),
    "nii.gz of 100 MB": Case(
        at("a.nii.gz", nifti_bomb, 10**8, 5000, 5000, 4), words="blank: every pixel", num_frames=4
    ),
    "nii.gz with 100 MB too many": Case(
        at("a.nii.gz", nifti_bomb, 10**8, 9, 9, 5), words="the rest is ignored", num_frames=5
    ),
    "run lengths": Case(
        at("a.dcm", dicom, grays(1, 10, 10), [RUN_LENGTHS], TransferSyntaxUID=RLELossless), "wrong-size"
    ),
    "text of 100 MB": Case(at("", sequence, with_text_bomb), "unreadable", "'f03.png'"),
    # Lengths and sizes
    "one frame": Case(at("a.mp4", mp4, grays(1)), num_frames=1),
    "one frame of an array": Case(array(grays()[0]), num_frames=1),
    "long": Case(at("a.mkv", video, grays(2000, 8, 8)), num_frames=2000),
    **{
        f"{height}x{width} {name}": Case(at(f"a.{name}", make, grays(5, height, width)), num_frames=5)
        for height, width in [(1, 1), (2, 2), (1, 17), (17, 1), (3, 5000)]
        for name, make in [("avi", avi), ("dcm", dicom)]
    },
    **{f"{shape} npy": Case(array(grays(5, *shape)), num_frames=5) for shape in [(2, 2), (1, 17), (3, 5000)]},
    **{f"{shape} npy": Case(array(grays(5, *shape)), "wrong-axes", AXES) for shape in [(1, 1), (17, 1)]},
    # Streams
    "size that changes": Case(at("a.ts", two_sizes), words="changes from 16x16 to 32x32", num_frames=16),
    "two streams": Case(at("a.mkv", two_streams), words="holds 2 video streams", num_frames=ALL),
    "sound alone": Case(at("a.mp4", sound), "no-video", "holds no video stream"),
    "sound called avi": Case(
        at("a.avi", sound, format="adts"), "unsupported", "not a supported video format"
    ),
    # Arrays
    "1-D": Case(array(grays()[0, 0]), "wrong-axes", AXES),
    "5-D": Case(array(grays()[None, None]), "wrong-axes", AXES),
    "2x2x2x2": Case(array(np.zeros((2, 2, 2, 2))), "wrong-axes", AXES),
    "no frame": Case(array(grays()[:0]), "no-frames", "holds no frame"),
    "5-D nii": Case(at("a.nii", nifti, np.zeros((4, 4, 1, 2, 3), np.uint8)), "wrong-axes", "4x4x1x2x3"),
    "NaN": Case(array(np.where(grays() == 0, np.nan, grays())), words="values are NaN", num_frames=ALL),
    "nothing but NaN": Case(array(np.full((5, 8, 8), np.nan)), "not-finite", "all values are NaN"),
    "infinity": Case(array(np.where(grays() == 0, np.inf, grays())), "not-finite", "are infinite"),
    "beyond float32": Case(array(grays() * 1e300), "not-finite", "too large for 32 bits"),
    "objects": Case(array(np.array([grays(), None], object)), "unsupported", "never loaded"),
    "complex": Case(array(grays() * 1j), "unsupported", NUMBERS),
    "strings": Case(array(grays().astype(str)), "unsupported", NUMBERS),
    "records": Case(array(np.zeros((5, 8, 8), "u1,u1")), "unsupported", NUMBERS),
    # What a folder may hold
    "loops": Case(loops, "ignored", IGNORED),
    "pipe": Case(pipe, "ignored", IGNORED),
    "folder called mp4": Case(folder_called_mp4, num_frames=ALL),
    "locked": Case(at("locked.mp4", mp4), "unreadable", "Permission denied"),
    "one stem": Case(one_stem, num_frames=ALL, num_videos=3),
    "equal names": Case(equal_names, num_frames=ALL, num_videos=2),
    "odd name": Case(holds(os.fsdecode(b"\xff\n\x1b[31m'%03d.mp4"), b""), "empty"),
    # Hidden ones are not even counted.
    ".DS_Store": Case(holds(".DS_Store", b"\0\0\0\1Bud1"), "ignored", "(0 other files)"),
    "Thumbs.db": Case(holds("Thumbs.db", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600)), "ignored", IGNORED),
    "text": Case(holds("notes.txt", b"no video"), "ignored", IGNORED),
    "table": Case(holds("labels.csv", b"path,EF\n../good/a.mp4,0.5\n"), "ignored", IGNORED),
    "pdf": Case(holds("report.pdf", b"%PDF-1.7\n"), "ignored", IGNORED),
    "zip": Case(at("all.zip", archive), "ignored", IGNORED),
    "picture": Case(holds("thumb.png", picture(grays()[0])), "ignored", IGNORED),
    "report": Case(
        lambda folder: (folder / "a.dcm").write_bytes(
            Path(get_testdata_file("reportsi.dcm", download=False)).read_bytes()
        ),
        "ignored",
        IGNORED,
    ),
}


def fill(folder, names=CASES):
    """The files of these cases, and good videos of every kind beside them."""
    for name in names:
        (folder / name).mkdir(parents=True)
        CASES[name].make(folder / name)
    (folder / "good" / "frames").mkdir(parents=True)
    for suffix, make in WHOLE.items():
        make(folder / "good" / f"a.{suffix}")
    sequence(folder / "good" / "frames")
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("hostile") / "v")


SLOW = ("long/", "nii.gz of 100 MB/")


@pytest.fixture(scope="module")
def quick(hostile, tmp_path_factory):
    """The same files, but those that take a second."""
    folder = tmp_path_factory.mktemp("quick")
    for path in hostile.iterdir():
        if f"{path.name}/" not in SLOW:
            (folder / path.name).symlink_to(path, target_is_directory=True)
    return folder


@pytest.fixture(scope="module")
def encode(small_vae, tmp_path_factory):
    """encode(folder): the cache, with all that is temporary in a folder that is empty in the end."""
    opened = Path.open

    def open_path(path, *args, **options):
        if path.name == "locked.mp4":  # root may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    def encode(folder):
        config = EncodeConfig(vae=str(small_vae), size=16, batch=3, workers=2, device="cpu")
        scratch, out = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("cache") / "l.zarr"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(scratch))
            patch.setattr(Path, "open", open_path)
            list(encode_videos([folder], out, config, executor=OneThread()))
        assert list(scratch.iterdir()) == []
        return open_cache(out)

    return encode


@pytest.fixture(scope="module")
def cache(hostile, encode):
    return encode(hostile)


def content(cache, prefix):
    """Every bit of the latents, and the facts, of the videos whose id starts so."""
    found = {}
    for video_id, record in cache.records().items():
        if video_id.startswith(prefix):
            posterior = cache.read_latents(video_id)
            facts = (record.num_frames, record.fps, record.pts_seconds, record.warnings, record.value_range)
            found[video_id] = posterior.mean.tobytes(), posterior.std.tobytes(), facts
    return found


def of_case(name, by_id):
    return [value for video_id, value in by_id.items() if video_id == name or video_id.startswith(f"{name}/")]


@pytest.mark.parametrize("name", CASES)
def test_hostile_file_is_read_refused_or_ignored(name, cache, hostile):
    case = CASES[name]
    records, failures = of_case(name, cache.records()), of_case(name, cache.failures())
    told = [warning for record in records for warning in record.warnings]
    said = " ".join([*told, *(failure.reason for failure in failures)])
    for failure in failures:
        assert failure.reason.isprintable()
        assert failure.traceback == ""  # it was refused, nothing broke over it
    assert len(told) == len(set(told))
    if case.expected == "ignored":
        assert records + failures == []
        with pytest.raises(InputError) as error:
            discover_videos([str(hostile / name)])
        assert case.words in str(error.value)
    elif case.expected == "noticed":
        assert len(records + failures) == case.num_videos
        assert said
    elif case.expected == "ok":
        assert failures == []
        assert {record.num_frames for record in records} - {case.num_frames} == set() or not case.num_frames
        assert len(records) == case.num_videos
        assert case.words in said
        assert bool(said) == bool(case.words), said
    else:
        assert [failure.kind for failure in failures] == [case.expected], records
        assert case.words in said


def test_good_videos_beside_them_are_as_without_them(cache, encode, tmp_path):
    alone = content(encode(fill(tmp_path / "v", [])), "good/")
    assert len(alone) == len(WHOLE) + 1
    assert content(cache, "good/") == alone


def test_cache_of_hostile_files_is_sound(cache):
    assert list(verify_cache(cache.path)) == []


def test_reading_them_otherwise_ends_in_frames_or_a_reason_too(quick):
    """Cropped, resampled, with bars: the frames are read twice or more, and what is odd is told once."""
    how = Preprocessing(size=16, fit="letterbox", crop="auto", fps=7.0, intensity="percentile")
    told_twice = []
    for source in discover_videos([str(quick)]).videos:
        told = []
        with suppress(DecodeError):
            video = open_video(source.path, source.selection, told.append)
            for frame in prepare_video(video, how, told.append).frames():
                assert frame.pixels.shape == (16, 16)
                assert 0 <= frame.pixels.min() <= frame.pixels.max() <= 1
        if len(told) > len(set(told)):
            told_twice.append(source.video_id)
    assert told_twice == []


def test_bombs_are_refused_by_the_budgets(encode, tmp_path, monkeypatch):
    for module in (untrusted, dicom_elements):
        monkeypatch.setattr(module, "MAX_INFLATED_BYTES", 5_000_000)
    folder = fill(tmp_path / "v", [])
    nifti_bomb(folder / "a.nii.gz", 10_000_000, 1000, 1000, 10)
    npz_bomb(folder / "a.npz", 10_000_000, 10, 1000, 1000)
    deflated_bomb(folder / "a.dcm", 10_000_000)
    assert all(path.stat().st_size < 100_000 for path in folder.glob("a.*"))
    cache = encode(folder)
    assert {video_id: failure.kind for video_id, failure in cache.failures().items()} == {
        "a.nii.gz": "too-large",
        "a.npz": "too-large",
        "a.dcm": "too-large",
    }
    assert len(cache.records()) == len(WHOLE) + 1


def vidlat(*arguments):
    answer = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    return answer.exit_code, answer.stdout


@pytest.fixture
def encode_command(quick, small_vae, tmp_path):
    """The arguments of `vidlat` that encode the quick files into l.zarr."""
    flags = ("--vae", small_vae, "--size", 16, "--batch", 3, "--device", "cpu")
    return [str(argument) for argument in ("encode", "--input", quick, "--out", tmp_path / "l.zarr", *flags)]


@pytest.mark.slow
def test_command_ends_with_3_and_a_line_a_failure(cache, encode_command, scheduler, tmp_path, capfd):
    """Whatever libraries of C write to the terminal is captured too."""
    answer = CliRunner().invoke(commands, [*encode_command, "--scheduler", scheduler])
    assert (answer.exit_code, answer.stderr, capfd.readouterr().err) == (3, "", "")
    assert_tells_failures(answer.stdout, tmp_path / "l.zarr", cache)


@pytest.mark.slow
def test_command_with_processes_of_its_own_does_so_too(cache, encode_command, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    encode = subprocess.run(
        [sys.executable, "-c", "from vidlat.cli import main; main()", *encode_command, "--workers", "1"],
        env=os.environ | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
    )
    assert (encode.returncode, encode.stderr) == (3, "")
    assert_tells_failures(encode.stdout, tmp_path / "l.zarr", cache)
    assert [path for path in scratch.rglob("*") if path.is_file() and path.suffix != ".lock"] == []  # Dask's


def assert_tells_failures(printed, out, cache):
    """The command has printed the failures, and made of the quick files what the cache of all has."""
    assert "Traceback (" not in printed
    found = open_cache(out)
    slow = {video_id for video_id in cache.records() if video_id.startswith(SLOW)}
    assert outcomes(found) == {name: what for name, what in outcomes(cache).items() if name not in slow}
    num_failures = len(found.failures())
    assert f"{num_failures} videos failed" in printed
    code, listed = vidlat("ls", out, "--failed", "--traceback")
    assert code == 0
    assert len(listed.splitlines()) == 1 + num_failures


def outcomes(cache):
    """What became of every file; root may read what is locked here."""
    read = {name: (record.num_frames, record.warnings) for name, record in cache.records().items()}
    refused = {name: (failure.kind, failure.reason) for name, failure in cache.failures().items()}
    return {name: outcome for name, outcome in (read | refused).items() if name != "locked/locked.mp4"}


# Odd names

NAMES = [
    *("new\nline", "quo'te\"", "-dash", "--out", "%03d", "100%", "back\\slash", " spaces ", "tab\t", "*?[a]"),
    *(
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "e\N{COMBINING ACUTE ACCENT}",
        "\U0001fac0",
        ":heart:",
        "$(x)`y`",
    ),
    *(
        "\N{RIGHT-TO-LEFT OVERRIDE}4pm",
        "\N{HEBREW LETTER ALEF}",
        "\x1b[31mred\x07",
        "[bold]",
        "a;b&c|d",
    ),
    *("http:x", "concat:a|b", "file:x", "~", "con", "\N{ZERO WIDTH SPACE}", "literal\\udcff", "x" * 251),
    *map(os.fsdecode, [b"\xff", b"\xc3", b"50%\xfe"]),
]
"""Of good videos, without their suffix."""


def id_of(name):
    """Bytes that are no text as %XX, and % as %25 beside them."""
    content = os.fsencode(name)
    try:
        return content.decode()
    except UnicodeDecodeError:
        escaped = content.replace(b"%", b"%25").decode("utf-8", "surrogateescape")
        return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in escaped)


@pytest.fixture(scope="module")
def odd_names(encode, tmp_path_factory):
    folder = tmp_path_factory.mktemp("names") / "v"
    folder.mkdir()
    for name in NAMES:
        dicom(folder / "a", grays(2))
        (folder / "a").rename(folder / f"{name}.dcm")
    return encode(folder)


def test_names_are_kept_as_they_are(odd_names):
    assert odd_names.failures() == {}
    assert sorted(odd_names.records()) == sorted(id_of(f"{name}.dcm") for name in NAMES)


def test_ls_of_odd_names_tells_each_and_finds_its_file(odd_names):
    code, out = vidlat("ls", odd_names.path, "--json")
    assert code == 0
    states = {row["video_id"]: row["state"] for row in json.loads(out)}
    assert states == {id_of(f"{name}.dcm"): "ok" for name in NAMES}
    code, out = vidlat("ls", odd_names.path)
    assert code == 0
    assert len(out.splitlines()) == 1 + len(NAMES)
    assert out.replace("\n", "").isprintable()


def test_odd_names_are_decoded_to_files_of_that_name_and_nowhere_else(odd_names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = vidlat("decode", "--latents", odd_names.path, "--out", tmp_path / "out")
    assert code == 0  # also the name that is as long as names can be: .mp4 takes the place of .dcm
    assert f"{len(NAMES)} videos -> " in out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = [id_of(f"{name}.dcm").removesuffix(".dcm") + ".mp4" for name in NAMES]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == sorted(names)


@pytest.mark.slow
def test_preview_shows_odd_names(odd_names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = vidlat("preview", odd_names.path, "--out", tmp_path / "p.png", "--videos", len(NAMES))
    assert code == 0
    assert "without their source" not in out
    assert f"{len(NAMES)} videos -> " in out
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]
