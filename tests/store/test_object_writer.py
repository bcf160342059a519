"""Writing to a cache in an object store: killed at any verb, by two at once, and after waking up."""

import dataclasses
import json
import threading

import pytest
from obstore.store import MemoryStore

from tests.store.caches import SCHEMA, frames_of, random_posterior, record_of
from tests.store.object_store import environment, new_bucket, s3_server
from tests.thorough import some_of, steps
from vidlat.errors import ShardExistsError, StoreError
from vidlat.store.latents.write_shards import write_into, write_shards
from vidlat.store.layout import LEASE, MANIFEST, shard_file
from vidlat.store.process import Process
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.storage.interface import DOCUMENT_BYTES, Missing
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.verify.cache import verify_storage
from vidlat.store.writing import object_lease
from vidlat.store.writing.object_lease import ObjectLease
from vidlat.store.writing.object_writer import create_object_cache, open_object_writer
from vidlat.store.writing.opening import create_cache, is_taken, open_writer

BATCHES = [
    {"a": random_posterior(11, 1), "b": random_posterior(3, 2)},
    {"c": random_posterior(8, 3)},
    {"d": random_posterior(1, 4), "e": random_posterior(2, 5)},
]
VIDEOS = {name: latents for batch in BATCHES for name, latents in batch.items()}
VERBS = ("read", "create", "replace", "list", "delete")


class Killed(BaseException):
    pass


class Killing:
    """A storage in whose `at`-th verb its process is killed, before it happened or after."""

    is_listed = True

    def __init__(self, storage, at, after):
        self.storage, self.left, self.after, self.where = storage, at, after, storage.where

    def __getattr__(self, verb):
        do = getattr(self.storage, verb)
        if verb not in VERBS:
            return do

        def may_be_killed(*arguments):
            self.left -= 1
            if self.left < 0 and not self.after:
                raise Killed
            result = do(*arguments)
            if self.left < 0:
                raise Killed
            return result

        return may_be_killed


@pytest.fixture
def storage():
    return ObjectStorage(MemoryStore(), "memory://bucket")


