"""Mutated real files against every reader, in a process of its own; Linux only.

    python tests/video/fuzz_readers.py [--minutes 10] [--seed 0] [--keep FOLDER]

prints what came of the files of each format. A file may give frames, or be refused with a DecodeError. It
must not kill the process, keep it for long, take much memory, or raise anything else: such a file is kept.
"""

import argparse
import faulthandler
import io
import json
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread, examples
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG4HP41

from benchmarks.phantom import make_phantom
from vidlat.config import Preprocessing
from vidlat.errors import DecodeError
from vidlat.pipeline.folder import videos_in_folder
from vidlat.video.preprocessing import prepare_video
from vidlat.video.reader import open_video

MOST_SECONDS = 60
"""A file that takes longer hangs; reading stops after MOST_FRAMES, which takes a second or two."""

MOST_FRAMES = 200
MOST_BYTES = 8 << 30
EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1]


def _container(codec: str, pixels: str, suffix: str) -> bytes:
    import av

    phantom = make_phantom("heart", 0, 12, 48, 64, 25)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            for gray in phantom:
                frame = av.VideoFrame.from_ndarray(gray, format="gray").reformat(format=pixels)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


def _saved(save, *arguments, **options) -> bytes:
    file = io.BytesIO()
    save(file, *arguments, **options)
    return file.getvalue()


