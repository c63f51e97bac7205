"""Sparse wavelet coefficients, each of one of two sizes, and their posterior by a Gibbs sampler.

The sizes are latent: given them the coefficients are Gaussian, and given the coefficients the sizes are independent.
By such Gibbs samplers Bohra, del Aguila Pla, Giovannelli and Unser have the best mean square error for signals with
sparse increments (A statistical framework to investigate the optimality of signal-reconstruction methods, arXiv
2203.09920). Here it is an orthonormal transform instead of increments: then the prior with noise is known as well.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

from projects.certified.problem import NOISE_STD, Exact, Problem, fourier_matrix, standard_normal


def haar(pixels: int) -> torch.Tensor:
    """Return the orthonormal Haar transform of a power of two, real (pixels, pixels); the mean comes first."""
    rows = torch.ones(1, 1, dtype=torch.float64)
    while len(rows) < pixels:
        coarse = torch.kron(rows, torch.tensor([[1.0, 1.0]], dtype=rows.dtype))
        fine = torch.kron(torch.eye(len(rows), dtype=rows.dtype), torch.tensor([[1.0, -1.0]], dtype=rows.dtype))
        rows = torch.cat([coarse, fine]) / 2**0.5
    return rows


@dataclass(frozen=True)
class SparseWavelets:
    """The prior: every coefficient is large with probability ``share``, else small; deviations per real component."""

    pixels: int = 32
    small: float = 0.15
    large: float = 0.6
    share: float = 0.2

    @property
    def largest_curvature(self) -> float:
        """Return that of small coefficients: of a scale mixture it is nowhere larger."""
        return self.small**-2

    @property
    def variances(self) -> torch.Tensor:
        """Return the two variances, real (2,)."""
        return torch.tensor([self.small**2, self.large**2], dtype=torch.float64)

    @property
    def transform(self) -> torch.Tensor:
        """Return the orthonormal W with coefficients c = Wx, complex (pixels, pixels)."""
        return haar(self.pixels).to(torch.complex128)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return images."""
        is_large = torch.rand(count, self.pixels, generator=generator, dtype=torch.float64) < self.share
        deviation = self.variances.sqrt()[is_large.long()]
        return (deviation * standard_normal((count, self.pixels), generator) @ self.transform)[:, None]

    def log_density(self, image: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Return log p_σ up to a constant of σ."""
        power = _power(self._coefficients(image))
        small = self.variances[0] + level**2
        # log Σ_k of two terms: that of small coefficients, and the softplus of by how much the other one is larger.
        return (softplus(self.log_odds(power, level)) - power / (2 * small)).sum(dim=1)

    def score(self, image: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Return ∇ log p_σ."""
        coefficients = self._coefficients(image)
        small, large = (self.variances + level**2).tolist()
        precision = 1 / small + (1 / large - 1 / small) * self.log_odds(_power(coefficients), level).sigmoid()
        return (-(precision * coefficients) @ self.transform)[:, None]

    def log_odds(self, power: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Return the log of how much more probable it is of |c|² that the coefficient is large than that it is not."""
        small, large = (self.variances + level**2).tolist()
        prior = math.log(self.share / (1 - self.share)) + math.log(small / large)
        return prior + power * (0.5 / small - 0.5 / large)

    def _coefficients(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, 0] @ self.transform.T


def _power(coefficients: torch.Tensor) -> torch.Tensor:
    return coefficients.real.square() + coefficients.imag.square()


def gibbs_posterior(
    prior: SparseWavelets,
    problem: Problem,
    samples: int,
    generator: torch.Generator,
    *,
    burn_in: int = 200,
    apart: int = 50,
) -> Exact:
    """Return the posterior from ``samples``·``apart`` sweeps; of these every one for the moments.

    Moments are means of those given the sizes, which have less Monte-Carlo error than samples.
    """
    W = prior.transform
    operator = problem.mask[:, 0, 0, :, None] * fourier_matrix(prior.pixels) @ W.mH
    hessian = operator.mH @ operator / NOISE_STD**2
    pull = (operator.mH @ problem.data[:, 0, 0, :, None]) / NOISE_STD**2
    coefficients = torch.zeros_like(pull[..., 0])
    first, second, within = torch.zeros_like(coefficients), torch.zeros_like(hessian), torch.zeros_like(hessian)
    kept = []
    for sweep in range(-burn_in, samples * apart):
        large = prior.log_odds(_power(coefficients)).sigmoid()
        is_large = torch.rand(large.shape, generator=generator, dtype=large.dtype) < large
        factor = torch.linalg.cholesky(hessian + torch.diag_embed(1 / prior.variances[is_large.long()]))
        mean = torch.cholesky_solve(pull, factor)
        noise = standard_normal(tuple(pull.shape), generator)
        coefficients = (mean + torch.linalg.solve_triangular(factor.mH, noise, upper=True))[..., 0]
        if sweep < 0:
            continue
        first += mean[..., 0]
        second += 0.5 * mean @ mean.mH
        within += torch.cholesky_inverse(factor)
        if (sweep + 1) % apart == 0:
            kept.append(coefficients)
    count = samples * apart
    mean = first[..., None] / count
    covariance = W.mH @ ((within + second) / count - 0.5 * mean @ mean.mH) @ W
    return Exact((mean[..., 0] @ W)[:, None], covariance, (torch.stack(kept) @ W)[:, :, None])
