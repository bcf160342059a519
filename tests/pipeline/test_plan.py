"""What is left to do: sources minus records, in batches."""

import dataclasses
import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from vidlat.errors import InputError
from vidlat.pipeline import plan as plan_module
from vidlat.pipeline.plan import BATCHES_PER_WORKER, MAX_BYTES_PER_BATCH, MAX_VIDEOS_PER_BATCH, plan_encode
from vidlat.store.records.tables import to_source
from vidlat.types import Annotation, FailureRecord, InputVideo, Selection, Source


def source(video_id, num_bytes=100, mtime_ns=1):
    return InputVideo(video_id=video_id, source=Source(f"/v/{video_id}", num_bytes, mtime_ns))


def seen(source, **changes):
    """A video in the cache as it was encoded from `source`."""
    return source.video_id, source.source._replace(**changes)


def failed(source):
    return source.video_id, FailureRecord(
        video_id=source.video_id,
        source=source.source,
        kind="unreadable",
        reason="no frame decodes",
    )


def plan(sources, cached=(), failures=(), num_workers=1, **options):
    return plan_encode(sources, dict(cached), dict(failures), num_workers=num_workers, **options)


def planned(plan):
    return [source.video_id for batch in plan.batches for source in batch]


A, B, C = source("a"), source("b"), source("c")


def test_new_videos_are_encoded_and_done_ones_are_not():
    todo = plan([A, B, C], cached=[seen(B), seen(source("gone"))])
    assert planned(todo) == ["a", "c"]
    assert (todo.num_videos, todo.num_done, todo.num_sources) == (2, 1, 3)


@pytest.mark.parametrize("changes", [{"num_bytes": 101}, {"mtime_ns": 2}])
def test_changed_file_is_encoded_again(changes):
    assert planned(plan([A, B], cached=[seen(A, **changes), seen(B)])) == ["a"]


def test_other_stretch_of_the_same_file_is_encoded_again():
    stretch = Selection(start_seconds=1.0, stop_seconds=2.0)
    asked = dataclasses.replace(A, source=A.source._replace(selection=stretch))
    assert planned(plan([asked, B], cached=[seen(A), seen(B)])) == ["a"]
    assert planned(plan([asked], cached=[seen(A, selection=stretch)])) == []


def test_video_with_hidden_names_is_recognised_by_its_record():
    files = Selection(files=("DOE_1.png", "DOE_2.png"))
    hidden = dataclasses.replace(A, source=A.source._replace(selection=files), hides_names=True)
    recorded = hidden.recorded_source
    assert recorded.path == ""
    assert "DOE" not in recorded.selection.to_text()
    assert planned(plan([hidden], cached=[("a", recorded)])) == []
    others = Selection(files=("DOE_1.png", "DOE_3.png"))
    other = dataclasses.replace(hidden, source=A.source._replace(selection=others))
    assert planned(plan([other], cached=[("a", recorded)])) == ["a"]


def test_new_labels_of_a_done_video_do_not_encode_it_again():
    told, silent = Annotation("S1", {"EF": "0.5"}), None
    cached, known = [seen(A), seen(B), seen(C)], {"a": Annotation(), "b": told, "c": told}
    sources = [
        dataclasses.replace(source, annotation=annotation)
        for source, annotation in ((A, told), (B, told), (C, silent))
    ]
    result = plan_encode(sources, dict(cached), {}, known, num_workers=1)
    assert (result.num_videos, result.annotated, result.restated) == (0, sources[:1], sources[:1])


def test_video_that_is_encoded_again_keeps_its_labels():
    known = {"a": Annotation("S1", {"EF": "0.5"}), "b": Annotation("S2", {})}
    new = Annotation("S3", {})
    sources = [A, dataclasses.replace(B, annotation=new)]
    cached = dict([seen(A, num_bytes=1), seen(B, num_bytes=1)])
    (batch, other) = plan_encode(sources, cached, {}, known, num_workers=1).batches
    assert [source.annotation for source in (*batch, *other)] == [known["a"], new]


def test_touched_or_moved_file_of_the_same_content_is_done(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"frames")
    moved = InputVideo(video_id="a", source=Source(str(path), 6, 5))
    sha256 = hashlib.sha256(b"frames").hexdigest()
    record = seen(moved, path="/elsewhere/a", mtime_ns=1, sha256=sha256)
    assert plan([moved], cached=[record]).num_done == 1
    path.write_bytes(b"fromes")  # same size and times of change mean nothing in another place
    assert planned(plan([moved], cached=[seen(moved, path="/elsewhere/a", sha256=sha256)])) == ["a"]


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files whose content is read; every file's is `same`."""
    paths = []
    monkeypatch.setattr(
        plan_module, "source_hash", lambda source: paths.append(Path(source.path).name) or "same"
    )
    return paths


def test_only_a_file_with_another_path_size_or_time_is_read(hashed):
    same = {"sha256": "same"}
    cached = [seen(A, **same), seen(B, mtime_ns=2, **same), seen(C, path="/elsewhere/c", **same)]
    result = plan([A, B, C], cached)
    assert hashed == ["b", "c"]
    assert (result.num_done, result.moved) == (3, [B, C])


def test_with_checksum_every_cached_file_is_read_and_a_hidden_change_is_found(hashed):
    told = []
    cached = [seen(A, sha256="same"), seen(B, sha256="other")]
    result = plan(
        [A, B, C, source("d")], cached, [failed(C)], checksum=True, on_hash=lambda *told_: told.append(told_)
    )
    assert planned(result) == ["b", "d"]
    assert (result.num_done, result.moved) == (1, [])
    assert hashed == ["a", "b"]  # of a failure no content is known
    assert told == [("a", 2), ("b", 2)]


