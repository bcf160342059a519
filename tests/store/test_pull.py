"""A pulled cache appears whole and verified, from an object store and from a web server, or not at all."""

import errno
import shutil
from contextlib import suppress
from itertools import count
from types import SimpleNamespace

import pytest
from obstore.store import MemoryStore

from tests.store.caches import failure_of, writer_of
from tests.store.copies import CutOff, files_in
from tests.store.faults import Killed
from tests.store.object_store import environment, new_bucket, publish, s3_server
from tests.store.test_copy import copied
from tests.store.test_merge import A, B, add, make
from tests.store.test_prune import content_of
from tests.thorough import some_of
from vidlat.errors import InputError, StoreError
from vidlat.store.copying.pull import build_folder, pull_cache
from vidlat.store.copying.snapshot import read_snapshot
from vidlat.store.layout import CARD, LEASE, LOCK, MANIFEST, READERS, build_folders
from vidlat.store.storage import filesystem
from vidlat.store.storage.interface import Unreachable
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.storage.opening import open_storage
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.lease import hold_lease


@pytest.fixture
def path(tmp_path):
    path = make(tmp_path / "one.zarr", {"a.mp4": 99}, A)
    writer_of(path).record_failures([failure_of("broken.mp4")])
    return path


@pytest.fixture
def remote(path):
    """An object store with the cache and a card."""
    remote = ObjectStorage(MemoryStore(), "memory://x")
    copied(path, remote, card=b"A card")
    return remote


@pytest.fixture
def out(tmp_path):
    return tmp_path / "pulled" / "l.zarr"


def pulled(source, out):
    """Pull; returns the ids that were verified."""
    ids = []
    list(pull_cache(source, out, lambda video_id, _: ids.append(video_id)))
    return ids


def require_pulled(remote, path, out):
    """The folder holds what the storage does, bit for bit, a sound cache, and nothing lies beside it."""
    of_processes = {LOCK, READERS}
    assert {k: v for k, v in files_in(LocalStorage(out)).items() if k not in of_processes} == files_in(remote)
    assert not list(verify_cache(out))
    assert content_of(out) == content_of(path)
    assert [file.name for file in out.parent.iterdir()] == [out.name]


def test_a_pulled_cache_is_the_published_one(remote, path, out):
    assert sorted(pulled(remote, out)) == sorted(A)
    require_pulled(remote, path, out)
    assert (out / CARD).read_bytes() == b"A card"
    assert (out / READERS).is_file()  # which keeps prune away from a training


def test_a_pulled_cache_can_be_added_to(remote, out):
    pulled(remote, out)
    add(out, B)
    writer_of(out).record_failures([failure_of("e.mp4")])
    assert set(content_of(out)) == set(A | B)
    copied(out, remote)
    assert not list(verify_cache(out))


def test_a_cache_is_pulled_from_a_web_server(path, out):
    """A public bucket stands for one: its objects are read by name, and parts of them."""
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    with s3_server() as server, environment(server):
        bucket = new_bucket(server)
        published = open_storage(bucket)
        copied(path, published)
        address = bucket.replace("s3:/", server)
        for key in files_in(published):
            publish(server, f"{bucket}/{key}")
        source = ObjectStorage.at(address)
        assert not source.is_listed
        events = pull_cache(source, out)
        assert next(events).plan.num_bytes is None
        list(events)
        require_pulled(published, path, out)


def test_a_shard_that_has_no_end_is_not_read(remote, out):
    key = next(key for key, _ in remote.list() if "/c/" in key)
    damage(remote, key, bytes(10**6))
    remote.is_listed = False
    with pytest.raises(StoreError, match=rf"{key}: .*expected at most|{key}: has more"):
        pulled(remote, out)
    assert not out.exists()


def test_a_second_pull_copies_nothing(remote, path, out):
    pulled(remote, out)
    before = files_in(LocalStorage(out))
    (event,) = pull_cache(remote, out)
    assert event.plan is None
    assert files_in(LocalStorage(out)) == before


@pytest.mark.parametrize(
    ("make_out", "what"),
    [
        (lambda out: make(out, B), r"is another cache than memory://x; give another --out"),
        (lambda out: out.mkdir() or (out / "a").touch(), r"exists, and is no cache; give another --out"),
        (lambda out: out.write_text("a"), r"exists, and is no cache; give another --out"),
    ],
)
def test_another_out_is_refused_and_stays(remote, out, make_out, what):
    out.parent.mkdir()
    make_out(out)
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(StoreError, match=what):
        pulled(remote, out)
    assert sorted(out.parent.rglob("*")) == before


def test_another_state_of_the_cache_is_refused(remote, path, out):
    pulled(remote, out)
    add(path, B)
    copied(path, remote)
    with pytest.raises(StoreError, match=r"is of commit 3, memory://x of commit 4; pull into another --out"):
        pulled(remote, out)
    assert set(content_of(out)) == set(A)


def test_an_out_in_a_cache_is_refused(remote, path):
    with pytest.raises(InputError, match="lies in the cache"):
        pulled(remote, path / "mean" / "l.zarr")


def test_an_empty_folder_may_be_out(remote, path, out):
    out.mkdir(parents=True)
    pulled(remote, out)
    require_pulled(remote, path, out)


def test_half_a_push_is_no_cache(remote, out):
    remote.delete(MANIFEST)
    with pytest.raises(StoreError, match=r"memory://x: is no cache: .*continue a push to it"):
        pulled(remote, out)
    assert not out.parent.exists()


def damage(remote, key, content=None):
    """Other bytes of the same size, or other content."""
    old = remote.read(key)[0]
    remote.delete(key)
    remote.create(key, bytes([old[0] ^ 1]) + old[1:] if content is None else content)


