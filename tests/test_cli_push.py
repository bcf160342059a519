"""`vidlat push` and `vidlat pull` as a user types them, with an S3 server on this machine."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from uuid import uuid4

import pytest
from huggingface_hub import DatasetCard

from tests.store.caches import SCHEMA
from tests.store.copies import files_in, published
from tests.store.damage import flip
from tests.store.object_store import environment, new_bucket, s3_server
from tests.store.test_merge import A, B, add, make
from tests.store.test_prune import content_of
from tests.test_cli_merge import vidlat
from tests.test_patient_data import SECRET, encode, planted  # noqa: F401
from vidlat.commands.display import Stages, progress_bar
from vidlat.commands.transfer import COLUMN, Transferred
from vidlat.config import LatentSettings
from vidlat.encode.weights import licence_of
from vidlat.evaluate.reconstruction import Evaluation
from vidlat.pipeline.cached_settings import settings_for
from vidlat.store.copying.copy import CopyPlan, CopyProgress
from vidlat.store.layout import CARD, MANIFEST
from vidlat.store.storage.opening import open_storage


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    with s3_server() as server, environment(server):
        yield server


@pytest.fixture(scope="module")
def bucket(server):
    return new_bucket(server)


@pytest.fixture
def address(bucket):
    return f"{bucket}/{uuid4().hex}/echo.zarr"


@pytest.fixture
def cache(tmp_path):
    return make(tmp_path / "l.zarr", A)


def card_at(address):
    return open_storage(address).read(CARD)[0].decode()


def test_a_pushed_cache_is_pulled_and_sound(cache, address, tmp_path):
    code, text, err = vidlat("push", cache, address)
    assert (code, err) == (0, "")
    assert f"Names and paths of 3 videos can be read by whoever reads {address}; `encode --ids hash`" in text
    num_files = len([key for key in files_in(open_storage(address)) if "/c/" in key or "parquet" in key])
    assert re.search(rf"{address}: 3 videos, commit 1; {num_files} files of [\d.]+ kB sent\n", text)
    out = tmp_path / "pulled.zarr"
    code, text, err = vidlat("pull", address, "--out", out)
    assert (code, err) == (0, "")
    assert re.search(
        rf"{out}: {num_files} files of [\d.]+ kB fetched, and all verified; next: vidlat info {out}\n", text
    )
    assert content_of(out) == content_of(cache)
    assert vidlat("verify", out)[0] == 0
    assert vidlat("pull", address, "--out", out)[:2] == (0, f"{out}: up to date\n")


def test_an_encode_takes_its_settings_from_a_published_cache_as_from_a_folder(cache, address):
    vidlat("push", cache, address)
    given = {"workers": 2, "size": 64}
    here, there = settings_for(cache, given), settings_for(address, given)
    assert here == there
    made = replace(SCHEMA.settings.select(LatentSettings), size=64, precision="auto")
    assert (here.select(LatentSettings), here.ids, here.workers) == (made, SCHEMA.ids, 2)


def test_what_was_dropped_stays_dropped_where_a_cache_is_pushed_and_pulled(cache, address, tmp_path):
    assert vidlat("prune", cache, "--drop", "a.mp4", "--keep-vanished", "--yes")[0] == 0
    vidlat("push", cache, address)
    vidlat("pull", address, "--out", tmp_path / "pulled.zarr")
    for where in (address, tmp_path / "pulled.zarr"):
        assert vidlat("ls", where, "--dropped")[1] == "a.mp4\n"


def test_a_second_push_sends_what_is_new(cache, address):
    vidlat("push", cache, address)
    assert vidlat("push", cache, address)[1].endswith(f"{address}: 3 videos, commit 1; up to date\n")
    add(cache, B)
    text = vidlat("push", cache, address)[1]
    assert re.search(r"5 videos, commit 2; 7 files of [\d.]+ kB sent, \d+ there already\n$", text)
    assert published(open_storage(address)) == content_of(cache)
    assert "| videos | 5 |" in card_at(address)


def test_the_card_says_what_a_reader_needs(cache, address):
    vidlat("push", cache, address)
    card = DatasetCard(card_at(address))
    assert (card.data.license, card.data.pretty_name) == ("apache-2.0", "echo.zarr")
    assert "vidlat" in card.data.tags
    num_frames = sum(4 * (1 + content % 20) for content in A.values())
    for line in (
        "| videos | 3 |",
        f"| frames | {num_frames} |",
        f"| hours | {num_frames / 29.97 / 3600:.2f} |",
        f"| latent frames | {num_frames // 4} of 2 x 3 x 5 |",
        "| VAE | tiny |",
        f"| hash of the VAE | {SCHEMA.vae_hash} |",
        "| licence of the VAE | Apache-2.0 |",
        f"vidlat pull {address} --out latents.zarr",
        "None is stated for the latents. The weights of the VAE: Apache-2.0.",
        "Not measured.",
        *(f"| `{name}` |" for name in SCHEMA.settings.to_dict()),
    ):
        assert line in card.content, line
    assert "a.mp4" not in card.content


def test_licence_and_figures_are_on_the_card(cache, address, tmp_path):
    quality = {"mse": 1e-3, "psnr": 30.0, "ssim": 0.9, "sharpness": None, "motion": {"correlation": 0.95}}
    overall = {"vae": {"num_videos": 2, **quality}, "averaging": {"num_videos": 2, **quality, "psnr": None}}
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"overall": overall, "videos": []}))
    vidlat("push", cache, address, "--licence", "cc-by-nc-4.0", "--evaluation", figures)
    text = card_at(address)
    assert DatasetCard(text).data.license == "cc-by-nc-4.0"
    assert "The latents: cc-by-nc-4.0. The weights of the VAE: Apache-2.0." in text
    assert "on 2 of the videos" in text
    assert "| this VAE | 1.0e-03 | 30.000 | 0.900 | - | 0.950 |" in text
    assert "| baseline: block averages | 1.0e-03 | - |" in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{}", r"the evaluation cannot be read \('overall'\); expected what `vidlat evaluate --input VIDEOS"),
        ("[", "--evaluation .*: cannot be read"),
        ("[]", "--evaluation .*: got no object"),
        (None, "--evaluation .*: cannot be read: No such file"),
    ],
)
def test_figures_that_are_none_are_refused_before_anything_is_sent(cache, address, tmp_path, content, what):
    figures = tmp_path / "figures.json"
    if content is not None:
        figures.write_text(content)
    code, _, err = vidlat("push", cache, address, "--evaluation", figures)
    assert code == 1
    assert re.match(f"Error: {what}", err)
    assert files_in(open_storage(address)) == {}


def test_an_evaluation_of_the_package_has_what_the_card_needs():
    assert "overall" in Evaluation(videos=[], without_source=[], failed={}).to_dict()


def test_what_stands_in_a_schema_cannot_break_the_card(tmp_path, address):
    schema = replace(SCHEMA, vae_name="/home/x/a|b\n# c.safetensors", vae_licence="mine\n---\n| all |")
    cache = make(tmp_path / "l.zarr", A, schema=schema)
    vidlat("push", cache, address)
    text = card_at(address)
    assert "| VAE | a\\|b\\n# c.safetensors |" in text
    assert "/home/x" not in text
    assert DatasetCard(text).data.license == "other"


def test_a_readme_of_somebody_stays_and_this_is_told(cache, address):
    open_storage(address).create(CARD, b"Mine")
    text = vidlat("push", cache, address)[1]
    assert text.endswith(
        "README.md there was not written by a push and stays as it is; delete it to have a card written\n"
    )
    assert card_at(address) == "Mine"
    assert "there was not written" not in vidlat("push", cache, f"{address}-other")[1]


def test_the_licence_of_an_embedded_vae_is_one_that_a_hub_knows(tmp_path, address):
    licence = licence_of("tiny", tmp_path / "tiny.safetensors")
    vidlat("push", make(tmp_path / "l.zarr", schema=replace(SCHEMA, vae_licence=licence)), address)
    assert DatasetCard(card_at(address)).data.license == "apache-2.0"


def test_an_empty_cache_is_pushed(tmp_path, address):
    cache = make(tmp_path / "l.zarr")
    assert vidlat("push", cache, address)[0] == 0
    assert published(open_storage(address)) == {}
    assert vidlat("pull", address, "--out", tmp_path / "p.zarr")[0] == 0


def test_hidden_names_stay_hidden_in_every_byte(planted, tmp_path, small_vae, address):  # noqa: F811
    cache = tmp_path / f"{SECRET}.zarr"
    encode(planted(SECRET), cache, small_vae, ids="hash")
    code, text, _ = vidlat("push", cache, address)
    assert code == 0
    assert "Names and paths" not in text
    files = files_in(open_storage(address))
    assert len(published(open_storage(address))) > 3
    for key, content in files.items():
        assert SECRET not in key
        assert SECRET.encode().lower() not in content.lower(), key
        assert str(tmp_path).encode() not in content, key


@pytest.mark.parametrize("command", ["push", "pull"])
@pytest.mark.parametrize("interrupted_at", [1, 4])
def test_an_interrupted_command_continues(cache, address, tmp_path, monkeypatch, command, interrupted_at):
    from vidlat.store.copying import copy

    out = tmp_path / "p.zarr"
    if command == "pull":
        vidlat("push", cache, address)
    arguments = ("push", cache, address) if command == "push" else ("pull", address, "--out", out)
    real, keys = copy._copy_shard, []

    def interrupted(source, target, key):
        keys.append(key)
        if len(keys) == interrupted_at:
            raise KeyboardInterrupt
        return real(source, target, key)

    with monkeypatch.context() as patch:
        patch.setattr(copy, "_copy_shard", interrupted)
        patch.setattr(copy, "NUM_TRANSFERS", 1)
        code, _, err = vidlat(*arguments)
    done = "sent" if command == "push" else "fetched"
    assert code == 130
    assert re.fullmatch(rf"Interrupted: \d files? {done}; the same command continues\.\n", err)
    assert not out.exists()
    if command == "push":
        assert MANIFEST not in files_in(open_storage(address))
    code, text, _ = vidlat(*arguments)
    assert code == 0
    assert "there already" in text or interrupted_at == 1
    if command == "push":
        assert published(open_storage(address)) == content_of(cache)
    else:
        assert content_of(out) == content_of(cache)


def test_a_target_that_went_on_by_itself_is_one_line(cache, address, tmp_path):
    vidlat("push", cache, address)
    other = tmp_path / "other.zarr"
    vidlat("pull", address, "--out", other)
    add(other, {"d.mp4": 4})
    vidlat("push", other, address)
    code, _, err = vidlat("push", cache, address)
    assert code == 1
    assert err == (
        f"Error: {address}: holds commits of 1 video that {cache} lacks, such as 'd.mp4'; push to a new "
        "place, or pull it and merge the two\n"
    )
    assert published(open_storage(address)) == content_of(other)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["push", "CACHE", "elsewhere"], "elsewhere: is a path; expected an address: s3://"),
        (["push", "CACHE", "https://example.org/l.zarr"], r"https://\S+: can be read, not written; expected"),
        (["push", "CACHE", "ftp://example.org/l.zarr"], "ftp://example.org/l.zarr: got ftp://; expected"),
        (["push", "nothing.zarr", "s3://a/b"], "nothing.zarr: is not a vidlat cache: no such folder"),
        (
            ["push", "CACHE", "s3://missing-bucket/l.zarr"],
            r"s3://\S+: cannot be reached: got 404 .*NoSuchBuc",
        ),
        (["pull", "elsewhere", "--out", "p.zarr"], "elsewhere: is a path; expected an address: s3://"),
        (["pull", "s3://missing-bucket/l.zarr", "--out", "p.zarr"], "s3://.*: cannot be reached: got 404"),
        (["pull", "ADDRESS", "--out", "p.zarr"], r"s3://\S+: is no cache: it has no videos/records/manifest"),
    ],
)
def test_refusals_are_one_line(cache, address, tmp_path, monkeypatch, arguments, what):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    names = {"CACHE": cache, "ADDRESS": address}
    code, _, err = vidlat(*(names.get(argument, argument) for argument in arguments))
    assert code == 1
    assert re.fullmatch(f"Error: {what}.*\n", err)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["push", "pull"])
def test_wrong_credentials_are_one_line(cache, address, tmp_path, monkeypatch, command):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    arguments = (cache, address) if command == "push" else (address, "--out", tmp_path / "p.zarr")
    code, _, err = vidlat(command, *arguments)
    assert code == 1
    assert re.fullmatch(r"Error: s3://.*cannot be reached: got no credentials; .*AWS_ACCESS_KEY_ID.*\n", err)


def test_damage_is_found_by_the_pull(cache, address, tmp_path):
    flip(cache / "mean/c/0/0/0/0", 20)
    vidlat("push", cache, address)
    code, _, err = vidlat("pull", address, "--out", tmp_path / "p.zarr")
    assert code == 1
    assert re.match(rf"Error: {address}: what was pulled has a problem, a\.mp4: ", err)
    assert not (tmp_path / "p.zarr").exists()


def test_a_push_during_a_prune_is_refused(cache, address, monkeypatch):
    from vidlat.store.layout import READERS
    from vidlat.store.storage import filesystem

    with filesystem.locked(cache / READERS):
        code, _, err = vidlat("push", cache, address)
    assert code == 1
    assert "is being pruned" in err
    assert files_in(open_storage(address)) == {}


@pytest.mark.parametrize("num_files", [0, 2])
def test_the_bar_stands_while_the_first_file_is_sent(num_files):
    seen = []

    def copying():
        yield CopyProgress(plan=CopyPlan(num_files=num_files, num_bytes=4, num_there=0, num_to_compare=0))
        seen.append(progress.live.is_started)
        yield CopyProgress()

    with progress_bar(COLUMN) as progress:
        Transferred().follow(copying(), Stages(progress), "pushing files")
    assert seen == [num_files > 0]


def test_neither_command_loads_torch():
    code = "import sys, vidlat.commands.push, vidlat.commands.pull; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"
