"""Exporting a run: the folder that others sample from, without anything that names its videos."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vidlat.documents import read_json
from vidlat.encode.vae_spec import name_without_path
from vidlat.encode.weights_file import hash_weights
from vidlat.errors import InputError, TrainError, one_line
from vidlat.export.card import model_card
from vidlat.files import sync, temporary_name
from vidlat.paths import local_path
from vidlat.store.layout import require_outside_caches
from vidlat.store.storage.filesystem import delete_tree
from vidlat.train.runs.evaluation import EVALUATION, EVALUATION_BYTES
from vidlat.train.runs.exported import CARD, CONFIG, WEIGHTS, ExportedModel
from vidlat.train.runs.frozen_model import FrozenModel
from vidlat.train.runs.run_folder import TrainedRun, load_run, read_run

NOT_STATED = "Not stated. Ask the authors before you use this model."


def export_run(
    run_dir: str | Path,
    out: str | Path,
    *,
    best: bool = False,
    average_length: float = 0.0,
    licence: str = "",
    name: str = "",
) -> tuple[ExportedModel, bool]:
    """Write a run's averaged weights, what sampling has to know, and a model card to the new folder `out`.

    The folder names no video, no label of one and no path, and appears whole or not at all. The card has the
    figures of `vidlat evaluate --run`, if they are of these weights, but for sentences that name a video.

    best, average_length: which weights, as for `load_run`. licence: an identifier such as cc-by-nc-4.0, or a
    text. name: of the model on its card; else that of the folder. Returns what was exported, and whether the
    card has figures. Raises TrainError for a run that cannot be exported, InputError for a folder that
    exists, lies in a cache or cannot be written.
    """
    run_dir, out = local_path(run_dir), local_path(out)
    if out.exists() or out.is_symlink():
        raise InputError(f"--out {out} exists; give the name of a new folder")
    require_outside_caches(out)
    run = read_run(run_dir)
    trained = load_run(run_dir, run=run, best=best, average_length=average_length)
    exported = ExportedModel(
        model=_without_paths(trained.run),
        step=trained.step,
        weights_hash=hash_weights(trained.model.state_dict()),
        licence=licence or NOT_STATED,
        num_training=len(run.training),
        num_validation=len(run.validation),
    )
    num_parameters = sum(weight.numel() for weight in trained.model.parameters())
    evaluation = _evaluation_of(run_dir, exported)
    if evaluation:
        evaluation["conclusions"] = [
            sentence for sentence in evaluation["conclusions"] if not _names_one(sentence, run.checksums)
        ]
    _write(out, exported, trained, model_card(exported, name or out.name, num_parameters, evaluation))
    return exported, evaluation is not None


def _without_paths(model: FrozenModel) -> FrozenModel:
    """A model without what may name somebody: paths, and the expression that tells subjects apart."""
    schema = model.schema
    name = name_without_path(schema.vae_name)
    facts = {field.name: getattr(model, field.name) for field in fields(FrozenModel)}
    unnamed: dict[str, Any] = dict.fromkeys(
        ("init", "distil", "where", "split", "split_by", "split_by_pattern")
    )
    facts["config"] = replace(model.config, **unnamed)
    return FrozenModel(**facts | {"schema": replace(schema, vae_name=name, vae_path="")})


def _evaluation_of(run_dir: Path, exported: ExportedModel) -> dict[str, Any] | None:
    """The evaluation of these weights; None where there is none, or one of other weights."""
    path = run_dir / EVALUATION
    try:
        found = read_json(path, EVALUATION_BYTES)
        drawn = [each["drawn"]["weights_hash"] for each in found["samples"].values()]
        found["conclusions"] = [str(sentence) for sentence in found["conclusions"]]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainError(
            f"{path} cannot be read ({one_line(error)}); evaluate again, or remove it"
        ) from error
    return found if set(drawn) == {exported.weights_hash} else None


def _names_one(sentence: str, video_ids: Iterable[str]) -> bool:
    return any(video_id in sentence for video_id in video_ids)


def _write(out: Path, exported: ExportedModel, trained: TrainedRun, card: str) -> None:
    draft = out.with_name(temporary_name())
    try:
        draft.mkdir(parents=True)
        weights = {name: weight.contiguous() for name, weight in trained.model.state_dict().items()}
        (draft / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
        (draft / CONFIG).write_text(json.dumps(exported.to_dict(), indent=2) + "\n")
        (draft / CARD).write_text(card, encoding="utf-8")
        for path in (*draft.iterdir(), draft):
            sync(path)
        draft.rename(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); give another --out") from error
    finally:
        with suppress(OSError):  # a read-only disk refuses that too
            delete_tree(draft)
