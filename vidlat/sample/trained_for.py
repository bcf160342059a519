"""Which samples a run can be asked for."""

from __future__ import annotations

from vidlat.config import SampleConfig
from vidlat.errors import ConfigError
from vidlat.train.runs.frozen_model import FrozenModel


def check_trained_for(run: FrozenModel, settings: SampleConfig) -> None:
    """Raise ConfigError for settings that the run was not trained for."""
    run.conditions.parse(settings.condition)
    is_unconditional_trained = run.config.condition_dropout > 0
    if settings.guidance != 1 and not (settings.condition and is_unconditional_trained):
        raise ConfigError(
            f"guidance: got {settings.guidance:g}; it needs a --condition, and a run trained with "
            "--condition and --condition-dropout above 0"
        )
    names = {condition.name for condition in run.conditions.conditions}
    missing = names - {text.partition("=")[0] for text in settings.condition}
    if missing and not is_unconditional_trained:
        raise ConfigError(
            f"condition: {', '.join(sorted(missing))} missing; the run was trained with "
            "--condition-dropout 0 and needs all of its conditions"
        )
    if settings.first_frame and not run.config.first_frame:
        raise ConfigError("first_frame: the run was trained without --first-frame; leave it out")
    if not settings.first_frame and run.config.first_frame == 1:
        raise ConfigError(
            "first_frame: the run was trained with --first-frame 1 and needs one; give a picture"
        )
    shape, frames = run.window_shape(), run.config.frames
    begun_with = shape.covering(run.config.first_frames if run.config.first_frame else 1)
    if settings.frames > frames and begun_with >= shape.num_latent_frames:
        raise ConfigError(
            f"frames: got {settings.frames}; the run was trained on clips of {frames} frames, too short to "
            f"continue, and cannot sample longer ones; expected {frames} at most, or a run trained with "
            f"--frames {frames + shape.timing.frame_step}"
        )
