"""A cache is pushed to and pulled from a dataset of a hub, which shows all of it or the state before."""

import re
from contextlib import suppress
from itertools import count

import pytest
from obstore.store import MemoryStore

from tests.encode.conftest import _TimeWithoutSleep
from tests.store.caches import writer_of
from tests.store.copies import CutOff, files_in, published
from tests.store.faults import Killed
from tests.store.hub import REPO, dataset_hub
from tests.store.test_copy import copied
from tests.store.test_merge import A, B, add, make
from tests.store.test_prune import content_of
from tests.store.test_pull import pulled, require_pulled
from tests.test_cli_merge import vidlat
from vidlat.errors import StoreError
from vidlat.store.copying.divergence import DivergedError
from vidlat.store.layout import MANIFEST, ROOT
from vidlat.store.storage import hub as hub_storage
from vidlat.store.storage.hub import HubStorage
from vidlat.store.storage.interface import Exists, Missing, Unreachable
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.storage.opening import open_published, open_storage

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub

ADDRESS = f"hf://datasets/{REPO}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub to which huggingface_hub, in this process, is pointed."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http
    from huggingface_hub.utils._http import close_session

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with dataset_hub() as hub:
        for name, value in {
            "ENDPOINT": hub.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "AGENT_HARNESSES_PATH": str(tmp_path / "harnesses.json"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(_http, "time", _TimeWithoutSleep)
        close_session()
        yield hub
        close_session()


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "l.zarr", A)


def target(address=ADDRESS):
    return open_published(address, [])


@pytest.mark.parametrize("address", [ADDRESS, f"{ADDRESS}/in/a-folder"])
def test_a_cache_is_pushed_pulled_and_grows(hub, path, tmp_path, address):
    copied(path, target(address), card=b"<!-- Written by vidlat push, which writes it again -->")
    assert published(open_published(address)) == content_of(path)
    assert len(hub.commits) == 2
    pulled(open_published(address), tmp_path / "first" / "p.zarr")
    require_pulled(open_published(address), path, tmp_path / "first" / "p.zarr")
    num_uploads = len(hub.uploads)
    add(path, B)
    plan, *_ = copied(path, target(address))
    assert len(hub.uploads) == num_uploads + plan.num_files
    pulled(open_published(address), tmp_path / "second" / "p.zarr")
    require_pulled(open_published(address), path, tmp_path / "second" / "p.zarr")
    assert copied(path, target(address))[0].num_files == 0
    assert len(hub.commits) == 3


def test_an_earlier_revision_is_pulled(hub, path, tmp_path):
    copied(path, target())
    before = content_of(path)
    add(path, B)
    copied(path, target())
    pulled(open_published(f"{ADDRESS}@{1:040x}"), tmp_path / "p.zarr")
    assert content_of(tmp_path / "p.zarr") == before


def test_a_pull_reads_one_revision_though_another_is_pushed_meanwhile(hub, path, tmp_path):
    copied(path, target())
    before, source = content_of(path), open_published(ADDRESS)
    add(path, B)
    writer_of(path, max_small_files=1).remove(["a.mp4"])
    copied(path, target())
    pulled(source, tmp_path / "p.zarr")
    assert content_of(tmp_path / "p.zarr") == before


def test_many_shards_take_several_commits_the_manifest_and_the_root_in_the_last(hub, path, monkeypatch):
    monkeypatch.setattr(hub_storage, "UPLOAD_BYTES", 2000)
    monkeypatch.setattr(hub_storage, "COMMIT_FILES", 4)
    copied(path, target())
    assert len(hub.commits) > 3
    for commit in hub.commits[:-1]:
        assert not {MANIFEST, ROOT, "mean/zarr.json"} & set(commit)
    assert {MANIFEST, ROOT} <= set(hub.commits[-1])
    assert published(open_published(ADDRESS)) == content_of(path)


def test_verbs_that_a_copy_needs_do_as_those_of_other_storages(hub):
    storage = target(f"{ADDRESS}/x")
    with pytest.raises(Missing, match=r"hf://datasets/owner/echo/x/a: got no such file"):
        storage.read("a")
    assert [*storage.list()] == []
    storage.create("a/b", b"0123")
    storage.create(MANIFEST, b"1")
    storage = target(f"{ADDRESS}/x")
    assert sorted(storage.list()) == [("a/b", 4), (MANIFEST, 1)]
    assert sorted(storage.list("a")) == [("a/b", 4)]
    assert storage.read("a/b", (1, 3))[0] == b"12"
    assert storage.read("a/b", (-1, None))[0] == b"3"
    storage.create("a/b", b"0123")
    with pytest.raises(Exists):
        storage.create("a/b", b"other")
    storage.delete("a/b")
    assert hub.files("x/") == {MANIFEST: b"1"}


def test_half_a_push_is_completed_and_its_shards_are_known_by_their_hash(hub, path, monkeypatch):
    monkeypatch.setattr(hub_storage, "UPLOAD_BYTES", 1)
    monkeypatch.setattr(hub_storage, "COMMIT_FILES", 1)
    with suppress(Killed):
        copied(path, CutOff(target(), 12))
    shards = set(hub.files())
    assert shards
    assert MANIFEST not in shards
    read = []

    def counted(key, *arguments):
        read.append((key, *arguments))
        return HubStorage.read(storage, key, *arguments)

    storage = target()
    storage.read = counted
    plan, *_ = copied(path, storage)
    assert plan.num_to_compare == len(shards)
    assert [key for key, *arguments in read if key in shards and not arguments] == []
    assert published(open_published(ADDRESS)) == content_of(path)


def present(hub):
    """The latents that the hub shows now, read without it, which is quicker."""
    storage = ObjectStorage(MemoryStore(), "memory://x")
    for key, content in hub.files().items():
        storage.create(key, content)
    return published(storage)


def cut_everywhere(hub, path, all_steps):
    """Kill an update at one verb after the other; returns how many were killed."""
    copied(path, target())
    start, before = len(hub.commits), present(hub)
    add(path, B)
    for step in all_steps:
        cut = CutOff(target(), step)
        with suppress(Killed):
            copied(path, cut)
        assert present(hub) == (before if cut.met else content_of(path))
        if not cut.met:
            return step
        copied(path, target())
        assert present(hub) == content_of(path)
        del hub.commits[start:]
    return 0


def test_a_push_that_is_killed_anywhere_leaves_the_state_before(hub, path, monkeypatch):
    monkeypatch.setattr(hub_storage, "UPLOAD_BYTES", 1000)
    monkeypatch.setattr(hub_storage, "COMMIT_FILES", 2)
    assert cut_everywhere(hub, path, count(0, 11)) > 11


@pytest.mark.slow
def test_a_push_that_is_killed_at_every_verb_leaves_the_state_before(hub, path, monkeypatch):
    monkeypatch.setattr(hub_storage, "UPLOAD_BYTES", 1000)
    monkeypatch.setattr(hub_storage, "COMMIT_FILES", 2)
    num_killed = cut_everywhere(hub, path, count())
    print(f"{num_killed} of {num_killed} right")
    assert num_killed > 20


def test_another_push_meanwhile_is_one_line_and_stays(hub, path):
    def other():
        hub.before_commit = lambda: None
        hub.commits.append({**hub.commits[-1], "notes.txt": b"1"})

    hub.before_commit = other
    with pytest.raises(StoreError, match=r"another process writes to it \(.*\); run the same command again"):
        copied(path, target())
    assert hub.files() == {"notes.txt": b"1"}


def test_a_dataset_that_went_on_by_itself_is_refused(hub, path, tmp_path):
    copied(path, target())
    pulled(open_published(ADDRESS), tmp_path / "p.zarr")
    add(tmp_path / "p.zarr", {"d.mp4": 4})
    copied(tmp_path / "p.zarr", target())
    with pytest.raises(DivergedError, match=r"holds commits of 1 video that \S+ lacks, such as 'd\.mp4'"):
        copied(path, target())


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_hub_that_refuses_is_unreachable_in_one_line(hub, path, status):
    storage = target()
    hub.refused.append(status)
    for verb in (
        lambda: storage.read("a"),
        lambda: [*storage.list()],
        lambda: storage.create(MANIFEST, b"1"),
        lambda: storage.delete("a"),
        target,
    ):
        with pytest.raises(
            Unreachable, match=r"hf://datasets/owner/echo\S*: .*\b\d{3}\b|got no such"
        ) as caught:
            verb()
        assert "\n" not in str(caught.value)
    assert len(hub.commits) == 1


def test_a_refusal_that_passes_is_not_noticed(hub, path):
    storage = target()
    hub.refused.extend([503, 429, None])
    copied(path, storage)
    assert published(open_published(ADDRESS)) == content_of(path)


def test_a_missing_dataset_and_revision_are_named(hub):
    with pytest.raises(Unreachable, match="got no such dataset, or none that you may see; make it"):
        target("hf://datasets/owner/other")
    with pytest.raises(Unreachable, match=r"cannot be reached: .*404"):
        open_published(f"{ADDRESS}@no-branch")


def test_an_offline_process_says_so(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE forbids asking the hub; unset it"):
        open_published(ADDRESS)


@pytest.mark.parametrize(
    "address", ["hf://owner/echo", "hf://datasets/owner", "hf://datasets/a/b/../c", "hf://datasets/a/b\n"]
)
def test_an_address_that_no_dataset_has_is_refused(address):
    with pytest.raises(StoreError, match=r"expected hf://datasets/OWNER/NAME\[/FOLDER\]\[@REVISION\]"):
        open_published(address)


def test_a_push_to_a_revision_is_refused():
    with pytest.raises(StoreError, match="names a revision, which cannot be added to; leave @v1 out"):
        open_published(f"{ADDRESS}@v1", [])


def test_more_files_than_a_hub_takes_are_refused_before_it_is_asked():
    """No hub runs here."""
    for keys, message in (
        (
            [f"mean/c/0/{number}/0/0" for number in range(10_001)],
            "10,001 files were to be sent, 10,001",
        ),
        (
            [f"{number // 9000}/{number}" for number in range(100_001)],
            "100,001 files were to be sent, 9,000",
        ),
    ):
        with pytest.raises(StoreError, match=rf"{message} of .*push to an object store"):
            open_published(ADDRESS, keys)


def test_a_hub_is_not_read_in_place():
    with pytest.raises(StoreError, match=r"is not read or written in place; .*: `vidlat pull` fetches"):
        open_storage(ADDRESS)


def test_the_command_line_pushes_to_and_pulls_from_a_hub(hub, path, tmp_path):
    code, text, _ = vidlat("push", path, ADDRESS)
    assert code == 0
    assert re.search(rf"{ADDRESS}: 3 videos, commit 1; \d+ files of [\d.]+ kB sent\n$", text)
    assert b"license: apache-2.0" in hub.files()["README.md"]
    code, text, _ = vidlat("pull", ADDRESS, "--out", tmp_path / "p.zarr")
    assert (code, "all verified" in text) == (0, True)
    assert content_of(tmp_path / "p.zarr") == content_of(path)
    assert set(files_in(open_published(ADDRESS))) == set(hub.files())
