"""Reading a video as frames against the bare library that does the same decoding, format by format.

    python benchmarks/decoding.py [--rounds 7] [--side 256] [--json decoding.json]

Both give gray arrays of every frame. They take turns, so that a machine that slows down slows both; shown are
the shortest times and their ratio. The files are made here; the DICOM lies in the pydicom wheel.
"""

import argparse
import gzip
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import nibabel
import numpy as np
from phantom import make_phantom
from PIL import Image
from pydicom import examples
from pydicom.pixels import iter_pixels

from vidlat.types import WHOLE, Selection
from vidlat.video.reader import open_video

NUM_FRAMES = 100
CODECS = {
    "h264.mp4": ("h264", "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "ffv1.mkv": ("ffv1", "gray"),
    "vp9.webm": ("vp9", "yuv420p"),
    "gif.gif": ("gif", "gray"),
}
Read = Callable[[], Iterator[np.ndarray]]


def with_av(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "SLICE"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="gray")


def with_pydicom(path: Path) -> Iterator[np.ndarray]:
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    for pixels in iter_pixels(path):
        yield np.rint(pixels @ luma).astype(np.uint8) if pixels.ndim == 3 else pixels


def with_nibabel(path: Path) -> Iterator[np.ndarray]:
    # Whole: slice by slice a gzipped file would be inflated again and again.
    voxels = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    for index in range(voxels.shape[2]):
        yield np.ascontiguousarray(voxels[::-1, ::-1, index].T)  # as a radiologist looks at it


def with_numpy(path: Path) -> Iterator[np.ndarray]:
    for frame in np.load(path, mmap_mode="r"):
        yield np.array(frame)


def with_pillow(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.png")):
        yield np.array(Image.open(path))


def make(folder: Path, side: int) -> dict[str, tuple[Path, Selection, Read]]:
    """Of every format a file, what of it is to be read, and how its library reads it."""
    gray = make_phantom("heart", 0, NUM_FRAMES, side, side, 25)
    made: dict[str, tuple[Path, Selection, Read]] = {}
    for name, (codec, pixels) in CODECS.items():
        path = folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = side, side, pixels
            for frame in gray:
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(frame, "gray").reformat(format=pixels))
                )
            container.mux(stream.encode())
        made[name] = path, WHOLE, lambda path=path: with_av(path)
    cine = Path(shutil.copy(examples.get_path("ybr_color"), folder / "jpeg.dcm"))
    made["JPEG .dcm"] = cine, WHOLE, lambda: with_pydicom(cine)
    volume = folder / "a.nii"
    nibabel.save(nibabel.Nifti1Image(gray.transpose(2, 1, 0).astype(np.int16), np.eye(4)), volume)
    made[".nii"] = volume, WHOLE, lambda: with_nibabel(volume)
    zipped = folder / "a.nii.gz"
    zipped.write_bytes(gzip.compress(volume.read_bytes()))
    made[".nii.gz"] = zipped, WHOLE, lambda: with_nibabel(zipped)
    array = folder / "a.npy"
    np.save(array, gray)
    made[".npy"] = array, WHOLE, lambda: with_numpy(array)
    pictures = folder / "png"
    pictures.mkdir()
    for index, frame in enumerate(gray):
        Image.fromarray(frame).save(pictures / f"{index:04d}.png")
    names = tuple(sorted(path.name for path in pictures.iterdir()))
    made["PNG files"] = pictures, Selection(files=names), lambda: with_pillow(pictures)
    return made


def seconds(read: Read) -> tuple[float, int]:
    began = time.perf_counter()
    num_frames = sum(1 for _ in read())
    return time.perf_counter() - began, num_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'format':<12}{'frames':>8}{'library ms':>12}{'vidlat ms':>12}{'vidlat / library':>18}")
        for name, (path, selection, bare) in make(Path(folder), options.side).items():

            def ours(path: Path = path, selection: Selection = selection) -> Iterator[np.ndarray]:
                for frame in open_video(path, selection, lambda _: None).frames():
                    yield frame.pixels

            rounds = [(seconds(bare), seconds(ours)) for _ in range(options.rounds)]
            library, vidlat = (min(round_[side][0] for round_ in rounds) for side in (0, 1))
            assert rounds[0][0][1] == rounds[0][1][1], name
            results[name] = {"library_seconds": library, "vidlat_seconds": vidlat, "ratio": vidlat / library}
            times = f"{1e3 * library:>12.1f}{1e3 * vidlat:>12.1f}{vidlat / library:>17.2f}x"
            print(f"{name:<12}{rounds[0][1][1]:>8}{times}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
