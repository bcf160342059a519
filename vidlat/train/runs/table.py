"""Runs side by side: how far each came, how well, and the settings in which they differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from vidlat.config.train import OPERATIONAL
from vidlat.errors import ConfigError
from vidlat.metrics.intervals import Estimate
from vidlat.train.runs.summary import RunSummary
from vidlat.wording import shorten

MOST_LETTERS = 24
"""Of a setting in a table."""


class Column(NamedTuple):
    """name: to sort by. value: of a run, in JSON and to sort by; None where it is not known."""

    name: str
    heading: str
    value: Callable[[RunSummary], Any]
    text: Callable[[RunSummary], str]


def fact_columns(runs: Sequence[RunSummary]) -> list[Column]:
    """How far each run came and how well; figures of samples where one was evaluated."""
    facts = [
        Column("run", "run", lambda run: str(run.run_dir), lambda run: str(run.run_dir)),
        Column("state", "state", lambda run: run.state, lambda run: run.state),
        Column("steps", "steps", lambda run: run.step, _steps),
        Column("loss", "loss", lambda run: run.metrics.loss, lambda run: _loss(run.metrics.loss)),
        Column("validation", "validation", _best_loss, lambda run: _loss(_best_loss(run))),
        Column("best", "at step", _best_step, lambda run: _or_dash(_best_step(run), "{:,}")),
    ]
    return [*facts, *_figures(runs), _UPDATED]


def setting_columns(runs: Sequence[RunSummary]) -> list[Column]:
    """The settings in which the runs differ, of which they can be read; not those of how they compute."""
    read = [run.settings for run in runs if run.settings]
    names = dict.fromkeys(name for settings in read for name in settings)
    unlike = [name for name in names if len({json.dumps(settings.get(name)) for settings in read}) > 1]
    told = {"cache.encoder_hash"} if "cache.vae" in unlike else set()  # the VAE's name tells of its hash
    return [_setting(name) for name in unlike if name not in {"steps", *OPERATIONAL, *told}]


def sorted_runs(runs: Sequence[RunSummary], by: str) -> list[RunSummary]:
    """From the least to the greatest in a column; those without a value last.

    Raises ConfigError for a name that is no column.
    """
    columns = {column.name: column for column in [*fact_columns(runs), *setting_columns(runs)]}
    if by not in columns:
        raise ConfigError(f"sort: got {by!r}; expected one of {shorten(list(columns), len(columns))}")
    values = [(columns[by].value(run), run) for run in runs]
    known = [(value, run) for value, run in values if value is not None]
    if not all(isinstance(value, int | float) for value, _ in known):
        known = [(str(value), run) for value, run in known]
    ordered = sorted(known, key=lambda pair: pair[0])
    return [run for _, run in ordered] + [run for value, run in values if value is None]


def run_document(run: RunSummary, settings: Sequence[Column]) -> dict[str, Any]:
    """A run as plain values for JSON. settings: those that it holds."""
    return {
        "run": str(run.run_dir),
        "state": run.state,
        "step": run.step,
        "steps": run.steps,
        "loss": run.metrics.loss,
        "validation_loss": _best_loss(run),
        "validation_step": _best_step(run),
        "settings": {column.name: column.value(run) for column in settings},
        "evaluation": [each.to_dict() for each in run.evaluation],
        "updated": _time(run.updated),
        "problems": list(run.problems),
    }


def _steps(run: RunSummary) -> str:
    return f"{run.step:,}" + (f" of {run.steps:,}" if run.steps else "")


def _best_loss(run: RunSummary) -> float | None:
    return run.metrics.best[1] if run.metrics.best else None


def _best_step(run: RunSummary) -> int | None:
    return run.metrics.best[0] if run.metrics.best else None


def _loss(value: float | None) -> str:
    return _or_dash(value, "{:.4g}")


def _or_dash(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _setting(name: str) -> Column:
    return Column(name, name, lambda run: run.settings.get(name), lambda run: _in_words(run.settings, name))


def _in_words(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name)
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value)) or None
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def _figures(runs: Sequence[RunSummary]) -> list[Column]:
    """Of the samples that are nearest to held-out clips; no column where no run was evaluated."""
    if not any(run.evaluation for run in runs):
        return []
    return [
        Column("kid", "KID x 1000", lambda run: _value(_kid(run)), lambda run: _words(_kid(run), 1000)),
        Column("copies", "copies %", lambda run: _value(_copies(run)), _copies_in_words),
    ]


def _kid(run: RunSummary) -> Estimate | None:
    return run.nearest.kid if run.nearest else None


def _copies(run: RunSummary) -> Estimate | None:
    return run.nearest.copies if run.nearest else None


def _copies_in_words(run: RunSummary) -> str:
    share, is_doubtful = _copies(run), bool(run.nearest and run.nearest.doubt)
    if share and share.value is None:
        return "cannot be told"
    return _words(share, 100) + ", uncertain" * is_doubtful


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def _words(estimate: Estimate | None, factor: float) -> str:
    return estimate.in_words(factor) if estimate else "-"


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None


_UPDATED = Column(
    "updated",
    "updated",
    lambda run: _time(run.updated),
    lambda run: f"{run.updated.astimezone():%Y-%m-%d %H:%M}" if run.updated else "-",
)
