"""What samplers without chains share: their samples, and how many of them go through the network at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from direct_deepen.errors import DivergenceError, require_count
from direct_deepen.inference.curvature import image_norm


@dataclass(frozen=True)
class IndependentSamples:
    """Samples that owe nothing to one another.

    Attributes
    ----------
    images
        Complex (sample, batch, height, width).
    gradient_evaluations
        Evaluations of ∇E, or of the network where there is no energy, summed over samples and batch.
    """

    images: torch.Tensor
    gradient_evaluations: int
    step_size: torch.Tensor | None = None
    curvature: torch.Tensor | None = None

    def by_chain(self) -> torch.Tensor:
        """Return the images as (sample, 1, batch, height, width)."""
        return self.images[:, None]


def group_sizes(num_samples: int, batch: int, max_images: int) -> Iterator[int]:
    """Yield how many samples run at once, for ``batch`` images each, until all have.

    Raises
    ------
    DeepenError
        If a number is below one.
    """
    require_count("num_samples", num_samples)
    require_count("max_images", max_images)
    size = max(1, max_images // batch)
    for first in range(0, num_samples, size):
        yield min(size, num_samples - first)


def require_finite_samples(images: torch.Tensor, sampler: str, level: float) -> None:
    """Raise :class:`DivergenceError` if an image is not finite after a noise level."""
    norms = image_norm(images)
    if not bool(torch.isfinite(norms).all()):
        raise DivergenceError(f"{sampler}: norms {norms.tolist()} at noise level {level}; allowed: finite values")
