"""One phantom volume: a head, its image phase, and the measurement of its k-space by coils with noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from direct_deepen.data.phantom.coils import draw_coils
from direct_deepen.data.phantom.fields import Plane, draw_field
from direct_deepen.data.phantom.head import Head
from direct_deepen.errors import require_count, require_weight
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.scale import full_sampling_scale

DEFAULT_NOISE_STD = 0.007
"""Standard deviation of the k-space noise, per real component, in units of the intensity scale."""

SMALLEST_SIZE = 32
"""Fewest rows and columns: below, nothing of a brain is left to see."""

_RAW_UNIT = 1e-4


@dataclass(frozen=True)
class PhantomVolume:
    """A synthetic volume with everything that made it.

    Attributes
    ----------
    image
        Noise-free image, complex64 (slices, height, width), in an arbitrary raw unit.
    sensitivity_map
        Coil maps, complex64 (coils, height, width), root sum of squares 1 everywhere, the same for all slices.
    kspace
        Noisy k-space, complex64 (slices, coils, height, width), in the unit of ``image``.
    noise_std
        Standard deviation of the noise per real component of ``kspace``, in the unit of ``kspace``.
    """

    image: np.ndarray
    sensitivity_map: np.ndarray
    kspace: np.ndarray
    noise_std: float


def brain_volume(
    generator: np.random.Generator,
    *,
    num_slices: int,
    size: int,
    num_coils: int,
    noise_std: float = DEFAULT_NOISE_STD,
) -> PhantomVolume:
    """Draw one head and measure a slab of it.

    Parameters
    ----------
    generator
        Source of every random number.
    num_slices
        Neighbouring axial slices, at least 1.
    size
        Rows and columns, at least :data:`SMALLEST_SIZE`.
    num_coils
        Receive coils, at least 1.
    noise_std
        Standard deviation per real component of the k-space noise, in units of the median over slices of
        :func:`~direct_deepen.physics.scale.full_sampling_scale` of the noise-free k-space.

    Returns
    -------
    The volume. Its k-space is the centred orthonormal Fourier transform of coil maps times image, plus the noise.

    Raises
    ------
    DeepenError
        If a number is out of range, or nilearn, which ships the anatomy, is not installed.
    """
    require_sizes(num_slices=num_slices, size=size, num_coils=num_coils, noise_std=noise_std)
    head = Head(generator, num_slices)
    phase = _draw_phase(generator)
    gain = _RAW_UNIT * math.exp(generator.uniform(math.log(0.5), math.log(2.0)))
    image = np.empty((num_slices, size, size), dtype=np.complex64)
    for index, depth in enumerate(head.pose.depths):
        image[index] = gain * head.magnitude(depth, size) * np.exp(1j * phase(head.view.plane(depth, size)))
    return acquire(image, generator, num_coils=num_coils, noise_std=noise_std)


def acquire(
    image: np.ndarray, generator: np.random.Generator, *, num_coils: int, noise_std: float = DEFAULT_NOISE_STD
) -> PhantomVolume:
    """Measure any image as :func:`brain_volume` measures its heads: random coils, Fourier transform, noise.

    Parameters
    ----------
    image
        Noise-free slices, complex64 (slices, size, size).
    generator
        Source of every random number.
    num_coils, noise_std
        As for :func:`brain_volume`.
    """
    sensitivity_map = draw_coils(generator, num_coils, image.shape[-1])
    kspace = fft2(torch.from_numpy(image[:, None] * sensitivity_map)).numpy()
    raw_noise_std = noise_std * float(full_sampling_scale(torch.from_numpy(kspace)).median())
    noise = generator.standard_normal((*kspace.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    kspace += np.float32(raw_noise_std) * noise
    return PhantomVolume(image=image, sensitivity_map=sensitivity_map, kspace=kspace, noise_std=raw_noise_std)


def require_sizes(*, num_slices: int, size: int, num_coils: int, noise_std: float) -> None:
    """Raise :class:`DeepenError` unless :func:`brain_volume` can draw such a volume."""
    require_count("num_slices", num_slices)
    require_count("size", size, SMALLEST_SIZE)
    require_count("num_coils", num_coils)
    require_weight("noise_std", noise_std)


def _draw_phase(generator: np.random.Generator) -> Callable[[Plane], np.ndarray]:
    """Draw an image phase in radians: a constant, a gradient (down, right) per mm, and a smooth field."""
    constant = generator.uniform(-math.pi, math.pi)
    down, right = generator.normal(0.0, 0.008, 2).astype(np.float32)
    strength = generator.uniform(0.4, 1.0)
    field = draw_field(generator, 80.0)

    def phase(plane: Plane) -> np.ndarray:
        _, rows, columns = plane
        return constant + down * rows[:, None] + right * columns + strength * field.at(plane)

    return phase
