"""How soon trainings of a VAE learn: their curves on the clips held out, and what they should reach.

The criteria are those of docs/how-to/vae-training.md: they compare networks from scratch with those that know
other videos already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vidlat.evaluate.comparison import Comparison
from vidlat.evaluate.quality import MSE_BELOW, PSNR_ABOVE, SSIM_ABOVE, Summary
from vidlat.fit.run import FitRun

Start = Literal["random", "pca", "fine-tuned"]
"""What a VAE knew before its training: nothing, the best linear code, or other videos."""

SOONER = 2 / 3
"""The share of the epochs from scratch in which a training should reach the same error: 20 of 30."""

SHARP = 0.5, 1.5
"""Energy of fine detail over the source's between which a reconstruction counts as sharp: less is blurred,
more is invented. Our choice: no source states one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Figures of the averaged weights on a training's held-out clips, after so many steps and epochs."""

    step: int
    epoch: float
    mse: float
    psnr: float
    ssim: float
    sharpness: float | None
    correlation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """The validations of one training, in order. start: what the VAE knew before its first step."""

    name: str
    start: Start
    points: tuple[CurvePoint, ...]

    @classmethod
    def of(cls, name: str, run: FitRun) -> LearningCurve:
        """The curve of a training, perhaps one that still goes on."""
        start: Start = "fine-tuned" if run.config.init else run.config.start or "random"
        return cls(
            name=name,
            start=start,
            points=tuple(
                _point(record.step, record.epoch, record.validation)
                for record in run.records
                if record.validation
            ),
        )

    @property
    def best_mse(self) -> float:
        """The lowest error of the curve; infinite without a validation."""
        return min((point.mse for point in self.points), default=math.inf)

    @property
    def after_first_epoch(self) -> CurvePoint | None:
        """The first validation after one whole epoch; None if there is none."""
        return next((point for point in self.points if point.epoch >= 1), None)

    def first_at_most(self, mse: float) -> CurvePoint | None:
        """The first validation whose error is that low; None if none is."""
        return next((point for point in self.points if point.mse <= mse), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def _point(step: int, epoch: float, figures: Mapping[str, Any]) -> CurvePoint:
    motion = figures.get("motion") or {}
    return CurvePoint(
        step=step,
        epoch=epoch,
        mse=float(figures["mse"]),
        psnr=float(figures["psnr"]),
        ssim=float(figures["ssim"]),
        sharpness=figures.get("sharpness"),
        correlation=motion.get("correlation"),
    )


def shared_target(curves: Sequence[LearningCurve]) -> float:
    """The lowest error that every training has reached; infinite if one has no validation."""
    return max((curve.best_mse for curve in curves), default=math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """The trainings of a comparison, and which criteria hold for what is compared.

    target_mse: the error by which epochs are counted. criteria: by name of a candidate, then by criterion, in
    words: whether it holds, None where that cannot be said.
    """

    curves: tuple[LearningCurve, ...]
    target_mse: float
    criteria: Mapping[str, Mapping[str, bool | None]]

    @classmethod
    def of(
        cls,
        curves: Sequence[LearningCurve],
        comparison: Comparison,
        target_mse: float | None = None,
    ) -> Learning:
        """Judge candidates by the curve that has their VAE's name, and by their figures on the same clips.

        A VAE without a curve was not trained here. target_mse: None for `shared_target`.
        """
        target = shared_target(curves) if target_mse is None else target_mse
        by_name = {curve.name: curve for curve in curves}
        scratch = [_epochs_to(curve, target) for curve in curves if curve.start == "random"]
        soonest = min(scratch, default=None)
        criteria = {
            each.candidate.name: _criteria(by_name.get(each.candidate.called), each.summary, target, soonest)
            for each in comparison.candidates
        }
        return cls(curves=tuple(curves), target_mse=target, criteria=criteria)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity."""
        return {
            "target_mse": self.target_mse if math.isfinite(self.target_mse) else None,
            "curves": [curve.to_dict() for curve in self.curves],
            "criteria": {name: dict(holds) for name, holds in self.criteria.items()},
        }


def _epochs_to(curve: LearningCurve, target: float) -> float:
    found = curve.first_at_most(target)
    return found.epoch if found else math.inf


def _criteria(
    curve: LearningCurve | None, summary: Summary, target: float, scratch: float | None
) -> dict[str, bool | None]:
    first = curve.after_first_epoch if curve else None
    if curve:
        first_mse, epochs = first.mse if first else None, _epochs_to(curve, target)
    else:  # as good from the start as it ever is
        first_mse, epochs = summary.mse, 0.0 if summary.mse <= target else math.inf
    (least, most), sharpness = SHARP, summary.sharpness
    can_compare = scratch is not None and math.isfinite(scratch) and (not curve or curve.start != "random")
    return {
        f"MSE < {MSE_BELOW:g} after an epoch": None if first_mse is None else first_mse < MSE_BELOW,
        f"sharp {least:g} to {most:g}": None if sharpness is None else least < sharpness < most,
        f"in {SOONER:.0%} of scratch's epochs": epochs <= SOONER * (scratch or 0) if can_compare else None,
        f"PSNR > {PSNR_ABOVE:g} dB": summary.psnr > PSNR_ABOVE,
        f"SSIM > {SSIM_ABOVE:g}": summary.ssim > SSIM_ABOVE,
    }


def training_table(learning: Learning) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of text: the trainings, and when each reached the target."""
    target = f"{learning.target_mse:.2e}"
    columns = (
        "training",
        "start",
        "steps",
        "epochs",
        "MSE, epoch 1",
        "best MSE",
        f"epochs to {target}",
        "steps to it",
    )
    return columns, [_training_row(curve, learning.target_mse) for curve in learning.curves]


def criteria_table(learning: Learning) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of text: for each candidate which criteria hold, yes, no or a dash."""
    answers = {True: "yes", False: "no", None: "-"}
    columns = next(iter(learning.criteria.values()), {})
    rows = [
        (name, *(answers[is_met] for is_met in holds.values())) for name, holds in learning.criteria.items()
    ]
    return ("setting", *columns), rows


def _training_row(curve: LearningCurve, target: float) -> tuple[str, ...]:
    last = curve.points[-1] if curve.points else None
    first, reached = curve.after_first_epoch, curve.first_at_most(target)
    return (
        curve.name,
        curve.start,
        str(last.step) if last else "-",
        f"{last.epoch:.1f}" if last else "-",
        f"{first.mse:.2e}" if first else "-",
        f"{curve.best_mse:.2e}" if last else "-",
        f"{reached.epoch:.1f}" if reached else "-",
        str(reached.step) if reached else "-",
    )
