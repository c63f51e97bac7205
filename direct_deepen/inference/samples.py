"""What every sampler returns, and what samplers share: how many chains run at once, and when one has diverged."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch

from direct_deepen.errors import DivergenceError, require_count
from direct_deepen.inference.curvature import image_norm


@dataclass(frozen=True)
class Samples:
    """Samples of a posterior, ordered chain by chain, and the history of the chains.

    Independent samples are chains of which one state each was kept. Samplers without a history of chains leave
    everything after ``chain`` at ``None``.

    Attributes
    ----------
    images
        Complex (chains·keep, batch, height, width).
    gradient_evaluations
        Evaluations of ∇E, or of the network where there is no energy, summed over chains and batch.
    chain
        Integers (chains·keep,): the chain a sample comes from.
    step
        Integers (chains·keep,): the step, from 1, that a sample is the result of.
    step_size
        The τ of every kept step, real (chains, batch).
    cost_trace
        C after every step, float64 (num_steps, chains, batch).
    norm_trace
        ‖x‖ after every step, real (num_steps, chains, batch).
    curvature
        Largest difference quotient of ∇E seen during burn-in, real (chains, batch); not a number for fixed steps.
    acceptance
        Share of proposals accepted after burn-in, real (chains, batch); one without Metropolis adjustment.
    noise_std
        ε: the target is ∝ exp(−2C/ε²).
    burn_in
        Steps before the first that could be kept.
    """

    images: torch.Tensor
    gradient_evaluations: int
    chain: torch.Tensor
    step: torch.Tensor | None = None
    step_size: torch.Tensor | None = None
    cost_trace: torch.Tensor | None = None
    norm_trace: torch.Tensor | None = None
    curvature: torch.Tensor | None = None
    acceptance: torch.Tensor | None = None
    noise_std: float | None = None
    burn_in: int | None = None

    @classmethod
    def independent(cls, images: torch.Tensor, gradient_evaluations: int) -> Self:
        """Return independent samples, complex (sample, batch, height, width): one state of every chain."""
        return cls(images, gradient_evaluations, torch.arange(len(images)))

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return int(self.chain[-1]) + 1

    @property
    def keep(self) -> int:
        """Number of samples kept of every chain."""
        return len(self.images) // self.num_chains

    def by_chain(self) -> torch.Tensor:
        """Return the images as (chain, keep, batch, height, width)."""
        return self.images.unflatten(0, (self.num_chains, self.keep))


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
