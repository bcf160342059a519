"""Decoding latents to video with the VAE that made them."""

import json
import re
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from tests.pipeline.opened import frames_of
from tests.thorough import some_of
from vidlat.errors import InputError, NotEnoughMemoryError, WeightsError
from vidlat.pipeline.decode_videos import (
    decode_cache,
    decode_frames,
    decode_latents,
    decode_video,
    decode_videos,
    load_vae_of,
    to_gray_levels,
)
from vidlat.pipeline.discover import discover_videos
from vidlat.pipeline.task import encode_batch, write_batch
from vidlat.store.reader import open_cache
from vidlat.store.verify.cache import verify_cache
from vidlat.store.writing.opening import open_writer
from vidlat.types import WHOLE
from vidlat.video.reader import read_prepared

LENGTHS = {"a.mp4": 5, "deep/b.mp4": 16}


@pytest.fixture
def make_cache(make_videos, prepare, tmp_path):
    def make(**settings):
        folder = make_videos(tmp_path / "v", LENGTHS, fps=10)
        job = prepare(folder, tmp_path / "l.zarr", **settings).job
        batch = encode_batch(discover_videos([str(folder)]).videos, job, scratch_parent=tmp_path)
        with open_writer(tmp_path / "l.zarr", "test") as writer:
            start = writer.reserve(writer.schema.num_shards(batch.num_latent_frames))
            writer.commit(write_batch(batch, tmp_path / "l.zarr", start))
        return open_cache(tmp_path / "l.zarr"), job

    return make


@pytest.fixture
def cache(make_cache):
    return make_cache()[0]


@pytest.mark.parametrize(
    "settings",
    some_of(
        [
            {"stack": 8, "stretch": 2, "overlap": 2},
            {"stretch": 2},
            {"stretch": 4},
            {"stretch": 4, "stretch_by": "linear"},
            {"stack": 8, "stretch": 2},
            {"stack": 8, "stretch": 2, "stretch_by": "linear"},
            {"stack": 12, "overlap": 8, "blend": "center"},
            {"overlap": 2},
            {"overlap": 3},
            {"stack": 8, "overlap": 4},
        ]
    ),
)
def test_videos_of_any_time_settings_are_encoded_and_decoded_like_whole_ones(
    make_cache, expected_latents, tmp_path, settings
):
    cache, job = make_cache(**settings)
    vae = load_vae_of(cache.schema, device="cpu", batch=2)
    for video_id, num_frames in LENGTHS.items():
        posterior = cache.read_latents(video_id)
        mean, std = expected_latents(tmp_path / "v" / video_id, job)
        np.testing.assert_array_equal(posterior.mean, mean)
        np.testing.assert_array_equal(posterior.std, std)
        assert posterior.mean.shape[1] == cache.schema.timing.num_latent_frames(num_frames)
        latents = torch.from_numpy(mean.astype(np.float32))[None]
        whole = vae.decode(latents, num_frames)[0, 0].clamp(0, 1).numpy()
        np.testing.assert_array_equal(np.stack(list(decode_video(cache, vae, video_id))), whole)
    assert list(verify_cache(tmp_path / "l.zarr")) == []


@pytest.mark.parametrize(("batch", "video_id"), some_of(product([1, 2, 8], LENGTHS)))
def test_decoding_in_pieces_equals_decoding_at_once(cache, batch, video_id):
    vae = load_vae_of(cache.schema, device="cpu", batch=batch)
    mean = cache.read_latents(video_id).mean.astype(np.float32)
    whole = vae.decode(torch.from_numpy(mean)[None], LENGTHS[video_id])[0, 0].clamp(0, 1).numpy()
    frames = list(decode_video(cache, vae, video_id))
    assert len(frames) == LENGTHS[video_id]
    np.testing.assert_array_equal(np.stack(frames), whole)
    np.testing.assert_array_equal(decode_latents(vae, mean, LENGTHS[video_id]), whole)


def test_frames_in_memory_are_those_of_the_vae_and_an_unknown_id_is_refused(cache, tmp_path):
    vae = load_vae_of(cache.schema, device="cpu")
    decoded = dict(decode_frames(tmp_path / "l.zarr", device="cpu"))
    assert list(decoded) == sorted(LENGTHS)
    for video_id, frames in decoded.items():
        mean = cache.read_latents(video_id).mean.astype(np.float32)
        whole = vae.decode(torch.from_numpy(mean)[None], LENGTHS[video_id])[0, 0].clamp(0, 1).numpy()
        np.testing.assert_array_equal(frames, np.rint(whole * 255).astype(np.uint8))
    last = max(LENGTHS)
    ((only, frames),) = decode_frames(tmp_path / "l.zarr", [last], device="cpu")
    assert only == last
    np.testing.assert_array_equal(frames, decoded[last])
    with pytest.raises(InputError, match=r"holds no video .gone.; `vidlat ls` lists those"):
        next(decode_frames(tmp_path / "l.zarr", [last, "gone"], device="cpu"))


