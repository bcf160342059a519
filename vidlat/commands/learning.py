"""How soon trainings of a VAE learned, and which criteria hold, as tables."""

from __future__ import annotations

from vidlat.commands.display import console, print_table
from vidlat.fit.learning import Learning, criteria_table, training_table


def print_learning(learning: Learning) -> None:
    """Print a table of the trainings and one of the criteria."""
    print_table("Trainings: error on the clips that each holds out", *training_table(learning))
    if learning.criteria:
        print_table("Which criteria hold (docs/how-to/vae-training.md)", *criteria_table(learning))
    if not any(curve.start == "random" for curve in learning.curves):
        console.print(
            "No training started from random weights: whether others learn sooner cannot be said.",
            soft_wrap=True,
        )
