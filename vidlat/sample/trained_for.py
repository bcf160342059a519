"""Which samples a run can be asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from vidlat.config import SampleConfig
from vidlat.errors import ConfigError, shown
from vidlat.sample.folder import Sample
from vidlat.train.objectives.conditioning import ClassCondition, NumberCondition, parse_number
from vidlat.train.runs.frozen_model import FrozenModel
from vidlat.wording import shorten

FAR = 2
"""Standard deviations from the mean beyond which a number is warned of where the range is not known."""

MOST_DEVIATIONS = 1e30
"""From the mean of the training videos to a number: a network computes in float32, which ends at 3e38."""


def check_trained_for(run: FrozenModel, settings: SampleConfig) -> None:
    """Raise ConfigError for settings that the run was not trained for."""
    _require_known_classes(run, settings.condition)
    _require_numbers(run, settings.condition)
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


def _require_known_classes(run: FrozenModel, texts: Sequence[str]) -> None:
    """Raise ConfigError for a class that was not trained on, with the classes and how many videos have each.

    Of an exported model, which does not tell how many, `Conditions.parse` refuses it.
    """
    given = {name: value for name, _, value in (text.partition("=") for text in texts)}
    for condition in run.conditions.conditions:
        labels = run.training_labels(condition.name)
        value = given.get(condition.name)
        if not isinstance(condition, ClassCondition) or not labels or not value:
            continue
        counts = Counter(map(condition.canonical, labels))
        with suppress(ConfigError):
            condition.canonical(value)
            continue
        known = shorten([f"{name} ({num})" for name, num in counts.most_common()], 20)
        raise ConfigError(
            f"condition: got {condition.name}={value}; expected a class of the training videos: {known}"
        )


def _require_numbers(run: FrozenModel, texts: Sequence[str]) -> None:
    """Raise ConfigError for what is no number the network can take, with the range of those it was shown."""
    given = {name: value for name, _, value in (text.partition("=") for text in texts)}
    for condition in run.conditions.conditions:
        if not isinstance(condition, NumberCondition) or not (value := given.get(condition.name)):
            continue
        with suppress(ConfigError):
            number = parse_number(condition.name, value)
            if abs(number - condition.mean) / condition.std < MOST_DEVIATIONS:
                continue
        known = [parse_number(condition.name, label) for label in run.training_labels(condition.name)]
        which = f"{min(known):g} to {max(known):g}" if known else f"about {condition.mean:g}"
        raise ConfigError(
            f"condition: got {condition.name}={shown(value)}; expected a number, such as the run was trained "
            f"with: {which}"
        )


def beyond_training(run: FrozenModel, samples: Iterable[Sample]) -> Iterator[str]:
    """A line for each number in the conditions of samples that lies beyond those of the training videos.

    An exported model does not tell their range, whose ends would be labels of single videos: there the line
    is about numbers more than FAR standard deviations from the mean.
    """
    all_labels = [sample.labels for sample in samples]
    for condition in run.conditions.conditions:
        if isinstance(condition, NumberCondition):
            texts = dict.fromkeys(labels[condition.name] for labels in all_labels if condition.name in labels)
            known = [parse_number(condition.name, text) for text in run.training_labels(condition.name)]
            for text in texts:
                if beyond := _how_far(parse_number(condition.name, text), condition, known):
                    yield f"{condition.name}={text} lies {beyond}: samples may not follow it."


def _how_far(number: float, condition: NumberCondition, known: Sequence[float]) -> str:
    """How far a number is beyond those of the training videos, as far as they are known; else empty."""
    score = (number - condition.mean) / condition.std
    side = "below" if score < 0 else "above"
    if not known:
        far = f"{abs(score):.1f} standard deviations {side} the mean of the training videos"
        return f"{far}, {condition.mean:g}" if abs(score) > FAR else ""
    low, high = min(known), max(known)
    if low <= number <= high:
        return ""
    return f"{max(low - number, number - high):g} {side} the training videos, which have {low:g} to {high:g}"