def test_decoded_videos_below_the_input_are_not_encoded_next(cache, tmp_path):
    before = discover_videos([str(tmp_path / "v")]).videos
    assert len(list(decode_videos(tmp_path / "l.zarr", tmp_path / "v" / "recon", device="cpu"))) == 2
    found = discover_videos([str(tmp_path / "v")])
    assert found.videos == before
    assert found.decoded == (str(tmp_path / "v" / "recon"),)


@pytest.mark.parametrize("out", ["v", "v/deep", "."])
def test_a_folder_that_holds_the_sources_is_not_decoded_into(cache, tmp_path, out):
    before = sorted((tmp_path / "v").rglob("*"))
    with pytest.raises(InputError, match=r"holds the video '(a|deep/b)\.mp4' itself"):
        list(decode_videos(tmp_path / "l.zarr", tmp_path / out, device="cpu"))
    assert sorted((tmp_path / "v").rglob("*")) == before


def test_long_video_is_decoded_as_it_is_consumed(cache):
    vae = load_vae_of(cache.schema, device="cpu", batch=2)
    decoded, real = [], vae.decode_stacks
    vae.decode_stacks = lambda stacks: decoded.append(len(stacks)) or real(stacks)
    frames = decode_video(cache, vae, "deep/b.mp4")
    next(frames)
    assert decoded == [2]
    assert sum(1 for _ in frames) == 15
    assert decoded == [2, 2]


