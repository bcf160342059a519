"""Sampling: from noise to latents, clips of any length, and videos."""

from vidlat.sample.sampler import Denoiser, Sampler

__all__ = ["Denoiser", "Sampler"]
