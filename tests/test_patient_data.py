"""Nothing that names a patient reaches a cache: it is planted everywhere, and looked for in every byte."""

import json
from importlib.resources import files

import av
import nibabel
import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import examples
from pydicom.uid import generate_uid

from tests.pipeline.one_thread import OneThread
from vidlat.config import EncodeConfig
from vidlat.pipeline.encode_videos import prepare_encode

SECRET = "Zyxwvut"
"""Stands in every text that is planted, and nowhere else."""


def plant_dicom(path, **changes):
    """Real ultrasound with a patient in every kind of element."""
    file = pydicom.dcmread(examples.get_path("ybr_color"))
    file.PatientName, file.PatientID = f"{SECRET}^Jane", f"ID-{SECRET}"
    file.PatientComments = file.ImageComments = file.StudyDescription = f"of {SECRET}"
    file.PatientAddress, file.OtherPatientIDs = f"{SECRET} Road 1", f"O-{SECRET}"
    file.InstitutionName, file.OperatorsName, file.AccessionNumber = (
        f"{SECRET} Hospital",
        SECRET,
        f"A{SECRET}",
    )
    file.FrameOfReferenceUID = generate_uid(entropy_srcs=[SECRET])
    block = file.private_block(0x0011, f"{SECRET} private", create=True)
    block.add_new(0x01, "LO", f"private {SECRET}")
    file.file_meta.PrivateInformationCreatorUID = generate_uid()
    file.file_meta.PrivateInformation = SECRET.encode()
    for name, value in changes.items():
        file.add_new(name, "CS" if name == "Modality" else "LO", value)
    file.save_as(path)


def plant_nifti(path):
    image = nibabel.load(files("nibabel.tests") / "data" / "anatomical.nii")
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    image.header["descrip"], image.header["db_name"] = f"of {SECRET}".encode(), f"db{SECRET}".encode()
    image.header["aux_file"], image.header["intent_name"] = f"{SECRET}.txt".encode(), f"i{SECRET}".encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"for {SECRET}".encode()))
    nibabel.save(image, path)


def plant_mp4(path):
    with av.open(str(path), "w") as container:
        for name in ("title", "artist", "comment", "description", "copyright"):
            container.metadata[name] = f"{name} of {SECRET}"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.metadata["handler_name"] = SECRET
        for level in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32), 40 * level, np.uint8), format="gray")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())


def plant_pictures(folder, prefix):
    folder.mkdir(parents=True)
    for number in range(3):
        notes = PngInfo()
        notes.add_text("Description", f"of {SECRET}")
        Image.new("L", (16, 16), 80 * number).save(folder / f"{prefix}{number}.png", pnginfo=notes)


def plant_array(path):
    np.savez(path, video=np.zeros((5, 16, 16), np.uint8), **{f"name_{SECRET}": np.zeros(2)})


@pytest.fixture
def planted(tmp_path):
    """plant(prefix): a folder of videos of every format, some of them broken; names start with the prefix."""

    def plant(prefix):
        folder = tmp_path / f"{prefix}v"
        (folder / f"{prefix}deep").mkdir(parents=True)
        plant_dicom(folder / f"{prefix}a.dcm")
        plant_nifti(folder / f"{prefix}a.nii")
        plant_mp4(folder / f"{prefix}deep" / f"{prefix}a.mp4")
        plant_pictures(folder / f"{prefix}frames", prefix)
        plant_array(folder / f"{prefix}a.npz")
        for path in [path for path in folder.rglob("*") if path.suffix in (".dcm", ".nii", ".mp4", ".npz")]:
            broken = path.with_name(f"{prefix}broken{path.suffix}")
            broken.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        pages = [Image.new("L", side) for side in ((16, 16), (8, 8))]
        for page, name in zip(pages, "12", strict=True):
            (folder / f"{prefix}sizes").mkdir(exist_ok=True)
            page.save(folder / f"{prefix}sizes" / f"{prefix}{name}.png")
        return folder

    return plant


def encode(folder, out, small_vae, **settings):
    config = EncodeConfig(vae=str(small_vae), size=16, batch=3, workers=2, device="cpu", **settings)
    prepared = prepare_encode([str(folder)], config, out)
    list(prepared.run(OneThread()))
    return prepared


def all_text(path):
    """Every byte of every file of a cache, every cell of its tables, and the name of every file."""
    for file in path.rglob("*"):
        yield str(file.relative_to(path))
        if file.is_file():
            yield file.read_bytes().decode("latin-1")
        if file.suffix == ".parquet":
            yield json.dumps(pq.read_table(file).to_pylist(), default=str)


def leaks(path, secret=SECRET):
    return [text[:200] for text in all_text(path) if secret.lower() in text.lower()]


def test_what_is_planted_can_be_found_where_it_is(planted):
    folder = planted("x_")
    texts = {path.suffix for path in folder.rglob("*.*") if SECRET.encode() in path.read_bytes()}
    assert texts == {".dcm", ".nii", ".mp4", ".png", ".npz"}


def test_nothing_but_pixels_timing_size_and_path_reaches_the_cache(planted, tmp_path, small_vae):
    prepared = encode(planted("x_"), tmp_path / "l.zarr", small_vae)
    assert prepared.plan.num_videos == 10
    assert leaks(tmp_path / "l.zarr", "x_deep/x_a.mp4")  # it is looked for where it would be
    assert leaks(tmp_path / "l.zarr") == []


def test_with_hashed_ids_no_name_of_a_file_or_folder_reaches_the_cache(planted, tmp_path, small_vae):
    prepared = encode(planted(SECRET), tmp_path / "l.zarr", small_vae, ids="hash")
    assert prepared.plan.num_videos == 10
    assert leaks(tmp_path / "l.zarr", prepared.discovery.videos[0].video_id)
    assert leaks(tmp_path / "l.zarr") == []
    assert leaks(tmp_path / "l.zarr", str(small_vae.parent)) == []
    again = prepare_encode(
        [str(tmp_path / f"{SECRET}v")],
        EncodeConfig(vae=str(small_vae), size=16, batch=3, workers=2, device="cpu", ids="hash"),
        tmp_path / "l.zarr",
    )
    assert again.plan.num_videos == 0
