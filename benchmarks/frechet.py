"""How far samples are from real videos: a Fréchet distance between features of the VAE's latents.

There is no standard network for medical video to take features from, so they are simple: mean and standard
deviation of each latent channel in each cell of a 4 x 4 grid, over a whole clip. The distance tells noise
from structure; it is not a measure of diagnostic quality.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from vidlat.encode.vae import FrozenVAE
from vidlat.types import FloatArray

GRID = 4
RIDGE = 1e-6


def clip_features(vae: FrozenVAE, latents: FloatArray) -> npt.NDArray[np.float64]:
    """Features (L * 4 * 4 * 2,) of one clip's latents (L, t, h, w), after decoding and encoding them again.

    Decoded frames are clipped to [0, 1]. h and w are at least 4; rows and columns that fill no whole cell are
    left out.
    """
    stacks = torch.from_numpy(np.asarray(latents, np.float32))[None]
    num_frames = latents.shape[1] * vae.time_compression
    mean, _ = vae.encode(vae.decode(stacks, num_frames).clamp(0, 1))
    again = mean[0].cpu().double().numpy()
    height, width = (size // GRID for size in again.shape[2:])
    cells = again[:, :, : height * GRID, : width * GRID]
    cells = cells.reshape(len(again), -1, GRID, height, GRID, width)
    return np.concatenate([cells.mean((1, 3, 5)).ravel(), cells.std((1, 3, 5)).ravel()])


def frechet_distance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """The Fréchet distance between Gaussians fitted to two sets of features, (N, D) and (M, D).

    |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) (Dowson and Landau, 1982). A small ridge keeps the covariances of
    few items positive definite.
    """
    means = one.mean(0), other.mean(0)
    covariances = [np.cov(features.T) + RIDGE * np.eye(features.shape[1]) for features in (one, other)]
    root = _square_root(covariances[0])
    # (C C')^(1/2) has the trace of (C^(1/2) C' C^(1/2))^(1/2), whose argument is symmetric.
    cross = np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)
    traces = sum(np.trace(covariance) for covariance in covariances)
    return float(np.square(means[0] - means[1]).sum() + traces - 2 * np.sqrt(cross).sum())


def _square_root(symmetric: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values, vectors = np.linalg.eigh(symmetric)
    root: npt.NDArray[np.float64] = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return root
