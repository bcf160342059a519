"""The figures that `vidlat evaluate --run` leaves in the folder of a run, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidlat.documents import Fields, read_json
from vidlat.metrics.intervals import Estimate

EVALUATION = Path("evaluation") / "evaluation.json"
"""Where it leaves them."""

EVALUATION_BYTES = 2**28
"""Most bytes of such a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedSamples:
    """Samples of a run that were compared with held-out clips.

    step: of the weights they were drawn with. kid: their kernel distance, in latents. copies: the share of
    suspect copies of training clips, None where it is not known; doubt: why that cannot be trusted, or empty.
    """

    name: str
    step: int | None
    kid: Estimate
    copies: Estimate | None
    doubt: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "samples": self.name,
            "step": self.step,
            "kernel_distance": self.kid.to_dict(),
            "copies": self.copies.to_dict() | {"doubt": self.doubt} if self.copies else None,
        }


def read_evaluation(run_dir: Path) -> tuple[EvaluatedSamples, ...]:
    """The samples of a run that were evaluated, the nearest to held-out clips first; none without evaluation.

    Raises OSError or ValueError for a file that no evaluation has written.
    """
    try:
        document = Fields(read_json(run_dir / EVALUATION, EVALUATION_BYTES), "the evaluation")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found = [_samples(document, name) for name in document.fields("samples").names()]
    return tuple(sorted(found, key=lambda each: math.inf if each.kid.value is None else each.kid.value))


def _samples(document: Fields, name: str) -> EvaluatedSamples:
    drawn = document.fields("samples").fields(name).fields("drawn")
    copies = document.fields("copies")
    share = copies.fields(name).fields("share") if name in copies.names() else None
    distances = document.fields("rows").fields(name).fields("distances")
    return EvaluatedSamples(
        name=name,
        step=drawn.whole("step", 0, 10**15) if "step" in drawn.names() else None,
        kid=_estimate(distances.fields("latents").fields("kernel_distance")),
        copies=_estimate(share) if share else None,
        doubt=share.text("doubt") if share else "",
    )


def _estimate(fields: Fields) -> Estimate:
    names = ("value", "low", "high")
    return Estimate(**{name: None if fields.is_null(name) else fields.number(name) for name in names})
