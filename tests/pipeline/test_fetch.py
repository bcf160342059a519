"""Videos of an S3 server on loopback are encoded as the same files in a folder are, also on a bad day."""

import shutil
from dataclasses import replace
from functools import partial
from importlib.resources import files
from itertools import product

import pytest
from pydicom.data import get_testdata_file

from tests.pipeline.one_thread import OneThread
from tests.pipeline.ten_videos import LENGTHS, videos_in
from tests.store.object_store import Proxy, be_patient, environment, new_bucket, s3_server, serving
from tests.thorough import some_of
from vidlat.errors import ScratchError
from vidlat.evaluate.preview import write_preview
from vidlat.pipeline import fetch
from vidlat.pipeline.decode_videos import load_vae_of
from vidlat.pipeline.measure import headers_of, measure_size
from vidlat.pipeline.plan import plan_encode
from vidlat.pipeline.read_video import read_video
from vidlat.pipeline.repair_cache import repair_cache
from vidlat.pipeline.task import encode_batch
from vidlat.store import object_sources
from vidlat.store.object_sources import source_hash
from vidlat.store.reader import open_cache
from vidlat.store.storage.interface import Unreachable
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.verify.cache import verify_cache


@pytest.fixture(scope="module")
def server():
    with s3_server() as address, environment(address):
        yield address


@pytest.fixture(autouse=True)
def _new_connections():
    object_sources._storage.cache_clear()
    yield
    object_sources._storage.cache_clear()


@pytest.fixture
def put(server):
    """put(folder): the address of a new folder with the same files."""

    def put(folder):
        address = new_bucket(server)
        storage = ObjectStorage.at(address)
        for path in folder.iterdir():
            storage.create(path.name, path.read_bytes())
        return address

    return put


@pytest.fixture
def encode(prepare, tmp_path):
    """encode(input): the events of its encode, and the cache."""

    def encode(place, *, reads_apart=None, out="l.zarr", **settings):
        prepared = prepare(place, tmp_path / out, **settings)
        prepared = replace(prepared, job=replace(prepared.job, reads_apart=reads_apart))
        events = list(prepared.run(OneThread()))
        return events, open_cache(tmp_path / out)

    return encode


def facts_of(cache):
    """Records and failures, without where and when their sources are."""

    def same(found):
        return replace(found, source=found.source._replace(path="", mtime_ns=0), sequence=0)

    records = {
        video_id: replace(same(record), start=0, stop=0) for video_id, record in cache.records().items()
    }
    return records, {video_id: same(failure) for video_id, failure in cache.failures().items()}


