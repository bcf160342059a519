"""Repairs that need no video: a kill at any point loses nothing, and the next repair completes them."""

import json
import shutil
from contextlib import nullcontext

import pytest

from tests.store.caches import NoLease, add_videos, random_posterior
from tests.store.damage import LENGTHS, MEAN_B, RECORD_B, ROOT, edit_json, found, rewrite
from tests.store.faults import meet
from tests.thorough import steps
from vidlat.errors import StoreError
from vidlat.store.reader import open_cache
from vidlat.store.verify import repair_files as repair
from vidlat.store.verify.repair_files import remove_leftovers, repair_description
from vidlat.store.writing.lease import hold_lease


def everything(path):
    repair_description(path)
    remove_leftovers(path)


def content(path):
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.parent != path / "videos/records"
    }


@pytest.mark.slow
def test_repair_killed_at_any_step_is_ended_by_the_next_one(pristine, tmp_path, monkeypatch):
    monkeypatch.setattr(repair, "hold_lease", lambda path, *_: nullcontext(NoLease(path)))
    damaged = shutil.copytree(pristine, tmp_path / "damaged.zarr")
    edit_json(damaged / ROOT, lambda document: document.pop("consolidated_metadata"))
    (damaged / "std/zarr.json").unlink()
    (damaged / "failures/records/000000000004-000000000004.parquet").write_bytes(b"")
    rewrite(damaged / RECORD_B, sequence=[None])
    (damaged / "mean/c/0/0/0/0.__lock").write_text("")
    for step in steps():
        path = shutil.copytree(damaged, tmp_path / f"{step}.zarr")
        hit, _ = meet(lambda path=path: everything(path), step, monkeypatch)
        everything(path)
        assert found(path) == []
        assert list(open_cache(path).records()) == ["a.mp4", "c/[b].mp4"]
        whole = content(pristine)
        del whole["failures/records/000000000004-000000000004.parquet"]
        (aside,) = path.glob("failures/records/*.damaged")
        assert aside.read_bytes() == b""
        aside.unlink()
        assert content(path) == whole
        if hit is None:
            assert step > 10
            return
        shutil.rmtree(path)


def test_sound_cache_is_not_written_to(path):
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    assert repair_description(path) == []
    assert remove_leftovers(path) == []
    after = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    assert {file for file in after if after[file] != before.get(file)} <= {path / "videos/records/lock"}


def test_notes_of_others_in_the_attributes_are_kept(path):
    edit_json(path / ROOT, lambda document: document["attributes"].update(note="mine"))
    edit_json(path / "mean/zarr.json", lambda document: document["attributes"].update(note="mine"))
    edit_json(path / "mean/zarr.json", lambda document: document.update(fill_value=0.0))
    assert [outcome.where for outcome in repair_description(path)] == ["mean/zarr.json"]
    assert found(path) == []
    for name in (ROOT, "mean/zarr.json"):
        assert json.loads((path / name).read_text())["attributes"]["note"] == "mine"


def test_growth_that_was_killed_is_completed(path):
    edit_json(path / "mean/zarr.json", lambda document: document["shape"].__setitem__(1, 48))
    assert {outcome.where for outcome in repair_description(path)} == {ROOT, "std/zarr.json"}
    assert found(path) == []
    assert open_cache(path).num_latent_frames == 48


def test_shard_past_the_end_is_taken_in_as_a_hole(path):
    """The arrays grew but the metadata were restored: a range reserved again would stop an encode."""
    (path / "mean/c/0/6/0").mkdir(parents=True)
    shutil.copy(path / MEAN_B, path / "mean/c/0/6/0/0")
    assert found(path) == [("mean/c/0/6/0/0", "foreign")]
    repair_description(path)
    assert found(path) == []
    assert open_cache(path).num_latent_frames == 56


def test_absurd_length_is_damage(path):
    edit_json(path / "mean/zarr.json", lambda document: document["shape"].__setitem__(1, 2**50))
    (path / f"mean/c/0/{2**50}/0").mkdir(parents=True)
    (path / f"mean/c/0/{2**50}/0/0").write_text("?")
    repair_description(path)
    assert open_cache(path).num_latent_frames == 40


def test_lost_default_of_the_description_is_restored(path):
    edit_json(path / ROOT, lambda document: document["attributes"]["vidlat"].pop("chunk_frames"))
    assert [outcome.where for outcome in repair_description(path)] == [ROOT]
    assert found(path) == []
    assert json.loads((path / ROOT).read_text())["attributes"]["vidlat"]["chunk_frames"] == 4


def test_record_file_that_may_not_be_read_is_left_where_it_is(path):
    (path / RECORD_B).unlink()
    (path / RECORD_B).mkdir()  # as unreadable as a file without rights, for root too
    (outcome,) = repair_description(path)
    assert (outcome.where, outcome.state) == (RECORD_B, "not repairable")
    assert "make it readable" in outcome.what
    assert (path / RECORD_B).exists()


def test_damaged_record_file_is_kept_under_another_name(path):
    (path / RECORD_B).write_bytes(b"rubbish")
    repair_description(path)
    (kept,) = path.glob("videos/records/*.damaged")
    assert kept.read_bytes() == b"rubbish"
    add_videos(path, {"b.mp4": random_posterior(2)})
    assert set(open_cache(path).records()) == set(LENGTHS)
    assert found(path) == []


def test_folder_that_is_no_cache_stays_as_it_is(tmp_path):
    with pytest.raises(StoreError, match="is not a vidlat cache"):
        repair_description(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cache_in_use_is_refused(path):
    with hold_lease(path, "vidlat encode"), pytest.raises(StoreError, match="in use"):
        repair_description(path)
