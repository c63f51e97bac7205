"""Rings of k-space, and images whose rings are scaled."""

from collections.abc import Sequence

import torch

from direct_deepen.errors import require, require_positive
from direct_deepen.physics.fourier import fft2, ifft2

_FIRST = 4.0
"""Radius of the innermost ring, cycles over the field of view; the others double it: 4, 8, 16 and so on."""


def ring_bounds(height: int, width: int) -> list[float]:
    """Return the outer radii of the rings of images of this size, in cycles over the field of view.

    The last one is that of the corners of k-space.
    """
    bounds = [_FIRST]
    while bounds[-1] < min(height, width) / 2:
        bounds.append(2 * bounds[-1])
    bounds[-1] = max(bounds[-1], (height**2 + width**2) ** 0.5 / 2)
    return bounds


def num_rings(height: int, width: int) -> int:
    """Return how many rings the k-space of images of this size has."""
    return len(ring_bounds(height, width))


def ring_numbers(height: int, width: int, *, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the ring, from 0, of every place of centred k-space, integers (height, width)."""
    bounds = torch.tensor(ring_bounds(height, width)[:-1], dtype=torch.float64, device=device)
    return torch.bucketize(_radius(height, width, device), bounds, right=True)


def scale_rings(images: torch.Tensor, scales: Sequence[float]) -> torch.Tensor:
    """Return complex images (..., height, width) whose k-space is multiplied ring by ring.

    One or more scales above zero, from the centre; the last one holds beyond, and what is not reached is not used. The
    factor is that of a ring in the middle of it, by the logarithm of the radius, and goes evenly from one to the next:
    a jump would ring.
    """
    require(len(scales) > 0, "scales is empty; allowed: one or more scales of rings")
    for scale in scales:
        require_positive("scale of a ring", scale)
    height, width = images.shape[-2:]
    place = (_radius(height, width, images.device).clamp_min(_FIRST / 2) / _FIRST).log2() + 0.5
    below = place.floor().clamp(0, len(scales) - 1).long()
    above = (below + 1).clamp_max(len(scales) - 1)
    logarithms = torch.tensor(scales, dtype=torch.float64, device=images.device).log()
    share = (place - below).clamp(0, 1)
    factor = ((1 - share) * logarithms[below] + share * logarithms[above]).exp()
    return ifft2(fft2(images) * factor.to(images.real.dtype))


def _radius(height: int, width: int, device: torch.device | str) -> torch.Tensor:
    rows, columns = (
        torch.arange(length, dtype=torch.float64, device=device) - length // 2 for length in (height, width)
    )
    return torch.hypot(rows[:, None], columns)
