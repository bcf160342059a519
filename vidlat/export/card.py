"""The model card of an exported model: what it is, how to sample from it, and what was measured of it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined

import vidlat
from vidlat.encode.weights import EMBEDDED_WEIGHTS, PUBLISHED_WEIGHTS
from vidlat.errors import TrainError, one_line
from vidlat.evaluate.samples.measuring import LATENTS
from vidlat.evaluate.samples.result import held_out_in_words
from vidlat.export.licences import licence_fields
from vidlat.metrics.intervals import Estimate
from vidlat.train.objectives.conditioning import ClassCondition, Condition
from vidlat.train.runs.exported import ExportedModel

TAGS = ["vidlat", "diffusion", "latent-diffusion", "medical-imaging", "video-generation"]

VAES = {*EMBEDDED_WEIGHTS, *PUBLISHED_WEIGHTS}
"""The VAEs that a name is enough for."""


def model_card(
    exported: ExportedModel, name: str, num_parameters: int, evaluation: dict[str, Any] | None
) -> str:
    """The content of README.md.

    name: of the model, or of its repository. evaluation: the content of evaluation.json of these weights, if
    there is any. Raises TrainError for one that is none.
    """
    model, conditions = exported.model, exported.model.conditions.conditions
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    template = (files("vidlat") / "export" / "card.md").read_text(encoding="utf-8")
    card = environment.from_string(template).render(
        card_data=_card_data(exported.licence).to_yaml(),
        name=name,
        exported=exported,
        config=model.config,
        schema=model.schema,
        fps=model.median_fps,
        conditions=[(each.name, _values_in_words(each)) for each in conditions],
        examples=[f"{each.name}={_example(each)}" for each in conditions],
        is_vae_known=model.schema.vae_name in VAES or model.schema.vae_name.startswith("diffusers:"),
        num_parameters=num_parameters,
        figures=_figures(evaluation) if evaluation else None,
        version=vidlat.__version__,
    )
    return f"{card}\n"


def _card_data(licence: str) -> ModelCardData:
    return ModelCardData(library_name="vidlat", tags=TAGS, **licence_fields(licence))


def _values_in_words(condition: Condition) -> str:
    if isinstance(condition, ClassCondition):
        return ", ".join(condition.classes)
    return f"numbers; {condition.mean:.4g} on the mean in training, standard deviation {condition.std:.4g}"


def _example(condition: Condition) -> str:
    return condition.classes[0] if isinstance(condition, ClassCondition) else f"{condition.mean:.4g}"


def _figures(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The table and the sentences of an evaluation, as texts; raises TrainError for what is no evaluation."""
    try:
        held_out = evaluation["held_out"]
        return {
            "held_out": held_out_in_words(
                held_out["num_clips"],
                held_out["num_groups"],
                evaluation["settings"],
                held_out.get("num_videos"),
            ),
            "rows": [
                (
                    name,
                    f"{row['num_clips']:,}",
                    *_distances(row["distances"][LATENTS]),
                    _seconds(evaluation, name),
                )
                for name, row in evaluation["rows"].items()
            ],
            "sentences": [str(sentence) for sentence in evaluation["conclusions"]],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainError(
            f"the evaluation cannot be read ({one_line(error)}); evaluate the run again"
        ) from error


def _distances(distances: dict[str, Any]) -> tuple[str, ...]:
    shares = distances["neighbourhoods"] or {}
    names = "precision", "recall", "density", "coverage"
    return (
        Estimate(**distances["kernel_distance"]).in_words(1000),
        Estimate(**distances["frechet_distance"]).in_words(),
        *(Estimate(**shares[name]).in_words() if name in shares else "-" for name in names),
    )


def _seconds(evaluation: dict[str, Any], name: str) -> str:
    seconds = evaluation["samples"].get(name, {}).get("seconds_per_clip")
    return "-" if seconds is None else f"{seconds:,.2f}"
