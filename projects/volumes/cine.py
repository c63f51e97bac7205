"""Periodic series of a beating heart, made of one slice, and what a scanner would have measured of them.

A slice is warped by a smooth displacement that is periodic in time, so that the reference of every frame is exact: in
the middle a contraction with a twist, everywhere a drift and a random field of a few pixels. Its middle is then sampled
down by a crop of k-space, which leaves no line outside the band free.
"""

from dataclasses import dataclass

import direct.environment  # noqa: F401  (DIRECT's modules import one another in a circle otherwise)
import numpy as np
import torch
from direct.common.subsample import build_masking_function
from scipy.ndimage import map_coordinates
from scipy.signal.windows import tukey

from direct_deepen.data.phantom.volume import birdcage_maps
from direct_deepen.physics import SenseOperator, complex_normal, intensity_scale, normalize_sensitivity_map
from direct_deepen.physics.fourier import fft2, ifft2

FIELD_OF_VIEW = 0.75
"""Share of the slice's sides that is kept."""
CENTRE_FRACTION = 0.04
"""Of the lines that every frame has."""


def beating(image: np.ndarray, generator: np.random.Generator, num_frames: int) -> np.ndarray:
    """Return real (frame, row, column) of one real image: its motion, once around."""
    size = np.array(image.shape)
    rows, columns = np.meshgrid(*(np.arange(length, dtype=float) for length in size), indexing="ij")
    middle = size / 2 + generator.uniform(-0.05, 0.05, 2) * size
    down, right = rows - middle[0], columns - middle[1]
    width = generator.uniform(0.09, 0.14) * size.mean()
    near = np.exp(-(down**2 + right**2) / (2 * width**2))
    contraction, twist = generator.uniform(0.15, 0.3), generator.uniform(-0.2, 0.2)
    drift, field = generator.normal(0, 0.004, (2, 2)) * size.mean(), generator.normal(0, 0.003, (2, 3)) * size.mean()
    turns = 2 * np.pi * generator.uniform(size=(2, 3))
    start, frames = generator.uniform(), []
    for time in np.arange(num_frames) / num_frames:
        angle = 2 * np.pi * (time + start)
        beat = (0.5 - 0.5 * np.cos(angle)) ** 1.3
        inward, around = contraction * beat * near, twist * beat * near
        moved = [rows + inward * down - around * right, columns + inward * right + around * down]
        for axis in range(2):
            moved[axis] = moved[axis] + drift[axis, 0] * np.cos(angle) + drift[axis, 1] * np.sin(angle)
            for wave in range(3):
                phase = 2 * np.pi * (rows * (wave % 2) + columns * (1 - wave // 2)) / size.mean() + turns[axis, wave]
                moved[axis] = moved[axis] + field[axis, wave] * np.cos(phase) * np.cos(angle + turns[axis, wave])
        frames.append(map_coordinates(image, moved, order=3, mode="constant"))
    return np.stack(frames)


def sampled_down(frames: np.ndarray, size: int) -> torch.Tensor:
    """Return the middle of frames at ``size`` rows and columns, real (frame, size, size), largest value one."""
    keep = round(FIELD_OF_VIEW * frames.shape[-1] / 2) * 2
    first = (frames.shape[-1] - keep) // 2
    window = tukey(keep, 0.1)
    middle = frames[:, first : first + keep, first : first + keep] * window[:, None] * window
    kspace = fft2(torch.from_numpy(middle).to(torch.complex64))
    low = (keep - size) // 2
    images = ifft2(kspace[:, low : low + size, low : low + size]).abs()
    return images / images.max()


def smooth_phase(size: int, generator: np.random.Generator) -> torch.Tensor:
    """Return e^{iφ} of a random polynomial φ of second order, complex64 (size, size)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    weights = torch.from_numpy(generator.normal(0, 1, 6) * [2, 0.8, 0.8, 0.6, 0.6, 0.6]).float()
    phase = sum(weight * term for weight, term in zip(weights, (1 + 0 * x, x, y, x * x, y * y, x * y), strict=True))
    return torch.polar(torch.ones_like(x), torch.as_tensor(phase))


def cine(image: np.ndarray, seed: int, *, num_frames: int = 16, size: int = 96) -> torch.Tensor:
    """Return a series of one image, complex64 (frame, size, size), largest magnitude one, with a smooth phase."""
    generator = np.random.default_rng([seed, 1])
    frames = sampled_down(beating(image.astype(float), generator, num_frames), size)
    return frames * smooth_phase(size, generator)


@dataclass(frozen=True)
class Measurement:
    """Data of a series in scaled intensities, a batch of one, and the truth."""

    A: SenseOperator
    masked_kspace: torch.Tensor
    """Complex64 (1, coil, frame, row, column)."""
    reference: torch.Tensor
    """Complex64 (1, frame, row, column)."""


def measured(
    series: torch.Tensor, seed: int, *, acceleration: float = 8.0, num_coils: int = 8, noise_std: float = 0.005
) -> Measurement:
    """Return data of a series (frame, row, column): DIRECT's Gaussian kt lines, loops around, white noise.

    Maps are static and known, Σ|S|² = 1; the noise is per real component, over the largest magnitude.
    """
    size, generator = series.shape[-1], np.random.default_rng([seed, 2])
    angles = 2 * np.pi * (np.arange(num_coils) + generator.uniform()) / num_coils
    maps = birdcage_maps(angles, generator.uniform(1.4, 1.6, num_coils), size)
    maps = normalize_sensitivity_map(torch.from_numpy(maps).to(torch.complex64)[None])[:, :, None]
    draw = build_masking_function("KtGaussian1D", accelerations=[acceleration], center_fractions=[CENTRE_FRACTION])
    mask = draw(shape=(len(series), size, size, 1), seed=seed, return_acs=False)[..., 0][:, None]
    A = SenseOperator(maps, mask)
    exact = A.forward(series[None])
    noise = complex_normal(exact.shape, generator=torch.Generator().manual_seed(seed))
    kspace = exact + noise_std * noise * mask
    scale = intensity_scale(A, kspace)
    return Measurement(A, kspace / scale, series[None] / scale)
