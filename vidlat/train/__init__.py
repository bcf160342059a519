"""Training on a cache, with vidlat's networks or anybody's."""

from vidlat.train.batches import LatentBatches
from vidlat.train.dataset import Batch
from vidlat.train.latents import Whitening
from vidlat.train.split import split_videos

__all__ = ["Batch", "LatentBatches", "Whitening", "split_videos"]