@pytest.mark.parametrize("reads_apart", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_cache_from_a_bucket_is_that_from_a_folder(
    videos, put, encode, undisturbed, read_all, tmp_path, reads_apart, monkeypatch
):
    monkeypatch.setattr(object_sources, "PIECE_BYTES", 1000)
    address = put(videos)
    events, cache = encode(address, reads_apart=reads_apart)
    assert videos_in(events, "records") == sorted(LENGTHS)
    assert read_all(tmp_path / "l.zarr") == undisturbed
    _, local = encode(videos, reads_apart=reads_apart, out="local.zarr")
    assert facts_of(cache) == facts_of(local)
    sources = [found.source for found in (*cache.records().values(), *cache.failures().values())]
    assert {source.path for source in sources} == {f"{address}/{path.name}" for path in videos.iterdir()}


def test_unchanged_objects_are_not_fetched_again(videos, put, encode, prepare_only, tmp_path, server):
    address = put(videos)
    _, cache = encode(address)
    with serving(Proxy(server)) as proxy:
        object_sources._storage.cache_clear()
        with environment(proxy.address):
            plan = prepare_only(address, tmp_path / "l.zarr").plan
        assert (plan.num_done, plan.num_videos, plan.moved, plan.vanished) == (len(LENGTHS), 0, [], ())
        assert [failure.video_id for failure in plan.known_failures] == ["broken.mp4"]
        assert [method for method, _ in proxy.requests] == ["HEAD", "GET"]  # is it an object? and a listing
    assert set(cache.sources()) == set(LENGTHS)


def test_an_object_of_another_time_is_compared_by_content(videos, put, prepare_only, tmp_path):
    found = prepare_only(put(videos), tmp_path / "l.zarr").discovery.videos[:3]
    recorded = [video.source._replace(sha256=source_hash(video.source), mtime_ns=1) for video in found]
    recorded[1] = recorded[1]._replace(sha256="0" * 64)
    recorded[2] = recorded[2]._replace(path=str(tmp_path / found[2].video_id))
    cached = {video.video_id: source for video, source in zip(found, recorded, strict=True)}
    plan = plan_encode(found, cached, {}, num_workers=1)
    assert plan.moved == [found[0], found[2]]
    assert plan.batches == [(found[1],)]


def test_one_object_lies_on_the_disk_at_a_time_and_none_afterwards(videos, put, prepare_only, tmp_path):
    prepared = prepare_only(put(videos), tmp_path / "l.zarr")
    counts = []

    def read(video, *arguments):
        counts.append(len([*video.path.parent.glob("*.partial")]))
        yield from read_video(video, *arguments)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    batch = encode_batch(prepared.discovery.videos, prepared.job, scratch_parent=scratch, read=read)
    assert counts == [1] * (len(LENGTHS) + 1)
    assert not [*scratch.rglob("*.partial")]
    assert len(batch.videos) == len(LENGTHS)


@pytest.fixture
def two(make_videos, tmp_path):
    return make_videos(tmp_path / "videos", {"anna.mp4": 4, "berta.mp4": 3})


def change(address, name, content):
    storage = ObjectStorage.at(address)
    storage.replace(name, content, storage.read(name)[1])


@pytest.mark.parametrize("ids", ["path", "hash"])
def test_an_object_that_is_gone_or_changed_since_it_was_found_fails_alone(two, put, prepare, tmp_path, ids):
    shutil.copy(two / "berta.mp4", two / "clara.mp4")
    address = put(two)
    prepared = prepare(address, tmp_path / "l.zarr", ids=ids)
    ObjectStorage.at(address).delete("anna.mp4")
    change(address, "berta.mp4", b"something else")
    list(prepared.run(OneThread()))
    cache = open_cache(tmp_path / "l.zarr")
    failures = sorted(cache.failures().values(), key=lambda failure: failure.kind)
    assert [failure.kind for failure in failures] == ["changed", "missing"]
    num_bytes = (two / "berta.mp4").stat().st_size
    assert failures[0].reason.startswith(f"got another object; expected one of {num_bytes} bytes, as it was")
    assert failures[1].reason.startswith("got no object at its address; expected")
    assert [failure.traceback for failure in failures] == ["", ""]
    assert [*cache.records()] == (["clara.mp4"] if ids == "path" else [*cache.records()])
    assert len(cache) == 1


def test_a_failure_names_the_address_and_no_copy(two, put, prepare_only, tmp_path):
    def open_video(path, *_):
        raise RuntimeError(f"{path}: a library breaks")

    address = put(two)
    prepared = prepare_only(address, tmp_path / "l.zarr")
    read = partial(read_video, open_video=open_video)
    failures = encode_batch(
        prepared.discovery.videos, prepared.job, scratch_parent=tmp_path, read=read
    ).failures
    for failure, name in zip(failures, ("anna.mp4", "berta.mp4"), strict=True):
        assert failure.reason == f"{address}/{name}: a library breaks"
        assert failure.reason in failure.traceback
        assert ".partial" not in failure.traceback


def test_what_is_several_videos_or_a_part_of_one_in_a_folder_is_refused(put, encode, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    shutil.copy(files("nibabel.tests") / "data" / "example4d.nii.gz", folder / "times.nii.gz")
    shutil.copy(files("nibabel.tests") / "data" / "anatomical.nii", folder / "volume.nii")
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder / "slice.dcm")
    shutil.copy(get_testdata_file("examples_ybr_color.dcm", download=False), folder / "cine.dcm")
    _, cache = encode(put(folder))
    assert {*cache.records()} == {"cine.dcm", "volume.nii"}
    reasons = {name: failure.reason for name, failure in cache.failures().items()}
    way_out = "copy the folder to a disk and encode it there"
    assert reasons == {
        "slice.dcm": f"is one image of a DICOM series; expected a video in an object; {way_out}",
        "times.nii.gz": f"holds 24 videos; expected one in an object; {way_out}",
    }


@pytest.fixture
def proxy(server, monkeypatch):
    be_patient(monkeypatch, seconds=1, request_seconds=2)
    with serving(Proxy(server)) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", some_of(["503", "cut", "500", "dropped"]))
def test_faults_that_pass_change_nothing(two, put, encode, proxy, fault):
    _, expected = encode(two, out="local.zarr")
    address = put(two)
    with environment(proxy.address):
        proxy.set(*[("GET", fault)] * 3, ("GET", None), *[("GET", fault)] * 3)
        _, cache = encode(address)
    assert sum(met for _, met in proxy.requests) == 6
    assert facts_of(cache) == facts_of(expected)


@pytest.mark.parametrize(("status", "ids"), some_of(product(["503", "403"], ["path", "hash"])))
def test_an_unreachable_bucket_ends_the_encode_and_leaves_what_was_committed(
    two, put, prepare, proxy, tmp_path, status, ids
):
    address = put(two)
    with environment(proxy.address):
        prepared = prepare(address, tmp_path / "l.zarr", ids=ids)
        assert len(prepared.plan.batches) == 2
        proxy.set(("GET", None), ("GET", status), stays=True)  # one object is fetched
        with pytest.raises(Unreachable, match=f"cannot be reached: got {status}") as error:
            list(prepared.run(OneThread()))
        assert "\n" not in str(error.value)
        assert ("berta" in str(error.value) or "anna" in str(error.value)) == (ids == "path")
        cache = open_cache(tmp_path / "l.zarr")
        assert (len(cache), len(cache.failures())) == (1, 0)
        proxy.set()
        list(prepare(address, tmp_path / "l.zarr", ids=ids).run(OneThread()))
    assert len(open_cache(tmp_path / "l.zarr")) == 2


def test_a_bucket_that_cannot_be_listed_is_refused_before_anything_is_written(
    two, put, prepare, proxy, tmp_path
):
    address = put(two)
    with environment(proxy.address):
        proxy.set(("any", "403"), stays=True)
        with pytest.raises(Unreachable, match="cannot be reached: got 403"):
            prepare(address, tmp_path / "l.zarr")
    assert not (tmp_path / "l.zarr").exists()


def test_a_full_disk_of_a_worker_is_named(two, put, prepare_only, tmp_path, monkeypatch):
    prepared = prepare_only(put(two), tmp_path / "l.zarr")

    def full(source):
        yield b"a"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "object_content", full)
    with pytest.raises(ScratchError, match=r"cannot keep there a video of \d+ bytes .*No space.*TMPDIR"):
        encode_batch(prepared.discovery.videos, prepared.job, scratch_parent=tmp_path)
    assert not [*tmp_path.rglob("*.partial")]


