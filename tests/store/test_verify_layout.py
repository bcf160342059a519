"""Damage to the zarr.json files, and what can still be verified despite it."""

import pytest

from tests.store.caches import writer_of
from tests.store.damage import LENGTHS, MEAN_B, RECORD_B, ROOT, edit_json, flip, found
from vidlat.store.layout import MANIFEST
from vidlat.store.schema import FORMAT_VERSION
from vidlat.store.verify.cache import measure_unused_space, verify_cache


def of_vidlat(change):
    return lambda document: change(document["attributes"]["vidlat"])


def test_root_of_a_newer_version_is_reported_by_name(path):
    edit_json(
        path / ROOT, of_vidlat(lambda fields: fields.update(format_version=FORMAT_VERSION + 1, novelty=1))
    )
    read = []
    (problem,) = verify_cache(path, lambda *video: read.append(video[0]))
    assert (problem.where, problem.kind) == (ROOT, "description")
    assert f"format {FORMAT_VERSION + 1}" in problem.what
    assert read == list(LENGTHS)  # by the description's copy


def test_edited_settings_are_reported_and_the_latents_are_still_read(path):
    edit_json(path / ROOT, of_vidlat(lambda fields: fields["settings"].update(encoder_hash="other")))
    flip(path / MEAN_B, 5)
    problems = list(verify_cache(path))
    assert [(problem.where, problem.kind) for problem in problems] == [
        (ROOT, "description"),
        ("b.mp4", "damaged"),
    ]
    assert "settings were edited" in problems[0].what


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("time_compression"),
        lambda fields: fields.update(settings=None),
        lambda fields: fields.update(settings=[1]),
        lambda fields: fields["settings"].pop("stack"),
        lambda fields: fields["settings"].update(stack="four"),
        lambda fields: fields.update(chunk_frames=3),
        lambda fields: fields.update(latent_dim=7),
        lambda fields: fields.pop("format_version"),
        lambda fields: fields.pop("cache_id"),
    ],
)
def test_damaged_description_is_reported(path, change):
    edit_json(path / ROOT, of_vidlat(change))
    problems = found(path)
    assert (ROOT, "description") in problems
    assert {kind for _, kind in problems} == {"description"}
    measure_unused_space(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"attributes": {"vidlat": 1}}'])
def test_damaged_root_is_reported_with_what_else_is_wrong(path, content):
    (path / ROOT).write_bytes(content)
    (path / "notes.txt").write_text("?")
    (path / RECORD_B).write_bytes(b"")
    assert found(path) == [(ROOT, "description"), (RECORD_B, "record"), ("notes.txt", "foreign")]


def test_latents_are_read_without_the_root_or_the_manifest_but_not_without_both(path):
    flip(path / MEAN_B, 5)
    root = (path / ROOT).read_bytes()
    (path / ROOT).write_bytes(b"{")
    assert found(path) == [(ROOT, "description"), ("b.mp4", "damaged")]
    flip(path / MANIFEST, 50)
    assert found(path) == [(ROOT, "description"), (MANIFEST, "record")]
    (path / ROOT).write_bytes(root)
    assert found(path) == [(MANIFEST, "record"), ("b.mp4", "damaged")]


def test_lost_root_is_reported(path):
    (path / ROOT).unlink()
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == (ROOT, "description")
    assert problem.what == "damaged: its zarr.json is missing; `vidlat verify --repair` restores it"


@pytest.mark.parametrize("content", [None, b"{", b"{}"])
def test_latents_of_an_array_whose_metadata_is_damaged_are_still_read(path, content):
    if content is None:
        (path / "mean/zarr.json").unlink()
    else:
        (path / "mean/zarr.json").write_bytes(content)
    flip(path / MEAN_B, 5)
    problems = found(path)
    assert set(problems) == {("mean/zarr.json", "description"), ("b.mp4", "damaged")}


def test_cache_without_any_metadata_of_arrays_is_reported(path):
    edit_json(path / ROOT, lambda document: document.pop("consolidated_metadata"))
    (path / MANIFEST).unlink()
    for name in ("mean", "std"):
        (path / name / "zarr.json").unlink()
    problems = list(verify_cache(path))
    assert {problem.kind for problem in problems} == {"description", "record"}
    assert any("no latents could be checked" in problem.what for problem in problems)


def test_edited_layout_of_an_array_is_reported(path):
    edit_json(path / "std/zarr.json", lambda document: document.update(fill_value=0.0))
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("std/zarr.json", "description")
    assert "fill_value contradicts the description: 0.0" in problem.what


def test_array_that_was_shortened_is_reported_with_the_videos_it_cuts(path):
    edit_json(path / "std/zarr.json", lambda document: document["shape"].__setitem__(1, 16))
    problems = found(path)
    assert ("std/zarr.json", "description") in problems
    assert ("b.mp4", "range") in problems
    assert "a.mp4" not in {where for where, _ in problems}


def test_array_that_ends_inside_a_shard_is_reported(path):
    edit_json(path / "std/zarr.json", lambda document: document["shape"].__setitem__(1, 37))
    assert ("std/zarr.json", "description") in found(path)


def test_growth_that_was_killed_is_a_leftover(path):
    old = (path / ROOT).read_bytes(), (path / "std/zarr.json").read_bytes()
    writer_of(path).reserve(1)
    (path / ROOT).write_bytes(old[0])
    assert found(path) == [("mean/zarr.json", "leftover"), ("std/zarr.json", "leftover")]
    (path / "std/zarr.json").write_bytes(old[1])
    assert found(path) == [("mean/zarr.json", "leftover")]
    writer_of(path).reserve(1)
    assert found(path) == []


def test_metadata_that_other_readers_need_is_reported_when_lost(path):
    edit_json(path / ROOT, lambda document: document.pop("consolidated_metadata"))
    (path / "videos/zarr.json").unlink()
    assert set(found(path)) == {(ROOT, "description"), ("videos/zarr.json", "description")}


def test_notes_of_others_in_the_attributes_are_no_problem(path):
    edit_json(path / ROOT, lambda document: document["attributes"].update(note="mine"))
    edit_json(path / "mean/zarr.json", lambda document: document["attributes"].update(note="mine"))
    assert found(path) == []
