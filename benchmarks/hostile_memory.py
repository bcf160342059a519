"""Peak memory of `vidlat encode` on files that are small on disk and large in memory.

    python benchmarks/hostile_memory.py [--json FILE]

Each file is encoded beside a small good video by a process of its own; see peak_memory.py. Linux only.
"""

import argparse
import gzip
import io
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from peak_memory import VIDLAT, measure
from phantom import make_phantom
from PIL import Image
from pydicom import examples
from pydicom.uid import DeflatedExplicitVRLittleEndian

from vidlat.store.reader import open_cache
from vidlat.video.writer import write_video


def gif(side: int) -> Callable[[Path], None]:
    """A GIF of one frame whose header states this side; the picture in it is a single pixel."""

    def make(folder: Path) -> None:
        file = io.BytesIO()
        Image.new("P", (1, 1)).save(file, "GIF")
        content = bytearray(file.getvalue())
        content[6:10] = side.to_bytes(2, "little") * 2
        (folder / "bomb.gif").write_bytes(content)

    return make


def pictures(side: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for number in range(2):
            Image.new("L", (side, side)).save(folder / f"bomb_{number}.png")

    return make


def nifti(*shape: int) -> Callable[[Path], None]:
    """Zeros, gzipped; beyond half a gigabyte the header alone is enough."""

    def make(folder: Path) -> None:
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape(shape)
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        with gzip.open(folder / "bomb.nii.gz", "wb") as file:
            file.write(header.binaryblock + bytes(4))
            for _ in range(min(math.prod(shape) >> 20, 500)):
                file.write(bytes(1 << 20))

    return make


def npz(num_frames: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        np.savez_compressed(folder / "bomb.npz", video=np.zeros((num_frames, 512, 512), np.uint8))

    return make


def deflated(num_bytes: int) -> Callable[[Path], None]:
    """A deflated DICOM whose data set goes on with zeros."""

    def make(folder: Path) -> None:
        dataset = pydicom.dcmread(examples.get_path("ct"))
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        file = io.BytesIO()
        dataset.save_as(file)
        content = file.getvalue()
        meta = content[: 144 + int.from_bytes(content[140:144], "little")]
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        with (folder / "bomb.dcm").open("wb") as out:
            out.write(meta)
            for _ in range(num_bytes >> 20):
                out.write(packer.compress(bytes(1 << 20)))
            out.write(packer.flush())

    return make


def dicom(side: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        dataset = pydicom.dcmread(examples.get_path("ct"))
        dataset.Rows = dataset.Columns = side
        dataset.PixelData = bytes(2 * side * side)
        dataset.save_as(folder / "bomb.dcm")

    return make


CASES = {
    "nothing but the good video": lambda _: None,
    "GIF that states 60000 x 60000": gif(60_000),
    "GIF of 8000 x 8000": gif(8_000),
    "PNG files of 9000 x 9000": pictures(9_000),
    "PNG files of 8000 x 8000": pictures(8_000),
    "NIfTI of zeros, states 26 GB": nifti(8_000, 8_000, 400),
    "NIfTI of zeros, 524 MB": nifti(512, 512, 2_000),
    "NPZ of zeros, 524 MB": npz(2_000),
    "deflated DICOM of zeros, 1.2 GB": deflated(1_200 << 20),
    "DICOM of 8000 x 8000, 16 bits": dicom(8_000),
}


def encode(make: Callable[[Path], None]) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary, "videos"), Path(temporary, "latents.zarr")
        folder.mkdir()
        make(folder)
        num_bytes = sum(path.stat().st_size for path in folder.iterdir())
        write_video(folder / "good.mp4", make_phantom("heart", 0, 20, 64, 64, 25), 25)
        flags = (
            f"--input {folder} --out {cache} --vae tiny --size 64 --batch 4 --workers 1 --device cpu".split()
        )
        figures = measure([sys.executable, "-c", VIDLAT, "encode", *flags])
        opened = open_cache(cache)
        assert "good.mp4" in opened.records()
        outcome = [
            f"encoded, {record.num_frames} frames"
            for name, record in opened.records().items()
            if name != "good.mp4"
        ]
        outcome += [failure.reason for failure in opened.failures().values()]
        return {"num_bytes": num_bytes, "outcome": "; ".join(outcome), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = {}
    print(f"{'what':<34}{'kB on disk':>11}{'exit':>6}{'s':>5}{'worker peak MB':>16}  outcome")
    for name, make in CASES.items():
        report[name] = figures = encode(make)
        numbers = figures["num_bytes"] / 1e3, figures["exit_code"], figures["seconds"]
        cells = "{:>11.1f}{:>6}{:>5.0f}".format(*numbers) + f"{figures['worker']['peak'] / 1e6:>16.0f}"
        print(f"{name:<34}{cells}  {figures['outcome']}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
