"""Published weights: downloaded and verified, or refused in one line that names the ways out."""

import hashlib
import os
import subprocess
import sys

import pytest

from tests.encode.hub import COMMIT, closed_port
from vidlat.encode import hub as hub_module, weights
from vidlat.encode.hub import read_record, sha256_of
from vidlat.encode.vae import load_vae
from vidlat.encode.weights import (
    PUBLISHED_WEIGHTS,
    check_weights,
    fetch_weights,
    licence_of,
    list_weights,
    resolve_weights,
)
from vidlat.errors import WeightsError

NAME = "nv-generate-ct"
FILE = PUBLISHED_WEIGHTS[NAME].file
PINNED = PUBLISHED_WEIGHTS["maisi"].file
CONTENT = bytes(range(256)) * 40
OTHER = b"other weights" * 700


def key(file):
    return file.repo, file.filename


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def ignore(line):
    pass


def states():
    return {entry.name: state for entry, state in list_weights()}


def usable_bytes(cache):
    """Every complete file of the cache, as any program that shares it could open it."""
    files = (path for path in cache.rglob("*") if path.is_file() and "snapshots" in path.parts)
    return [path.read_bytes() for path in files]


def refusal(call, *args):
    """The message of the WeightsError a call raises; it must be one line."""
    with pytest.raises(WeightsError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def served(hub, use_hub):
    """A hub with weights without a published hash; returns the local cache."""
    hub.files[key(FILE)] = CONTENT
    return use_hub


def test_fetched_weights_are_the_served_bytes_where_other_programs_find_them(served):
    from huggingface_hub import hf_hub_download

    path = fetch_weights(NAME, ignore)
    assert path.read_bytes() == CONTENT
    assert path.resolve().name == sha256(CONTENT)
    assert hf_hub_download(FILE.repo, FILE.filename, local_files_only=True) == str(path)
    assert not list(served.rglob("*.incomplete"))
    assert states() == {"maisi": "absent", NAME: "cached", "nv-generate-mr": "absent"}


def test_pinned_weights_are_fetched_when_their_hash_is_the_pinned_one(hub, use_hub, monkeypatch):
    entry = PUBLISHED_WEIGHTS["maisi"]
    pinned = weights.HubFile(
        repo="a/b", revision="1.0.0", filename="models/autoencoder.pt", sha256=sha256(CONTENT)
    )
    monkeypatch.setitem(
        PUBLISHED_WEIGHTS,
        "maisi",
        weights.PublishedWeights(name="maisi", file=pinned, licence=entry.licence, licence_url="page"),
    )
    hub.files[key(pinned)] = CONTENT
    assert resolve_weights("maisi", ignore).read_bytes() == CONTENT
    assert check_weights("maisi")[1] == sha256(CONTENT)


def test_licence_is_shown_before_the_first_request(hub, served):
    shown = []
    fetch_weights(NAME, lambda line: shown.append((line, len(hub.requests))))
    ((line, num_requests),) = shown
    assert num_requests == 0
    assert "NVIDIA Open Model License" in line
    assert "https://huggingface.co/nvidia/NV-Generate-CT" in line


def test_licence_goes_to_stderr_by_default(served, capsys):
    fetch_weights(NAME)
    captured = capsys.readouterr()
    assert PUBLISHED_WEIGHTS[NAME].notice in captured.err
    assert captured.out == ""


def test_weights_in_the_cache_are_used_without_asking_the_hub(hub, served):
    path = resolve_weights(NAME, ignore)
    hub.requests.clear()
    assert resolve_weights(NAME, pytest.fail) == path
    assert fetch_weights(NAME, pytest.fail) == path
    assert check_weights(NAME) == (path, sha256(CONTENT))
    assert hub.requests == []


def test_cut_connection_is_resumed_with_a_range_request(hub, served):
    hub.cuts = [5000]
    assert fetch_weights(NAME, ignore).read_bytes() == CONTENT
    assert [request.range for request in hub.downloads()] == [None, "bytes=5000-"]
    assert COMMIT in hub.downloads()[1].path


def test_download_that_cannot_be_completed_leaves_nothing_and_the_next_fetch_is_right(hub, served):
    hub.cuts = [5000, *[0] * 9]
    message = refusal(fetch_weights, NAME, ignore)
    assert f"the connection to {hub.endpoint} broke" in message
    assert "fetch it again" in message
    assert states()[NAME] == "absent"
    assert usable_bytes(served) == []
    assert not list(served.rglob("*.incomplete"))
    hub.cuts.clear()
    assert fetch_weights(NAME, ignore).read_bytes() == CONTENT


@pytest.mark.parametrize("left_over", [b"x" * 5000, CONTENT + b"x"], ids=["damaged", "longer than the whole"])
def test_partial_file_of_another_process_does_not_get_into_the_download(hub, served, left_over):
    blobs = FILE.record_path.parent / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(CONTENT)}.incomplete").write_bytes(left_over)
    assert fetch_weights(NAME, ignore).read_bytes() == CONTENT


