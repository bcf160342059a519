"""Encode medical video once with a frozen VAE; train diffusion models from the latents.

Every public name can be imported from here. Its module loads when the name is first used, so that
`import vidlat` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidlat.config import (
        CompareConfig as CompareConfig,
        EncodeConfig as EncodeConfig,
        EvaluateConfig as EvaluateConfig,
        FitVAEConfig as FitVAEConfig,
        SampleConfig as SampleConfig,
        TrainConfig as TrainConfig,
    )
    from vidlat.encode.vae import FrozenVAE as FrozenVAE, load_vae as load_vae
    from vidlat.errors import (
        CacheMismatchError as CacheMismatchError,
        ConfigError as ConfigError,
        CopyError as CopyError,
        DecodeError as DecodeError,
        DeviceError as DeviceError,
        EncodeError as EncodeError,
        InputError as InputError,
        NotEnoughMemoryError as NotEnoughMemoryError,
        ScratchError as ScratchError,
        ShapeError as ShapeError,
        ShardExistsError as ShardExistsError,
        StoreError as StoreError,
        TimingError as TimingError,
        TrainError as TrainError,
        VidlatError as VidlatError,
        WeightsError as WeightsError,
    )
    from vidlat.evaluate.comparison import (
        CompareProgress as CompareProgress,
        Comparison as Comparison,
        compare_videos as compare_videos,
    )
    from vidlat.evaluate.reconstruction import (
        Evaluation as Evaluation,
        EvaluationProgress as EvaluationProgress,
        evaluate_videos as evaluate_videos,
    )
    from vidlat.evaluate.samples.evaluation import evaluate_samples as evaluate_samples
    from vidlat.evaluate.samples.result import SampleEvaluation as SampleEvaluation
    from vidlat.export.run import export_run as export_run
    from vidlat.fit.learning import (
        CurvePoint as CurvePoint,
        Learning as Learning,
        LearningCurve as LearningCurve,
    )
    from vidlat.fit.run import FitRun as FitRun, FitStep as FitStep, read_fit as read_fit
    from vidlat.fit.trainer import VAETrainer as VAETrainer, VideoRead as VideoRead, fit_vae as fit_vae
    from vidlat.fit.trainings import Trainings as Trainings
    from vidlat.labels.split import VideoSplit as VideoSplit, split_videos as split_videos
    from vidlat.pipeline.cached_settings import settings_for as settings_for
    from vidlat.pipeline.dask_executor import (
        DaskExecutor as DaskExecutor,
        open_dask_executor as open_dask_executor,
    )
    from vidlat.pipeline.decode_videos import decode_frames as decode_frames, decode_videos as decode_videos
    from vidlat.pipeline.driver import EncodeProgress as EncodeProgress
    from vidlat.pipeline.encode_videos import (
        PreparedEncode as PreparedEncode,
        encode_videos as encode_videos,
        prepare_encode as prepare_encode,
    )
    from vidlat.pipeline.executor import Executor as Executor, InProcessExecutor as InProcessExecutor
    from vidlat.pipeline.repair_cache import RepairProgress as RepairProgress, repair_cache as repair_cache
    from vidlat.report.cache import ReportProgress as ReportProgress, report_cache as report_cache
    from vidlat.report.comparison import report_comparison as report_comparison
    from vidlat.sample.during_training import train_unet as train_unet
    from vidlat.sample.sampler import Denoiser as Denoiser, Sampler as Sampler
    from vidlat.sample.videos import sample_frames as sample_frames, sample_videos as sample_videos
    from vidlat.store.copying.merge import (
        MergedPart as MergedPart,
        MergeProgress as MergeProgress,
        merge_caches as merge_caches,
    )
    from vidlat.store.copying.merge_plan import MergePlan as MergePlan
    from vidlat.store.reader import LatentCache as LatentCache, open_cache as open_cache
    from vidlat.store.verify.cache import verify_cache as verify_cache
    from vidlat.store.verify.problem import Problem as Problem
    from vidlat.store.verify.repair_files import Outcome as Outcome
    from vidlat.train.data.batches import LatentBatches as LatentBatches
    from vidlat.train.data.chosen_videos import plan_split as plan_split
    from vidlat.train.data.dataset import Batch as Batch
    from vidlat.train.data.latents import Whitening as Whitening
    from vidlat.train.objectives.objective import (
        Epsilon as Epsilon,
        Flow as Flow,
        Objective as Objective,
        VPrediction as VPrediction,
        masked_squared_error as masked_squared_error,
    )
    from vidlat.train.recorder import StepRecord as StepRecord
    from vidlat.train.runs.exported import ExportedModel as ExportedModel
    from vidlat.train.trainer import Trainer as Trainer
    from vidlat.types import (
        FailureRecord as FailureRecord,
        LatentPosterior as LatentPosterior,
        VideoRecord as VideoRecord,
    )

__version__ = "0.1.0"

_PUBLIC = {
    "config": "CompareConfig EncodeConfig EvaluateConfig FitVAEConfig SampleConfig TrainConfig",
    "encode.vae": "FrozenVAE load_vae",
    "errors": (
        "CacheMismatchError ConfigError CopyError DecodeError DeviceError EncodeError InputError "
        "NotEnoughMemoryError ScratchError ShapeError ShardExistsError StoreError TimingError TrainError "
        "VidlatError WeightsError"
    ),
    "evaluate.comparison": "CompareProgress Comparison compare_videos",
    "evaluate.reconstruction": "Evaluation EvaluationProgress evaluate_videos",
    "evaluate.samples.evaluation": "evaluate_samples",
    "evaluate.samples.result": "SampleEvaluation",
    "export.run": "export_run",
    "fit.learning": "CurvePoint Learning LearningCurve",
    "fit.run": "FitRun FitStep read_fit",
    "fit.trainer": "VAETrainer VideoRead fit_vae",
    "fit.trainings": "Trainings",
    "pipeline.cached_settings": "settings_for",
    "pipeline.dask_executor": "DaskExecutor open_dask_executor",
    "pipeline.decode_videos": "decode_frames decode_videos",
    "pipeline.driver": "EncodeProgress",
    "pipeline.encode_videos": "PreparedEncode encode_videos prepare_encode",
    "pipeline.executor": "Executor InProcessExecutor",
    "pipeline.repair_cache": "RepairProgress repair_cache",
    "report.cache": "ReportProgress report_cache",
    "report.comparison": "report_comparison",
    "sample.during_training": "train_unet",
    "sample.sampler": "Denoiser Sampler",
    "sample.videos": "sample_frames sample_videos",
    "store.copying.merge": "MergeProgress MergedPart merge_caches",
    "store.copying.merge_plan": "MergePlan",
    "store.reader": "LatentCache open_cache",
    "store.verify.repair_files": "Outcome",
    "store.verify.cache": "verify_cache",
    "store.verify.problem": "Problem",
    "train.data.batches": "LatentBatches",
    "train.data.chosen_videos": "plan_split",
    "train.data.dataset": "Batch",
    "train.runs.exported": "ExportedModel",
    "train.data.latents": "Whitening",
    "train.objectives.objective": "Epsilon Flow Objective VPrediction masked_squared_error",
    "train.recorder": "StepRecord",
    "labels.split": "VideoSplit split_videos",
    "train.trainer": "Trainer",
    "types": "FailureRecord LatentPosterior VideoRecord",
}
"""The public names of each module."""

_MODULES = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = sorted(_MODULES)


if not TYPE_CHECKING:  # else a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
