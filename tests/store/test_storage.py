"""What every storage promises: a folder, obstore's store in memory, and an S3 server."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from uuid import uuid4

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    rule,
    run_state_machine_as_test,
)
from obstore.store import MemoryStore

from tests.store.object_store import environment, new_bucket, s3_server
from tests.thorough import some_of
from vidlat.errors import StoreError
from vidlat.store.storage.interface import Beyond, Changed, Exists, Missing, Version
from vidlat.store.storage.local import LocalStorage
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.storage.opening import open_storage, require_conditional_writes

KINDS = ("folder", "memory", "s3")


@pytest.fixture(scope="module")
def bucket():
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    with s3_server() as server, environment(server):
        yield new_bucket(server)


@pytest.fixture(params=KINDS)
def new_storage(request, tmp_path):
    """A function that makes an empty storage."""
    match request.param:
        case "folder":
            return lambda: LocalStorage(tmp_path / uuid4().hex, create=True)
        case "memory":
            return lambda: ObjectStorage(MemoryStore(), "memory://")
        case "s3":
            bucket = request.getfixturevalue("bucket")
            return lambda: open_storage(f"{bucket}/{uuid4().hex}", write=True)


@pytest.fixture
def storage(new_storage):
    return new_storage()


def contents(storage):
    return {key: storage.read(key)[0] for key, _ in storage.list()}


@pytest.mark.parametrize("content", some_of([b"", b"\0", b"0123456789"]))
def test_what_is_created_is_read(storage, content):
    version = storage.create("mean/c/0/7/0/0", content)
    assert storage.read("mean/c/0/7/0/0") == (content, version)


def test_a_range_is_a_slice(storage):
    content = b"0123456"
    version = storage.create("a", content)
    for start, stop in product(range(7), [*range(1, 10), None]):
        if stop is None or start < stop:
            assert storage.read("a", (start, stop)) == (content[start:stop], version)
    for start in range(-9, 0):
        assert storage.read("a", (start, None))[0] == content[start:]


@pytest.mark.parametrize("content", [b"", b"0123456"])
def test_a_range_beyond_the_end_is_told_from_a_missing_key(storage, content):
    storage.create("a", content)
    for wanted in [(7, 9), (7, None), (99, 100)]:
        with pytest.raises(StoreError, match=r"a: ends before byte .*; expected more") as caught:
            storage.read("a", wanted)
        assert type(caught.value) is Beyond
    with pytest.raises(Missing):
        storage.read("b", (7, 9))


@pytest.mark.parametrize("wrong", [(2, 2), (3, 2), (-3, -1), (-1, 5)])
def test_a_range_that_selects_nothing_is_refused(storage, wrong):
    with pytest.raises(ValueError, match=re.escape(f"got {wrong}; expected 0 <= start < stop")):
        storage.read("a", wrong)


def test_a_missing_key_is_missing(storage):
    storage.create("a/b", b"1")
    for key in ("b", "a", "a/c", "c/d"):
        with pytest.raises(Missing, match=r"expected (a file|one)$"):
            storage.read(key)


def test_a_key_is_created_once(storage):
    version = storage.create("a", b"1")
    with pytest.raises(Exists, match="a: exists; expected no such"):
        storage.create("a", b"2")
    assert storage.read("a") == (b"1", version)
    assert storage.create("a", b"1") == version


def test_only_the_version_that_was_read_is_replaced(storage):
    first = storage.create("a", b"1")
    second = storage.replace("a", b"2", first)
    assert storage.read("a") == (b"2", second)
    for stale in (first, Version("another"), Version('"0-0"')):
        with pytest.raises(Changed, match=r"a: was changed by another process; .* read it again"):
            storage.replace("a", b"3", stale)
    assert storage.read("a") == (b"2", second)
    assert storage.replace("a", b"2", first) == second
    storage.replace("a", b"3", second)
    storage.delete("a")
    with pytest.raises(Changed):
        storage.replace("a", b"4", second)
    assert contents(storage) == {}


def test_a_folder_is_listed_with_all_below(storage):
    sizes = {"a/b": 1, "a/c/d": 2, "a/e": 0, "ab/f": 3, "g": 4}
    for key, size in sizes.items():
        storage.create(key, bytes(size))
    for prefix in ("", "a", "a/c", "ab", "g", "missing"):
        below = {key: size for key, size in sizes.items() if not prefix or key.startswith(f"{prefix}/")}
        assert dict(storage.list(prefix)) == below


def test_what_is_deleted_is_gone(storage):
    for key in ("a", "b/c", "b/d", "e"):
        storage.create(key, b"1")
    storage.delete()
    storage.delete("a", "missing", "b/c", "missing/too")
    assert set(contents(storage)) == {"b/d", "e"}
    storage.delete("a")
    assert storage.read("b/d")[0] == b"1"
    storage.create("a", b"2")
    assert contents(storage) == {"b/d": b"1", "e": b"1", "a": b"2"}


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "..", "../a", "a/../../b", "./a", "a\\b", "a\nb"])
def test_what_leads_elsewhere_is_no_key(storage, key):
    verbs = [
        lambda: storage.read(key),
        lambda: storage.create(key, b"1"),
        lambda: storage.replace(key, b"1", Version("1")),
        lambda: storage.delete("a", key),
        *([lambda: [*storage.list(key)]] if key else []),
    ]
    storage.create("a", b"1")
    for verb in verbs:
        with pytest.raises(StoreError, match=r"got the key .*; expected names joined by '/'"):
            verb()
    assert contents(storage) == {"a": b"1"}


def outcome(verb):
    try:
        return verb()
    except (Exists, Changed) as error:
        return type(error)


def test_one_of_eight_writers_wins(new_storage):
    storage = new_storage()
    with ThreadPoolExecutor(8) as pool:
        for key in ("a", "b", "c"):
            created = [
                *pool.map(lambda i, key=key: outcome(lambda: storage.create(key, b"%d" % i)), range(8))
            ]
            (winner,) = (i for i, version in enumerate(created) if version is not Exists)
            assert storage.read(key) == (b"%d" % winner, created[winner])

            def replace(i, key=key, version=created[winner]):
                return outcome(lambda: storage.replace(key, b"-%d" % i, version))

            replaced = [*pool.map(replace, range(8))]
            (winner,) = (i for i, version in enumerate(replaced) if version is not Changed)
            assert storage.read(key) == (b"-%d" % winner, replaced[winner])


def test_no_addition_of_four_writers_is_lost(storage):
    storage.create("a", b"")

    def add(token):
        while True:
            content, version = storage.read("a")
            with suppress(Changed):
                return storage.replace("a", content + token, version)

    with ThreadPoolExecutor(4) as pool:
        [*pool.map(add, [b"%02d" % i for i in range(20)])]
    content = storage.read("a")[0]
    assert sorted(content[i : i + 2] for i in range(0, 40, 2)) == [b"%02d" % i for i in range(20)]


@pytest.mark.parametrize("new_storage", ["memory", "s3"], indirect=True)
def test_a_storage_that_keeps_the_promises_may_be_written_to(storage):
    require_conditional_writes(storage, "it")
    assert contents(storage) == {}


KEYS = st.sampled_from(["zarr.json", "a/b", "a/c/d", "ab/c", "mean/c/0/1/0/0"])
CONTENTS = st.binary(max_size=6)


class Oracle(RuleBasedStateMachine):
    """A storage and a dict, to which the same is done."""

    versions = Bundle("versions")

    def __init__(self, storage):
        super().__init__()
        self.storage, self.model, self.latest = storage, {}, {}

    @rule(target=versions, key=KEYS, content=CONTENTS)
    def create(self, key, content):
        if self.model.get(key, content) != content:
            with pytest.raises(Exists):
                self.storage.create(key, content)
            return multiple()
        version = self.storage.create(key, content)
        self.model[key], self.latest[key] = content, version
        return key, content, version

    @rule(target=versions, old=versions, content=CONTENTS)
    def replace(self, old, content):
        key, old_content, version = old
        now = self.model.get(key)
        try:
            new = self.storage.replace(key, content, version)
        except Changed:
            assert self.latest.get(key) != version
            assert now != content
            return multiple()
        assert now in (old_content, content)
        self.model[key], self.latest[key] = content, new
        return key, content, new

    @rule(key=KEYS, start=st.integers(0, 7), length=st.integers(1, 7))
    def read_range(self, key, start, length):
        content = self.model.get(key, b"")
        if start < len(content):
            found = self.storage.read(key, (start, start + length))
            assert found == (content[start : start + length], self.latest[key])

    @rule(keys=st.lists(KEYS, max_size=3))
    def delete(self, keys):
        self.storage.delete(*keys)
        for key in keys:
            self.model.pop(key, None)
            self.latest.pop(key, None)

    @rule(prefix=st.sampled_from(["", "a", "a/c", "ab"]))
    def list(self, prefix):
        listed = [*self.storage.list(prefix)]
        assert sorted(listed) == sorted(
            (key, len(content))
            for key, content in self.model.items()
            if not prefix or key.startswith(f"{prefix}/")
        )

    @rule(key=KEYS)
    def read(self, key):
        if key in self.model:
            assert self.storage.read(key) == (self.model[key], self.latest[key])
        else:
            with pytest.raises(Missing):
                self.storage.read(key)


@pytest.mark.parametrize("num_examples", [5, pytest.param(300, marks=pytest.mark.slow)])
def test_a_storage_does_what_a_dict_does(new_storage, num_examples):
    run_state_machine_as_test(
        lambda: Oracle(new_storage()),
        settings=settings(max_examples=num_examples, stateful_step_count=20, deadline=None),
    )


@pytest.mark.slow
def test_a_listing_of_several_pages_has_every_key_once(storage):
    keys = [f"a/{i}" for i in range(2500)]
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda key: storage.create(key, b"1"), keys)]
    assert sorted(storage.list("a")) == sorted((key, 1) for key in keys)
    storage.delete(*keys)
    assert [*storage.list()] == []