def test_bytes_that_are_not_the_stated_ones_are_removed_and_never_used(hub, use_hub):
    hub.files[key(PINNED)] = CONTENT
    hub.stated_sha256 = PINNED.sha256
    for attempt in (fetch_weights, resolve_weights):
        message = refusal(attempt, "maisi", ignore)
        assert sha256(CONTENT) in message
        assert PINNED.sha256 in message
        assert usable_bytes(use_hub) == []
        assert not any((PINNED.record_path.parent / "blobs").iterdir())
    assert states()["maisi"] == "absent"


def test_another_file_than_the_pinned_one_is_refused_before_it_is_downloaded(hub, use_hub):
    hub.files[key(PINNED)] = CONTENT
    message = refusal(fetch_weights, "maisi", ignore)
    assert message.startswith("maisi: ")
    assert sha256(CONTENT) in message
    assert PINNED.sha256 in message
    assert hub.downloads() == []


def test_hash_of_the_first_download_is_recorded_and_another_one_refused(hub, served):
    fetch_weights(NAME, ignore).unlink()
    hub.files[key(FILE)] = OTHER
    message = refusal(fetch_weights, NAME, ignore)
    assert message.startswith(f"{NAME}: ")
    assert sha256(CONTENT) in message
    assert sha256(OTHER) in message
    assert str(FILE.record_path) in message
    assert len(hub.downloads()) == 1
    FILE.record_path.unlink()
    assert fetch_weights(NAME, ignore).read_bytes() == OTHER


def test_file_another_program_downloaded_is_verified_by_the_hash_the_hub_stated(hub, served):
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(FILE.repo, FILE.filename)
    assert str(resolve_weights(NAME, pytest.fail)) == path
    assert read_record(FILE)["sha256"] == sha256(CONTENT)


def test_damaged_file_in_the_cache_is_refused_and_replaced_by_a_fetch(served):
    path = fetch_weights(NAME, ignore)
    path.write_bytes(OTHER)
    assert states()[NAME] == "wrong"
    for use in (resolve_weights, check_weights):
        assert f"`vidlat weights fetch {NAME}`" in refusal(use, NAME)
    assert fetch_weights(NAME, ignore).read_bytes() == CONTENT
    assert states()[NAME] == "cached"


def test_damaged_copy_in_a_cache_without_links_is_replaced_by_a_fetch(served):
    path = fetch_weights(NAME, ignore)
    path.unlink()
    path.write_bytes(OTHER)
    assert states()[NAME] == "wrong"
    assert fetch_weights(NAME, ignore).read_bytes() == CONTENT


def test_unchanged_file_is_not_hashed_again_but_a_touched_one_is(served, monkeypatch):
    path = fetch_weights(NAME, ignore)
    hashed = []
    monkeypatch.setattr(hub_module, "sha256_of", lambda path: (hashed.append(path), sha256_of(path))[1])
    resolve_weights(NAME)
    assert hashed == []
    os.utime(path, ns=(1, 1))
    resolve_weights(NAME)
    assert hashed == [path]
    check_weights(NAME)
    assert hashed == [path, path]


def test_read_only_cache_is_used_without_a_record(served):
    path = fetch_weights(NAME, ignore)
    FILE.record_path.unlink()
    FILE.record_path.with_suffix(".draft").mkdir()
    assert resolve_weights(NAME) == path
    assert not FILE.record_path.exists()


def test_unreadable_record_is_named_and_not_replaced(served):
    fetch_weights(NAME, ignore)
    FILE.record_path.write_text("{")
    assert str(FILE.record_path) in refusal(resolve_weights, NAME)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, "EntryNotFound"), "no such repository, revision or file"),
        ((404, "RevisionNotFound"), "no such repository, revision or file"),
        ((404, "RepoNotFound"), "no such repository, revision or file"),
        ((404, ""), "no such repository, revision or file"),
        ((401, "RepoNotFound"), "log in"),
        ((401, "GatedRepo"), "log in"),
        ((403, "GatedRepo"), "log in"),
        ((403, ""), "log in"),
        ((500, ""), "answered 500"),
    ],
)
def test_refusal_of_the_hub_is_one_line_with_the_ways_out(hub, served, answer, words):
    hub.refusal = answer
    message = refusal(resolve_weights, NAME, ignore)
    assert words in message
    assert hub.endpoint in message
    for way_out in (f"`vidlat weights fetch {NAME}`", "`--vae PATH`", "`--vae tiny`"):
        assert way_out in message