def watch_decode(vae, fails=lambda _: False):
    """The number of stacks of each call of the network, which lacks memory where `fails` says so of it."""
    sizes, real = [], vae._autoencoder.network.decode

    def decode(stacks):
        sizes.append(len(stacks))
        if fails(len(stacks)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(stacks)

    vae._autoencoder.network.decode = decode
    return sizes


def test_no_more_stacks_are_decoded_than_there_are(cache):
    vae = load_vae_of(cache.schema, device="cpu", batch=3)
    sizes = watch_decode(vae)
    assert sum(1 for _ in decode_video(cache, vae, "deep/b.mp4")) == 16
    decode_latents(vae, cache.read_latents("a.mp4").mean, 5)
    assert sizes == [3, 1, 2]


def test_a_video_is_decoded_in_smaller_calls_where_memory_does_not_suffice(cache):
    expected = list(decode_video(cache, load_vae_of(cache.schema, device="cpu"), "deep/b.mp4"))
    vae = load_vae_of(cache.schema, device="cpu", batch=4)
    sizes = watch_decode(vae, lambda size: size > 1)
    for attempts in ([4, 2], []):
        frames = list(decode_video(cache, vae, "deep/b.mp4"))
        np.testing.assert_allclose(np.stack(frames), np.stack(expected), atol=1e-5)
        assert sizes == [*attempts, 1, 1, 1, 1]
        sizes.clear()


def test_a_stack_that_does_not_fit_alone_ends_in_one_line(cache):
    vae = load_vae_of(cache.schema, device="cpu", batch=4)
    sizes = watch_decode(vae, lambda _: True)
    with pytest.raises(NotEnoughMemoryError, match="not enough memory on cpu for 1 stack"):
        next(decode_video(cache, vae, "deep/b.mp4"))
    assert sizes == [4, 2, 1]


def test_every_cached_video_is_written_with_its_own_length_and_rate(cache, tmp_path):
    vae = load_vae_of(cache.schema, device="cpu")
    written = dict(decode_cache(cache, vae, tmp_path / "out"))
    assert written == {name: tmp_path / "out" / name for name in LENGTHS}
    for name, path in written.items():
        frames = list(frames_of(path))
        assert len(frames) == LENGTHS[name]
        assert frames[1].pts_seconds == pytest.approx(0.1)
        for frame, pixels in zip(frames, decode_video(cache, vae, name), strict=True):
            assert np.abs(frame.pixels.astype(int) - to_gray_levels(pixels)).max() <= 8


def test_folder_that_cannot_be_made_is_refused(cache, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="give another --out"):
        list(decode_cache(cache, load_vae_of(cache.schema, device="cpu"), tmp_path / "out"))


@pytest.mark.parametrize("video_id", ["../../x", "/x", "deep/../../x", ".."])
def test_id_that_leads_outside_the_folder_is_not_written(cache, video_id, tmp_path):
    records = {video_id: cache.records()["a.mp4"], "deep/../a": cache.records()["a.mp4"]}
    other = SimpleNamespace(records=lambda: records, read_windows=cache.read_windows, schema=cache.schema)
    before = set(tmp_path.rglob("*"))
    vae = load_vae_of(cache.schema, device="cpu")
    out = tmp_path / "sub" / "out"
    outcomes = dict(decode_cache(other, vae, out))
    if video_id == "..":  # its file is called `...mp4`: odd, but inside
        assert outcomes.pop(video_id).parent == out
    else:
        assert "would lie outside" in str(outcomes.pop(video_id))
    assert list(outcomes) == ["deep/../a"]
    outside = set(tmp_path.rglob("*")) - before - set(out.rglob("*"))
    assert outside == {tmp_path / "sub", out}


@pytest.mark.parametrize(
    "video_id",
    some_of(["a\0b", "x" * 4000, "é" * 126, "\udcff\ud800", "d/" * 2500 + "x", f"{'x' * 256}/y"]),
)
def test_id_that_no_file_can_have_fails_alone(cache, video_id, tmp_path):
    records = {video_id: cache.records()["a.mp4"], "a": cache.records()["a.mp4"]}
    other = SimpleNamespace(records=lambda: records, read_windows=cache.read_windows, schema=cache.schema)
    outcomes = dict(decode_cache(other, load_vae_of(cache.schema, device="cpu"), tmp_path / "out"))
    assert re.search("no file can have its name|File name too long", str(outcomes[video_id]))
    assert len(str(outcomes[video_id])) < 300
    assert outcomes["a"] == tmp_path / "out" / "a.mp4"
    assert [path.name for path in (tmp_path / "out").glob("*.mp4")] == ["a.mp4"]


def test_other_weights_than_the_caches_are_refused(cache, small_vae):
    with pytest.raises(WeightsError, match=r"another encoder .*--vae"):
        load_vae_of(cache.schema, vae="tiny", device="cpu")
    other = replace(cache.schema, settings=replace(cache.schema.settings, encoder_hash="f" * 64))
    with pytest.raises(WeightsError, match="another encoder"):
        load_vae_of(other, device="cpu")


def test_another_decoder_of_the_same_encoder_decodes_and_says_so_once(cache, other_decoder, tmp_path, capsys):
    written = dict(decode_videos(tmp_path / "l.zarr", tmp_path / "o", vae=str(other_decoder), device="cpu"))
    assert written.keys() == LENGTHS.keys()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{other_decoder} decodes (hash ")
    assert cache.schema.vae_hash[:12] in line
    own = load_vae_of(cache.schema, device="cpu")
    other = load_vae_of(cache.schema, vae=str(other_decoder), device="cpu", show_notice=lambda line: None)
    latents = torch.from_numpy(cache.read_latents("a.mp4").mean[None].astype(np.float32))
    expected = own.decode(latents, 5) + 0.25  # but for the rounding of weights to float16
    torch.testing.assert_close(other.decode(latents, 5), expected, atol=1e-3, rtol=0)


def test_the_same_tensors_in_another_network_are_another_encoder(cache):
    config = cache.schema.settings.encoder_config | {"norm_num_groups": 1}
    other = replace(cache.schema, settings=replace(cache.schema.settings, encoder_config=config))
    with pytest.raises(WeightsError, match=r"\(other encoder_config\.norm_num_groups\)"):
        load_vae_of(other, device="cpu")


def test_a_cache_in_bfloat16_is_decoded_in_float32_where_the_cpu_lacks_it(
    cache, cpu_without_bfloat16, capsys
):
    half = replace(cache.schema, settings=replace(cache.schema.settings, precision="bfloat16"))
    said = []
    assert load_vae_of(half, device="cpu", show_notice=said.append).precision == "float32"
    assert said == ["The VAE encoded in bfloat16, which this device does not have: it decodes in float32."]
    load_vae_of(half, device="cpu")
    assert capsys.readouterr().err == f"{said[0]}\n"
    load_vae_of(cache.schema, device="cpu")
    assert capsys.readouterr().err == ""


def test_a_cache_in_bfloat16_is_decoded_so_where_the_cpu_has_it(cache, cpu_with_bfloat16, capsys):
    half = replace(cache.schema, settings=replace(cache.schema.settings, precision="bfloat16"))
    assert load_vae_of(half, device="cpu").precision == "bfloat16"
    assert capsys.readouterr().err == ""


def test_moved_weights_are_requested_and_accepted_from_their_new_path(cache, small_vae):
    moved = replace(cache.schema, vae_path="/gone.safetensors", vae_name="gone.safetensors")
    with pytest.raises(WeightsError, match=r"no longer at /gone\.safetensors; give it by --vae"):
        load_vae_of(moved, device="cpu")
    found = load_vae_of(moved, vae=str(small_vae), device="cpu")
    assert found.weights_hash == cache.schema.vae_hash


def test_gray_levels_are_rounded():
    values = np.array([0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1], np.float32)
    np.testing.assert_array_equal(to_gray_levels(values), [0, 0, 1, 254, 255])


def test_one_call_decodes_a_cache(cache, tmp_path):
    written = dict(decode_videos(tmp_path / "l.zarr", tmp_path / "out", device="cpu"))
    assert written == {name: tmp_path / "out" / name for name in LENGTHS}
    with pytest.raises(WeightsError, match="another encoder"):
        decode_videos(tmp_path / "l.zarr", tmp_path / "out", vae="tiny", device="cpu")


def test_what_is_there_is_not_decoded_again(cache, tmp_path, monkeypatch):
    out, vae = tmp_path / "out", load_vae_of(cache.schema, device="cpu")
    paths = decode_cache(cache, vae, out)
    _, first = next(paths)
    paths.close()  # as after Ctrl-C
    assert list(out.rglob("*.mp4")) == [first]
    kept = first.read_bytes()
    (out / "deep").mkdir()
    (out / "deep" / "b.mp4").write_bytes(b"not recorded: written by a process that was killed then")
    calls = watch_decode(vae)
    assert dict(decode_cache(cache, vae, out)).keys() == LENGTHS.keys()
    assert calls
    assert sum(1 for _ in frames_of(out / "deep" / "b.mp4")) == LENGTHS["deep/b.mp4"]
    calls.clear()
    assert len(dict(decode_cache(cache, vae, out))) == 2
    assert calls == []
    first.unlink()
    assert dict(decode_cache(cache, vae, out))["a.mp4"].read_bytes() == kept


def test_a_video_keeps_its_file_when_another_of_its_name_comes(cache, tmp_path):
    out, vae = tmp_path / "out", load_vae_of(cache.schema, device="cpu")
    record, records = cache.records()["a.mp4"], {}
    growing = SimpleNamespace(records=lambda: records, read_windows=cache.read_windows, schema=cache.schema)
    for video_id, name in {"a.mp4": "a.mp4", "a.avi": "a.avi.mp4"}.items():
        records[video_id] = record
        assert dict(decode_cache(growing, vae, out))[video_id] == out / name
    assert sorted(path.name for path in out.glob("*.mp4")) == ["a.avi.mp4", "a.mp4"]
    clashing = dict(decode_cache(growing, vae, tmp_path / "other"))
    assert sorted(path.name for path in clashing.values()) == ["a.avi.mp4", "a.mp4.mp4"]


def test_chosen_videos_are_decoded_alone_beside_their_sources(cache, tmp_path):
    out, vae = tmp_path / "out", load_vae_of(cache.schema, device="cpu")
    how = {"video_ids": ["deep/b.mp4"], "with_source": True, "device": "cpu"}
    written = dict(decode_videos(tmp_path / "l.zarr", out, **how))
    assert written == {"deep/b.mp4": out / "deep" / "b.mp4"}
    decoded = np.stack(list(decode_video(cache, vae, "deep/b.mp4")))
    source = np.stack(
        [
            frame.pixels
            for frame in read_prepared(tmp_path / "v" / "deep" / "b.mp4", WHOLE, cache.schema.settings)
        ]
    )
    shown = np.stack([frame.pixels for frame in frames_of(written["deep/b.mp4"])])
    side = cache.schema.settings.size
    scale = 256 // side
    for left, video in ((12, source), (12 + 256 + 12, decoded)):
        tile = shown[:, 12 + 22 :, left : left + 256][:, : scale * side].reshape(16, side, scale, side, scale)
        assert np.abs(tile.mean((2, 4)) - 255 * video).max() < 9
    with pytest.raises(InputError, match=r"decoded otherwise \(with_source differs"):
        list(decode_cache(cache, vae, out))
    with pytest.raises(InputError, match=r"holds no video .b\.mp4.; did you mean deep/b\.mp4"):
        decode_videos(tmp_path / "l.zarr", out, video_ids=["b.mp4"], device="cpu")


def test_a_video_whose_source_is_gone_is_not_shown_beside_it_and_the_others_are(cache, tmp_path):
    (tmp_path / "v" / "a.mp4").unlink()
    outcomes = dict(decode_videos(tmp_path / "l.zarr", tmp_path / "out", with_source=True, device="cpu"))
    assert "is gone" in str(outcomes["a.mp4"])
    assert [path.name for path in (tmp_path / "out").rglob("*.mp4")] == ["b.mp4"]


def test_a_decoded_folder_tells_what_it_holds(cache, tmp_path):
    out, vae = tmp_path / "out", load_vae_of(cache.schema, device="cpu")
    list(decode_cache(cache, vae, out))
    first, *lines = map(json.loads, (out / "decoded.jsonl").read_text().splitlines())
    assert first["decoded"] == {
        "cache_id": cache.schema.cache_id, "vae_hash": cache.schema.vae_hash, "precision": "float32",
        "with_source": False,
    }  # fmt: skip
    crc32c = {name: record.latents.crc32c for name, record in cache.records().items()}
    assert {line["name"]: line["latent_crc32c"] for line in lines} == crc32c
    assert all(line["video_id"] == line["name"] for line in lines)
    with av.open(str(out / "a.mp4")) as container:
        assert json.loads(container.metadata["comment"]) == first


def test_other_decoded_videos_are_refused(cache, other_decoder, tmp_path):
    out, vae = tmp_path / "out", load_vae_of(cache.schema, device="cpu")
    list(decode_cache(cache, vae, out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = load_vae_of(cache.schema, vae=str(other_decoder), device="cpu", show_notice=lambda line: None)
    with pytest.raises(InputError, match=r"decoded otherwise \(vae_hash differs; .*; give another --out"):
        list(decode_cache(cache, other, out))
    records = {"c.mp4": cache.records()["a.mp4"], "deep/b.mp4": cache.records()["deep/b.mp4"]}
    elsewhere = SimpleNamespace(records=lambda: records, read_windows=cache.read_windows, schema=cache.schema)
    with pytest.raises(InputError, match=r"holds 'a.mp4', decoded from latents that this cache does"):
        list(decode_cache(elsewhere, vae, out))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "a.mp4").unlink()
    assert list(dict(decode_cache(elsewhere, vae, out))) == ["c.mp4", "deep/b.mp4"]


def test_a_folder_into_which_another_process_decodes_is_refused(cache, tmp_path):
    out, vae = tmp_path / "out", load_vae_of(cache.schema, device="cpu")
    one = decode_cache(cache, vae, out)
    next(one)
    with pytest.raises(InputError, match=r"another process decodes into .*; wait for it"):
        next(decode_cache(cache, vae, out))
    assert len(list(one)) == 1
    assert len(list(decode_cache(cache, vae, out))) == 2


@pytest.mark.parametrize(
    "text",
    some_of(["[]\n", '{"decoded": 3}\n', '{"decoded": {}}\n{"name": "a"}\n', "\0\n", f"{'[' * 9999}\n"]),
)
def test_a_damaged_description_of_decoded_videos_is_refused_in_one_line(text, cache, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "decoded.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"decoded.jsonl: cannot be read \(.*\); give another") as error:
        list(decode_cache(cache, load_vae_of(cache.schema, device="cpu"), tmp_path / "out"))
    assert "\n" not in str(error.value)


def test_videos_that_nothing_tells_of_are_not_overwritten(cache, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds 'a.mp4', and no decoded.jsonl that tells"):
        list(decode_cache(cache, load_vae_of(cache.schema, device="cpu"), tmp_path / "out"))
    assert (tmp_path / "out" / "a.mp4").read_bytes() == b"mine"


def test_a_dark_video_is_shown_brighter_beside_its_source_and_as_it_is_alone(tmp_path, encode_here):
    folder = tmp_path / "dark"
    folder.mkdir()
    frames = np.full((8, 32, 32), 30, np.uint8)
    frames[5:, :, :16] = 100  # bright where the first frames are not
    np.save(folder / "a.npy", frames)
    cache = encode_here(folder, tmp_path / "dark.zarr", intensity="uint8", size=32)
    shown = {}
    for with_source in (False, True):
        found = decode_videos(cache, tmp_path / str(with_source), with_source=with_source, device="cpu")
        ((_, path),) = found
        shown[with_source] = np.stack([frame.pixels for frame in frames_of(path)])
    source, decoded = (
        shown[True][:, 34 : 34 + 256, left : left + 256].reshape(8, 32, 8, 32, 8).mean((2, 4))
        for left in (12, 280)
    )
    assert np.abs(source - 2.55 * frames).max() < 9
    assert np.abs(decoded - 2.55 * shown[False].clip(0, 100)).mean() < 9
