"""The card of a published cache: what it holds, how it was made, how to use it, and what it does not do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from huggingface_hub import DatasetCardData
from jinja2 import Environment, StrictUndefined

import vidlat
from vidlat.encode.vae_spec import name_without_path
from vidlat.errors import InputError, one_line, printable
from vidlat.export.licences import licence_fields
from vidlat.store.copying.copy import CARD_MARK
from vidlat.store.copying.snapshot import CacheSnapshot

TAGS = ["vidlat", "latents", "medical-imaging", "video"]

ROWS = {"vae": "this VAE", "averaging": "baseline: block averages", "pca": "baseline: PCA of blocks"}


def cache_card(
    snapshot: CacheSnapshot,
    address: str,
    *,
    num_bytes: int,
    licence: str = "",
    evaluation: Mapping[str, Any] | None = None,
) -> bytes:
    """The content of README.md of a cache that is published at an address. It names no video.

    num_bytes: of its files. licence: of the latents, an identifier such as cc-by-nc-4.0 or a text; else that
    of the VAE is named. evaluation: what `vidlat evaluate --input --json` has written. Raises InputError for
    one that cannot be read.
    """
    schema, videos = snapshot.schema, snapshot.standing
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["cell"] = _cell
    template = (files("vidlat") / "export" / "cache_card.md").read_text(encoding="utf-8")
    num_latent_frames = int((videos["stop"].to_numpy() - videos["start"].to_numpy()).sum())
    card = environment.from_string(template).render(
        card_data=_card_data(licence or schema.vae_licence.partition(" (")[0], _name(address)).to_yaml(),
        mark=CARD_MARK.decode(),
        name=_name(address),
        address=address,
        version=vidlat.__version__,
        num_videos=f"{len(videos):,}",
        num_frames=f"{sum(videos['num_frames'].to_pylist()):,}",
        hours=_hours(snapshot),
        num_latent_frames=f"{num_latent_frames:,}",
        shape=f"{schema.latent_dim} x {schema.latent_height} x {schema.latent_width}",
        size=f"{num_bytes / 1e6:,.1f} MB",
        sequence=snapshot.manifest.sequence,
        schema=schema,
        vae_name=_cell(name_without_path(schema.vae_name)),
        settings=sorted(schema.settings.to_dict().items()),
        figures=None if evaluation is None else _figures(evaluation),
        licence=_licence(licence, schema.vae_licence),
    )
    return f"{card}\n".encode()


def _name(address: str) -> str:
    return address.rstrip("/").rpartition("/")[2]


def _card_data(licence: str, name: str) -> DatasetCardData:
    return DatasetCardData(pretty_name=name, tags=TAGS, **licence_fields(licence))


def _licence(licence: str, of_the_vae: str) -> str:
    vae = f"The weights of the VAE: {printable(of_the_vae)}."
    if licence:
        return f"The latents: {printable(licence)}. {vae}"
    return f"None is stated for the latents. {vae} The videos may have terms of their own."


def _hours(snapshot: CacheSnapshot) -> str:
    """The duration of the videos whose rate is known."""
    columns = (snapshot.standing[name].to_pylist() for name in ("num_frames", "fps"))
    lengths = [num_frames / fps if fps else None for num_frames, fps in zip(*columns, strict=True)]
    known = [seconds for seconds in lengths if seconds is not None]
    unknown = len(lengths) - len(known)
    return f"{sum(known) / 3600:,.2f}" + (f", without {unknown:,} videos of unknown rate" if unknown else "")


def _cell(value: object) -> str:
    """A value as text in a cell of a table."""
    text = value if isinstance(value, str) else json.dumps(value)
    return printable(text).replace("|", "\\|")


def _figures(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The table of an evaluation as texts. Raises InputError for what is none."""
    try:
        overall = evaluation["overall"]
        return {
            "num_videos": f"{overall['vae']['num_videos']:,}",
            "rows": [
                (name, f"{row['mse']:.1e}", *map(_number, (*_ratios(row), row["motion"]["correlation"])))
                for key, name in ROWS.items()
                if (row := overall.get(key))
            ],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the evaluation cannot be read ({one_line(error)}); expected what `vidlat evaluate --input "
            "VIDEOS --json FILE` writes"
        ) from error


def _ratios(row: Mapping[str, Any]) -> tuple[float | None, ...]:
    return row["psnr"], row["ssim"], row["sharpness"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
