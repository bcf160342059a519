"""Everything is checked before any work starts."""

import pytest

from vidlat.errors import CacheMismatchError, ConfigError, InputError, ShapeError, StoreError, WeightsError
from vidlat.store.reader import open_cache


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("videos"), {"a.mp4": 5, "b.mp4": 4})
    (folder / "notes.txt").write_text("no video")
    return folder


def test_plan_and_job_follow_from_settings_videos_and_weights(videos, prepare, tmp_path, small_vae):
    prepared = prepare(videos, tmp_path / "l.zarr", fit="letterbox", workers=1)
    assert (prepared.plan.num_videos, prepared.num_ignored, prepared.num_workers) == (2, 1, 1)
    job = prepared.job
    assert (job.size, job.fit, job.stack, job.batch, job.precision) == (16, "letterbox", 4, 3, "float32")
    schema = open_cache(tmp_path / "l.zarr").schema
    assert (schema.latent_dim, schema.latent_height, schema.latent_width) == (4, 4, 4)
    assert (schema.time_compression, schema.space_compression) == (4, 4)
    assert schema.settings.vae_hash == job.vae_hash == job.load_vae().weights_hash
    assert schema.vae_path == str(small_vae)


def test_workers_are_chosen_for_the_machine_where_none_are_asked_for(videos, prepare, tmp_path):
    assert prepare(videos, tmp_path / "l.zarr", workers=0).num_workers >= 1


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"size": 32}, "size"), ({"fit": "stretch"}, "fit"), ({"stack": 8}, "stack"),
     ({"precision": "bfloat16"}, "encode_precision"), ({"vae": "tiny"}, "vae_hash")],
)  # fmt: skip
def test_other_settings_than_the_caches_are_refused_by_name(videos, prepare, tmp_path, settings, field):
    prepare(videos, tmp_path / "l.zarr")
    with pytest.raises(CacheMismatchError, match=field):
        prepare(videos, tmp_path / "l.zarr", **settings)


def test_settings_that_change_no_number_may_differ(videos, prepare, tmp_path):
    prepare(videos, tmp_path / "l.zarr")
    prepare(videos, tmp_path / "l.zarr", batch=1, workers=1)


def test_auto_precision_is_what_the_cache_was_made_with(videos, prepare, tmp_path):
    assert prepare(videos, tmp_path / "l.zarr", precision="bfloat16").job.precision == "bfloat16"
    assert prepare(videos, tmp_path / "l.zarr", precision="auto").job.precision == "bfloat16"
    with pytest.raises(CacheMismatchError, match="encode_precision"):
        prepare(videos, tmp_path / "l.zarr", precision="float32")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"size": 18}, ConfigError, "multiple of 4"),
        ({"stack": 6}, ShapeError, "nearest that works: 4 and 8"),
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
