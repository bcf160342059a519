"""The cache opened by other libraries. Pytest is configured to make warnings errors."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorstore as ts
import xarray as xr
import zarr

from tests.store.caches import SCHEMA, SETTINGS, add_videos, failure_of, random_posterior, writer_of


@pytest.fixture(params=["empty", "grown", "filled"])
def any_cache(cache_path, request):
    if request.param == "grown":
        writer_of(cache_path).reserve(3)
    if request.param == "filled":
        add_videos(cache_path, {"a.mp4": random_posterior(6), "b.mp4": random_posterior(9)})
        writer_of(cache_path).record_failures([failure_of("c.mp4")])
    return cache_path


def by_tensorstore(path):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return ts.open(spec, open=True, read=True).result()


def test_zarr_xarray_and_tensorstore_open_it_alike(any_cache):
    group = zarr.open_group(any_cache, mode="r")
    assert dict(group.attrs)["vidlat"]["cache_id"] == SETTINGS.cache_id
    members = dict(group.members(max_depth=None))
    assert set(members) == {"mean", "std", "videos", "failures"}
    dataset = xr.open_zarr(any_cache, chunks=None)
    assert set(dataset) == {"mean", "std"}
    for name in dataset:
        array = by_tensorstore(any_cache / name)
        assert array.shape == members[name].shape == dataset[name].shape
        assert dataset[name].dims == ("latent", "frame", "y", "x") == array.domain.labels
        assert dataset[name].dtype == members[name].dtype == np.float16
        np.testing.assert_array_equal(array.read().result(), members[name][:])
        np.testing.assert_array_equal(array.read().result(), dataset[name].values)


def test_zarr_opens_the_folders_of_records_without_a_warning(any_cache):
    for name in ("videos", "failures"):
        assert dict(zarr.open_group(any_cache / name, mode="r").members()) == {}
    assert set(xr.open_datatree(any_cache, engine="zarr", chunks=None).children) == {"videos", "failures"}


def test_zarr_opens_it_without_the_consolidated_metadata(any_cache):
    group = zarr.open_group(any_cache, mode="r", use_consolidated=False)
    assert group["mean"].shape == group["std"].shape


def test_metadata_is_what_zarr_itself_would_write(any_cache, tmp_path):
    num_frames = zarr.open_group(any_cache, mode="r")["mean"].shape[1]
    theirs = zarr.create_group(tmp_path / "theirs.zarr", zarr_format=3)
    codecs = zarr.codecs
    for name in ("mean", "std"):
        theirs.create_array(
            name,
            shape=(2, num_frames, 3, 5),
            shards=(2, 8, 3, 5),
            chunks=(2, 4, 3, 5),
            dtype="float16",
            fill_value=np.nan,
            compressors=[
                codecs.BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle"),
                codecs.Crc32cCodec(),
            ],
            dimension_names=["latent", "frame", "y", "x"],
        )
        ours = json.loads((any_cache / name / "zarr.json").read_text())
        assert ours == json.loads((tmp_path / "theirs.zarr" / name / "zarr.json").read_text())


def test_all_three_read_a_hole_as_nan(cache_path):
    writer_of(cache_path).reserve(1)
    assert np.isnan(zarr.open_group(cache_path, mode="r")["std"][:]).all()
    assert np.isnan(xr.open_zarr(cache_path, chunks=None)["std"].values).all()
    assert np.isnan(by_tensorstore(cache_path / "std").read().result()).all()


def test_root_attributes_of_others_survive_growth(cache_path):
    zarr.open_group(cache_path, mode="r+", use_consolidated=False).attrs["note"] = "mine"
    writer_of(cache_path).reserve(1)
    group = zarr.open_group(cache_path, mode="r")
    assert group.attrs["note"] == "mine"
    assert group.metadata.consolidated_metadata.metadata["mean"].shape == (2, 8, 3, 5)


def test_schema_and_records_open_without_the_heavy_libraries(cache_path):
    add_videos(cache_path, {"a.mp4": random_posterior(6)})
    code = (
        "import sys; from pathlib import Path; from vidlat.store.reader import open_cache\n"
        f"cache = open_cache(Path({str(cache_path)!r}))\n"
        "assert len(cache.records()) == 1 and not cache.failures() and cache.disk_usage()\n"
        "loaded = {'zarr', 'tensorstore', 'torch', 'dask', 'pyarrow.dataset'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_layout_names_the_units_of_the_schema(cache_path):
    grid = zarr.open_group(cache_path, mode="r")["mean"]
    assert grid.shards == (2, SCHEMA.shard_frames, 3, 5)
    assert grid.chunks == (2, SCHEMA.chunk_frames, 3, 5)
