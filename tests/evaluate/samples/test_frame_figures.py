"""Energies of pixels: Parseval's theorem, planted waves and plain differences are the oracles."""

import numpy as np
import pytest

from vidlat.evaluate.samples.frame_figures import FrameFigures, band_edges, band_middles, bands_in_words


@pytest.mark.parametrize("num_frames", [1, 2, 3, 15, 16])
def test_bands_sum_to_the_variance_over_time(num_frames):
    frames = np.random.default_rng(0).integers(0, 256, (num_frames, 12, 13), np.uint8)
    bands = FrameFigures.of(frames, 4).bands
    assert sum(bands) == pytest.approx((frames / 255).var(0).mean())
    assert len(bands) == len(bands_in_words(num_frames, 25))


@pytest.mark.parametrize(("periods", "band"), [(1, 0), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3)])
def test_a_wave_lies_in_the_band_of_its_frequency(periods, band):
    wave = 127 + 100 * np.cos(2 * np.pi * periods * np.arange(16) / 16)
    frames = np.broadcast_to(wave.round().astype(np.uint8)[:, None, None], (16, 11, 11))
    bands = FrameFigures.of(frames, 4).bands
    assert bands[band] > 0.99 * sum(bands)


def test_bands_are_octaves_named_by_their_frequencies():
    assert band_edges(16) == [1, 2, 4, 8, 9]
    assert band_edges(12) == [1, 2, 4, 7]
    assert band_edges(1) == []
    assert bands_in_words(16, 32) == ["2 Hz", "4-6 Hz", "8-14 Hz", "16 Hz"]
    assert band_middles(16, 32) == pytest.approx([2, 24**0.5, 112**0.5, 16])
    assert band_middles(6, 0) == pytest.approx([1, 6**0.5])
    assert bands_in_words(6, 0) == ["1 per clip", "2-3 per clip"]


def test_changes_at_borders_of_stacks_are_told_apart():
    frames = np.random.default_rng(1).integers(0, 256, (12, 11, 11), np.uint8)
    changes = [np.square(np.diff(frames / 255.0, axis=0)[step]).mean() for step in range(11)]
    figures = FrameFigures.of(frames, 4)
    assert figures.at_borders == pytest.approx(np.mean([changes[3], changes[7]]))
    assert figures.inside == pytest.approx(np.mean([changes[step] for step in (0, 1, 2, 4, 5, 6, 8, 9, 10)]))


def test_a_single_stack_has_no_border_and_a_picture_no_change():
    frames = np.zeros((4, 11, 11), np.uint8)
    assert np.isnan(FrameFigures.of(frames, 4).at_borders)
    assert np.isnan(FrameFigures.of(frames[:1], 4).inside)


def test_detail_is_the_energy_of_fine_patterns():
    checks = np.indices((16, 16)).sum(0) % 2 * 255
    flat = np.full((2, 16, 16), 90, np.uint8)
    assert FrameFigures.of(flat, 4).detail == pytest.approx(0, abs=1e-12)
    assert FrameFigures.of(np.stack([checks] * 2).astype(np.uint8), 4).detail == pytest.approx(0.25, rel=0.01)