def test_a_damaged_shard_is_found_and_nothing_appears(remote, path, out):
    damage(remote, next(key for key, _ in remote.list() if "/c/" in key))
    with pytest.raises(StoreError, match=r"memory://x: what was pulled has a problem, \S+: .*pull again"):
        pulled(remote, out)
    assert not out.exists()
    (build,) = out.parent.iterdir()
    shutil.rmtree(build)


@pytest.mark.parametrize(
    ("key", "content", "what"),
    [
        (MANIFEST, b"{}", r"damaged: videos/records/manifest\.json cannot be read"),
        ("mean/zarr.json", b"[", r"damaged: mean/zarr\.json: "),
        ("mean/zarr.json", b"{}", r"damaged: mean/zarr\.json: "),
        ("videos/records/000000000001-000000000001.parquet", None, "damaged: .* is not what was committed"),
    ],
)
def test_damage_that_shows_is_refused_before_anything_is_copied(remote, out, key, content, what):
    damage(remote, key, content)
    with pytest.raises(StoreError, match=what):
        pulled(remote, out)
    assert not out.parent.exists()


@pytest.mark.parametrize("key", ["videos/records/000000000001-000000000001.parquet", "std/zarr.json"])
def test_a_lost_file_is_damage(remote, out, key):
    remote.delete(key)
    with pytest.raises(StoreError, match=rf"damaged: .*{key}.*missing|damaged: .*missing: .*{key}"):
        pulled(remote, out)


def test_a_lost_shard_is_damage_also_on_the_web(remote, out):
    key = next(key for key, _ in remote.list() if "/c/" in key)
    remote.delete(key)
    with pytest.raises(StoreError, match=rf"damaged: {key} is missing"):
        pulled(remote, out)
    remote.is_listed = False
    with pytest.raises(StoreError, match=rf"damaged: {key} is missing"):
        pulled(remote, out)
    assert not out.exists()


def test_a_manifest_cannot_lead_out_of_the_folder(tmp_path):
    manifest = SimpleNamespace(cache_uuid="../../../etc")
    assert build_folder(tmp_path / "l.zarr", manifest).parent == tmp_path


def test_too_little_disk_is_told_before_anything_is_copied(remote, out, monkeypatch):
    monkeypatch.setattr(filesystem, "free_bytes", lambda _: 100)
    with pytest.raises(StoreError, match=r"0\.0 GB are to be copied and 0\.0 GB are free on its disk; free"):
        pulled(remote, out)
    assert not [file for file in out.parent.rglob("*") if "/c/" in str(file)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_one_line_and_the_next_pull_continues(remote, path, out, monkeypatch, number):
    real, calls = filesystem.create_file, count()

    def create_file(file, *arguments, **options):
        if next(calls) > 8:
            raise OSError(number, "No space", str(file))
        return real(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(filesystem, "create_file", create_file)
        with pytest.raises(Unreachable, match="got No space; expected a folder to use"):
            pulled(remote, out)
    assert not out.exists()
    pulled(remote, out)
    require_pulled(remote, path, out)


def test_a_second_pull_at_once_is_refused(remote, out):
    build = build_folder(out, read_snapshot(remote).manifest)
    (build / "videos" / "records").mkdir(parents=True)
    with hold_lease(build, "vidlat pull"), pytest.raises(StoreError, match="in use by `vidlat pull` on"):
        pulled(remote, out)
    assert not out.exists()


def test_what_a_killed_pull_of_an_earlier_state_left_is_used_and_tidied(remote, path, out):
    with suppress(Killed):
        pulled(CutOff(remote, 15), out)
    (build,) = build_folders(out)
    (build / "mean" / ".0123456789abcdef0123456789abcdef.partial").touch()
    (build / "videos" / "records" / "000000000001-000000000009.parquet").touch()
    add(path, B)
    copied(path, remote)
    pulled(remote, out)
    require_pulled(remote, path, out)


def test_a_folder_that_a_pull_of_another_cache_left_goes(remote, path, out, tmp_path):
    other = ObjectStorage(MemoryStore(), "memory://other")
    copied(make(tmp_path / "other.zarr", B), other)
    with suppress(Killed):
        pulled(CutOff(other, 11), out)
    pulled(remote, out)
    require_pulled(remote, path, out)


def kill_everywhere(remote, path, out, all_steps):
    """Kill a pull before and after each verb of the source; returns how many were killed."""
    num_killed = 0
    for step in all_steps:
        for after in (False, True):
            cut = CutOff(remote, step, after=after)
            with suppress(Killed):
                pulled(cut, out)
            assert out.exists() is not cut.met
            pulled(remote, out)
            require_pulled(remote, path, out)
            shutil.rmtree(out)
            num_killed += cut.met
        if not cut.met:
            return num_killed
    return num_killed


def test_a_pull_that_is_killed_anywhere_continues(remote, path, out):
    assert kill_everywhere(remote, path, out, count(0, 6)) > 3


@pytest.mark.slow
def test_a_pull_that_is_killed_at_every_verb_continues(remote, path, out):
    num_killed = kill_everywhere(remote, path, out, count())
    print(f"{num_killed} of {num_killed} right")
    assert num_killed > 30


@pytest.mark.parametrize("name", some_of(["hold_lease", "_verify", "_publish"]))
def test_a_pull_that_is_killed_late_continues(remote, path, out, monkeypatch, name):
    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"vidlat.store.copying.pull.{name}", killed)
        with pytest.raises(Killed):
            pulled(remote, out)
    assert not out.exists()
    pulled(remote, out)
    require_pulled(remote, path, out)
    assert not (out / LEASE).exists()
