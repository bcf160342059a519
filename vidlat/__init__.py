"""Encode medical video once with a frozen MAISI VAE; train diffusion models from the latents.

Every public name can be imported from here. Its module loads when the name is first used, so that
`import vidlat` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidlat.config import EncodeConfig as EncodeConfig
    from vidlat.config import FitVAEConfig as FitVAEConfig
    from vidlat.config import SampleConfig as SampleConfig
    from vidlat.config import TrainConfig as TrainConfig
    from vidlat.encode.vae import FrozenVAE as FrozenVAE
    from vidlat.encode.vae import load_vae as load_vae
    from vidlat.errors import CacheMismatchError as CacheMismatchError
    from vidlat.errors import ConfigError as ConfigError
    from vidlat.errors import DecodeError as DecodeError
    from vidlat.errors import DeviceError as DeviceError
    from vidlat.errors import EncodeError as EncodeError
    from vidlat.errors import InputError as InputError
    from vidlat.errors import NotEnoughMemoryError as NotEnoughMemoryError
    from vidlat.errors import ScratchError as ScratchError
    from vidlat.errors import ShapeError as ShapeError
    from vidlat.errors import ShardExistsError as ShardExistsError
    from vidlat.errors import StoreError as StoreError
    from vidlat.errors import TrainError as TrainError
    from vidlat.errors import VidlatError as VidlatError
    from vidlat.errors import WeightsError as WeightsError
    from vidlat.evaluate.reconstruction import Evaluation as Evaluation
    from vidlat.evaluate.reconstruction import EvaluationProgress as EvaluationProgress
    from vidlat.evaluate.reconstruction import evaluate_videos as evaluate_videos
    from vidlat.fit.fitting import FitStep as FitStep
    from vidlat.fit.fitting import VideoRead as VideoRead
    from vidlat.fit.fitting import fit_vae as fit_vae
    from vidlat.pipeline.dask_executor import DaskExecutor as DaskExecutor
    from vidlat.pipeline.dask_executor import open_dask_executor as open_dask_executor
    from vidlat.pipeline.decode_videos import decode_videos as decode_videos
    from vidlat.pipeline.driver import EncodeProgress as EncodeProgress
    from vidlat.pipeline.encode_videos import PreparedEncode as PreparedEncode
    from vidlat.pipeline.encode_videos import encode_videos as encode_videos
    from vidlat.pipeline.encode_videos import prepare_encode as prepare_encode
    from vidlat.pipeline.executor import Executor as Executor
    from vidlat.pipeline.executor import InProcessExecutor as InProcessExecutor
    from vidlat.pipeline.repair_cache import RepairProgress as RepairProgress
    from vidlat.pipeline.repair_cache import repair_cache as repair_cache
    from vidlat.sample.during_training import train_unet as train_unet
    from vidlat.sample.sampler import Denoiser as Denoiser
    from vidlat.sample.sampler import Sampler as Sampler
    from vidlat.sample.videos import sample_videos as sample_videos
    from vidlat.store.reader import LatentCache as LatentCache
    from vidlat.store.reader import open_cache as open_cache
    from vidlat.store.repair_files import Outcome as Outcome
    from vidlat.store.verify.cache import verify_cache as verify_cache
    from vidlat.store.verify.problem import Problem as Problem
    from vidlat.train.batches import LatentBatches as LatentBatches
    from vidlat.train.dataset import Batch as Batch
    from vidlat.train.latents import Whitening as Whitening
    from vidlat.train.objective import Epsilon as Epsilon
    from vidlat.train.objective import Flow as Flow
    from vidlat.train.objective import Objective as Objective
    from vidlat.train.objective import VPrediction as VPrediction
    from vidlat.train.objective import masked_squared_error as masked_squared_error
    from vidlat.train.recorder import StepRecord as StepRecord
    from vidlat.train.split import split_videos as split_videos
    from vidlat.train.trainer import Trainer as Trainer
    from vidlat.types import FailureRecord as FailureRecord
    from vidlat.types import LatentPosterior as LatentPosterior
    from vidlat.types import VideoRecord as VideoRecord

__version__ = "0.1.0"

_MODULES = {
    "Batch": "train.dataset",
    "CacheMismatchError": "errors",
    "ConfigError": "errors",
    "DaskExecutor": "pipeline.dask_executor",
    "DecodeError": "errors",
    "Denoiser": "sample.sampler",
    "DeviceError": "errors",
    "EncodeConfig": "config",
    "EncodeError": "errors",
    "EncodeProgress": "pipeline.driver",
    "Epsilon": "train.objective",
    "Evaluation": "evaluate.reconstruction",
    "EvaluationProgress": "evaluate.reconstruction",
    "Executor": "pipeline.executor",
    "FailureRecord": "types",
    "FitStep": "fit.fitting",
    "FitVAEConfig": "config",
    "Flow": "train.objective",
    "FrozenVAE": "encode.vae",
    "InProcessExecutor": "pipeline.executor",
    "InputError": "errors",
    "LatentBatches": "train.batches",
    "LatentCache": "store.reader",
    "LatentPosterior": "types",
    "NotEnoughMemoryError": "errors",
    "Objective": "train.objective",
    "Outcome": "store.repair_files",
    "PreparedEncode": "pipeline.encode_videos",
    "Problem": "store.verify.problem",
    "RepairProgress": "pipeline.repair_cache",
    "SampleConfig": "config",
    "Sampler": "sample.sampler",
    "ScratchError": "errors",
    "ShapeError": "errors",
    "ShardExistsError": "errors",
    "StepRecord": "train.recorder",
    "StoreError": "errors",
    "TrainConfig": "config",
    "TrainError": "errors",
    "Trainer": "train.trainer",
    "VPrediction": "train.objective",
    "VideoRead": "fit.fitting",
    "VideoRecord": "types",
    "VidlatError": "errors",
    "WeightsError": "errors",
    "Whitening": "train.latents",
    "decode_videos": "pipeline.decode_videos",
    "encode_videos": "pipeline.encode_videos",
    "evaluate_videos": "evaluate.reconstruction",
    "fit_vae": "fit.fitting",
    "load_vae": "encode.vae",
    "masked_squared_error": "train.objective",
    "open_cache": "store.reader",
    "open_dask_executor": "pipeline.dask_executor",
    "prepare_encode": "pipeline.encode_videos",
    "repair_cache": "pipeline.repair_cache",
    "sample_videos": "sample.videos",
    "split_videos": "train.split",
    "train_unet": "sample.during_training",
    "verify_cache": "store.verify.cache",
}

__all__ = sorted(_MODULES)


if not TYPE_CHECKING:  # else a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
