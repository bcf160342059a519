"""A copy of a cache is the cache, wherever it is cut off and continued; what it would lose is refused."""

import os
import shutil
from contextlib import suppress
from itertools import count, product
from uuid import uuid4

import pytest
from obstore.store import MemoryStore

from tests.store.caches import failure_of, writer_of
from tests.store.copies import CutOff, files_in, published
from tests.store.faults import Killed
from tests.store.object_store import Proxy, environment, new_bucket, s3_server, serving
from tests.store.test_merge import A, B, add, latents_as_bytes, make
from tests.store.test_prune import content_of, pruned
from tests.store.test_storage_faults import be_patient
from tests.thorough import is_thorough, some_of
from vidlat.errors import StoreError
from vidlat.store.copying.copy import CARD_MARK, copy_cache
from vidlat.store.copying.divergence import DivergedError
from vidlat.store.copying.snapshot import read_snapshot
from vidlat.store.layout import CARD, LOCK, MANIFEST, READERS, ROOT
from vidlat.store.storage.interface import Missing, Unreachable
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.storage.opening import open_storage


@pytest.fixture
def path(tmp_path):
    """A cache in which a hole lies between the videos, one was removed, one replaced, and one failed."""
    path = make(tmp_path / "one.zarr", {"a.mp4": 99, "gone.mp4": 6})
    writer_of(path).reserve(2)
    add(path, {"long.mp4": A["long.mp4"], "b.mp4": A["b.mp4"]})
    add(path, {"a.mp4": A["a.mp4"]})
    writer_of(path).remove(["gone.mp4"])
    writer_of(path).record_failures([failure_of("broken.mp4")])
    return path


@pytest.fixture(scope="module")
def bucket():
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    with s3_server() as server, environment(server):
        yield new_bucket(server)


@pytest.fixture
def memory():
    return ObjectStorage(MemoryStore(), "memory://x")


@pytest.fixture(params=["folder", "memory"])
def target(request, tmp_path):
    if request.param == "memory":
        return request.getfixturevalue("memory")
    return LocalStorage(tmp_path / "copy.zarr", create=True)


@pytest.fixture
def s3(bucket):
    return open_storage(f"{bucket}/{uuid4().hex}", write=True)


def copied(source, target, **options):
    """Copy a cache from a folder or a storage; returns the plan, the number of files, and their bytes."""
    storage = source if hasattr(source, "read") else LocalStorage(source)
    first, *events = copy_cache(read_snapshot(storage), target, **options)
    return first.plan, sum(event.num_files for event in events), sum(event.num_bytes for event in events)


def live_files(path):
    """The files of a cache but for those of its processes, found without the code under test."""
    files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    return {key: file.read_bytes() for key, file in files.items() if key not in (LOCK, READERS)}


def test_a_copy_has_the_files_of_the_cache_without_dead_shards(path, target):
    plan, num_files, num_bytes = copied(path, target)
    copy, files = files_in(target), live_files(path)
    assert copy.items() <= files.items()
    # Shards 0 to 2 held the first a.mp4 alone, 3 gone.mp4.
    left_out = files.keys() - copy.keys()
    assert left_out == {f"{name}/c/0/{shard}/0/0" for name in ("mean", "std") for shard in range(4)}
    assert published(target) == content_of(path)
    assert (plan.num_files, plan.num_there) == (num_files, 0)
    documents = {key for key in copy if key.endswith(".json")}
    assert num_files == len(copy) - len(documents)
    assert plan.num_bytes == num_bytes == sum(len(copy[key]) for key in copy.keys() - documents)


def test_a_copy_in_an_object_store_grows_and_comes_back(path, s3, tmp_path):
    copied(path, s3)
    assert published(s3) == content_of(path)
    add(path, B)
    copied(path, s3)
    back = LocalStorage(tmp_path / "back.zarr", create=True)
    copied(s3, back)
    assert files_in(back).items() <= files_in(s3).items()
    assert published(s3) == published(back) == content_of(path)


def test_a_copy_of_a_copy_is_the_copy(path, target, tmp_path):
    copied(path, target)
    back = LocalStorage(tmp_path / "back.zarr", create=True)
    copied(target, back)
    assert files_in(back) == files_in(target)
    assert content_of(tmp_path / "back.zarr") == content_of(path)


