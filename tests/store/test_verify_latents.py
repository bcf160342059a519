"""Damage to shards: verify names the damaged video and frames, and no other video."""

import dataclasses
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.store.caches import SCHEMA, add_videos, random_posterior, record_of, writer_of
from tests.store.damage import MEAN_B, STD_B, flip, found, write_latents
from vidlat.store.latents.statistics import latent_statistics
from vidlat.store.latents.write_shards import write_shards
from vidlat.store.verify.cache import verify_cache
from vidlat.store.verify.problem import Problem
from vidlat.store.writing.opening import create_cache
from vidlat.types import LatentStatistics


@pytest.mark.parametrize("shard", [MEAN_B, STD_B])
@pytest.mark.parametrize("position", [0, 100, -1, -40])
def test_flipped_bit_in_a_shard_is_damage(path, shard, position):
    flip(path / shard, position)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("b.mp4", "damaged")
    assert shard in problem.what
    assert problem.what.startswith(shard.partition("/")[0])


def test_damage_is_reported_by_the_frames_it_hits(path):
    flip(path / MEAN_B, 100)  # the first of the two chunks
    flip(path / STD_B, -1)  # the index: both are lost
    problems = list(verify_cache(path))
    assert [problem.what.split(":")[0] for problem in problems] == [
        "mean, latent frames 16-20",
        "std, latent frames 16-24",
    ]


@given(
    st.sampled_from([f"{name}/c/0/{shard}/0/0" for name in ("mean", "std") for shard in range(5)]),
    st.integers(0, 10**6),
    st.integers(0, 7),
)
def test_any_bit_of_any_shard_is_missed_by_its_video_alone(pristine, shard, position, bit):
    owner = ["a.mp4", "b.mp4", "b.mp4", "b.mp4", "c/[b].mp4"][int(shard.split("/")[3])]
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copytree(pristine, Path(folder) / "l.zarr")
        flip(path / shard, position % (path / shard).stat().st_size, bit)
        problems = found(path)
    assert problems
    assert set(problems) <= {(owner, "damaged"), (owner, "missing"), (owner, "checksum")}


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (lambda shard: shard.unlink(), "missing", "latent frames 16-24: mean/c/0/2/0/0 does not exist"),
        (
            lambda shard: shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2]),
            "damaged",
            "16-24",
        ),
        (lambda shard: shard.write_bytes(b""), "damaged", "16-24"),
        (lambda shard: shard.write_bytes(b"\xff" * 5000), "damaged", "16-24"),
    ],
    ids=["deleted", "half", "empty", "rubbish"],
)
def test_shard_that_is_not_whole_is_reported(path, damage, kind, what):
    damage(path / MEAN_B)
    (problem,) = verify_cache(path)
    assert (problem.where, problem.kind) == ("b.mp4", kind)
    assert what in problem.what


def test_chunk_of_nan_is_missing(path):
    write_latents(path, slice(8, 12), np.nan)
    (problem,) = verify_cache(path)
    assert problem == Problem(
        where="b.mp4",
        kind="missing",
        what="mean, latent frames 8-12: mean/c/0/1/0/0 lacks them",
        is_video=True,
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_reported_with_their_chunks(path, value):
    for frame in (9, 20, 27):
        write_latents(path, frame, value)
    problems = list(verify_cache(path))
    assert {(problem.where, problem.kind) for problem in problems} == {("b.mp4", "not-finite")}
    assert [problem.what.split(":")[0] for problem in problems] == [
        "mean, latent frames 8-12",
        "mean, latent frames 20-24",
        "mean, latent frames 24-28",
    ]


def test_latents_changed_with_their_checksums_are_not_those_recorded(path):
    write_latents(path, 9, 0.5)
    kinds = [kind for where, kind in found(path) if where == "b.mp4"]
    assert kinds == ["checksum", "statistics", "statistics"]  # of mean; std is as it was
    assert len(found(path)) == 3


def test_padding_frames_count_for_the_checksum_alone(tmp_path):
    schema = dataclasses.replace(SCHEMA, settings=dataclasses.replace(SCHEMA.settings, stack=16))
    path = tmp_path / "padded.zarr"
    create_cache(path, schema)
    video = random_posterior(8)
    writer = writer_of(path)
    ((start, _),) = write_shards(path, writer.reserve(1), [video])
    # 18 frames: two stacks of 16, 8 latent frames, of which the first stack's 4 have no padding.
    valid = {name: getattr(video, name).astype(np.float16)[:, :4].astype(float) for name in ("mean", "std")}
    writer.commit(
        [
            record_of(
                "a.mp4",
                start,
                video,
                num_frames=18,
                latents=LatentStatistics(
                    frame_crc32c=latent_statistics(video.mean, video.std, 4).frame_crc32c,
                    count=4 * 3 * 5,
                    sum_mean=tuple(valid["mean"].sum((1, 2, 3))),
                    sum_mean_squared=tuple((valid["mean"] ** 2).sum((1, 2, 3))),
                    sum_std_squared=tuple((valid["std"] ** 2).sum((1, 2, 3))),
                ),
            )
        ]
    )
    assert found(path) == []
    write_latents(path, 7, 0.5)
    assert found(path) == [("a.mp4", "checksum")]


def test_long_video_is_read_a_shard_at_a_time(cache_path, monkeypatch):
    from vidlat.store.verify.latents import LatentChecker

    add_videos(cache_path, {"long.mp4": random_posterior(333)})
    read, parts = LatentChecker._read, []

    def watched(self, name, first, stop):
        parts.append((first, stop))
        return read(self, name, first, stop)

    monkeypatch.setattr(LatentChecker, "_read", watched)
    assert found(cache_path) == []
    assert max(stop - first for first, stop in parts) == SCHEMA.shard_frames
    assert parts == 2 * [(first, min(first + 8, 333)) for first in range(0, 333, 8)]
