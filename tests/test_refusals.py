"""What is wrong on a command line is refused before torch, MONAI, Dask or FFmpeg are imported."""

import json
import subprocess
import sys

import pytest

from tests.fit.test_run import RUN
from tests.train.toys import CacheMaker
from vidlat.config import TrainConfig
from vidlat.store.writing.opening import create_cache

HEAVY = "torch", "monai", "dask", "distributed", "zarr", "tensorstore", "pyarrow", "av", "pydicom"

REFUSED = {
    "encode --input gone --out l.zarr": "--input gone: no such file or folder",
    "encode --input empty --out l.zarr": "no video in empty (0 other files); is it the right folder?",
    "compare --input empty --input empty/deep --out c": "no video in empty, empty/deep (0 other files)",
    "fit-vae --input empty --out v": "no video in empty (0 other files)",
    "encode --input gone/*.mp4 --out l.zarr": "the pattern matches nothing",
    "encode --input videos --out notes.txt": "notes.txt: is a file, not a vidlat cache",
    "encode --input videos --out l.zarr --vae gone.pt": "no weights file at gone.pt",
    "encode --input videos --out l.zarr --vae tyni": "or diffusers:FOLDER; did you mean tiny?",
    "encode --input videos --out l.zarr --labels gone.csv": "gone.csv: no such file",
    "encode --input videos --out l.zarr --size 0": "--size: got 0; expected at least 1",
    "encode --input videos --out l.zarr --vae tiny --size 30": "--size: got 30; expected a multiple of 4",
    "encode --input videos --out l.zarr --scheduler host": "--scheduler: got host; expected an address",
    "encode --input s3:// --out l.zarr": "s3://: expected s3://BUCKET/FOLDER, gs:// or az://",
    "encode --input ftp://host/videos --out l.zarr": "ftp://host/videos: expected s3://BUCKET/FOLDER",
    "encode --input videos --out s3://": "s3://: got no name; expected s3://BUCKET/FOLDER",
    "encode --input videos --out https://host/l.zarr": "https://host/l.zarr: can be read, not written",
    "worker --scheduler host": "--scheduler: got host; expected an address",
    "encode --input videos --out l.zarr --device gpu": "--device: got 'gpu'; expected cpu, cuda",
    "encode --input videos --out l.zarr --config gone.yaml": "gone.yaml: no such file",
    "encode --input videos --out l.zarr --config vae.yaml": "no weights file at gone.pt",
    "info s3://": "s3://: got no name; expected s3://BUCKET/FOLDER",
    "info gone.zarr": "gone.zarr: is not a vidlat cache: no such folder",
    "ls videos": "videos: is not a vidlat cache",
    "prune gone.zarr": "gone.zarr: is not a vidlat cache",
    "push gone.zarr s3://bucket/l.zarr": "gone.zarr: is not a vidlat cache",
    "preview gone.zarr --out p.png": "gone.zarr: is not a vidlat cache",
    "preview cache --out p.txt": "--out p.txt: is written as .png",
    "preview cache --out p.png --vae gone.pt": "no weights file at gone.pt",
    "report cache --out r.html --input gone": "--input gone: no such file or folder",
    "report cache --out r.html --device gpu": "--device: got 'gpu'",
    "decode --latents gone.zarr --out d": "gone.zarr: is not a vidlat cache",
    "train --latents gone.zarr --out r": "gone.zarr: is not a vidlat cache",
    "train --latents cache --out r --steps 0": "--steps: got 0; expected at least 1",
    "train --latents cache --out r --min-snr 5": "--min-snr: weights v and epsilon only",
    "train --latents cache --out r --plain-flow 0.5": "--plain-flow: has no effect",
    "train --latents cache --out r --resume": "r is not a run: there is no such folder",
    "train --latents cache --out run --resume --batch 3": "run cannot be resumed with other settings (batch: "
    "got 3, the run has 8); choose another --out",
    "train --latents cache --out r --init gone": "gone is not a run",
    "sample --run gone --out s": "gone is not a run: there is no such folder",
    "sample --run videos --out s --num 0": "--num: got 0; expected at least 1",
    "runs gone": "gone: no such folder",
    "runs videos --report r.txt": "--report r.txt: is written as .html",
    "export gone --out m": "gone is not a run",
    "train --latents run --out r": "run: is a run, not a vidlat cache; give a cache",
    "info run": "run: is a run, not a vidlat cache; give a cache",
    "encode --input videos --out run": "run: is a run, not a vidlat cache; give a cache",
    "sample --run cache --out s": "cache is not a run: it is a cache; give a run",
    "sample --run many --out s": "is not a run: give one of those in it: many/0, many/1, many/2 and 1 more",
    "evaluate --latents cache --input gone": "--input gone: no such file or folder",
    "evaluate --latents cache --run gone": "gone is not a run",
    "evaluate --latents cache --samples gone --out q": "gone: no such folder",
    "evaluate --latents cache": "what is to be evaluated?",
    "compare --input gone --out c": "--input gone: no such file or folder",
    "compare --input videos --out c --vae gone.pt --vae lost.pt": "no weights file at gone.pt",
    "compare --input videos --out c --json c.txt": "--json c.txt: is written as .json",
    "compare --input videos --out c --training gone": "gone is no training of a VAE",
    "fit-vae --input gone --out v": "--input gone: no such file or folder",
    "fit-vae --input videos --out v --resume": "v is no training of a VAE",
    "fit-vae --input videos --out fit --resume --stack 8": "fit cannot be resumed with other settings (stack",
    "fit-vae --input videos --out v --init gone.pt": "no weights file at gone.pt",
    "weights fetch gone": "no published weights 'gone'",
    "weights check gone": "no weights file at gone",
    "compare --input videos --out c --vae tinny": "did you mean tiny?",
    "fit-vae --input videos --out v --init tinny": "did you mean tiny?",
    "weights check deep/gone": "no weights file at deep/gone",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit code, message and heavy modules imported so far, of each of REFUSED, in one process."""
    folder = tmp_path_factory.mktemp("refusals")
    create_cache(folder / "cache", CacheMaker(folder / "made.zarr").schema)
    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").touch()
    (folder / "empty" / "deep").mkdir(parents=True)
    (folder / "empty" / ".hidden").touch()
    (folder / "notes.txt").touch()
    for name, settings in (("run", {"config": TrainConfig().to_dict()}), ("fit", RUN.to_dict())):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(settings))
    for name in ("run", *(f"many/{number}" for number in range(4))):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "config.json").touch()
    (folder / "vae.yaml").write_text("encode: {vae: gone.pt}")
    code = (
        "import json, sys\nfrom click.testing import CliRunner\nfrom vidlat.cli import commands\n"
        "answers = {}\n"
        f"for line in {list(REFUSED)}:\n"
        "    answer = CliRunner().invoke(commands, line.split())\n"
        f"    loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "    answers[line] = answer.exit_code, answer.stderr, loaded\n"
        "print(json.dumps(answers))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_wrong_is_refused_before_anything_heavy_is_imported(line, answers):
    code, message, loaded = answers[line]
    assert REFUSED[line] in message
    assert message.startswith("Error: ")
    assert message.count("\n") == 1
    assert code in (1, 2)
    assert loaded == []


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("encode --input videos --out l.zarr --vae tyni", 2),
        ("compare --input videos --out c --vae tinny", 2),
        ("fit-vae --input videos --out v --init tinny", 2),
        ("weights fetch gone", 2),
        ("weights check gone", 2),
        ("weights check deep/gone", 1),
        ("encode --input videos --out l.zarr --vae gone.pt", 1),
        ("encode --input videos --out l.zarr --config vae.yaml", 1),
        ("compare --input videos --out c --vae gone.pt --vae lost.pt", 1),
    ],
)
def test_an_unknown_name_of_a_vae_is_a_wrong_setting_and_a_file_that_is_not_there_is_none(
    line, code, answers
):
    assert answers[line][0] == code
