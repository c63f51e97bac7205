"""What every sampler returns, and what samplers share: how many chains run at once, and when one has diverged."""

from dataclasses import dataclass
from typing import Self

import torch

from direct_deepen.errors import DivergenceError, require_count
from direct_deepen.inference.cost import image_norm

_SHOWN = 5
"""Diverged chains that an error lists."""


@dataclass(frozen=True)
class Samples:
    """Samples of a posterior, ordered chain by chain, and the history of the chains.

    Independent samples are chains of which one state each was kept. Samplers without a history of chains leave
    everything after ``chain`` at ``None``.
    """

    images: torch.Tensor
    """Complex (chains·keep, batch, ...)."""
    gradient_evaluations: int
    """Evaluations of ∇E, or of the network where there is no energy, summed over chains and batch."""
    chain: torch.Tensor
    """Integers (chains·keep,): the chain a sample comes from."""
    step: torch.Tensor | None = None
    """Integers (chains·keep,): the step, from 1, that a sample is the result of."""
    step_size: torch.Tensor | None = None
    """The τ of every kept step, real (chains, batch)."""
    cost_trace: torch.Tensor | None = None
    """C after every step, float64 (num_steps, chains, batch)."""
    norm_trace: torch.Tensor | None = None
    """‖x‖ after every step, real (num_steps, chains, batch)."""
    curvature: torch.Tensor | None = None
    """Largest difference quotient of ∇E during burn-in, real (chains, batch); not a number for fixed steps."""
    acceptance: torch.Tensor | None = None
    """Share of proposals accepted after burn-in, real (chains, batch); one without Metropolis adjustment."""
    noise_std: float | None = None
    """ε: the target is ∝ exp(−2C/ε²)."""
    burn_in: int | None = None
    """Steps before the first that could be kept."""

    @classmethod
    def independent(cls, images: torch.Tensor, gradient_evaluations: int) -> Self:
        """Return independent samples, complex (sample, batch, ...): one state of every chain."""
        return cls(images, gradient_evaluations, torch.arange(len(images)))

    def by_chain(self) -> torch.Tensor:
        """Return the images as (chain, keep, batch, ...)."""
        return self.images.unflatten(0, (int(self.chain[-1]) + 1, -1))


def chain_groups(num_samples: int, batch: int, max_images: int) -> list[slice]:
    """Return which chains run at once, for ``batch`` images each."""
    require_count("num_samples", num_samples)
    require_count("max_images", max_images)
    size = max(1, max_images // batch)
    return [slice(first, min(first + size, num_samples)) for first in range(0, num_samples, size)]


def require_finite_samples(images: torch.Tensor, sampler: str, level: float) -> None:
    """Raise :class:`DivergenceError` if an image (chain, batch, ...) is not finite after a noise level."""
    norms = image_norm(images, leading=2)
    bad = (~torch.isfinite(norms)).nonzero().tolist()
    if bad:
        shown = [float(norms[chain, image]) for chain, image in bad[:_SHOWN]]
        raise DivergenceError(
            f"{sampler}: {len(bad)} of {norms.numel()} chains diverged; [chain, image] {bad[:_SHOWN]} have norms "
            f"{shown} at noise level {level}; allowed: finite values"
        )
