import dataclasses
import json

import pytest
from hypothesis import given, strategies as st

from tests.store.caches import SCHEMA, SETTINGS
from vidlat.errors import CacheMismatchError, StoreError
from vidlat.store.reader import open_cache
from vidlat.store.schema import (
    FORMAT_VERSION,
    CacheSchema,
    default_shard_frames,
    require_same_settings,
)

CHANGED = {
    "encoder_hash": "other",
    "encoder_config": {"latent_channels": 4, "num_channels": [8, 16]},
    "stack": 8,
    "size": 24,
    "fit": "stretch",
    "precision": "bfloat16",
    "preprocess_version": 2,
    "arithmetic_version": 2,
    "crop": "auto",
    "fps": 25.0,
    "intensity": "ct",
    "axes": "HWT",
    "deinterlace": "off",
    "keepbits": 7,
    "stretch": 2,
    "stretch_by": "linear",
    "overlap": 4,
    "blend": "center",
}

counts = st.integers(1, 1000)
names = st.text(max_size=10)
schemas = st.builds(
    CacheSchema,
    settings=st.builds(
        lambda config, **values: dataclasses.replace(SETTINGS, encoder_config=config, **values),
        config=st.dictionaries(names, st.integers() | names | st.tuples(counts, counts)),
        encoder_hash=names,
        stack=counts.map(lambda count: 12 * count),
        overlap=st.sampled_from([0, 4, 8]),
        stretch=st.sampled_from([1, 2, 4]),
        stretch_by=st.sampled_from(["repeat", "linear"]),
        size=counts,
        fit=st.sampled_from(["crop", "letterbox", "stretch"]),
        arithmetic_version=st.sampled_from([1, 2]),
        crop=st.sampled_from(["none", "auto", "1,2,30,40"]),
        fps=st.floats(0, 1e6),
        intensity=st.sampled_from(["auto", "ct", "minmax", "0,255"]),
    ),
    vae_name=names,
    vae_hash=names,
    vae_licence=names,
    vae_path=names,
    time_compression=st.sampled_from([1, 2, 4]),
    space_compression=counts,
    latent_dim=counts,
    latent_height=counts,
    latent_width=counts,
    chunk_frames=st.just(4),
    shard_frames=counts.map(lambda count: 4 * count),
    ids=st.sampled_from(["path", "hash"]),
)


def test_every_setting_has_a_change_in_this_file():
    assert CHANGED.keys() == {field.name for field in dataclasses.fields(SETTINGS)}


@pytest.mark.parametrize("field", CHANGED)
def test_cache_id_depends_on_each_setting(field):
    assert dataclasses.replace(SETTINGS, **{field: CHANGED[field]}).cache_id != SETTINGS.cache_id


@pytest.mark.parametrize(
    "field", [field.name for field in dataclasses.fields(CacheSchema) if field.name != "settings"]
)
def test_cache_id_depends_on_no_recorded_fact(field):
    value = getattr(SCHEMA, field)
    others = {"ids": "hash", "time_compression": 2}
    other = others.get(field, value * 2 if isinstance(value, int) else "other")
    changed = dataclasses.replace(SCHEMA, **{field: other})
    assert changed != SCHEMA
    assert changed.cache_id == SCHEMA.cache_id


def test_cache_id_does_not_depend_on_the_order_of_the_encoder_config():
    turned = dict(reversed(SETTINGS.encoder_config.items()))
    assert dataclasses.replace(SETTINGS, encoder_config=turned).cache_id == SETTINGS.cache_id


@pytest.mark.parametrize("changes", [{"stack": 6}, {"stack": 4, "stretch": 3}])
def test_stacks_that_hold_no_whole_frames_are_refused(changes):
    with pytest.raises(StoreError, match=r"(stack: got 6|stretch: got 3); expected a (multiple|divisor)"):
        dataclasses.replace(SCHEMA, settings=dataclasses.replace(SETTINGS, **changes))


@given(schemas)
def test_schema_survives_json(schema):
    attributes = json.loads(json.dumps(schema.to_attributes()))
    assert CacheSchema.from_attributes(attributes) == schema