def test_an_empty_cache_is_copied(tmp_path, memory):
    copied(make(tmp_path / "empty.zarr"), memory)
    assert published(memory) == {}


def test_a_second_copy_writes_nothing(path, target):
    copied(path, target)
    versions = {key: target.read(key)[1] for key, _ in target.list()}
    plan, num_files, _ = copied(path, target)
    assert (plan.num_files, plan.num_bytes, num_files) == (0, 0, 0)
    assert plan.num_there == len([key for key in versions if not key.endswith(".json")])
    assert {key: target.read(key)[1] for key, _ in target.list()} == versions


def test_later_states_are_added(path, target):
    copied(path, target)
    before = files_in(target)
    add(path, B)
    add(path, {"b.mp4": 31})
    writer_of(path).remove(["long.mp4"])
    plan, *_ = copied(path, target)
    assert plan.num_files
    assert plan.num_there
    assert published(target) == content_of(path) == latents_as_bytes({"a.mp4": 3, "b.mp4": 31, **B})
    kept = {key for key in before if "/c/" in key}
    assert before.items() & files_in(target).items() >= {(key, before[key]) for key in kept}


def test_record_files_that_were_merged_are_deleted(path, target):
    copied(path, target)
    writer_of(path, max_small_files=1).record_failures([failure_of("e.mp4")])
    copied(path, target)
    named = {file.where for file in read_snapshot(LocalStorage(path)).manifest.files}
    assert {key for key in files_in(target) if key.endswith(".parquet")} == named
    assert published(target) == content_of(path)


def test_a_pruned_cache_is_an_later_state_unless_a_video_was_removed(path, target):
    copied(path, target)
    pruned(path)  # forgets gone.mp4, which is removed in the target too
    copied(path, target)
    assert published(target) == content_of(path)
    pruned(path, "b.mp4")
    with pytest.raises(DivergedError, match=r"holds commits of 1 video that .*, such as 'b\.mp4'"):
        copied(path, target)


def forks(path, tmp_path):
    """Two caches that began as one."""
    return path, shutil.copytree(path, tmp_path / "fork.zarr")


@pytest.mark.parametrize(
    ("ours", "theirs", "what"),
    some_of(
        [
            ({"c.mp4": 3}, {"d.mp4": 3}, r"holds commits of 1 video that \S+ lacks, such as 'd\.mp4'"),
            ({"c.mp4": 3}, {"c.mp4": 4}, r"holds commits of 1 video that \S+ lacks, such as 'c\.mp4'"),
            ({}, {"b.mp4": 4}, r"holds commits of 1 video that \S+ lacks, such as 'b\.mp4'"),
            ({}, {"c.mp4": 4, "d.mp4": 5}, r"holds commits of 2 videos that \S+ lacks, such as 'c\.mp4'"),
        ]
    ),
)
def test_a_target_that_went_on_by_itself_is_refused(path, tmp_path, target, ours, theirs, what):
    path, fork = forks(path, tmp_path)
    if ours:
        add(path, ours)
    add(fork, theirs)
    copied(fork, target)
    before = files_in(target)
    with pytest.raises(DivergedError, match=rf"{what}; push to a new place, or pull it and merge the two$"):
        copied(path, target)
    assert files_in(target) == before


def test_a_target_with_a_later_commit_is_refused(path, tmp_path, memory):
    path, fork = forks(path, tmp_path)
    writer_of(fork).record_failures([failure_of("e.mp4")])
    copied(fork, memory)
    with pytest.raises(DivergedError, match=r"holds commit 6, \S+ ends at 5; push to a new place"):
        copied(path, memory)


def test_a_video_that_was_removed_from_the_target_does_not_come_back(path, tmp_path, memory):
    path, fork = forks(path, tmp_path)
    writer_of(fork).remove(["b.mp4"])
    copied(fork, memory)
    with pytest.raises(DivergedError, match=r"holds commits of 1 video that \S+ lacks, such as 'b\.mp4'"):
        copied(path, memory)
    assert "b.mp4" not in published(memory)


def test_another_cache_is_refused(path, tmp_path, target):
    other = make(tmp_path / "other.zarr", B)
    copied(other, target)
    with pytest.raises(DivergedError, match="holds another cache; expected nothing, or an earlier state of"):
        copied(path, target)
    assert published(target) == content_of(other)