def test_the_size_of_an_encode_is_estimated_from_objects_as_from_files(videos, put, prepare_only, tmp_path):
    here, there = (prepare_only(place, tmp_path / "l.zarr") for place in (videos, put(videos)))
    assert measure_size(there, headers_of(there)) == measure_size(here, headers_of(here))


def test_a_damaged_video_is_encoded_again_from_its_object(two, put, encode, tmp_path, read_all):
    address = put(two)
    encode(address, workers=1)
    path = tmp_path / "l.zarr"
    before = read_all(path)
    for shard in path.glob("mean/c/0/*/0/0"):
        shard.write_bytes(b"")
    assert {problem.where for problem in verify_cache(path)} == set(before)
    change(address, "berta.mp4", b"other")
    events = list(repair_cache(path, executor=OneThread()))
    outcomes = {
        outcome.where: (outcome.state, outcome.what) for event in events for outcome in event.outcomes
    }
    assert outcomes["anna.mp4"] == ("repaired", f"encoded again from {address}/anna.mp4")
    assert outcomes["berta.mp4"][0] == "not repairable"
    assert f"its source {address}/berta.mp4 has changed since it was encoded" in outcomes["berta.mp4"][1]
    assert open_cache(path).read_latents("anna.mp4").mean.tobytes() == before["anna.mp4"][0]


def test_a_preview_shows_objects_and_says_which_it_cannot(two, put, encode, proxy, tmp_path):
    shutil.copy(two / "berta.mp4", two / "clara.mp4")
    address = put(two)
    with environment(proxy.address):
        _, cache = encode(address)
        ObjectStorage.at(address).delete("berta.mp4")
        # Three for the state and the content of anna, one for the state of berta.
        proxy.set(*[("any", None)] * 4, ("any", "403"), stays=True)
        vae = load_vae_of(cache.schema, device="cpu")
        found = write_preview(cache, vae, tmp_path / "p.png")
    assert found.shown == ["anna.mp4", "berta.mp4", "clara.mp4"]
    assert found.damaged == {}
    assert found.without_source["berta.mp4"] == f"its source {address}/berta.mp4 is gone"
    assert "clara.mp4: cannot be reached: got 403" in found.without_source["clara.mp4"]
