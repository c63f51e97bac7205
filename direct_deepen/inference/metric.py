"""Metrics of Langevin steps, with noise of the matching covariance."""

from dataclasses import dataclass

import torch

from direct_deepen.physics.conjugate_gradient import conjugate_gradient
from direct_deepen.physics.noise import ChainGenerators, complex_normal_like
from direct_deepen.physics.operator import LinearOperator, over_chains
from direct_deepen.physics.per_image import per_image

_CG_ITERATIONS = 100


class Metric:
    """P = I."""

    def solve(self, image: torch.Tensor) -> torch.Tensor:
        """Return Px of chains (chain, batch, ...)."""
        return image

    def noise(self, like: torch.Tensor, generator: ChainGenerators) -> torch.Tensor:
        """Return P⁻¹ times noise of covariance P: added to a gradient before :meth:`solve` it becomes P^{1/2}z."""
        return complex_normal_like(like, generator=generator)

    def largest_eigenvalue(self, norm_squared: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
        """Return an estimate for PH, H the Hessian of C, from ‖A‖² and the curvature of E."""
        return norm_squared + curvature


@dataclass(frozen=True)
class DataMetric(Metric):
    """P = (AᴴA + μI)⁻¹, by conjugate gradients.

    Its noise is drawn exactly, as P(Aᴴz₁ + √μ z₂): perturb and solve (Orieux, Féron and Giovannelli, 2012).
    """

    A: LinearOperator
    masked_kspace: torch.Tensor
    """b, complex (batch, coil, height, width); only its shape and type are used."""
    weight: float | torch.Tensor
    """μ > 0, of all images or real (batch,)."""
    tolerance: float | torch.Tensor
    """Relative residual of the conjugate gradients, of all chains or real (chain, batch)."""

    def solve(self, image: torch.Tensor) -> torch.Tensor:
        """Return Px of chains (chain, batch, ...)."""
        weight = self._weight_like(image)

        def inverse(flat: torch.Tensor) -> torch.Tensor:
            chains = flat.unflatten(0, image.shape[:2])
            return (over_chains(self.A).normal(chains) + weight * chains).flatten(0, 1)

        flat = image.flatten(0, 1)
        tolerance = self.tolerance.flatten() if isinstance(self.tolerance, torch.Tensor) else self.tolerance
        solution = conjugate_gradient(inverse, flat, tolerance=tolerance, max_iterations=_CG_ITERATIONS)
        return solution.unflatten(0, image.shape[:2])

    def noise(self, like: torch.Tensor, generator: ChainGenerators) -> torch.Tensor:
        """Return Aᴴz₁ + √μ z₂, of covariance P⁻¹."""
        data = self.masked_kspace.expand(len(like), *self.masked_kspace.shape)
        adjoint = over_chains(self.A).adjoint(complex_normal_like(data, generator=generator))
        return adjoint + self._weight_like(like) ** 0.5 * complex_normal_like(like, generator=generator)

    def largest_eigenvalue(self, norm_squared: torch.Tensor, curvature: torch.Tensor) -> torch.Tensor:
        """Return the larger of the estimates for measured and unmeasured directions."""
        sampled = (norm_squared + curvature) / (norm_squared + self.weight)
        return torch.maximum(sampled, curvature / self.weight)

    def _weight_like(self, image: torch.Tensor) -> float | torch.Tensor:
        """Return μ in the shape that multiplies chains (chain, batch, ...)."""
        return (
            per_image(self.weight.to(image.real.dtype), image[0])
            if isinstance(self.weight, torch.Tensor)
            else self.weight
        )
