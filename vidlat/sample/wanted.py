"""The samples that are asked for: names of their files, seeds and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from vidlat.config import SampleConfig
from vidlat.errors import ConfigError
from vidlat.sample.folder import Sample
from vidlat.sample.trained_for import check_trained_for
from vidlat.train.runs.frozen_model import FrozenModel


def wanted_samples(
    run: FrozenModel, settings: SampleConfig, conditions: Sequence[Sequence[str]] | None = None
) -> dict[str, Sample]:
    """Each sample by the name of its file, with its condition in canonical form.

    conditions: those of each sample, `NAME=VALUE`; by default those of the settings. Raises ConfigError for
    settings that the run was not trained for.
    """
    seeds = range(settings.seed, settings.seed + settings.num)
    if settings.sweep:
        return _swept_samples(run, settings, seeds)
    texts = [tuple(each) for each in conditions or [settings.condition] * len(seeds)]
    canonical = {each: _canonical(run, settings, each) for each in dict.fromkeys(texts)}
    return {
        f"sample-{seed:04d}.{settings.format}": Sample(seed=seed, condition=canonical[each])
        for seed, each in zip(seeds, texts, strict=True)
    }


def _swept_samples(run: FrozenModel, settings: SampleConfig, seeds: Sequence[int]) -> dict[str, Sample]:
    """Each value of the sweep at each seed; files are named after both, what no name may have as in a URL."""
    name, values = settings.swept
    samples: dict[str, Sample] = {}
    for value in values:
        try:
            condition = _canonical(run, settings, (*settings.condition, f"{name}={value}"))
        except ConfigError as error:
            raise _as_of_sweep(run, name, error) from error
        (meant,) = run.conditions.canonical([f"{name}={value}"])
        own = {
            f"sample-{quote(meant, safe='=')}-{seed:04d}.{settings.format}": Sample(
                seed=seed, condition=condition
            )
            for seed in seeds
        }
        if samples.keys() & own.keys():
            raise ConfigError(f"sweep: {meant} is given twice; keep one")
        samples |= own
    return samples


def _as_of_sweep(run: FrozenModel, name: str, error: ConfigError) -> ConfigError:
    """The refusal of a condition, where it is a value of the sweep."""
    text = str(error)
    if not text.startswith((f"condition: got {name}=", f"condition: got '{name}=")):
        return error
    with_comma = next((label for label in run.training_labels(name) if "," in label), None)
    hint = f"; a sweep ends values at commas, so draw {with_comma!r} by --condition" if with_comma else ""
    return ConfigError(f"sweep: {text.removeprefix('condition: ')}{hint}")


def _canonical(run: FrozenModel, settings: SampleConfig, condition: tuple[str, ...]) -> tuple[str, ...]:
    """A condition in canonical form; raises ConfigError where the run was not trained for it."""
    check_trained_for(run, replace(settings, condition=condition, sweep=None))
    return run.conditions.canonical(condition)
