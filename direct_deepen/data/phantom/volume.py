"""Phantom volumes: heads, their image phase, the measurement of their k-space by coils with noise, and their files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from direct_deepen.data.fastmri_file import open_volume, write_fastmri_volume
from direct_deepen.data.phantom.geometry import Plane, SmoothField
from direct_deepen.data.phantom.head import Head
from direct_deepen.errors import require, require_count, require_weight
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.scale import full_sampling_scale
from direct_deepen.progress import progress_bar

DEFAULT_NOISE_STD = 0.007
"""Standard deviation of the k-space noise, per real component, in units of the intensity scale."""

SMALLEST_SIZE = 32
"""Fewest rows and columns: below, nothing of a brain is left to see."""

_RAW_UNIT = 1e-4


@dataclass(frozen=True)
class PhantomVolume:
    """A synthetic volume with everything that made it."""

    image: np.ndarray
    """Noise-free image, complex64 (slices, height, width), in an arbitrary raw unit."""
    sensitivity_map: np.ndarray
    """Coil maps, complex64 (coils, height, width), root sum of squares 1 everywhere, the same for all slices."""
    kspace: np.ndarray
    """Noisy k-space, complex64 (slices, coils, height, width), in the unit of ``image``."""
    noise_std: float
    """Standard deviation of the noise per real component of ``kspace``, in its unit."""


def brain_volume(
    generator: np.random.Generator,
    *,
    num_slices: int,
    size: int,
    num_coils: int,
    noise_std: float = DEFAULT_NOISE_STD,
) -> PhantomVolume:
    """Draw one head, and measure neighbouring axial slices of ``size`` rows and columns.

    K-space is the centred orthonormal Fourier transform of coil maps times image, plus noise. ``noise_std`` is the
    standard deviation of the noise per real component, in units of the median over slices of
    :func:`~direct_deepen.physics.scale.full_sampling_scale` of the noise-free k-space. Every random number is drawn
    from ``generator``.

    Raises
    ------
    DeepenError
        If ``size`` is below :data:`SMALLEST_SIZE`, another number is out of range, or nilearn, which ships the
        anatomy, is not installed.
    """
    require_count("num_slices", num_slices)
    require_count("size", size, SMALLEST_SIZE)
    require_count("num_coils", num_coils)
    require_weight("noise_std", noise_std)
    head = Head(generator, num_slices)
    phases = _draw_phases(generator, [head.view.plane(depth, size) for depth in head.pose.depths])
    gain = _RAW_UNIT * math.exp(generator.uniform(math.log(0.5), math.log(2.0)))
    image = np.empty((num_slices, size, size), dtype=np.complex64)
    for index, depth in enumerate(head.pose.depths):
        image[index] = gain * head.magnitude(depth, size) * np.exp(1j * phases[index])
    return acquire(image, generator, num_coils=num_coils, noise_std=noise_std)


def write_phantoms(
    output: Path,
    *,
    num_volumes: int,
    num_slices: int,
    size: int,
    num_coils: int,
    seed: int,
    noise_std: float = DEFAULT_NOISE_STD,
    prefix: str = "phantom",
) -> list[Path]:
    """Write phantom volumes as fastMRI files ``{prefix}_{seed:03d}_{volume:03d}.h5`` in a folder; return their paths.

    Volume ``i`` of seed ``k`` comes from ``np.random.default_rng([k, i])`` alone, however many volumes are written:
    training, validation and test sets need seeds of their own. The other numbers are those of :func:`brain_volume`.
    Beside fastMRI's own entries the files hold the datasets ``phantom_image`` (slices, height, width) and
    ``phantom_sensitivity_map`` (coils, height, width), and the attributes ``synthetic``, ``seed``, ``volume``,
    ``noise_std`` (in units of the intensity scale) and ``kspace_noise_std`` (in the unit of ``kspace``).
    """
    require_count("num_volumes", num_volumes)
    require_count("seed", seed, least=0)
    require(
        prefix not in ("", ".", "..") and Path(prefix).name == prefix,
        f"prefix is {prefix!r}; allowed: the first part of a file name, without folders",
    )
    require(output.is_dir() or not output.exists(), f"output is {str(output)!r}, a file; allowed: a folder")
    paths = [output / f"{prefix}_{seed:03d}_{index:03d}.h5" for index in range(num_volumes)]
    for path in paths:
        if path.exists():
            with open_volume(path) as file:
                require("synthetic" in file.attrs, f"{path}: is no phantom, and would be overwritten")
    for index, path in enumerate(progress_bar(paths, name="phantoms", unit="volume")):
        generator = np.random.default_rng([seed, index])
        volume = brain_volume(generator, num_slices=num_slices, size=size, num_coils=num_coils, noise_std=noise_std)
        write_fastmri_volume(
            path,
            volume.kspace,
            attributes={
                "acquisition": "SYNTHETIC_T2",
                "synthetic": "brain phantom by direct-deepen; anatomy: MNI ICBM 152 2009a",
                "seed": seed,
                "volume": index,
                "noise_std": noise_std,
                "kspace_noise_std": volume.noise_std,
            },
            datasets={"phantom_image": volume.image, "phantom_sensitivity_map": volume.sensitivity_map},
        )
    return paths


def acquire(
    image: np.ndarray, generator: np.random.Generator, *, num_coils: int, noise_std: float = DEFAULT_NOISE_STD
) -> PhantomVolume:
    """Measure noise-free slices, complex64 (slices, size, size), as :func:`brain_volume` measures its heads."""
    sensitivity_map = _draw_coils(generator, num_coils, image.shape[-1])
    kspace = fft2(torch.from_numpy(image[:, None] * sensitivity_map)).numpy()
    raw_noise_std = noise_std * float(full_sampling_scale(torch.from_numpy(kspace)).median())
    noise = generator.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    kspace += np.float32(raw_noise_std) * noise
    return PhantomVolume(image=image, sensitivity_map=sensitivity_map, kspace=kspace, noise_std=raw_noise_std)


def _draw_phases(generator: np.random.Generator, planes: Sequence[Plane]) -> list[np.ndarray]:
    """Draw the phase of images in radians: a constant, a gradient (down, right) per mm, and a smooth field."""
    constant = generator.uniform(-math.pi, math.pi)
    down, right = generator.normal(0.0, 0.008, 2).astype(np.float32)
    strength = generator.uniform(0.4, 1.0)
    field = SmoothField(generator, 80.0)
    return [
        constant + down * rows[:, None] + right * columns + strength * field.at((depth, rows, columns))
        for depth, rows, columns in planes
    ]


def _draw_coils(generator: np.random.Generator, num_coils: int, size: int) -> np.ndarray:
    """Draw coil maps (coils, size, size), complex64, of loops around the field of view; root sum of squares 1."""
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
