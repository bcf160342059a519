"""Groups are compared by the sums in the records as NumPy compares their latents."""

import numpy as np
import pytest

from tests.train.toys import CacheMaker, random_posterior, whole_file
from vidlat.report.groups import compare_groups
from vidlat.store.reader import open_cache
from vidlat.store.writing.opening import open_writer
from vidlat.types import Annotation, InputVideo, hashed_name

VIDEOS = {f"{name}{number}": 16 for name in ("a", "b", "c") for number in range(4)}


def shifted(video_id, num_latent_frames):
    """Those of a random mean; of `c` brighter and wider by far."""
    mean, std = random_posterior(video_id, num_latent_frames)
    rng = np.random.default_rng(int(video_id[1:]))
    factor, shift = (2, 9) if video_id[0] == "c" else (1, 0)
    return (factor * mean + shift + rng.normal()).astype(np.float16), std


def sources(top):
    return {video_id: whole_file(f"{top}/{video_id[0]}/{video_id}.mp4") for video_id in VIDEOS}


@pytest.fixture
def cache(tmp_path):
    return CacheMaker(tmp_path / "l.zarr").add(VIDEOS, shifted, sources=sources("/data/videos"))


def test_figures_are_those_of_the_latents(cache):
    latents = {
        video_id: cache.read_latents(video_id)
        .mean[:, : record.latents.count // 16]
        .astype(np.float64)
        .reshape(2, -1)
        for video_id, record in cache.records().items()
    }
    what, groups = compare_groups(cache)
    assert what == "source folder"
    every = np.concatenate(list(latents.values()), 1)
    of_means = np.stack([each.mean(1) for each in latents.values()])
    assert {group.name for group in groups} == {"a", "b", "c"}
    for group in groups:
        own = np.concatenate([each for video_id, each in latents.items() if video_id[0] == group.name], 1)
        shift = (own.mean(1) - every.mean(1)) / every.std(1)
        assert group.num_videos == 4
        assert group.shift == pytest.approx(np.sqrt((shift**2).mean()))
        assert group.spread == pytest.approx(np.prod(own.std(1) / every.std(1)) ** 0.5)
        # 4 of 12 drawn without repetition, in 20,000 draws
        rng = np.random.default_rng(0)
        draws = of_means[rng.random((20_000, 12)).argsort(1)[:, :4]].mean(1)
        by_chance = np.sqrt((((draws - of_means.mean(0)) / every.std(1)) ** 2).mean())
        assert group.chance == pytest.approx(by_chance, rel=0.03)


def test_the_group_that_differs_most_comes_first(cache):
    _, groups = compare_groups(cache)
    assert groups[0].name == "c"
    assert groups[0].spread > max(group.spread for group in groups[1:])
    assert groups[0].times_chance > groups[1].times_chance


def test_one_of_many_groups_differs_and_the_others_do_not(tmp_path):
    videos = {f"{name}{number}": 16 for name in "abcdefgh" for number in range(6)}
    folders = {video_id: whole_file(f"/d/{video_id[0]}/{video_id}") for video_id in videos}
    cache = CacheMaker(tmp_path / "l.zarr").add(videos, shifted, sources=folders)
    _, groups = compare_groups(cache)
    assert [group.name for group in groups if group.differs] == ["c"]


def annotate(cache, subjects):
    """The cache, with subjects recorded."""
    recorded = cache.sources()
    with open_writer(cache.path, "test") as writer:
        writer.commit_sources(
            [
                InputVideo(video_id=video_id, source=recorded[video_id], annotation=Annotation(name, {}))
                for video_id, name in subjects.items()
            ]
        )
    return open_cache(cache.path)


def test_subjects_come_before_folders(cache):
    what, groups = compare_groups(annotate(cache, {"a0": "Jane", "a1": "Jane", "b0": "John"}))
    assert what == "subject"
    assert {group.name: group.num_videos for group in groups} == {"Jane": 2, "John": 1, "(no subject)": 9}


def test_where_names_are_hidden_folders_are_unknown_and_subjects_hashed(tmp_path):
    cache = CacheMaker(tmp_path / "l.zarr", ids="hash").add(VIDEOS)
    assert compare_groups(cache) == ("", [])
    what, groups = compare_groups(annotate(cache, dict.fromkeys(VIDEOS, "Jane") | {"b0": "John"}))
    assert what == "subject"
    assert {group.name for group in groups} == {hashed_name(name)[:12] for name in ("Jane", "John")}


def test_a_single_group_is_no_shift(tmp_path):
    cache = CacheMaker(tmp_path / "m.zarr").add(
        {"a": 8, "b": 8}, sources={v: whole_file(f"/v/{v}") for v in "ab"}
    )
    _, (group,) = compare_groups(cache)
    assert group.shift == pytest.approx(0)
    assert (group.name, group.times_chance, group.differs) == (".", None, False)