@pytest.mark.parametrize("key", ["thesis.docx", "mean/notes.txt", "images/zarr.json"])
def test_a_place_with_other_files_is_refused(path, target, key):
    target.create(key, b"1")
    with pytest.raises(DivergedError, match=rf"holds '{key}', which is of no cache; .*: give another place"):
        copied(path, target)
    assert files_in(target) == {key: b"1"}


@pytest.mark.parametrize("content", [b"1", b"{}", b'{"zarr_format": 3, "node_type": "group"}'])
def test_a_zarr_store_of_another_program_is_refused(path, target, content):
    target.create(ROOT, content)
    with pytest.raises(DivergedError, match=r"zarr\.json.*: it is of another program or cache; give another"):
        copied(path, target)
    assert files_in(target) == {ROOT: content}


@pytest.mark.parametrize("is_as_long", [True, False])
def test_half_a_copy_of_another_state_is_refused_by_its_bytes(path, target, is_as_long):
    """Without a manifest nothing vouches for a shard, and shards of noise have equal sizes."""
    copied(path, target)
    key = next(key for key, _ in target.list() if "/c/" in key)
    content = target.read(key)[0]
    target.delete(MANIFEST, key)
    target.create(key, bytes([content[0] ^ 1]) + content[1:] if is_as_long else content + b"1")
    with pytest.raises(DivergedError, match=rf"its {key} is not that of .*; push to a new place"):
        copied(path, target)
    with pytest.raises(Missing):
        target.read(MANIFEST)


def test_a_shard_of_equal_size_is_not_compared_where_it_is_verified_later(path, memory):
    copied(path, memory)
    memory.delete(MANIFEST)
    plan, *_ = copied(path, memory, compare=False)
    assert plan.num_files == 0
    memory.delete(MANIFEST)
    plan, *_ = copied(path, memory)
    assert (plan.num_files, plan.num_bytes) == (0, 0)
    assert plan.num_to_compare == len([key for key, _ in memory.list() if "/c/" in key])


def test_a_card_of_an_earlier_push_is_replaced_and_any_other_stays(path, target):
    first, second = CARD_MARK + b"\n1", CARD_MARK + b"\n2"
    copied(path, target, card=first)
    copied(path, target, card=second)
    assert target.read(CARD)[0] == second
    target.replace(CARD, b"My own words", target.read(CARD)[1])
    copied(path, target, card=first)
    assert target.read(CARD)[0] == b"My own words"
    assert published(target) == content_of(path)


def test_arrays_that_grew_for_a_later_state_are_not_shortened(path, target):
    """Another copy is under way, of a later state: this one must not cut its arrays off."""
    copied(path, target)
    earlier = read_snapshot(LocalStorage(path))
    add(path, B)
    cut = CutOff(target, 10**9)

    def replace(key, *arguments):
        if key == MANIFEST:
            raise Killed
        return target.replace(key, *arguments)

    cut.replace = replace
    with pytest.raises(Killed):
        copied(path, cut)
    longer = target.read(ROOT)[0]
    list(copy_cache(earlier, target))
    assert target.read(ROOT)[0] == longer
    assert published(target) == latents_as_bytes(A)


@pytest.mark.parametrize("key", [ROOT, MANIFEST])
@pytest.mark.parametrize("is_new", [True, False])
def test_another_writer_meanwhile_is_one_line(path, tmp_path, memory, key, is_new):
    if not is_new:
        copied(path, memory)
    add(path, B)
    cut = CutOff(memory, 10**9)
    name = "create" if is_new else "replace"

    def meanwhile(written, content, *version):
        if written == key:
            memory.create(key, b"{}") if is_new else memory.replace(key, b"{}", *version)
        return getattr(memory, name)(written, content, *version)

    setattr(cut, name, meanwhile)
    with pytest.raises(StoreError, match=r"another process writes to it \(.*\); run the same command again"):
        copied(path, cut)
    assert memory.read(key)[0] == b"{}"


def test_a_lost_shard_is_refused_before_anything_is_written(path, memory):
    key = "mean/c/0/6/0/0"
    (path / key).unlink()
    with pytest.raises(StoreError, match=rf"damaged: {key} is missing; `vidlat verify` tells more"):
        copied(path, memory)
    assert files_in(memory) == {}


