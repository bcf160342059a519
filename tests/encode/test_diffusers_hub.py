"""VAEs of diffusers from a hub: downloaded once, with their licence, verified, and refused in one line."""

import json
import shutil

import pytest
import torch
from diffusers import AutoencoderKL

from vidlat.encode.diffusers_folder import CONFIG, WEIGHTS
from vidlat.encode.hub import HubFile, read_record
from vidlat.encode.vae import load_vae
from vidlat.encode.weights import licence_of, resolve_weights
from vidlat.errors import WeightsError

REPO, SPEC = "owner/name", "diffusers:owner/name/vae"


def ignore(line):
    pass


def refusal(spec=SPEC):
    with pytest.raises(WeightsError) as caught:
        resolve_weights(spec, ignore)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kl")
    torch.manual_seed(0)
    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(folder)
    return folder


@pytest.fixture
def served(hub, use_hub, saved, tmp_path, monkeypatch):
    """A hub with a VAE in a folder of its repository; returns the local cache."""
    monkeypatch.chdir(tmp_path)
    for name in (CONFIG, WEIGHTS):
        hub.files[REPO, f"vae/{name}"] = (saved / name).read_bytes()
    hub.files[REPO, "README.md"] = b"---\nlicense: openrail\n---\n"
    return use_hub


def test_a_vae_is_downloaded_once_and_then_used_offline(hub, served, saved, monkeypatch):
    from huggingface_hub import constants

    folder = resolve_weights(SPEC, ignore)
    assert {path.name for path in folder.iterdir()} == {CONFIG, WEIGHTS}
    assert load_vae(folder, device="cpu").weights_hash == load_vae(saved, device="cpu").weights_hash
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_weights(SPEC, pytest.fail) == folder
    assert licence_of(SPEC, folder) == "openrail"
    assert hub.requests == []


def test_a_vae_at_the_root_of_its_repository(hub, served):
    for name in (CONFIG, WEIGHTS):
        hub.files[REPO, name] = hub.files.pop((REPO, f"vae/{name}"))
    folder = resolve_weights("diffusers:owner/name", ignore)
    assert (folder / WEIGHTS).exists()
    assert licence_of("diffusers:owner/name", folder) == "openrail"


def test_the_licence_is_shown_before_the_weights_are_downloaded(hub, served):
    shown = []
    resolve_weights(SPEC, lambda line: shown.append((line, [request.path for request in hub.downloads()])))
    ((line, downloads),) = shown
    assert "Licence: openrail; using the weights means accepting it" in line
    assert not any(WEIGHTS in path for path in downloads)


def test_a_repository_without_a_readme_has_an_unknown_licence(hub, served):
    del hub.files[REPO, "README.md"]
    assert licence_of(SPEC, resolve_weights(SPEC, ignore)) == "unknown"


def test_a_local_folder_comes_first(hub, served, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "owner" / "name" / "vae")
    assert str(resolve_weights(SPEC, pytest.fail)) == "owner/name/vae"
    assert hub.requests == []


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_changed_in_the_cache_is_refused(served, name):
    path = resolve_weights(SPEC, ignore) / name
    path.write_bytes(path.read_bytes() + b" ")
    assert "hash is " in refusal()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_changed_on_the_way_is_removed(hub, served, name, monkeypatch):
    from vidlat.encode import hub as hub_module

    monkeypatch.setattr(hub_module, "_hash_like", lambda stated, path: "f" * len(stated))
    assert "it is damaged and was removed; fetch it again" in refusal()
    assert not [path for path in served.rglob("*") if path.is_file() and "snapshots" in path.parts]


def test_all_files_of_a_repository_are_recorded(served):
    resolve_weights(SPEC, ignore)
    files = [HubFile(repo=REPO, revision="main", filename=f"vae/{name}") for name in (CONFIG, WEIGHTS)]
    records = [read_record(file) for file in files]
    assert all(len(record["sha256"]) == 64 for record in records)


def test_another_file_of_the_same_name_is_refused_after_the_first_download(hub, served):
    folder = resolve_weights(SPEC, ignore)
    (folder / CONFIG).unlink()
    changed = json.loads(hub.files[REPO, f"vae/{CONFIG}"]) | {"scaling_factor": 1}
    hub.files[REPO, f"vae/{CONFIG}"] = json.dumps(changed).encode()
    assert "the one of the first download; to trust the new file, delete" in refusal()


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ("diffusers:nobody/nothing", f"nobody/nothing {CONFIG}"),
        ("diffusers:owner/name/unet", f"owner/name unet/{CONFIG}"),
    ],
)
def test_what_the_hub_does_not_have_is_refused_in_one_line(served, spec, missing):
    message = refusal(spec)
    assert message.startswith(f"{spec}: no such folder here, and {missing} (revision main): http://127.0.0.1")
    assert "has no such repository, revision or file (404)" in message


def test_a_repository_of_pickles_is_refused_in_one_line(hub, served):
    hub.files[REPO, "vae/diffusion_pytorch_model.bin"] = hub.files.pop((REPO, f"vae/{WEIGHTS}"))
    assert f"vae/{WEIGHTS} (revision main): " in refusal()
    assert not any("bin" in request.path for request in hub.requests)


def test_offline_nothing_is_asked_for(hub, served, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids downloading it" in refusal()
    assert hub.requests == []
