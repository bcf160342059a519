"""Synthetic ultrasound clips of a beating heart or a sliding lung, for the demo, benchmarks and tests.

    python benchmarks/phantom.py FOLDER       write the demo's videos

A frame is made as a scanner makes it: scatterers fixed to moving tissue, weighted by how strongly the
tissue echoes, blurred by the beam, log-compressed, and scan-converted from (depth, beam) to pixels.
Lengths are in units of the depth shown; x points right, z down. Shape letters: D depths, B beams.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom import examples
from scipy.ndimage import gaussian_filter, map_coordinates

from vidlat.video.writer import write_video

Array = npt.NDArray[np.floating]
Kind = Literal["heart", "lung"]

_DYNAMIC_RANGE_DB = 52.0
_CELLS = 320  # scatterers per unit of length: finer than the beam, as real ones are
_FIELD = (2 * _CELLS, 3 * _CELLS)
_BEAM_SIGMAS = (1.0, 1.7)  # of the blur, in samples: sharp in depth, wide across


@dataclass(frozen=True, slots=True)
class _Tissue:
    """What lies at each (D, B): its echo strength, and where that tissue was at rest."""

    amplitude: Array
    rest_x: Array
    rest_z: Array


@dataclass(frozen=True, slots=True)
class _Probe:
    """Beams that leave a circle: of a small radius a phased array, of a large one a linear probe."""

    radius: float
    half_angle: float

    def positions(self, num_depths: int, num_beams: int) -> tuple[Array, Array]:
        """x and z of every depth along every beam, each (D, B)."""
        reach = self.radius + np.linspace(0, 1, num_depths)[:, None]
        angle = np.linspace(-self.half_angle, self.half_angle, num_beams)[None]
        return reach * np.sin(angle), reach * np.cos(angle) - self.radius

    def scan_convert(self, beams: Array, height: int, width: int) -> Array:
        """(D, B) to (height, width), the sector as large as fits, black around it."""
        x, z = self.positions(2, 65)
        scale = max(np.ptp(x) / width, np.ptp(z) / height)
        row, column = np.mgrid[:height, :width] + 0.5
        across = (column - width / 2) * scale
        down = (row - height / 2) * scale + (z.min() + z.max()) / 2 + self.radius
        depth = (np.hypot(across, down) - self.radius) * (beams.shape[0] - 1)
        beam = (np.arctan2(across, down) / self.half_angle + 1) / 2 * (beams.shape[1] - 1)
        return np.asarray(map_coordinates(beams, [depth, beam], order=1, cval=0.0))


class _Heart:
    """Four chambers as seen from the apex; the left ventricle contracts, its valve opens and closes."""

    probe = _Probe(radius=0.02, half_angle=0.6)

    def __init__(self, rng: np.random.Generator) -> None:
        self.x, self.z = rng.uniform(-0.02, 0.08), rng.uniform(0.42, 0.5)
        self.half_width, self.half_length = rng.uniform(0.12, 0.19), rng.uniform(0.26, 0.34)
        self.wall = rng.uniform(1.32, 1.55)
        self.ejection = rng.uniform(0.15, 0.42)
        self.beats_per_second, self.start = rng.uniform(0.9, 1.8), rng.uniform()
        self.tilt = rng.uniform(-0.25, 0.25)
        self.gain = rng.uniform(0.7, 1.4)

    def at(self, x: Array, z: Array, seconds: float) -> _Tissue:
        phase = (seconds * self.beats_per_second + self.start) % 1
        contraction = _contraction(phase)
        x, z = _rotate(x, z, self.x, self.z, self.tilt * (1 + 0.1 * contraction))
        # The base descends towards the still apex.
        descent = 0.06 * contraction * np.clip((z - self.z) / self.half_length + 1, 0, 2)
        across, along = (x - self.x) / self.half_width, (z + descent - self.z) / self.half_length
        now = np.hypot(across, along) + 1e-6
        # Muscle is incompressible: the area between two of its rings stays the same.
        rest = np.sqrt(np.maximum(now**2 + 1 - (1 - self.ejection * contraction) ** 2, 0))
        rest_x = self.x + across * self.half_width * rest / now
        rest_z = self.z + along * self.half_length * rest / now
        amplitude = self._echo(rest, rest_x, rest_z)
        amplitude = np.maximum(amplitude, self._valve(x, z, phase, contraction))
        depth = np.hypot(x, z)
        gain = self.gain * np.exp(-0.5 * depth) * (1 + 1.5 * np.exp(-depth / 0.04))
        return _Tissue(amplitude * gain, rest_x, rest_z)

    def _echo(self, rest: Array, rest_x: Array, rest_z: Array) -> Array:
        """Echo strength at rest; rest = 1 on the inner wall of the left ventricle."""
        echo = 0.3 + 0.16 * np.sin(9 * rest_x + 2) * np.sin(7 * rest_z)
        echo = np.where(rest < self.wall, 0.22, echo)
        echo += 1.3 * _bump(rest - self.wall - 0.06, 0.05) + 0.45 * _bump(rest - 1.04, 0.05)
        base, left = self.z + 1.5 * self.half_length, self.x - 0.02
        right = self.x - self.half_width * self.wall - 0.13
        for chamber_x, chamber_z, half_width, half_length in (
            (right, self.z + 0.06, 0.10, 0.20),  # right ventricle
            (left, base, 0.15, 0.13),  # left atrium
            (right, base, 0.13, 0.12),  # right atrium
        ):
            ring = np.hypot((rest_x - chamber_x) / half_width, (rest_z - chamber_z) / half_length)
            echo = np.where(ring < 1, 0.01, echo + 0.4 * _bump(ring - 1.08, 0.06))
        return np.where(rest < 1, 0.01, echo)

    def _valve(self, x: Array, z: Array, phase: float, contraction: float) -> Array:
        """Two leaflets hinged at the base that swing up into the ventricle as it fills."""
        hinge_z = self.z + 0.98 * self.half_length - 0.06 * contraction
        swing = 0.05 + 1.1 * (1 - contraction) * (0.5 + 0.45 * np.cos(4 * np.pi * (phase - 0.75)))
        length = 0.7 * self.half_width
        echo = np.zeros_like(x)
        for side in (-1, 1):
            hinge_x = self.x + side * length
            step_x, step_z = -side * np.cos(swing), -np.sin(swing)
            reach = np.clip((x - hinge_x) * step_x + (z - hinge_z) * step_z, 0, length)
            echo += _bump(np.hypot(x - hinge_x - reach * step_x, z - hinge_z - reach * step_z), 0.010)
        return echo


class _Lung:
    """Chest wall, a rib with its shadow, the pleural line; lung below slides, with A-lines or B-lines."""

    def __init__(self, rng: np.random.Generator) -> None:
        # The linear probe's tiny angle over a radius of 20 depths makes a nearly straight image.
        self.probe = _Probe(20.0, 0.025) if rng.uniform() < 0.5 else _Probe(0.55, 0.5)
        self.depth, self.tilt = rng.uniform(0.2, 0.3), rng.uniform(-0.06, 0.06)
        self.breaths_per_second, self.start = rng.uniform(0.25, 0.6), rng.uniform(0, 2 * np.pi)
        self.stroke = rng.uniform(0.03, 0.09)
        self.layers = rng.uniform(0.05, 0.85, 4)
        self.rib_x = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6)
        num_rays = int(rng.integers(0, 5))
        self.rays = rng.uniform((-0.5, 0.15, 0.012), (0.5, 0.5, 0.04), (num_rays, 3))
        self.gain = rng.uniform(0.9, 1.5)

    def at(self, x: Array, z: Array, seconds: float) -> _Tissue:
        breath = np.sin(2 * np.pi * self.breaths_per_second * seconds + self.start)
        pleura = self.depth + self.tilt * x + 0.05 * x**2 + 0.008 * breath
        level = z / pleura
        slide = self.stroke * breath
        rest_x = x - slide * np.where(level > 1, 1, 0.1 * level)
        rest_z = z - 0.008 * breath * np.minimum(level, 1)
        wall = 0.25 + 0.1 * np.sin(30 * level + 3 * x)
        for index, layer in enumerate(self.layers):
            wall += 0.9 * _bump(level - layer - 0.04 * np.sin(5 * rest_x + index), 0.018)
        amplitude = np.where(level > 1, self._artefacts(x - slide, z, pleura, seconds), wall)
        amplitude += (1.7 + 0.5 * np.sin(40 * rest_x)) * _bump(z - pleura, 0.009)
        surface = pleura - 0.06 + 1.5 * (x - self.rib_x) ** 2
        rib = _bump(np.maximum(np.abs(x - self.rib_x) - 0.06, 0), 0.02)
        amplitude = amplitude * np.where(z > surface, 1 - 0.97 * rib, 1)
        amplitude += 1.6 * rib * _bump(z - surface, 0.010)
        gain = self.gain * np.exp(-0.5 * z) * (1 + 1.5 * np.exp(-z / 0.02))
        return _Tissue(amplitude * gain, rest_x, rest_z)

    def _artefacts(self, x: Array, z: Array, pleura: Array, seconds: float) -> Array:
        """Nothing below the pleura is tissue: haze, its repeats in depth, rays that hang from it."""
        echo = 0.12 * np.exp(-2.2 * (z - pleura) / (1 - self.depth))
        if len(self.rays) < 3:
            for repeat in (2, 3, 4):
                echo += 0.9 * 0.55 ** (repeat - 1) * _bump(z - repeat * pleura, 0.008)
        for ray_x, strength, width in self.rays:
            glow = strength * (0.7 + 0.3 * np.cos(2 * seconds + 20 * ray_x))
            echo += glow * _bump(x - ray_x, width * (0.7 + 0.6 * z))
        return echo


def make_phantom(
    kind: Kind, seed: int, num_frames: int, height: int, width: int, fps: float
) -> npt.NDArray[np.uint8]:
    """(T, H, W) uint8, full range, of a heart that beats or of a lung that slides.

    Anatomy, rate and noise follow from the seed; a longer clip begins with the shorter one of its seed.
    """
    rng = np.random.default_rng((kind == "lung", seed))
    scene = _Lung(rng) if kind == "lung" else _Heart(rng)
    scatterers = [rng.standard_normal(_FIELD, np.float32) for _ in range(2)]
    x, z = scene.probe.positions(round(1.2 * height), width)
    frames = np.empty((num_frames, height, width), np.uint8)
    for index in range(num_frames):
        tissue = scene.at(x, z, index / fps)
        places = [(tissue.rest_z + 0.4) * _CELLS, (tissue.rest_x + 1.5) * _CELLS]
        # Two fields make the echo complex: its modulus is what speckles.
        in_phase, quadrature = (
            gaussian_filter(
                tissue.amplitude * map_coordinates(field, places, order=1, mode="grid-wrap")
                + 0.004 * rng.standard_normal(x.shape),
                _BEAM_SIGMAS,
            )
            for field in scatterers
        )
        decibels = 20 * np.log10(np.hypot(in_phase, quadrature) + 1e-6)
        gray = np.clip(1.05 + decibels / _DYNAMIC_RANGE_DB, 0, 1)
        frames[index] = np.rint(255 * scene.probe.scan_convert(gray, height, width)).astype(np.uint8)
    return frames


_DEMO = [  # frames, height, width, frames a second
    (60, 144, 144, Fraction(30)),
    (48, 144, 144, Fraction(25)),
    (33, 144, 160, Fraction(25)),
    (18, 144, 144, Fraction(15)),
    (40, 128, 144, Fraction(30000, 1001)),
    (57, 160, 144, Fraction(25)),
    (24, 144, 144, Fraction(20)),
    (36, 144, 192, Fraction(30)),
    (52, 144, 144, Fraction(50)),
    (21, 128, 128, Fraction(18)),
]


def write_demo_videos(folder: Path) -> list[Path]:
    """Write ten phantoms of varied length, rate and size, and a real 30-frame ultrasound cine.

    The cine is a file of the pydicom package. The same versions of NumPy and SciPy give the same pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, (num_frames, height, width, fps) in enumerate(_DEMO):
        kind: Kind = "lung" if index % 2 else "heart"
        path = folder / f"{kind}_{index // 2 + 1}.mp4"
        write_video(path, make_phantom(kind, index, num_frames, height, width, float(fps)), fps)
        written.append(path)
    written.append(Path(shutil.copyfile(examples.get_path("ybr_color"), folder / "us_cine.dcm")))
    return written


def _contraction(phase: float) -> float:
    """0 relaxed, 1 contracted, over one beat: fast in, faster out, then rest."""
    if phase < 0.35:
        return float(0.5 - 0.5 * np.cos(np.pi * phase / 0.35))
    return float(0.5 + 0.5 * np.cos(np.pi * (phase - 0.35) / 0.27)) if phase < 0.62 else 0.0


def _bump(distance: Array, width: Array | float) -> Array:
    return np.asarray(np.exp(-0.5 * (distance / width) ** 2))


def _rotate(x: Array, z: Array, centre_x: float, centre_z: float, angle: float) -> tuple[Array, Array]:
    x, z = x - centre_x, z - centre_z
    cos, sin = np.cos(angle), np.sin(angle)
    return centre_x + cos * x - sin * z, centre_z + sin * x + cos * z


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/phantom.py FOLDER")
    for video in write_demo_videos(Path(sys.argv[1])):
        print(video)