def test_an_unreachable_store_is_not_called_damaged(path, memory):
    num_verbs = 12
    for step in some_of(range(num_verbs)):
        with pytest.raises(Unreachable):
            copied(path, CutOff(memory, step, error=Unreachable("x: cannot be reached")))
        copied(path, memory)
        memory.delete(*files_in(memory))


def cut_everywhere(path, new_target, all_steps, *, is_update, is_of_source):
    """Cut a copy off before and after one verb after the other; continue it. Returns how many were cut off.

    It must leave what was there, or all of the copy.
    """
    expected, num_cut = content_of(path), 0
    earlier = shutil.copytree(path, path.with_name("earlier.zarr"))
    add(path, B)
    expected = content_of(path)
    for step in all_steps:
        for after in (False, True):
            target, source = new_target(), LocalStorage(path)
            if is_update:
                copied(earlier, target)
            before = published(target)
            cut = CutOff(source if is_of_source else target, step, after=after)
            with suppress(Killed):
                copied(cut if is_of_source else source, target if is_of_source else cut)
            assert published(target) in (before, expected)
            copied(path, target)
            assert published(target) == expected
            num_cut += cut.met
        if not cut.met:
            return num_cut
    return num_cut


@pytest.mark.parametrize(("is_update", "is_of_source"), some_of(product([False, True], repeat=2)))
def test_a_copy_that_is_cut_off_anywhere_is_there_or_not_and_continues(path, is_update, is_of_source):
    def new_target():
        return ObjectStorage(MemoryStore(), "memory://x")

    all_steps = count(0, 9 if is_thorough() else 15)
    assert cut_everywhere(path, new_target, all_steps, is_update=is_update, is_of_source=is_of_source) > 3


@pytest.mark.slow
@pytest.mark.parametrize("is_update", [False, True])
@pytest.mark.parametrize("is_of_source", [False, True])
def test_a_copy_to_an_object_store_that_is_cut_off_at_every_verb(path, bucket, is_update, is_of_source):
    def new_target():
        return open_storage(f"{bucket}/{uuid4().hex}")

    num_cut = cut_everywhere(path, new_target, count(), is_update=is_update, is_of_source=is_of_source)
    print(f"update {is_update}, of the source {is_of_source}: {num_cut} of {num_cut} right")
    assert num_cut > 30


@pytest.fixture(scope="module")
def proxy(bucket):
    """A server behind which the bucket lies, and which answers some requests by faults."""
    with serving(Proxy(os.environ["AWS_ENDPOINT_URL"])) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", some_of(["lost", "lost 503", "409", "500", "503", "dropped"]))
def test_faults_of_the_network_are_not_noticed(path, bucket, proxy, monkeypatch, fault):
    be_patient(monkeypatch, 10, request_seconds=5)
    address = f"{bucket}/{uuid4().hex}"
    with environment(proxy.address):
        target = open_storage(address)
        proxy.set(*[("PUT", fault), ("PUT", None)] * 6)
        copied(path, target)
        add(path, B)
        proxy.set(*[("PUT", None), ("PUT", fault)] * 6)
        copied(path, target)
    assert sum(is_fault for _, is_fault in proxy.requests) == 6
    assert published(open_storage(address)) == content_of(path)


@pytest.mark.parametrize(
    ("num_passed", "fault"), some_of(product([0, 5], ["401", "403", "429", "503", "dropped"]))
)
def test_a_store_that_refuses_from_some_time_on_is_one_line(
    path, bucket, proxy, monkeypatch, fault, num_passed
):
    be_patient(monkeypatch, 0.1, request_seconds=5)
    address = f"{bucket}/{uuid4().hex}"
    with environment(proxy.address):
        target = open_storage(address)
        proxy.set(*[("PUT", None)] * num_passed, ("PUT", fault), stays=True)
        with pytest.raises(
            Unreachable, match=rf"{address}\S*: cannot be reached: got .*: (look|it was)"
        ) as caught:
            copied(path, target)
    assert "\n" not in str(caught.value)
    assert published(open_storage(address)) is None
    copied(path, open_storage(address))
    assert published(open_storage(address)) == content_of(path)
