"""Objects that videos are encoded from: found with size and time, read in pieces, never taken for another."""

import hashlib

import pytest
from hypothesis import given, strategies as st
from obstore.store import MemoryStore

from vidlat.errors import InputError
from vidlat.store import object_sources
from vidlat.store.object_sources import (
    object_content,
    object_source,
    objects_at,
    read_object,
    source_hash,
    split_address,
)
from vidlat.store.sources import source_state
from vidlat.store.storage.interface import Changed, Missing
from vidlat.store.storage.objects import ObjectStorage
from vidlat.types import Source


@pytest.fixture
def memory(monkeypatch):
    storage = ObjectStorage(MemoryStore(), "s3://b")
    monkeypatch.setattr(object_sources, "_storage", {"s3://b": storage}.__getitem__)
    return storage


@given(content=st.binary(max_size=40), piece=st.integers(1, 45), stated=st.integers(0, 45))
def test_pieces_are_the_content_if_the_size_is_right(content, piece, stated):
    storage = ObjectStorage(MemoryStore(), "s3://b")
    storage.create("v/a.mp4", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_sources, "_storage", lambda bucket: storage)
        patch.setattr(object_sources, "PIECE_BYTES", piece)
        source = Source("s3://b/v/a.mp4", stated, 0)
        if stated == len(content):
            pieces = list(object_content(source))
            assert b"".join(pieces) == content
            assert max(map(len, pieces)) <= piece
            assert source_hash(source) == hashlib.sha256(content).hexdigest()
        else:
            with pytest.raises(Changed, match=rf"s3://b/v/a.mp4: .*expected {stated} bytes"):
                list(object_content(source))


def test_an_object_that_is_replaced_between_two_pieces_is_noticed(memory, monkeypatch):
    monkeypatch.setattr(object_sources, "PIECE_BYTES", 2)
    version = memory.create("a", b"1234")
    pieces = object_content(object_source("s3://b/a"))
    assert next(pieces) == b"12"
    memory.replace("a", b"5678", version)
    with pytest.raises(Changed):
        next(pieces)


def test_missing_object(memory):
    assert object_source("s3://b/none") is None
    with pytest.raises(Missing):
        list(object_content(Source("s3://b/none", 3, 0)))


def test_objects_have_names_below_the_folder_and_size_and_second(memory):
    for key in ("v/a.mp4", "v/sub/b c.mp4", "vv/other.mp4"):
        memory.create(key, key.encode())
    found = dict(objects_at("s3://b/v"))
    assert found == dict(objects_at("s3://b/v/"))
    assert found.keys() == {"a.mp4", "sub/b c.mp4"}
    assert found["sub/b c.mp4"] == object_source("s3://b/v/sub/b c.mp4")
    assert found["a.mp4"]._replace(mtime_ns=0) == Source("s3://b/v/a.mp4", 7, 0)
    assert found["a.mp4"].mtime_ns % 10**9 == 0
    assert found["a.mp4"].mtime_ns > 10**18
    assert {name for name, _ in objects_at("s3://b")} == {"v/a.mp4", "v/sub/b c.mp4", "vv/other.mp4"}
    assert list(objects_at("s3://b/v/a.mp4")) == [("a.mp4", found["a.mp4"])]
    assert read_object("s3://b/v/a.mp4") == b"v/a.mp4"
    with pytest.raises(
        InputError, match=r"^s3://b/w/\*\.mp4: no such object, and none below it; .* pattern$"
    ):
        list(objects_at("s3://b/w/*.mp4"))


def test_an_address_leads_to_a_bucket_and_a_key():
    assert split_address("s3://b/v/a%20#?.mp4") == ("s3://b", "v/a%20#?.mp4")
    assert split_address("gs://b/v/") == ("gs://b", "v")
    assert split_address("az://b") == ("az://b", "")


@pytest.mark.parametrize("address", ["https://host/a.mp4", "hf://a/b", "s3://", "file:///a", "a.mp4"])
def test_other_addresses_are_refused(address):
    with pytest.raises(
        InputError, match=rf"^{address}: expected s3://BUCKET/FOLDER, gs:// or az://, or a pa"
    ):
        split_address(address)


def test_an_object_is_never_taken_for_vanished():
    assert source_state(Source("s3://b/gone.mp4", 1, 1)) == "unknown"
