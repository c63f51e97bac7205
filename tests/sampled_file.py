"""Posterior files with samples, drawn and not sampled."""

from pathlib import Path
from typing import Any

import numpy as np

from direct_deepen.posterior.posterior_file import write_posterior

UNIT = 1e-4
"""The intensities of fastMRI's files are of this size."""


def draw_samples(slices: int, chains: int, keep: int, rows: int, columns: int, *, seed: int = 0) -> np.ndarray:
    """Samples (slice, chain·keep, row, column) about a disc with a phase: smooth errors and noise, air outside."""
    generator = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape) + 1j * generator.standard_normal(shape)

    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    body = np.hypot(y / 0.8, x / 0.7) < 1
    number = np.arange(slices)[:, None, None, None]
    image = body * (1 + 0.5 * np.cos(3 * x + number) * np.cos(4 * y)) * np.exp(1j * (0.5 + x - 2 * y))
    # States of a chain have something in common.
    smooth = noise(slices, chains, 1, 1, 1) + 0.5 * noise(slices, chains, keep, 1, 1)
    deviations = (0.03 * smooth * body + 0.05 * noise(slices, chains, keep, rows, columns)).reshape(
        slices, chains * keep, rows, columns
    )
    return (UNIT * (image + deviations)).astype(np.complex64)


def write_sampled(path: Path, samples: np.ndarray, *, chains: int, **attributes: Any) -> Path:
    """A posterior file of samples, with the moments that follow from them."""
    mean = samples.mean(axis=1)
    direction = np.conj(mean) / np.abs(mean)
    real = (samples * direction[:, None]).real
    slices = [
        {
            "mean": mean[number],
            "std": real[number].std(axis=0, ddof=1),
            "quantiles": np.quantile(real[number], [0.05, 0.95], axis=0).astype(np.float32),
            "samples": samples[number],
            "slice_number": np.array(number),
        }
        for number in range(len(samples))
    ]
    write_posterior(
        path, slices, len(samples), {"num_samples": chains, "quantile_probabilities": [0.05, 0.95], **attributes}
    )
    return path