@pytest.fixture
def elsewhere(monkeypatch):
    """Every holder of a lease runs on a machine of its own, and is dead as soon as it is silent."""
    monkeypatch.setattr(object_lease, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(
        object_lease,
        "this_process",
        lambda: Process(host="another", boot_id="b", pid_namespace="p", pid=7, pid_start=1),
    )


def encode(storage, batches=BATCHES):
    """What a driver and its workers do, of what is not there yet."""
    create_object_cache(storage, SCHEMA)
    there = LatentCache(storage).records()
    with open_object_writer(storage, "vidlat encode") as writer:
        for batch in batches:
            if batch.keys() <= there.keys():
                continue
            posteriors = list(batch.values())
            start = writer.reserve(SCHEMA.num_shards(frames_of(posteriors)))
            ranges = write_into(storage, start, posteriors)
            writer.commit(
                [
                    record_of(name, first, posterior)
                    for (name, posterior), (first, _) in zip(batch.items(), ranges, strict=True)
                ]
            )


def require_whole_batches(storage, *, all_of_them=False):
    """What is committed is whole, and as it was encoded."""
    try:
        storage.read(MANIFEST)
    except Missing:
        assert not all_of_them
        return
    cache = LatentCache(storage)
    found = set(cache.records())
    assert all(batch.keys() <= found or not batch.keys() & found for batch in BATCHES)
    assert found == set(VIDEOS) or not all_of_them
    for name in found:
        latents = cache.read_latents(name)
        assert latents.mean.tobytes() == VIDEOS[name].mean.astype("<f2").tobytes()
        assert latents.std.tobytes() == VIDEOS[name].std.astype("<f2").tobytes()
    problems = [problem for problem in verify_storage(storage) if problem.kind != "leftover"]
    assert problems == []


@pytest.mark.parametrize("after", some_of([True, False]), ids=some_of(["after", "before"]))
def test_an_encode_killed_at_any_verb_leaves_whole_commits_and_the_next_one_ends_it(elsewhere, after):
    num_trials = 0
    for at in steps():
        storage = ObjectStorage(MemoryStore(), "memory://bucket")
        try:
            encode(Killing(storage, at, after))
        except Killed:
            num_trials += 1
            require_whole_batches(storage)
            encode(storage)
            require_whole_batches(storage, all_of_them=True)
        else:
            break
    print(f"killed {'after' if after else 'before'} a verb: {num_trials} of {num_trials}")
    assert num_trials > 10


def test_a_cache_in_an_object_store_is_that_in_a_folder(storage, tmp_path):
    encode(storage)
    path = tmp_path / "l.zarr"
    create_cache(path, SCHEMA)
    for batch in BATCHES:
        with open_writer(path, "vidlat encode") as writer:
            posteriors = list(batch.values())
            start = writer.reserve(SCHEMA.num_shards(frames_of(posteriors)))
            ranges = write_shards(path, start, posteriors)
            records = [record_of(n, f, p) for (n, p), (f, _) in zip(batch.items(), ranges, strict=True)]
            writer.commit(records)
    local = LocalStorage(path)
    shards = [key for key, _ in local.list() if "/c/" in key]
    assert sorted(shards) == sorted(key for key, _ in storage.list() if "/c/" in key)
    assert all(local.read(key)[0] == storage.read(key)[0] for key in shards)
    assert LatentCache(storage).records() == open_cache(path).records()


def test_a_former_driver_that_wakes_up_changes_nothing(storage, elsewhere):
    create_object_cache(storage, SCHEMA)
    asleep = open_object_writer(storage, "vidlat encode")
    former = asleep.__enter__()
    batch = BATCHES[0]
    start = former.reserve(SCHEMA.num_shards(frames_of(batch.values())))
    ranges = write_into(storage, start, list(batch.values()))
    with open_object_writer(storage, "vidlat encode") as now:
        assert now.lease.taken_from.process.host == "another"
        before = storage.read(MANIFEST)
        records = [record_of(n, f, p) for (n, p), (f, _) in zip(batch.items(), ranges, strict=True)]
        for change in (lambda: former.commit(records), lambda: former.reserve(1)):
            with pytest.raises(StoreError, match="another process has taken it over"):
                change()
        assert storage.read(MANIFEST) == before
        asleep.__exit__(None, None, None)
        assert json.loads(storage.read(LEASE)[0])["token"]  # it does not release what is another's
        now.commit(records)
    encode(storage)
    require_whole_batches(storage, all_of_them=True)


def test_a_running_driver_is_not_disturbed(storage):
    create_object_cache(storage, SCHEMA)
    with open_object_writer(storage, "vidlat encode") as writer:
        with (
            pytest.raises(StoreError, match=r"in use by `vidlat encode` on .*: wait until it has finished"),
            open_object_writer(storage, "vidlat encode"),
        ):
            pass
        writer.reserve(1)
    with open_object_writer(storage, "vidlat encode") as writer:
        assert writer.lease.taken_from is None


def test_a_driver_on_another_machine_that_beats_is_alive(storage, elsewhere, monkeypatch):
    create_object_cache(storage, SCHEMA)
    lease = ObjectLease(storage, "vidlat encode")
    lease.take()
    monkeypatch.setattr(object_lease, "STALE_SECONDS", 60.0)
    monkeypatch.setattr(object_lease.time, "sleep", lambda _: lease.beat())
    told = []
    with (
        pytest.raises(StoreError, match="in use by `vidlat encode` on another, process 7"),
        open_object_writer(storage, "vidlat encode", told.append),
    ):
        pass
    (line,) = told
    assert line.startswith("Waiting up to 60 s for a sign of life of `vidlat encode` on another, process 7")


@pytest.mark.parametrize("content", [None, bytes(DOCUMENT_BYTES + 1)], ids=["deleted", "too large"])
def test_a_lease_that_somebody_spoils_stops_no_driver(storage, content):
    create_object_cache(storage, SCHEMA)
    with open_object_writer(storage, "vidlat encode") as writer:
        version = storage.read(LEASE)[1]
        if content is None:
            storage.delete(LEASE)
        else:
            storage.replace(LEASE, content, version)
        writer.lease.beat()
        writer.reserve(1)
        if content is None:
            assert json.loads(storage.read(LEASE)[0])["purpose"] == "vidlat encode"


def test_two_drivers_at_once_that_number_a_commit_alike_are_told_apart(storage, monkeypatch):
    create_object_cache(storage, SCHEMA)
    with open_object_writer(storage, "vidlat encode") as one:
        storage.delete(LEASE)
        with open_object_writer(storage, "vidlat encode") as other:
            monkeypatch.setattr(storage, "list", lambda _: iter(()))  # both look before either commits
            places = {}
            for name, writer in (("c", one), ("d", other)):
                start = writer.reserve(1)
                write_into(storage, start, [VIDEOS[name]])
                places[name] = record_of(name, start, VIDEOS[name])
            other.commit([places["d"]])
            with pytest.raises(StoreError, match="another process has taken it over"):
                one.commit([places["c"]])
            with pytest.raises(StoreError, match="another process has taken it over"):
                one.reserve(1)
    assert set(LatentCache(storage).records()) == {"d"}


def test_two_drivers_that_reserve_at_once_get_ranges_of_their_own(storage, elsewhere):
    create_object_cache(storage, SCHEMA)
    drivers = [open_object_writer(storage, "vidlat encode") for _ in range(4)]
    writers = [driver.__enter__() for driver in drivers]
    starts, threads = [], []
    for writer in writers:

        def reserve(writer=writer):
            starts.extend(writer.reserve(2) for _ in range(10))

        threads.append(threading.Thread(target=reserve))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(starts) == list(range(0, 40 * 2 * SCHEMA.shard_frames, 2 * SCHEMA.shard_frames))


def test_no_shard_is_written_over(storage):
    create_object_cache(storage, SCHEMA)
    with open_object_writer(storage, "vidlat encode") as writer:
        start = writer.reserve(1)
    write_into(storage, start, [random_posterior(4, 1)])
    content = storage.read(shard_file("mean", 0))
    with pytest.raises(ShardExistsError, match="shard 0 of mean is already written"):
        write_into(storage, start, [random_posterior(4, 2)])
    assert storage.read(shard_file("mean", 0)) == content


def test_documents_of_other_settings_are_refused(storage):
    encode(storage)
    storage.delete(MANIFEST)
    other = dataclasses.replace(SCHEMA, settings=dataclasses.replace(SCHEMA.settings, size=24))
    with pytest.raises(StoreError, match=r"holds a zarr\.json of other settings"):
        create_object_cache(storage, other)


def test_a_cache_is_made_and_held_at_an_address(monkeypatch):
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    with s3_server() as server, environment(server):
        address = new_bucket(server)
        assert not is_taken(address)
        create_cache(address, SCHEMA)
        assert is_taken(address)
        with open_writer(address, "vidlat encode") as writer:
            start = writer.reserve(1)
            (place,) = write_shards(address, start, [VIDEOS["c"]])
            writer.commit([record_of("c", place[0], VIDEOS["c"])])
        assert (
            open_cache(address).read_latents("c").mean.tobytes() == VIDEOS["c"].mean.astype("<f2").tobytes()
        )
