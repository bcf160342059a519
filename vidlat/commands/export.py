"""`vidlat export`: a model to share, from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vidlat.commands.display import console, quoted
from vidlat.export.run import NOT_STATED, export_run
from vidlat.train.runs.evaluation import EVALUATION
from vidlat.train.runs.exported import CARD


def export(
    run_dir: Path,
    out: Path,
    checkpoint: Literal["last", "best"],
    average_length: float,
    licence: str,
    name: str,
) -> None:
    """Export a run and say what to look at before it is shared."""
    exported, is_evaluated = export_run(
        run_dir,
        out,
        best=checkpoint == "best",
        average_length=average_length,
        licence=licence,
        name=name,
    )
    console.print(f"step {exported.step} -> {out}; next: vidlat sample --run {quoted(out)} --out samples/")
    if exported.licence == NOT_STATED:
        console.print(f"{CARD} states no licence: give one by --licence, or write it there")
    if not is_evaluated:
        console.print(
            f"{CARD} has no figures: there are none of these weights in {run_dir / EVALUATION}; "
            "`vidlat evaluate --run` makes them"
        )
    console.print(
        f"Read {CARD} before you share the folder: it and config.json name the classes of conditions"
    )
