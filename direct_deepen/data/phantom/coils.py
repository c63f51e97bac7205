"""Receive coils around the field of view."""

import math

import numpy as np


def draw_coils(generator: np.random.Generator, num_coils: int, size: int) -> np.ndarray:
    """Coil maps (coils, size, size), complex64, of loops around the field of view; root sum of squares 1."""
    ring = 2 * math.pi * np.arange(num_coils) / num_coils
    jitter = generator.normal(0.0, 0.1 * 2 * math.pi / num_coils, num_coils)
    angles = ring + generator.uniform(0.0, 2 * math.pi) + jitter
    radii = generator.uniform(1.5, 2.2) * generator.normal(1.0, 0.03, num_coils)
    gains = np.exp(generator.normal(0.0, 0.1, num_coils) + 1j * generator.normal(0.0, 0.3, num_coils))
    maps = gains[:, None, None] * birdcage_maps(angles, radii, size)
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)


def birdcage_maps(angles: np.ndarray, radii: np.ndarray, size: int) -> np.ndarray:
    """Coil maps (coils, size, size) of loops at ``angles`` and ``radii`` in units of half the field of view.

    These are sigpy's ``birdcage_maps`` before normalisation as a function of the coils' places, because sigpy's ring
    can be neither turned nor perturbed. In complex numbers the map of a coil at angle θ is exp(-iθ) / conj(z), with z
    the pixel's position relative to the coil.
    """
    side = (np.arange(size) - size / 2) / (size / 2)
    right = side[None, None, :] - (radii * np.cos(angles))[:, None, None]
    down = side[None, :, None] - (radii * np.sin(angles))[:, None, None]
    return np.exp(-1j * angles)[:, None, None] / (-down - 1j * right)
