"""How alike images are that coils of one slice would be, or neighbouring slices."""

from collections.abc import Sequence

import numpy as np

_DETAIL, _PATCH, _FEWEST_ALIKE, _MOST_ALIKE = 96, 6, 4, 16
"""Samples and pixels of the images and patches in which coils of one slice are alike; numbers of images to compare."""


def evenly_spread(count: int) -> list[int]:
    """Return as many numbers below a count as are compared, evenly."""
    return [int(place) for place in np.linspace(0, count - 1, min(count, _MOST_ALIKE))]


def unlike(kspace: Sequence[np.ndarray] | np.ndarray) -> float:
    """Return the share of the energy of images that is not one image times weights, which differ from patch to patch.

    Not a number if there are few images, or no signal.
    """
    if len(kspace) < _FEWEST_ALIKE:
        return float("nan")
    images = np.stack([np.nan_to_num(kspace[number], posinf=0, neginf=0) for number in evenly_spread(len(kspace))])
    sizes = [min(size, _DETAIL) // _PATCH * _PATCH for size in images.shape[-2:]]
    middle = tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(images.shape[-2:], sizes, strict=True))
    images = np.fft.ifft2(np.fft.ifftshift(images[:, *middle], axes=(-2, -1)))
    patches = images.reshape(-1, sizes[0] // _PATCH, _PATCH, sizes[1] // _PATCH, _PATCH).transpose(1, 3, 0, 2, 4)
    energy = np.linalg.svd(patches.reshape(-1, len(images), _PATCH**2), compute_uv=False) ** 2
    return float(1 - energy[:, 0].sum() / energy.sum()) if energy.any() else float("nan")
