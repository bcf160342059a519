"""Decoding cached or sampled latents to frames, with the VAE that encoded them or another decoder of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import vidlat
from vidlat.encode.cutting import cut_calls
from vidlat.encode.device import has_bfloat16, resolve_device
from vidlat.encode.stacking import unfold_frames
from vidlat.encode.vae import FrozenVAE, load_vae
from vidlat.encode.vae_spec import name_without_path
from vidlat.encode.weights import resolve_weights
from vidlat.errors import InputError, StoreError, VidlatError, WeightsError, shown
from vidlat.paths import local_path
from vidlat.pipeline.decoded_folder import continue_decoded, held_alone
from vidlat.pipeline.folder import DECODED_MARK
from vidlat.pipeline.source_frames import source_frames
from vidlat.spelling import did_you_mean
from vidlat.store.layout import require_outside_caches
from vidlat.store.reader import LatentCache, open_cache
from vidlat.store.schema import CacheSchema
from vidlat.types import FloatArray, VideoRecord
from vidlat.video.display_window import window_of
from vidlat.video.side_by_side import side_by_side
from vidlat.video.writer import prepare_folder, write_video
from vidlat.wording import shorten


def load_vae_of(
    schema: CacheSchema,
    *,
    vae: str | None = None,
    device: str = "auto",
    batch: int = 8,
    computes_here: bool = True,
    show_notice: Callable[[str], None] | None = None,
) -> FrozenVAE:
    """The VAE a cache was made with: from `vae`, from its recorded path, or by its name.

    It computes as when it encoded; where the device has no bfloat16, in float32, which is more exact. Another
    decoder of the same encoder will do. computes_here: as for `load_vae`. show_notice: receives a line about
    either; by default it goes to stderr.

    Raises WeightsError where it cannot be found or has another encoder.
    """
    settings, path = schema.settings, find_weights_of(schema, vae)
    tell = show_notice or partial(print, file=sys.stderr)
    if computes_here and settings.precision == "bfloat16" and not has_bfloat16(resolve_device(device)):
        settings = replace(settings, precision="float32")
        tell("The VAE encoded in bfloat16, which this device does not have: it decodes in float32.")
    found = load_vae(path, settings, batch=batch, device=device, computes_here=computes_here)
    require_encoder_of(schema, found, path)
    if computes_here and found.weights_hash != schema.vae_hash:
        tell(
            f"{path} decodes (hash {found.weights_hash[:12]}): another decoder than that of "
            f"{schema.vae_name} (hash {schema.vae_hash[:12]}), with the encoder that made the latents."
        )
    return found


def require_encoder_of(schema: CacheSchema, vae: FrozenVAE, path: Path) -> None:
    """Raise WeightsError where the VAE at `path` has another encoder than made the latents of a cache."""
    made = schema.settings
    own = replace(made, encoder_hash=vae.encoder_hash, encoder_config=vae.encoder_config)
    if differences := made.differences(own):
        raise WeightsError(
            f"{path}: has another encoder than the latents were made with, that of {schema.vae_name} (other "
            f"{', '.join(differences)}); give the right VAE by --vae"
        )


def find_weights_of(schema: CacheSchema, vae: str | None = None) -> Path:
    """The file or folder of a cache's VAE: `vae` if given, else the recorded path, else found by name.

    Raises WeightsError where there is none.
    """
    if vae:
        return resolve_weights(vae)
    recorded = Path(schema.vae_path)
    if schema.vae_path and recorded.exists():
        return recorded
    try:
        return resolve_weights(schema.vae_name)
    except WeightsError as error:
        where = (
            f"is no longer at {recorded}" if schema.vae_path else "is part of neither this package nor a hub"
        )
        raise WeightsError(
            f"the VAE of these latents, {schema.vae_name}, {where}; give it by --vae PATH"
        ) from error


def decode_video(cache: LatentCache, vae: FrozenVAE, video_id: str) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the frames (H, W) float32 in [0, 1] of a cached video, in bounded memory."""
    record = cache.records()[video_id]
    frames = unfold_frames(_decoded_calls(cache, vae, record), vae.timing)
    for frame in islice(frames, record.num_frames):
        yield frame.clip(0, 1)


def _decoded_calls(
    cache: LatentCache, vae: FrozenVAE, record: VideoRecord
) -> Iterator[npt.NDArray[np.float32]]:
    """What the VAE decodes of each call of a video, (S, H, W)."""
    length, step = vae.timing.latents_per_call, vae.timing.latent_step
    last = record.stop - length
    for start in range(record.start, last + 1, step * vae.batch):
        stop = min(start + step * (vae.batch - 1), last) + length
        mean, _ = cache.read_windows(np.array([start]), stop - start, with_std=False)
        latents = torch.from_numpy(mean.astype(np.float32))
        yield from vae.decode_stacks(cut_calls(latents, length, step))[:, 0].cpu().numpy()


def decode_latents(vae: FrozenVAE, latents: FloatArray, num_frames: int) -> npt.NDArray[np.float32]:
    """Latents (L, t, h, w) to frames (T, H, W) float32 in [0, 1], T = num_frames."""
    batch_of_one = torch.from_numpy(np.asarray(latents, np.float32))[None]
    decoded: npt.NDArray[np.float32] = vae.decode(batch_of_one, num_frames)[0, 0].clamp(0, 1).cpu().numpy()
    return decoded


def to_gray_levels(frames: FloatArray) -> npt.NDArray[np.uint8]:
    """[0, 1] to 0..255, rounded; any shape."""
    return np.asarray(np.rint(frames * 255), np.uint8)