@pytest.mark.parametrize("field", CHANGED)
def test_mismatch_names_the_field_and_both_values(field):
    asked = dataclasses.replace(SETTINGS, **{field: CHANGED[field]})
    with pytest.raises(CacheMismatchError, match="another --out") as caught:
        require_same_settings("latents.zarr", SETTINGS, asked)
    message = str(caught.value)
    name, has, want = (
        ("encoder_config.latent_channels", 2, 4)
        if field == "encoder_config"
        else (field, getattr(SETTINGS, field), CHANGED[field])
    )
    assert f"({name}: cache has {has}, you asked {want})" in message
    assert "\n" not in message


def test_mismatch_lists_all_fields_at_once():
    with pytest.raises(CacheMismatchError) as caught:
        require_same_settings("latents.zarr", SETTINGS, dataclasses.replace(SETTINGS, **CHANGED))
    assert all(field in str(caught.value) for field in CHANGED)


def test_equal_settings_are_accepted():
    require_same_settings("latents.zarr", SETTINGS, dataclasses.replace(SETTINGS))


def edit(path, **changes):
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["vidlat"].update(changes)
    (path / "zarr.json").write_text(json.dumps(document))


def test_newer_format_is_refused_by_name(cache_path):
    edit(cache_path, format_version=FORMAT_VERSION + 1, something_new=1)
    message = f"made by a newer vidlat: format {FORMAT_VERSION + 1}, this one reads {FORMAT_VERSION}; upgrade"
    with pytest.raises(StoreError, match=message):
        open_cache(cache_path)


def test_older_format_is_refused_by_name(cache_path):
    edit(cache_path, format_version=FORMAT_VERSION - 1)
    message = f"made by an older vidlat: format {FORMAT_VERSION - 1}, this one reads {FORMAT_VERSION}; encode"
    with pytest.raises(StoreError, match=message):
        open_cache(cache_path)


def test_edited_settings_are_refused(cache_path):
    settings = dataclasses.asdict(SETTINGS) | {"size": 24}
    edit(cache_path, settings=settings)
    with pytest.raises(StoreError, match="settings were edited"):
        open_cache(cache_path)


@pytest.mark.parametrize("field", ["unknown", "latent_dim"])
def test_damaged_description_is_refused(cache_path, field):
    document = json.loads((cache_path / "zarr.json").read_text())
    attributes = document["attributes"]["vidlat"]
    attributes.pop(field) if field in attributes else attributes.update({field: 1})
    (cache_path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=field):
        open_cache(cache_path)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8"])
def test_sizes_must_be_positive_whole_numbers(value):
    with pytest.raises(StoreError, match="latent_dim: got"):
        dataclasses.replace(SCHEMA, latent_dim=value)


def test_shard_must_be_whole_chunks():
    with pytest.raises(StoreError, match="multiple of chunk_frames"):
        dataclasses.replace(SCHEMA, shard_frames=10)


@given(st.sampled_from([1, 4, 16]), st.integers(4, 128), st.integers(4, 128), st.sampled_from([1, 4, 8]))
def test_default_shard_holds_two_to_four_megabytes_or_256_chunks(latent_dim, height, width, chunk_frames):
    frames = default_shard_frames(latent_dim, height, width, chunk_frames)
    frame_bytes = latent_dim * height * width * 2
    assert frames % chunk_frames == 0
    assert frames <= 256 * chunk_frames
    assert frames * frame_bytes >= 2 * 1024**2 or frames == 256 * chunk_frames
    assert (frames - chunk_frames) * frame_bytes < 2 * 1024**2
    assert frames * frame_bytes <= 4 * 1024**2 or frames == chunk_frames


@given(st.lists(st.integers(1, 40), max_size=20))
def test_packed_videos_start_on_chunks_and_fill_the_fewest(lengths):
    taken, starts = 0, []
    for length in lengths:  # frame by frame, as one would by hand
        while taken % SCHEMA.chunk_frames:
            taken += 1
        starts.append(taken)
        taken += length
    assert SCHEMA.pack(lengths) == starts
    shards = SCHEMA.num_shards(lengths)
    assert (shards - 1) * SCHEMA.shard_frames < max(taken, 1) <= max(shards, 1) * SCHEMA.shard_frames