def _enhanced() -> bytes:
    """Two slices at three times, by functional groups."""
    dataset = dcmread(examples.get_path("mr"))
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 6, 16, 16
    dataset.PixelData = dataset.PixelData[: 6 * 16 * 16 * 2]
    groups = []
    for index in range(6):
        group, plane, content, trigger = Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [0, 0, index % 2]
        content.StackID, content.DimensionIndexValues = "1", [index % 2 + 1, index // 2 + 1]
        trigger.NominalCardiacTriggerDelayTime = 40.0 * (index // 2)
        group.PlanePositionSequence, group.FrameContentSequence = [plane], [content]
        group.CardiacSynchronizationSequence = [trigger]
        groups.append(group)
    orientation, shared = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [orientation]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], groups
    return _saved(dataset.save_as)


def _dicom_of(stream: bytes) -> bytes:
    """H.264 inside a DICOM file."""
    dataset = dcmread(examples.get_path("ybr_color"))
    dataset.file_meta.TransferSyntaxUID = MPEG4HP41
    dataset.PixelData, dataset.NumberOfFrames = encapsulate([stream], fragments_per_frame=3), 12
    return _saved(dataset.save_as)


def _bare(path: Path) -> bytes:
    """A data set without preamble and meta group."""
    dataset = Dataset(dcmread(path))
    return _saved(dataset.save_as, implicit_vr=True, little_endian=True, enforce_file_format=False)


def _tiff() -> bytes:
    first, *rest = (Image.fromarray(frame) for frame in make_phantom("heart", 0, 4, 32, 32, 25))
    return _saved(first.save, "TIFF", save_all=True, append_images=rest, compression="tiff_lzw")


SEEDS = {
    "h264.mp4": lambda: _container("h264", "yuv420p", ".mp4"),
    "mpeg4.avi": lambda: _container("mpeg4", "yuv420p", ".avi"),
    "mjpeg.mov": lambda: _container("mjpeg", "yuvj420p", ".mov"),
    "ffv1.mkv": lambda: _container("ffv1", "gray", ".mkv"),
    "vp9.webm": lambda: _container("vp9", "yuv420p", ".webm"),
    "mpeg2.mpg": lambda: _container("mpeg2video", "yuv420p", ".mpg"),
    "gif.gif": lambda: _container("gif", "gray", ".gif"),
    "jpeg.dcm": lambda: Path(examples.get_path("ybr_color")).read_bytes(),
    "palette.dcm": lambda: Path(examples.get_path("palette_color")).read_bytes(),
    "ct.dcm": lambda: Path(examples.get_path("ct")).read_bytes(),
    "j2k.dcm": lambda: Path(examples.get_path("jpeg2k")).read_bytes(),
    "rle.dcm": lambda: Path(get_testdata_file("MR_small_RLE.dcm", download=False)).read_bytes(),
    "enhanced.dcm": _enhanced,
    "h264.dcm": lambda: _dicom_of(_container("h264", "yuv420p", ".ts")),
    "bare.dcm": lambda: _bare(Path(examples.get_path("mr"))),
    "deflated.dcm": lambda: Path(get_testdata_file("image_dfl.dcm", download=False)).read_bytes(),
    "anatomical.nii": lambda: (files("nibabel.tests") / "data" / "anatomical.nii").read_bytes(),
    "example4d.nii.gz": lambda: (files("nibabel.tests") / "data" / "example4d.nii.gz").read_bytes(),
    "a.npy": lambda: _saved(np.save, np.linspace(0, 1, 9 * 16 * 16).reshape(9, 16, 16)),
    "a.npz": lambda: _saved(np.savez_compressed, video=make_phantom("heart", 0, 4, 16, 16, 25)),
    "a.tif": _tiff,
}


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four changes, half of them near the start, where headers are."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        reach = min(len(data), 1024) if rng.random() < 0.5 else len(data)
        place = rng.randrange(reach)
        length = min(len(data) - place, rng.choice([1, 4, 64, 1024, len(data) // 3 or 1]))
        match rng.randrange(7):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                del data[place:]
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length]
            case 4:
                data[place:place] = rng.randbytes(length)
            case 5:
                data[place : place + length] = bytes([rng.choice([0, 0xFF])]) * length
            case 6:
                size = rng.choice([1, 2, 4, 8])
                number = rng.choice(EXTREMES) % (1 << 8 * size)
                data[place : place + size] = number.to_bytes(size, rng.choice(["big", "little"]))
    return bytes(data)


def read_all(path: Path) -> str:
    """What comes of a file: frames that hold what they must, or the kind of a refusal."""
    videos, _ = videos_in_folder(path.parent, [path])
    outcomes = [_read(video, number) for number, video in enumerate(videos[:2])]
    return outcomes[0] if outcomes else "ignored"


def _read(video, number: int) -> str:
    how = Preprocessing(size=16, fit="crop", crop="auto" if number else "none", fps=20.0 * number)
    told: list[str] = []
    num_frames = 0
    try:
        prepared = prepare_video(open_video(video.path, video.selection, told.append), how, told.append)
        for frame in prepared.frames():
            assert frame.pixels.shape == (16, 16)
            assert frame.pixels.dtype == np.float32
            assert 0 <= frame.pixels.min() <= frame.pixels.max() <= 1
            num_frames += 1
            if num_frames == MOST_FRAMES:
                break
    except DecodeError as error:
        if not str(error).isprintable():
            raise ValueError("a reason of more than one printable line") from error
        return f"refused: {error.kind}"
    assert num_frames
    return "warned" if told else "read"


def serve() -> None:
    """In the process that reads: a path a line in, a JSON text a line out."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    for line in sys.stdin:
        try:
            answer = read_all(Path(json.loads(line)))
        except BaseException:
            answer = traceback.format_exc()
        print(json.dumps(answer), flush=True)


class Reader:
    """A process that reads files, started again where one ended it."""

    def __init__(self, errors: IO[str]) -> None:
        self._process: subprocess.Popen[str] | None = None
        # A file, for libraries in C tell much of what they cope with: a pipe would be full one day.
        self._errors = errors

    def read(self, path: Path) -> str:
        """What comes of the file: `read`, `warned`, `ignored`, `refused: KIND`; several lines: a finding."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        process = self._process
        with suppress(BrokenPipeError):  # of one that died meanwhile
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], MOST_SECONDS)
        line = process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)
        code = process.wait() if ready else None
        self.close()
        self._errors.seek(0)
        last_words = self._errors.read()[-4000:]
        return f"died\nwith {code}\n{last_words}" if ready else f"hangs\nafter {MOST_SECONDS} s"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(BrokenPipeError):
                self._process.communicate()
            self._process = None


@contextmanager
def reading():
    """A Reader as long as the block lasts."""
    with tempfile.TemporaryFile("w+") as errors:
        reader = Reader(errors)
        try:
            yield reader
        finally:
            reader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    options = parser.parse_args()
    seeds = {name: make() for name, make in SEEDS.items()}
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in seeds}
    rng, number, found = random.Random(options.seed), 0, 0
    stop = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder, reading() as reader:
        while time.monotonic() < stop:
            name = list(seeds)[number % len(seeds)]
            path = Path(folder) / f"fuzzed-{name}"
            path.write_bytes(mutate(seeds[name], rng))
            outcome = reader.read(path)
            outcomes[name][outcome.partition("\n")[0]] += 1
            if "\n" in outcome:
                options.keep.mkdir(parents=True, exist_ok=True)
                path.rename(options.keep / f"{options.seed}-{number}-{name}")
                print(f"{options.seed}-{number}-{name}:\n{outcome}", flush=True)
                found += 1
            number += 1
    for name, counts in outcomes.items():
        told = ", ".join(f"{outcome} {count}" for outcome, count in counts.most_common())
        print(f"{name:<18} {counts.total():>6} files: {told}")
    print(f"{number} files, {found} findings")


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