def decode_videos(
    latents: str | Path,
    out: str | Path,
    *,
    video_ids: Collection[str] | None = None,
    with_source: bool = False,
    vae: str | None = None,
    device: str = "auto",
) -> Iterator[tuple[str, Path | VidlatError]]:
    """Decode the cache at `latents` to one mp4 per video in the folder `out`; see `decode_cache`.

    vae: where the VAE of the cache is, if not where it was.
    Raises StoreError for a path that is no cache, InputError for an id that the cache does not hold,
    WeightsError for another VAE.
    """
    cache = open_cache(latents)
    chosen = _chosen(cache, video_ids)
    frozen = load_vae_of(cache.schema, vae=vae, device=device)
    return decode_cache(cache, frozen, local_path(out), video_ids=chosen, with_source=with_source)


def decode_frames(
    latents: str | Path,
    video_ids: Iterable[str] | None = None,
    *,
    vae: str | None = None,
    device: str = "auto",
) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Decode videos of the cache at `latents` in memory: yield the id and the frames (T, H, W) uint8 of each.

    video_ids: which, in this order; by default all, sorted. vae: as for `decode_videos`.
    Raises StoreError for a path that is no cache and for damaged latents, InputError for an id that the cache
    does not hold, WeightsError for another VAE.
    """
    cache = open_cache(latents)
    wanted = _chosen(cache, video_ids)
    loaded = load_vae_of(cache.schema, vae=vae, device=device)
    for video_id in wanted:
        yield video_id, to_gray_levels(np.stack(list(decode_video(cache, loaded, video_id))))


def _chosen(cache: LatentCache, video_ids: Iterable[str] | None) -> list[str]:
    """The ids of the videos to decode, all by default; raises InputError for one that the cache lacks."""
    known = cache.records()
    chosen = list(known if video_ids is None else video_ids)
    if unknown := [video_id for video_id in chosen if video_id not in known]:
        raise InputError(
            f"{cache.where}: holds no video {shorten(list(map(repr, unknown)))}"
            f"{did_you_mean(unknown[0], known) or '; `vidlat ls` lists those that it holds'}"
        )
    return chosen


def decode_cache(
    cache: LatentCache,
    vae: FrozenVAE,
    out: Path,
    *,
    video_ids: Collection[str] | None = None,
    with_source: bool = False,
) -> Iterator[tuple[str, Path | VidlatError]]:
    """Write every cached video to an mp4 in `out` with its own frame count and median rate.

    `a/b.avi` becomes `out/a/b.mp4`; videos whose names differ in their suffix alone keep both, as in
    `b.avi.mp4`. video_ids: write these alone; None for all. with_source: show the source beside each,
    dark videos brighter, as the frames then say.

    Yields each video's id with its file, or with the error where its latents are damaged, its source is
    wanted and not what was encoded, or its file cannot be written. What the folder holds already, decoded
    from these latents by this VAE, is not decoded again; decoded.jsonl says what that is (see
    decoded_folder.py). The folder is marked, so that an encode of a folder around it passes it over.
    Raises InputError where `out` cannot be written, holds the videos that were encoded or videos that were
    decoded otherwise, or another process decodes into it.
    """
    records = cache.records()
    prepare_decoded_folder(out, {video_id: record.source.path for video_id, record in records.items()})
    description = _describe(cache.schema, vae, with_source=with_source)
    checksums = {video_id: record.latents.crc32c for video_id, record in records.items()}
    with held_alone(out):
        folder = continue_decoded(out, description, checksums)
        for video_id in records if video_ids is None else video_ids:
            record = records[video_id]
            try:
                path = folder.path_of(video_id)
                if not folder.holds(video_id):
                    prepare_folder(path.parent)
                    frames = _shown(cache, vae, video_id, with_source=with_source)
                    write_video(path, frames, record.fps, comment=json.dumps(description))
                    folder.add(video_id, record.latents.crc32c)
            except (InputError, StoreError) as error:
                yield video_id, error
            else:
                yield video_id, path


def _shown(
    cache: LatentCache, vae: FrozenVAE, video_id: str, *, with_source: bool
) -> Iterator[npt.NDArray[np.uint8]]:
    """The decoded frames of a video, if wanted beside those of its source, in the window of that."""
    decoded = map(to_gray_levels, decode_video(cache, vae, video_id))
    if not with_source:
        return decoded
    record = cache.records()[video_id]
    window = window_of(map(to_gray_levels, source_frames(cache, record)))  # read twice: one for all frames
    source = map(to_gray_levels, source_frames(cache, record))
    return side_by_side({"source": source, "decoded": decoded}, window=window)


def _describe(schema: CacheSchema, vae: FrozenVAE, *, with_source: bool) -> dict[str, Any]:
    """The first line of decoded.jsonl."""
    return {
        "vidlat_version": vidlat.__version__,
        "vae": name_without_path(schema.vae_name),
        "decoded": {
            "cache_id": schema.cache_id,
            "vae_hash": vae.weights_hash,
            "precision": vae.precision,
            "with_source": with_source,
        },
    }


def prepare_decoded_folder(out: Path, source_paths: Mapping[str, str] = MappingProxyType({})) -> None:
    """Make a folder for decoded videos, with a mark so that an encode of a folder around it passes it over.

    source_paths: those of the sources by video id, empty where unknown; of samples there are none. Raises
    InputError where the folder holds one of them, lies in a cache or cannot be written.
    """
    folder = out.absolute()
    for video_id, path in source_paths.items():
        if path and Path(path).is_relative_to(folder):
            raise InputError(
                f"--out {out} holds the video {shown(video_id)} itself; give a folder of its own, or the "
                "next encode would take decoded videos for clips"
            )
    require_outside_caches(out)
    prepare_folder(out)
    (out / DECODED_MARK).touch()