def test_server_that_is_not_a_hub_is_named(hub, served):
    hub.headless = True
    assert "is it a hub?" in refusal(fetch_weights, NAME, ignore)


def test_hub_that_never_answers_times_out(hub, served, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    hub.never_answers = True
    assert "did not answer in 0.1 seconds" in refusal(fetch_weights, NAME, ignore)


def test_endpoint_that_is_not_an_address_is_named(served, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "nowhere/{repo_id}{revision}{filename}")
    assert "check the network, proxy and HF_ENDPOINT" in refusal(fetch_weights, NAME, ignore)


def test_cache_that_cannot_be_written_is_named(served):
    served.parent.mkdir()
    served.write_text("a file where the cache should be")
    assert str(served) in refusal(fetch_weights, NAME, ignore)


def run_with(environment, *names):
    """`resolve_weights` of all in a new process: huggingface_hub reads the environment when imported."""
    script = (
        "import sys\n"
        "from vidlat.encode.weights import resolve_weights\n"
        "from vidlat.errors import WeightsError\n"
        "try:\n"
        "    for name in sys.argv[1:]:\n"
        "        print(resolve_weights(name))\n"
        "except WeightsError as error:\n"
        "    sys.exit(f'refused: {error}')\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", script, *names],
        env={**inherited, "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_environment_decides_hub_cache_and_offline(hub, tmp_path):
    hub.files[key(FILE)] = CONTENT
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.endpoint}
    online = run_with(environment, NAME)
    assert online.returncode == 0, online.stderr
    assert "Licence: NVIDIA Open Model License" in online.stderr
    path = online.stdout.strip()
    assert path.startswith(str(tmp_path / "hf" / "hub"))

    hub.requests.clear()
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    cached_and_absent = run_with(offline, NAME, "maisi")
    assert (cached_and_absent.returncode, cached_and_absent.stdout.strip()) == (1, path)
    assert "HF_HUB_OFFLINE forbids downloading" in cached_and_absent.stderr
    assert "`--vae tiny`" in cached_and_absent.stderr
    assert "Traceback" not in cached_and_absent.stderr
    assert hub.requests == []


def test_missing_network_is_one_line_with_the_ways_out(tmp_path):
    endpoint = closed_port()
    result = run_with({"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}, "maisi")
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("refused: maisi: ")
    assert f"{endpoint} cannot be reached" in last
    assert "`vidlat weights fetch maisi`" in last
    assert "Traceback" not in result.stderr


def test_path_stands_for_that_file(tmp_path):
    path = tmp_path / "my.safetensors"
    path.write_bytes(b"")
    assert resolve_weights(str(path)) == path


def test_neither_a_name_nor_a_file_is_refused_with_the_names(tmp_path):
    message = refusal(resolve_weights, str(tmp_path / "none.pt"))
    assert str(tmp_path / "none.pt") in message
    assert "maisi, nv-generate-ct, nv-generate-mr, tiny" in message
    assert "known are maisi" in refusal(fetch_weights, "tiny")


@pytest.mark.parametrize("name", ["tiny", "tiny-16"])
def test_an_embedded_vae_is_the_file_in_the_package(name, tmp_path, monkeypatch):
    monkeypatch.setattr(weights.resources, "files", {"vidlat.encode": tmp_path}.get)
    assert f"the package holds no {name}.safetensors" in refusal(resolve_weights, name)
    (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert resolve_weights(name) == tmp_path / f"{name}.safetensors"


@pytest.mark.parametrize(("name", "latent_dim"), [("tiny", 4), ("tiny-16", 16)])
def test_an_embedded_vae_is_small_and_has_a_licence(name, latent_dim):
    path = resolve_weights(name)
    assert path.stat().st_size < 4_000_000
    vae = load_vae(path, device="cpu")
    assert (vae.latent_dim, vae.time_compression, vae.space_compression) == (latent_dim, 4, 4)
    assert "Apache-2.0" in licence_of(name, path)


def test_file_hash_is_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # The test vector of FIPS 180-4.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == expected
    assert "cannot be read" in refusal(sha256_of, tmp_path)
