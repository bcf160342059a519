"""What sampling has to know of a trained network: how it was trained, and on what kind of latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from vidlat.checked_settings import MANY
from vidlat.config import TrainConfig
from vidlat.config.split import with_pattern
from vidlat.documents import Fields
from vidlat.errors import TrainError
from vidlat.store.schema import CacheSchema
from vidlat.train.data.latents import Whitening
from vidlat.train.data.windows import WindowShape
from vidlat.train.objectives.conditioning import Conditions

MAX_FPS = 1e6
"""A higher frame rate is a mistake of the file, and no video file can have it."""

BuildModel = Callable[..., nn.Module]
"""A function with the parameters of `unet.build_unet`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenModel:
    """The facts about a model that do not depend on which videos it was trained on.

    config: the present settings; the precision is never `auto`. schema: of the cache it was trained on.
    median_fps: of the training videos with a known rate up to MAX_FPS, else 0.0.
    """

    config: TrainConfig
    schema: CacheSchema
    whitening: Whitening
    median_fps: float
    conditions: Conditions

    def build_network(self, build_model: BuildModel) -> nn.Module:
        """Build the run's network, newly initialised."""
        return build_model(
            self.config.network,
            self.config.preset,
            self.schema.latent_dim,
            channels=self.config.channels,
            num_blocks=self.config.blocks,
            num_attending=self.config.attention,
            num_heads=self.config.heads,
            num_features=self.conditions.num_features,
            takes_first_frame=self.config.first_frame > 0,
            takes_span=self.config.takes_span,
        )

    def window_shape(self) -> WindowShape:
        """The windows of a training clip; raises TrainError if the clip is not whole stacks."""
        return WindowShape.of_clip(self.config.frames, self.schema.timing)

    def latent_shape(self) -> tuple[int, int, int, int]:
        """The shape (L, t, h, w) of one window."""
        schema, length = self.schema, self.window_shape().num_latent_frames
        return schema.latent_dim, length, schema.latent_height, schema.latent_width

    def require_trainable_clips(self) -> None:
        """Raise TrainError if clips are not whole stacks, or leave nothing to predict."""
        num_latent_frames = self.window_shape().num_latent_frames
        if self.config.first_frame and num_latent_frames <= self.config.first_frames:
            raise TrainError(
                f"first_frames: clips of {self.config.frames} frames have {num_latent_frames} latent frames, "
                f"so nothing is left to predict when {self.config.first_frames} are given; raise --frames"
            )

    def training_labels(self, name: str) -> list[str]:  # noqa: ARG002
        """A label of each training video that has it; none where the model does not tell, being exported."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "config": self.config.to_dict(),
            "cache": self.schema.to_attributes(),
            "whitening": self.whitening.to_dict(),
            "median_fps": self.median_fps,
            "conditions": self.conditions.to_list(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """The inverse of `to_dict`; the fields may hold others.

        Raises ValueError, ConfigError, StoreError or TrainError for what no training has written.
        """
        config = TrainConfig.from_mapping(with_pattern(fields.take("config", dict, "an object")))
        schema = CacheSchema.from_attributes(fields.take("cache", dict, "an object"))
        _require_usable(Fields(schema.to_attributes(), "cache"))
        model = cls(
            config=config,
            schema=schema,
            whitening=Whitening.from_fields(fields.fields("whitening"), schema.latent_dim),
            median_fps=fields.number("median_fps", 0, MAX_FPS),
            conditions=Conditions.from_fields(fields.objects("conditions")),
        )
        if model.config.precision == "auto":
            raise ValueError("precision: got 'auto'; a run has decided on one")
        model.require_trainable_clips()
        return model


def _require_usable(cache: Fields) -> None:
    """Raise ValueError for a cache whose latents no network could take."""
    for name in ("vae_name", "vae_hash", "vae_licence", "vae_path"):
        cache.text(name)
    cache.whole("latent_dim", 1, 4096)
    for name in ("latent_height", "latent_width", "space_compression"):
        cache.whole(name, 1, MANY)
