"""A cache in an object store holds what the folder holds from which it was stored; no shard is read twice."""

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, strategies as st
from obstore.store import MemoryStore

from tests.store.caches import SCHEMA, add_videos, random_posterior
from tests.store.object_store import be_patient, bucket_behind_proxy
from tests.store.remote import put
from tests.thorough import is_thorough, some_of
from vidlat.errors import ExitCode, InputError, StoreError
from vidlat.paths import CACHE_DIR, CACHE_GB
from vidlat.store.latents import shard_cache
from vidlat.store.latents.shard import ABSENT, decode_chunk, index_size, parse_index, require_sound_shard
from vidlat.store.layout import MANIFEST, ROOT, shard_file
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.records.manifest import read_committed
from vidlat.store.storage.interface import Missing, Unreachable
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.summary import summarise
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.opening import create_cache

NUM_CHUNKS = SCHEMA.shard_frames // SCHEMA.chunk_frames
CHUNK_SHAPE = (SCHEMA.latent_dim, SCHEMA.chunk_frames, SCHEMA.latent_height, SCHEMA.latent_width)


@pytest.fixture(scope="module")
def proxy():
    with bucket_behind_proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A cache with a video over several shards, one in a part of a chunk, and a hole."""
    path = tmp_path_factory.mktemp("local") / "l.zarr"
    create_cache(path, SCHEMA)
    for seed, lengths in enumerate(({"a": 19, "b": 3}, {"c": 4, "d": 8}, {"e": 1})):
        add_videos(path, {name: random_posterior(n, seed) for name, n in lengths.items()})
    return path


@pytest.fixture
def folder(proxy):
    return f"{proxy.bucket}/{uuid4().hex}"


@pytest.fixture
def address(local, folder, proxy, monkeypatch):
    monkeypatch.delenv(CACHE_DIR, raising=False)
    put(local, ObjectStorage.at(folder))
    proxy.set()
    return folder


@pytest.fixture
def impatient(monkeypatch):
    be_patient(monkeypatch, 0.05, request_seconds=5)


def videos(cache):
    return {name: (latents.mean.tobytes(), latents.std.tobytes()) for name in cache.records()
            for latents in [cache.read_latents(name)]}  # fmt: skip


def windows(cache, starts, length=4):
    mean, std = cache.read_windows(np.array(starts), length)
    return mean.tobytes(), std.tobytes()


def starts_of(cache):
    return [frame for record in cache.records().values() for frame in range(record.start, record.stop)]


@pytest.fixture(params=["ranges", "whole shards", "few shards"])
def way(request, tmp_path, monkeypatch):
    """How latents are read: by ranges, from shards that are kept, or one way and the other."""
    if request.param != "ranges":
        monkeypatch.setenv(CACHE_DIR, str(tmp_path / "kept"))
    if request.param == "few shards":
        monkeypatch.setenv(CACHE_GB, "2e-6")


def test_a_remote_cache_holds_what_its_folder_holds(local, address, way):
    here, there = open_cache(local), open_cache(address)
    assert there.records() == here.records()
    assert there.num_latent_frames == here.num_latent_frames
    assert videos(there) == videos(here)


def test_windows_of_a_remote_cache_are_those_of_its_folder(local, address, way):
    here, there, rng = open_cache(local), open_cache(address), np.random.default_rng(5)
    for _ in range(200 if is_thorough() else 15):
        starts = rng.choice(starts_of(here), rng.integers(1, 20))
        length = int(rng.integers(1, 12))
        assert windows(there, starts, length) == windows(here, starts, length)


def test_a_remote_cache_is_verified(local, address):
    assert list(verify_cache(address)) == []
    here, there = summarise(local), summarise(address)
    assert (there.num_videos, there.num_used_latent_frames) == (here.num_videos, here.num_used_latent_frames)
    assert there.num_bytes == here.num_bytes
    assert (there.vanished.num_videos, there.unknown.num_videos) == (0, 5)  # sources of another machine


def test_a_window_takes_a_request_and_one_more_for_its_shard(address, proxy):
    cache = open_cache(address)
    before = proxy.num_gets
    cache.read_windows(np.array([0, 1, 2]), 2, with_std=False)
    assert proxy.num_gets - before == 2
    cache.read_windows(np.array([0]), 2, with_std=False)
    assert proxy.num_gets - before == 3


def test_kept_shards_are_fetched_once_by_all_processes(local, address, proxy, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "kept"))
    here, there = open_cache(local), open_cache(address)
    starts = starts_of(here)
    num_shards = len({start // SCHEMA.shard_frames for start in starts})
    before = proxy.num_gets
    assert windows(there, starts) == windows(here, starts)
    assert proxy.num_gets - before == 2 * num_shards
    other = pickle.loads(pickle.dumps(there))  # as in a worker of a loader
    before = proxy.num_gets
    for cache in (there, other):
        assert windows(cache, starts) == windows(here, starts)
    assert proxy.num_gets == before


@pytest.mark.parametrize("fault", some_of(["flipped", "cut", "gone"]))
def test_kept_shards_that_are_damaged_or_gone_are_read_again(local, address, tmp_path, monkeypatch, fault):
    kept = tmp_path / "kept"
    monkeypatch.setenv(CACHE_DIR, str(kept))
    here, cache = open_cache(local), open_cache(address)
    assert videos(cache) == videos(here)
    for file in kept.glob("*/*/c/0/*/0/0"):
        content = bytearray(file.read_bytes())
        content[10] ^= 1
        file.unlink()
        if fault != "gone":
            file.write_bytes(content if fault == "flipped" else content[:-5])
    for again in (cache, open_cache(address), open_cache(address)):
        assert videos(again) == videos(here)
    assert all(path.stat().st_size != 0 for path in kept.glob("*/*/c/0/*/0/0"))


def test_no_more_is_kept_than_there_is_room_for(local, address, tmp_path, monkeypatch):
    kept, limit = tmp_path / "kept", 2500
    monkeypatch.setenv(CACHE_DIR, str(kept))
    monkeypatch.setenv(CACHE_GB, str(limit / 1e9))
    assert videos(open_cache(address)) == videos(open_cache(local))
    sizes = [file.stat().st_size for file in kept.glob("*/*/c/0/*/0/0")]
    assert 0 < sum(sizes) <= limit


def test_caches_that_nobody_reads_make_room(local, address, proxy, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    monkeypatch.setenv(CACHE_DIR, str(kept))
    first = open_cache(address)
    windows(first, [0])
    (folder,) = [each for each in kept.iterdir() if each.is_dir()]
    other = f"{proxy.bucket}/{uuid4().hex}"
    path = tmp_path / "other.zarr"
    create_cache(path, SCHEMA)
    add_videos(path, {"x": random_posterior(8, 7)})
    put(path, ObjectStorage.at(other))
    size = sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())
    monkeypatch.setenv(CACHE_GB, str((size + 100) / 1e9))
    windows(open_cache(other), [0])
    assert folder.exists()  # it is read
    del first
    monkeypatch.setattr(shard_cache.filesystem, "time_of_change", lambda path: 0.0)
    windows(open_cache(other), [0])
    assert not folder.exists()
    assert len(list(kept.glob("*/mean/c/0/*/0/0"))) == 1


def test_folders_of_others_beside_kept_shards_stay(local, address, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    for name in ("in-use", "data"):
        for folder in ("precious", f"vidlat-{'0' * 31}"):
            (kept / folder).mkdir(parents=True, exist_ok=True)
            (kept / folder / name).write_text(folder)
    (kept / f"vidlat-{'0' * 32}").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(kept / "precious", tmp_path / "elsewhere")
    monkeypatch.setenv(CACHE_DIR, str(kept))
    monkeypatch.setenv(CACHE_GB, "1e-9")
    assert videos(open_cache(address)) == videos(open_cache(local))
    for folder in ("precious", f"vidlat-{'0' * 31}", f"vidlat-{'0' * 32}"):
        assert sorted(each.name for each in (kept / folder).iterdir()) == ["data", "in-use"]


@pytest.mark.parametrize("num_read", some_of([0, 1, 9]))
def test_a_folder_of_shards_may_be_deleted_at_any_time(local, address, tmp_path, monkeypatch, num_read):
    kept = tmp_path / "kept"
    monkeypatch.setenv(CACHE_DIR, str(kept))
    here, cache = open_cache(local), open_cache(address)
    windows(cache, starts_of(here)[:num_read])
    shutil.rmtree(kept)
    for _ in range(2):
        assert videos(cache) == videos(here)
        assert windows(cache, starts_of(here)) == windows(here, starts_of(here))


@pytest.mark.parametrize("make", some_of([os.mkfifo, os.mkdir, lambda file: file.symlink_to("/dev/zero")]))
def test_what_stands_in_place_of_a_kept_shard_is_not_read(local, address, tmp_path, monkeypatch, make):
    kept = tmp_path / "kept"
    monkeypatch.setenv(CACHE_DIR, str(kept))
    here, cache = open_cache(local), open_cache(address)
    assert videos(cache) == videos(here)
    for file in kept.glob("*/*/c/0/*/0/0"):
        file.unlink()
        make(file)
    for again in (cache, open_cache(address)):
        assert videos(again) == videos(here)


def test_two_caches_that_began_as_one_keep_shards_of_their_own(local, folder, proxy, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "kept"))
    for number in (1, 2):
        path = shutil.copytree(local, tmp_path / f"{number}.zarr")
        add_videos(path, {"x": random_posterior(9, number)})
        put(path, ObjectStorage.at(f"{folder}/{number}"))
        assert videos(open_cache(f"{folder}/{number}")) == videos(open_cache(path))


def _read_in_child(cache, answers):
    try:
        cache.read_latents("a")
    except StoreError as error:
        answers.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_of_a_reader_is_refused_instead_of_waiting(local, address):
    cache = open_cache(address)
    cache.read_latents("a")
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_read_in_child, args=(cache, answers), daemon=True)
    child.start()
    assert "this process was forked" in answers.get(timeout=60)
    child.join()


@pytest.mark.parametrize("limit", some_of(["0", "-1", "much", "nan", "inf"]))
def test_a_limit_is_a_number_above_zero(address, tmp_path, monkeypatch, limit):
    monkeypatch.setenv(CACHE_DIR, str(tmp_path))
    monkeypatch.setenv(CACHE_GB, limit)
    with pytest.raises(InputError, match=f"VIDLAT_CACHE_GB: got '{limit}'; expected a number of gigabytes"):
        open_cache(address)


def test_shards_cannot_be_kept_in_a_file(address, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_DIR, str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot hold shards: .*give another --cache-dir"):
        open_cache(address)


def test_a_missing_shard_is_missing_latents(local, address, way):
    ObjectStorage.at(address).delete(shard_file("mean", 1))
    cache = open_cache(address)
    with pytest.raises(StoreError, match="a: its latents are not those recorded"):
        cache.read_latents("a")
    with pytest.raises(StoreError, match="a: latents of mean are missing"):
        cache.read_windows(np.array([8]), 4)
    (problem,) = verify_cache(address)
    assert (problem.where, problem.kind) == ("a", "missing")


def test_a_damaged_shard_is_damage_of_its_videos(local, address, way):
    storage = ObjectStorage.at(address)
    key = shard_file("std", 0)
    content, version = storage.read(key)
    storage.replace(key, content[:20] + bytes([content[20] ^ 4]) + content[21:], version)
    with pytest.raises(StoreError, match=r"a: its latents are damaged \(.*std/c/0/0/0/0: the checksum"):
        open_cache(address).read_latents("a")
    assert {(each.where, each.kind) for each in verify_cache(address)} == {("a", "damaged")}


def test_half_a_push_is_no_cache_yet(local, folder):
    storage = ObjectStorage.at(folder)
    put(local, storage)
    storage.delete(MANIFEST)
    with pytest.raises(StoreError, match=r"holds no whole cache: .*manifest.json is missing.*run it again"):
        open_cache(folder)
    storage.delete(ROOT)
    with pytest.raises(StoreError, match=r"is not a vidlat cache: it has no zarr\.json"):
        open_cache(folder)


@pytest.mark.parametrize("fault", some_of(["403", "503", "dropped"]))
def test_a_store_without_an_answer_is_never_called_damaged(address, proxy, impatient, fault):
    cache = open_cache(address)
    proxy.set(("any", fault), stays=True)
    for ask in (
        lambda: cache.read_latents("a"),
        lambda: cache.read_windows(np.array([0]), 4),
        lambda: open_cache(address),
        lambda: list(verify_cache(address)),
    ):
        with pytest.raises(Unreachable, match="cannot be reached") as caught:
            ask()
        assert "damage" not in str(caught.value)
    proxy.set()
    assert list(verify_cache(address)) == []


def test_a_store_that_fails_while_it_is_verified_is_not_called_damaged(address, proxy, impatient):
    proxy.set()
    assert list(verify_cache(address)) == []
    for num_answers in some_of(range(proxy.num_gets)):
        proxy.set(*[("GET", None)] * num_answers, ("GET", "503"), stays=True)
        with pytest.raises(Unreachable, match="cannot be reached"):
            list(verify_cache(address))
    proxy.set()


def test_faults_that_pass_are_not_noticed(local, address, proxy, monkeypatch):
    be_patient(monkeypatch, 10, request_seconds=5)
    here = open_cache(local)
    for fault in ("503", "dropped", "cut", "429"):
        proxy.set(*[("GET", fault), ("GET", None)] * 20)
        assert videos(open_cache(address)) == videos(here)
    proxy.set()


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_a_command_that_waits_for_a_store_ends_at_once_by_ctrl_c(address, proxy):
    command = [sys.executable, "-m", "vidlat", "verify", address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:

        def interrupt():
            child.send_signal(signal.SIGINT)
            return "stalled"

        proxy.set(*[("any", None)] * 25, ("any", interrupt), ("any", "stalled"), stays=True)
        _, told = child.communicate(timeout=40)
    proxy.set()
    assert child.returncode == ExitCode.INTERRUPTED
    assert told.strip() == "Interrupted."


@given(flip=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_no_changed_bit_of_a_shard_goes_unnoticed(local, flip, bit):
    content = bytearray((local / shard_file("mean", 0)).read_bytes())
    require_sound_shard(bytes(content), NUM_CHUNKS)
    content[flip % len(content)] ^= 1 << bit
    with pytest.raises(ValueError, match=r"checksum|names chunks"):
        require_sound_shard(bytes(content), NUM_CHUNKS)


@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_shard_are_an_error_of_ours(content):
    for read in (
        lambda: parse_index(content, NUM_CHUNKS),
        lambda: decode_chunk(content, CHUNK_SHAPE),
        lambda: require_sound_shard(content, NUM_CHUNKS),
    ):
        with pytest.raises(ValueError, match=r"index|chunk"):
            read()


def test_a_chunk_that_claims_to_be_larger_is_not_unpacked(local):
    import google_crc32c

    content = (local / shard_file("mean", 0)).read_bytes()
    ((offset, size), *_) = parse_index(content[-index_size(NUM_CHUNKS) :], NUM_CHUNKS).tolist()
    packed = bytearray(content[offset : offset + size - 4])
    packed[4:8] = (2**31 - 1).to_bytes(4, "little")
    with pytest.raises(ValueError, match="a chunk does not unpack to 240 bytes"):
        decode_chunk(bytes(packed) + google_crc32c.value(bytes(packed)).to_bytes(4, "little"), CHUNK_SHAPE)


@pytest.mark.parametrize("size", [10**6, 2**61])
def test_an_index_that_names_more_than_a_shard_can_hold_is_not_followed(local, way, size):
    import google_crc32c

    storage = ObjectStorage(MemoryStore(), "memory://bucket")
    put(local, storage)
    index = np.full((NUM_CHUNKS, 2), ABSENT, "<u8")
    index[0] = 0, size
    content = bytes(10**6) + index.tobytes()
    content += google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    key = shard_file("mean", 0)
    storage.delete(key)
    storage.create(key, content)
    read, most = storage.read, []

    def noted(key, range=None):
        answer = read(key, range)
        most.append(len(answer[0]))
        return answer

    storage.read = noted
    with pytest.raises(StoreError, match=r"a: its latents are damaged .*index names chunks that cannot be"):
        LatentCache(storage).read_latents("a")
    assert max(most) < 20_000


def test_a_uuid_that_is_no_text_is_damage(local):
    storage = ObjectStorage(MemoryStore(), "memory://bucket")
    put(local, storage)
    manifest, version = read_committed(storage)
    storage.replace(MANIFEST, replace(manifest, cache_uuid="\ud800").to_json(), version)
    with pytest.raises(StoreError, match=r"damaged: .*cache_uuid: got '\\ud800'"):
        LatentCache(storage)


def test_a_copy_of_another_cache_is_told(local, address, tmp_path):
    cache = open_cache(address)
    state = pickle.dumps(cache)
    path = tmp_path / "other.zarr"
    create_cache(path, SCHEMA)
    storage = ObjectStorage.at(address)
    storage.replace(MANIFEST, (path / MANIFEST).read_bytes(), storage.read(MANIFEST)[1])
    with pytest.raises(StoreError, match="has been replaced by another cache; start again"):
        pickle.loads(state)


def test_any_storage_will_do(local, tmp_path):
    """The oracle of this file is the folder; here both are folders, and one is read as if it were remote."""
    from obstore.store import MemoryStore

    storage = ObjectStorage(MemoryStore(), "memory://")
    put(local, storage)
    assert videos(LatentCache(storage)) == videos(open_cache(shutil.copytree(local, tmp_path / "copy")))
    with pytest.raises(Missing):
        storage.open("nothing", 1)
    assert isinstance(LatentCache(LocalStorage(local)).storage, LocalStorage)