def test_video_of_the_cache_whose_file_is_gone_is_reported(tmp_path):
    (tmp_path / "there").touch()
    others = [seen(source(name), path=str(tmp_path / name)) for name in ("z", "there", "b/of/no/folder")]
    result = plan([A], [seen(A), *others])
    assert result.vanished == ("b/of/no/folder", "z")
    assert result.num_done == 1


def test_inaccessible_file_is_not_reported_as_gone(monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        assert plan([], [seen(A)]).vanished == ()


def test_no_source_is_looked_for_on_disk(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", None)
        assert plan([A, B], [seen(A), seen(B)]).num_done == 2


def test_undecodable_name_is_recognised_as_it_was_recorded(tmp_path, hashed):
    path = tmp_path / os.fsdecode(b"\xff.mp4")
    path.touch()
    odd = InputVideo(video_id="%FF.mp4", source=Source(str(path), 100, 1))
    spelt = f"{tmp_path}/\\udcff.mp4"  # seven letters: what a Parquet file can hold
    record = "%FF.mp4", to_source(spelt, 100, 1, "", "")
    result = plan([odd], [record])
    assert (result.num_done, result.moved, hashed) == (1, [], [])
    assert plan([A], [record]).vanished == ()
    path.unlink()
    assert plan([A], [record]).vanished == ("%FF.mp4",)


def test_another_file_of_the_same_id_is_refused_while_the_first_exists(tmp_path):
    first, second = tmp_path / "one" / "a", tmp_path / "two" / "a"
    for path in (first, second):
        path.parent.mkdir()
        path.write_text(str(path))
    other = InputVideo(video_id="a", source=Source(str(second), second.stat().st_size, 1))
    with pytest.raises(InputError, match=r"two/a would replace video 'a', which was encoded from .*one/a"):
        plan([other], cached=[seen(other, path=str(first))])
    first.unlink()
    assert planned(plan([other], cached=[seen(other, path=str(first))])) == ["a"]


def test_known_failure_is_reported_and_tried_again_only_when_asked():
    todo = plan([A, B], failures=[failed(A)])
    assert planned(todo) == ["b"]
    assert [failure.video_id for failure in todo.known_failures] == ["a"]
    again = plan([A, B], failures=[failed(A)], retry_failed=True)
    assert planned(again) == ["a", "b"]
    assert again.known_failures == []


def test_failed_file_that_changed_since_is_tried_again():
    assert planned(plan([A], failures=[failed(source("a", mtime_ns=2))])) == ["a"]


def test_done_video_that_failed_when_it_was_encoded_anew_is_a_known_failure():
    todo = plan([A], cached=[seen(A, mtime_ns=2)], failures=[failed(A)])
    assert planned(todo) == []
    assert len(todo.known_failures) == 1


def test_largest_videos_come_first():
    sizes = {"a": 5, "b": 50, "c": 5, "d": 500}
    assert planned(plan([source(name, size) for name, size in sizes.items()])) == ["d", "b", "a", "c"]


@pytest.mark.parametrize(
    ("num_videos", "num_workers", "largest"),
    [(1, 1, 1), (8, 1, 1), (15, 1, 1), (16, 1, 2), (100, 2, 6), (2100, 2, 64), (7, 50, 1)],
)
def test_every_worker_gets_several_batches_and_none_is_large(num_videos, num_workers, largest):
    batches = plan([source(str(n)) for n in range(num_videos)], num_workers=num_workers).batches
    assert max(map(len, batches)) == largest
    assert largest <= MAX_VIDEOS_PER_BATCH
    if num_videos >= 2 * BATCHES_PER_WORKER * num_workers:
        assert len(batches) >= BATCHES_PER_WORKER * num_workers


@given(st.lists(st.integers(0, 2 * MAX_BYTES_PER_BATCH), max_size=200))
def test_batch_of_several_videos_is_small(sizes):
    batches = plan([source(str(n), size) for n, size in enumerate(sizes)]).batches
    assert all(
        sum(s.source.num_bytes for s in batch) <= MAX_BYTES_PER_BATCH for batch in batches if len(batch) > 1
    )
    assert [s.source.num_bytes for batch in batches for s in batch] == sorted(sizes, reverse=True)


@given(
    states=st.lists(st.sampled_from(["new", "done", "changed", "failed", "failed-changed"]), max_size=80),
    num_workers=st.integers(1, 9),
    retry_failed=st.booleans(),
    data=st.data(),
)
def test_every_source_has_exactly_one_place(states, num_workers, retry_failed, data):
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=len(states), max_size=len(states)))
    sources = [
        source(f"{n}-{state}", size) for n, (state, size) in enumerate(zip(states, sizes, strict=True))
    ]
    in_state = {state: [s for s in sources if s.video_id.endswith(f"-{state}")] for state in set(states)}
    records = [seen(s) for s in in_state.get("done", [])]
    records += [seen(s, mtime_ns=2) for s in in_state.get("changed", [])]
    failures = [failed(s) for s in in_state.get("failed", [])]
    failures += [failed(source(s.video_id, num_bytes=77)) for s in in_state.get("failed-changed", [])]
    result = plan(sources, records, failures, num_workers, retry_failed=retry_failed)

    redone = {"new", "changed", "failed-changed"} | ({"failed"} if retry_failed else set())
    expected = Counter(s.video_id for s in sources if s.video_id.split("-", 1)[1] in redone)
    assert Counter(planned(result)) == expected
    known = [failure.video_id for failure in result.known_failures]
    assert known == [] if retry_failed else known == [s.video_id for s in in_state.get("failed", [])]
    assert result.num_done == len(in_state.get("done", []))
    assert result.num_sources == len(sources)
    assert all(1 <= len(batch) <= MAX_VIDEOS_PER_BATCH for batch in result.batches)
