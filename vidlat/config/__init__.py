"""Every setting of every command, declared once: frozen dataclasses; field names are flags and YAML keys."""

from vidlat.config.compare import CompareConfig as CompareConfig
from vidlat.config.encode import EncodeConfig as EncodeConfig, Ids as Ids
from vidlat.config.evaluate import EvaluateConfig as EvaluateConfig
from vidlat.config.fit_vae import (
    RECIPES as RECIPES,
    ChosenFit as ChosenFit,
    FitVAEConfig as FitVAEConfig,
    VAELoss as VAELoss,
    VAENetwork as VAENetwork,
    VAEStart as VAEStart,
)
from vidlat.config.latents import (
    ARITHMETIC_VERSIONS as ARITHMETIC_VERSIONS,
    MANTISSA_BITS as MANTISSA_BITS,
    PREPROCESS_VERSION as PREPROCESS_VERSION,
    Deinterlace as Deinterlace,
    Fit as Fit,
    LatentSettings as LatentSettings,
    Precision as Precision,
    Preprocessing as Preprocessing,
    Reading as Reading,
)
from vidlat.config.part import Part as Part
from vidlat.config.sample import Drawing as Drawing, SampleConfig as SampleConfig, Sampler as Sampler
from vidlat.config.split import SplitConfig as SplitConfig
from vidlat.config.train import (
    Network as Network,
    Objective as Objective,
    Preset as Preset,
    TimestepDistribution as TimestepDistribution,
    TrainConfig as TrainConfig,
)
from vidlat.config.worker import WorkerConfig as WorkerConfig
