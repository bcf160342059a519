"""Everything is checked before any work starts, and one call does it all."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pipeline.one_thread import OneThread
from vidlat.config import EncodeConfig, Preprocessing
from vidlat.encode import device as device_module
from vidlat.encode.weights_file import load_network, write_weights
from vidlat.errors import (
    CacheMismatchError,
    ConfigError,
    DeviceError,
    InputError,
    StoreError,
    TimingError,
    WeightsError,
)
from vidlat.pipeline.encode_videos import encode_videos
from vidlat.pipeline.task import encode_batch, write_batch
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import create_cache, open_writer
from vidlat.types import FailureRecord, Source


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("videos"), {"a.mp4": 5, "b.mp4": 4})
    (folder / "notes.txt").write_text("no video")
    return folder


def test_plan_and_job_follow_from_settings_videos_and_weights(videos, prepare, tmp_path, small_vae):
    prepared = prepare(videos, tmp_path / "l.zarr", fit="letterbox", workers=1)
    assert (prepared.plan.num_videos, sum(prepared.discovery.ignored.values()), prepared.num_workers) == (
        2,
        1,
        1,
    )
    job = prepared.job
    assert job.settings.select(Preprocessing) == Preprocessing(size=16, fit="letterbox")
    assert (job.settings.stack, job.batch, job.settings.precision) == (4, 3, "float32")
    schema = open_cache(tmp_path / "l.zarr").schema
    assert (schema.latent_dim, schema.latent_height, schema.latent_width) == (4, 4, 4)
    assert (schema.time_compression, schema.space_compression) == (4, 4)
    vae = job.load_vae()
    assert schema.vae_hash == job.vae_hash == vae.weights_hash
    assert schema.settings.encoder_hash == vae.encoder_hash
    assert schema.vae_path == str(small_vae)


def test_times_that_are_not_given_suit_the_vae(videos, prepare, tmp_path, small_vae):
    def times_of(out, **settings):
        found = prepare(videos, tmp_path / out, **settings).schema.settings
        return found.stack, found.overlap, found.stretch

    assert times_of("plain") == (4, 0, 1)
    assert times_of("tiny", vae="tiny") == (4, 0, 4)
    assert times_of("tiny-16", vae="tiny-16") == (16, 4, 1)
    assert times_of("given", vae="tiny", stack=8, overlap=2, stretch=1) == (8, 2, 1)
    assert times_of("tiny-16", vae="tiny-16") == (16, 4, 1)
    assert times_of("another stack", vae="tiny-16", stack=4) == (4, 0, 1)
    network, settings = load_network(small_vae)
    write_weights(tmp_path / "own.safetensors", network.state_dict(), settings, [8, 16])
    assert times_of("own", vae=str(tmp_path / "own.safetensors")) == (16, 0, 1)
    assert times_of("own short", vae=str(tmp_path / "own.safetensors"), stack=8) == (8, 0, 1)


def test_workers_are_chosen_for_the_machine_where_none_are_asked_for(videos, prepare, tmp_path):
    assert prepare(videos, tmp_path / "l.zarr", workers=0).num_workers >= 1


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"size": 32}, "size"), ({"fit": "stretch"}, "fit"), ({"stack": 8}, "stack"),
     ({"precision": "bfloat16"}, "precision"), ({"vae": "tiny"}, "vae: cache has .*, you asked tiny"),
     ({"keepbits": 7}, "keepbits")],
)  # fmt: skip
def test_other_settings_than_the_caches_are_refused_by_name(
    videos, prepare, tmp_path, settings, field, cpu_with_bfloat16
):
    prepare(videos, tmp_path / "l.zarr")
    with pytest.raises(CacheMismatchError, match=field):
        prepare(videos, tmp_path / "l.zarr", **settings)


def test_another_decoder_of_the_same_encoder_adds_to_a_cache(
    encode_here, make_videos, tmp_path, other_decoder
):
    videos, out = make_videos(tmp_path / "v", {"a.mp4": 5}), tmp_path / "l.zarr"
    encode_here(videos, out)
    made_with = open_cache(out).schema
    make_videos(videos, {"b.mp4": 6})
    encode_here(videos, out, vae=str(other_decoder))
    fresh = open_cache(encode_here(videos, tmp_path / "fresh.zarr"))
    assert open_cache(out).schema == made_with == fresh.schema
    for video_id in ("a.mp4", "b.mp4"):
        ours, theirs = open_cache(out).read_latents(video_id), fresh.read_latents(video_id)
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        np.testing.assert_array_equal(ours.std, theirs.std)


def test_a_size_that_a_vae_of_diffusers_cannot_take_is_refused(videos, prepare, tmp_path, kl_folder):
    with pytest.raises(ConfigError, match=r"^size: got 17; expected a multiple of 2 for this VAE$"):
        prepare(videos, tmp_path / "l.zarr", vae=f"diffusers:{kl_folder}", size=17)


def test_a_cache_of_hashes_names_no_folder_of_its_vae(videos, prepare, tmp_path, kl_folder):
    schema = prepare(videos, tmp_path / "l.zarr", vae=f"diffusers:{kl_folder}", ids="hash").schema
    assert (schema.vae_name, schema.vae_path, schema.vae_licence) == ("kl", "", "mit")


def test_arrays_are_encoded_in_the_order_of_axes_that_is_told_and_else_warned_of(encode_here, tmp_path):
    (tmp_path / "v").mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 80), np.uint8)
    np.save(tmp_path / "v" / "a.npy", np.moveaxis(frames, 0, -1))
    (told,) = open_cache(encode_here(tmp_path / "v", tmp_path / "told.zarr", axes="hwt")).records().values()
    assert (told.num_frames, told.height, told.width, told.warnings) == (20, 64, 80, ())
    (other,) = open_cache(encode_here(tmp_path / "v", tmp_path / "auto.zarr")).records().values()
    assert (other.num_frames, other.height, other.width) == (64, 80, 20)
    assert "give --axes HWT" in other.warnings[0]
    np.save(tmp_path / "v" / "a.npy", frames)
    (right,) = open_cache(encode_here(tmp_path / "v", tmp_path / "right.zarr")).records().values()
    assert right.latents == told.latents
    with pytest.raises(CacheMismatchError, match="axes: cache has auto, you asked HWT"):
        encode_here(tmp_path / "v", tmp_path / "right.zarr", axes="HWT")


def test_settings_that_do_not_affect_latents_may_differ(videos, prepare, tmp_path):
    prepare(videos, tmp_path / "l.zarr")
    job = prepare(videos, tmp_path / "l.zarr", batch=1, workers=1, cudnn_benchmark=True).job
    assert job.load_vae().cudnn_benchmark


def test_bfloat16_is_refused_where_the_cpu_lacks_it_unless_others_compute(
    videos, prepare, tmp_path, cpu_without_bfloat16
):
    with pytest.raises(DeviceError, match="precision bfloat16: this CPU does not compute with it"):
        prepare(videos, tmp_path / "l.zarr", precision="bfloat16")
    elsewhere = prepare(
        videos, tmp_path / "other.zarr", precision="bfloat16", scheduler="tcp://elsewhere:8786"
    )
    assert elsewhere.job.settings.precision == "bfloat16"


def test_auto_precision_is_what_the_cache_was_made_with(videos, prepare, tmp_path, cpu_with_bfloat16):
    assert prepare(videos, tmp_path / "l.zarr", precision="bfloat16").job.settings.precision == "bfloat16"
    assert prepare(videos, tmp_path / "l.zarr", precision="auto").job.settings.precision == "bfloat16"
    with pytest.raises(CacheMismatchError, match="precision"):
        prepare(videos, tmp_path / "l.zarr", precision="float32")


@pytest.mark.parametrize(("has_it", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_where_workers_compute_on_a_gpu_no_context_is_made_here(
    videos, prepare, tmp_path, monkeypatch, has_it, precision
):
    def make_context():
        raise AssertionError("a CUDA context was made")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_lazy_init", make_context)
    monkeypatch.setattr(device_module, "_QUESTION", f"print({has_it})")
    prepared = prepare(videos, tmp_path / "l.zarr", precision="auto", device="auto", workers=0, batch=0)
    assert prepared.job.settings.precision == precision
    assert (prepared.num_workers, prepared.job.batch, prepared.job.device) == (2, 8, "auto")


def as_autocast_made_it(path):
    """Make a bfloat16 cache state the arithmetic of former versions."""
    document = json.loads((path / "zarr.json").read_text())
    attributes = document["attributes"]["vidlat"]
    attributes["settings"]["arithmetic_version"] = 1
    canonical = json.dumps(attributes["settings"], sort_keys=True, separators=(",", ":"))
    attributes["cache_id"] = hashlib.sha256(canonical.encode()).hexdigest()
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_a_cache_of_the_former_bfloat16_is_read_but_not_added_to(
    videos, prepare, tmp_path, cpu_with_bfloat16, precision
):
    path = tmp_path / "l.zarr"
    prepare(videos, path, precision="bfloat16")
    as_autocast_made_it(path)
    assert open_cache(path).schema.settings.arithmetic_version == 1
    with pytest.raises(CacheMismatchError, match=r"as version 1 does, .* as version 2") as refusal:
        prepare(videos, path, precision=precision)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"size": 18}, ConfigError, "multiple of 4"),
        ({"stack": 6}, TimingError, "nearest that works: 4 and 8"),
        ({"vae": "nowhere.pt"}, WeightsError, "no weights file"),
    ],
)
def test_what_cannot_work_is_refused_before_a_cache_is_made(
    videos, prepare, tmp_path, settings, error, message
):
    with pytest.raises(error, match=message):
        prepare(videos, tmp_path / "l.zarr", **settings)
    assert list(tmp_path.iterdir()) == []


def test_folder_without_videos_is_refused_before_a_cache_is_made(prepare, tmp_path):
    (tmp_path / "v").mkdir()
    with pytest.raises(InputError, match="no video"):
        prepare(tmp_path / "v", tmp_path / "l.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_folder_that_is_no_cache_is_refused_and_left_alone(videos, prepare, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(StoreError):
        prepare(videos, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_file_in_the_place_of_a_cache_is_refused(videos, prepare, tmp_path):
    (tmp_path / "l.zarr").write_text("mine")
    with pytest.raises(StoreError):
        prepare(videos, tmp_path / "l.zarr")
    assert (tmp_path / "l.zarr").read_text() == "mine"


def test_empty_folder_becomes_a_cache(videos, prepare, tmp_path):
    (tmp_path / "l.zarr").mkdir()
    prepare(videos, tmp_path / "l.zarr")
    assert len(open_cache(tmp_path / "l.zarr")) == 0


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("dry_run", [True, False])
def test_preparing_writes_nothing(videos, prepare, prepare_only, tmp_path, dry_run):
    prepare_only(videos, tmp_path / "l.zarr", {"dry_run": dry_run})
    assert files_below(tmp_path) == []
    prepare(videos, tmp_path / "l.zarr")
    before = files_below(tmp_path)
    prepare_only(videos, tmp_path / "l.zarr", {"dry_run": dry_run})
    assert files_below(tmp_path) == before


def test_cache_in_use_is_refused_before_the_vae_loads_but_can_be_planned_for(
    videos, prepare, prepare_only, tmp_path, monkeypatch
):
    path = tmp_path / "l.zarr"
    prepare(videos, path)
    with open_writer(path, "another command"):
        assert prepare_only(videos, path, {"dry_run": True}).plan.num_videos == 2
        monkeypatch.setattr("vidlat.pipeline.encode_videos.load_vae", None)
        with pytest.raises(StoreError, match="another command"):
            prepare_only(videos, path)


def a_failure():
    return FailureRecord(video_id="a.mp4", source=Source("/a.mp4", 1, 1), kind="k", reason="r")


@pytest.mark.parametrize("is_there", [True, False])
def test_cache_that_another_encode_wrote_to_since_the_plan_is_refused(
    videos, prepare, prepare_only, tmp_path, is_there
):
    path = tmp_path / "l.zarr"
    if is_there:
        prepare(videos, path)
    prepared = prepare_only(videos, path)
    with prepare_only(videos, path).open_writer() as writer:
        writer.record_failures([a_failure()])
    with pytest.raises(StoreError, match="run the same command again"), prepared.open_writer():
        pass
    with prepare_only(videos, path).open_writer():
        pass


def test_cache_of_other_settings_that_appeared_since_the_plan_is_refused(videos, prepare_only, tmp_path):
    prepared = prepare_only(videos, tmp_path / "l.zarr")
    other = replace(prepared.schema, settings=replace(prepared.schema.settings, fit="stretch"))
    create_cache(tmp_path / "l.zarr", other)
    with pytest.raises(StoreError, match="run the same command again"), prepared.open_writer():
        pass


def encode_all(prepared, path, scratch):
    with prepared.open_writer() as writer:
        for batch in prepared.plan.batches:
            encoded = encode_batch(batch, prepared.job, scratch_parent=scratch)
            start = writer.reserve(writer.schema.num_shards(encoded.num_latent_frames))
            writer.commit(write_batch(encoded, path, start))


def test_moved_and_touched_files_are_compared_once_and_then_known(
    videos, prepare_only, tmp_path, monkeypatch, read_all
):
    path, moved = tmp_path / "l.zarr", tmp_path / "moved"
    shutil.copytree(videos, tmp_path / "v")
    encode_all(prepare_only(tmp_path / "v", path), path, tmp_path)
    before, latents = open_cache(path).records(), read_all(path)
    (tmp_path / "v").rename(moved)
    os.utime(moved / "a.mp4", ns=(7, 7))
    prepared = prepare_only(moved, path)
    assert (prepared.plan.num_videos, len(prepared.plan.moved)) == (0, 2)
    with prepared.open_writer():
        pass
    after = open_cache(path).records()
    assert {name: record.source.path for name, record in after.items()} == {
        name: str(moved / name) for name in before
    }
    assert after["a.mp4"].source.mtime_ns == 7
    for name, record in after.items():
        now = before[name].source._replace(path=record.source.path, mtime_ns=record.source.mtime_ns)
        assert record == replace(before[name], source=now, sequence=record.sequence)
        assert record.sequence > max(record.sequence for record in before.values())
    assert read_all(path) == latents
    monkeypatch.setattr("vidlat.pipeline.plan.source_hash", None)
    assert prepare_only(moved, path).plan.moved == []


def test_folder_encoded_before_is_not_reported_as_long_as_it_is_there(
    videos, make_videos, prepare_only, tmp_path
):
    path = tmp_path / "l.zarr"
    first = make_videos(tmp_path / "first", {"x.mp4": 4, "y.mp4": 4})
    encode_all(prepare_only(first, path), path, tmp_path)
    assert prepare_only(videos, path).plan.vanished == ()
    (first / "y.mp4").unlink()
    assert prepare_only(videos, path).plan.vanished == ("y.mp4",)
    assert prepare_only(first, path).plan.vanished == ("y.mp4",)


def test_one_call_encodes_and_the_next_one_records_what_moved_without_encoding(
    videos, small_vae, tmp_path, read_all
):
    shutil.copytree(videos, tmp_path / "v")
    settings = EncodeConfig(vae=str(small_vae), size=16, batch=3, workers=1, device="cpu")
    path, executor = tmp_path / "l.zarr", OneThread()
    events = list(encode_videos([tmp_path / "v"], path, settings, executor=executor))
    assert (events[0].records, events[0].taken_over_from) == ((), None)
    assert [r.video_id for event in events for r in event.records] == ["a.mp4", "b.mp4"]
    latents, num_jobs = read_all(path), len(executor.jobs)
    (tmp_path / "v").rename(tmp_path / "moved")
    (tmp_path / "labels.csv").write_text("video_id,subject\na.mp4,S1\n")
    options = {"labels": tmp_path / "labels.csv", "executor": executor}
    assert list(encode_videos([str(tmp_path / "moved")], path, settings, **options)) == []
    assert len(executor.jobs) == num_jobs
    records = open_cache(path).records()
    assert [Path(r.source.path).parent.name for r in records.values()] == ["moved", "moved"]
    assert records["a.mp4"].annotation.subject == "S1"
    assert read_all(path) == latents


def test_what_cannot_work_is_refused_by_the_call_and_not_by_its_first_event(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        encode_videos([tmp_path / "nowhere"], tmp_path / "l.zarr", EncodeConfig(vae="tiny"))
