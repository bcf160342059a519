"""The description of a cache: settings that determine its latents, and the layout of its arrays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self, get_args

from vidlat.config import ARITHMETIC_VERSIONS, Ids, LatentSettings
from vidlat.errors import CacheMismatchError, ConfigError, StoreError, TimingError
from vidlat.timing import Timing

FORMAT_VERSION = 10
"""Increased whenever an older vidlat could no longer read the layout."""

MOST = 2**31 - 1
"""The largest whole number in a description."""

SHARD_BYTES = 2 * 1024**2
"""A shard holds the fewest chunks of this size: work stays parallel and a kill loses little."""

SHARD_CHUNKS = 256
"""At most; of smaller chunks than those of 64 x 64 pixels, each costs more than its bytes."""


@dataclass(frozen=True, kw_only=True)
class CacheSettings(LatentSettings):
    """All that changes a number in the cache, and nothing else: equal settings mean equal latents.

    encoder_hash: of the tensors of the VAE that make latents. encoder_config: what else of the VAE determines
    them, kept as JSON returns it (lists for tuples), so that a round trip compares equal. precision is never
    `auto`, and times are never None. arithmetic_version: see ARITHMETIC_VERSIONS.
    """

    stack: int = 4
    overlap: int = 0
    stretch: int = 1
    encoder_hash: str
    encoder_config: dict[str, Any]
    preprocess_version: int
    arithmetic_version: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "encoder_config", json.loads(json.dumps(self.encoder_config)))

    @property
    def cache_id(self) -> str:
        """SHA-256 of the settings as canonical JSON, in hexadecimal."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: CacheSettings) -> dict[str, tuple[Any, Any]]:
        """The fields that differ, with both values; those inside encoder_config as `encoder_config.NAME`."""
        ours, theirs = self._flat(), other._flat()
        names = sorted(ours.keys() | theirs.keys())
        pairs = {name: (ours.get(name, "nothing"), theirs.get(name, "nothing")) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _flat(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        config = fields.pop("encoder_config")
        return {f"encoder_config.{name}": value for name, value in config.items()} | fields


def require_same_settings(
    path: object, cache: CacheSettings, asked: CacheSettings, vaes: tuple[str, str] = ("", "")
) -> None:
    """Refuse to add to a cache made with other settings.

    vaes: the names of both VAEs, which stand for their hashes and networks where they differ.
    Raises CacheMismatchError naming every differing field with both values.
    """
    differences = cache.differences(asked)
    if "encoder_hash" in differences and vaes[0] != vaes[1]:
        others = {name: pair for name, pair in differences.items() if not name.startswith("encoder_")}
        differences = {"vae": vaes} | others
    if differences:
        fields = "; ".join(
            f"{name}: cache has {has}, you asked {want}" for name, (has, want) in differences.items()
        )
        raise CacheMismatchError(
            f"{path}: made with other settings ({fields}): use the same settings or another --out"
        )


def require_same_arithmetic(path: object, cache: CacheSettings) -> None:
    """Raise CacheMismatchError for a cache whose latents this vidlat would compute in another way."""
    version, own = cache.arithmetic_version, ARITHMETIC_VERSIONS[cache.precision]
    if version != own:
        raise CacheMismatchError(
            f"{path}: its latents were computed in {cache.precision} as version {version} does, this vidlat "
            f"computes them as version {own}: use the vidlat that made it, or encode into another --out"
        )


def default_shard_frames(
    latent_dim: int, latent_height: int, latent_width: int, chunk_frames: int = 4
) -> int:
    """Latent frames of a shard: the fewest chunks that hold SHARD_BYTES of float16, or SHARD_CHUNKS."""
    chunk_bytes = 2 * latent_dim * chunk_frames * latent_height * latent_width
    return chunk_frames * min(SHARD_CHUNKS, -(-SHARD_BYTES // chunk_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSchema:
    """Settings and layout of one cache: the content of the root's attributes["vidlat"].

    vae_name, vae_hash, vae_licence, vae_path: the VAE with its decoder, recorded for decoding and not part of
    the identity. ids: whether videos are identified by their path or by a hash of it. time_compression:
    frames of a VAE call per latent frame. space_compression: pixels per latent position, in height and in
    width.
    chunk_frames: latent frames of a chunk (one training clip); shard_frames: of a shard, whole chunks.
    """

    settings: CacheSettings
    vae_name: str
    vae_hash: str
    vae_licence: str
    vae_path: str
    time_compression: int
    space_compression: int
    latent_dim: int
    latent_height: int
    latent_width: int
    shard_frames: int
    chunk_frames: int = 4
    ids: Ids = "path"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not (type(value) is int and 1 <= value <= MOST):
                raise StoreError(f"{field.name}: got {value!r}; expected a whole number from 1 to {MOST}")
            if field.type == "str" and not isinstance(value, str):
                raise StoreError(f"{field.name}: got {value!r}; expected a text")
        if self.ids not in get_args(Ids):
            raise StoreError(f"ids: got {self.ids!r}; expected one of {', '.join(get_args(Ids))}")
        try:
            self.settings.timing(self.time_compression)
        except TimingError as error:
            raise StoreError(str(error)) from error
        if self.shard_frames % self.chunk_frames:
            raise StoreError(
                f"shard_frames: got {self.shard_frames}; "
                f"expected a multiple of chunk_frames, {self.chunk_frames}"
            )

    def to_attributes(self) -> dict[str, Any]:
        """The schema as values for JSON, with its cache_id for human readers."""
        settings = {"settings": self.settings.to_dict()}
        return {"cache_id": self.settings.cache_id, **dataclasses.asdict(self), **settings}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The inverse of `to_attributes`.

        Raises StoreError for a newer format, a missing or unknown field, or settings that were edited.
        """
        if not isinstance(attributes, Mapping):
            raise StoreError("its description is damaged: expected a JSON object; restore its zarr.json")
        version = attributes.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise StoreError(
                f"made by a newer vidlat: format {version}, this one reads {FORMAT_VERSION}; upgrade vidlat"
            )
        if isinstance(version, int) and version < FORMAT_VERSION:
            raise StoreError(
                f"made by an older vidlat: format {version}, this one reads {FORMAT_VERSION}; encode the "
                "videos again, into another --out"
            )
        values = dict(attributes)
        try:
            cache_id = values.pop("cache_id")
            settings = values.pop("settings")
            for field in dataclasses.fields(CacheSettings):
                settings[field.name]  # a default must not replace a lost value
            schema = cls(settings=CacheSettings.from_mapping(settings), **values)
        except (AttributeError, ConfigError, KeyError, TypeError) as error:
            raise StoreError(f"its description is damaged ({error}); restore its zarr.json") from error
        if schema.settings.cache_id != cache_id:
            raise StoreError(
                f"its settings were edited: they give cache_id {schema.settings.cache_id}, "
                f"the latents were made under {cache_id}; restore its zarr.json"
            )
        return schema

    @property
    def cache_id(self) -> str:
        """The identity of the settings; see `CacheSettings`."""
        return self.settings.cache_id

    @property
    def timing(self) -> Timing:
        """How the frames of its videos became latent frames."""
        return self.settings.timing(self.time_compression)

    @property
    def most_shard_bytes(self) -> int:
        """More than any shard has: a stranger's server must not exhaust memory."""
        num_values = self.latent_dim * self.latent_height * self.latent_width * self.shard_frames
        return 2 * num_values + 256 * (1 + self.shard_frames // self.chunk_frames)

    def pack(self, num_latent_frames: Sequence[int]) -> list[int]:
        """Start of each video of a batch, on a chunk boundary, relative to the start of the batch."""
        return self._boundaries(num_latent_frames)[:-1]

    def num_shards(self, num_latent_frames: Sequence[int]) -> int:
        """Shards that a batch of videos with these latent frames takes, the last one perhaps in part."""
        return -(-self._boundaries(num_latent_frames)[-1] // self.shard_frames)

    def _boundaries(self, num_latent_frames: Sequence[int]) -> list[int]:
        whole = (-(-count // self.chunk_frames) * self.chunk_frames for count in num_latent_frames)
        return list(accumulate(whole, initial=0))
