"""Signals from a known prior, measured in Fourier space with known noise: what samplers are given, and what is true."""

from dataclasses import dataclass
from typing import Protocol

import torch

from direct_deepen import SenseOperator
from direct_deepen.physics import complex_normal
from direct_deepen.physics.noise import complex_normal_like

NOISE_STD = 0.1
"""η, the measurement noise per real component; ε = √2 η."""

MEASURED = 1 / 4
"""Share of the frequencies that are measured."""


class Prior(Protocol):
    """A distribution of images, complex (batch, 1, pixels), that is known with any noise σ added."""

    @property
    def largest_curvature(self) -> float:
        """Return an upper bound of the eigenvalues of the Hessian of −log p."""

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return images, complex128 (count, 1, pixels)."""

    def log_density(self, image: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Return log p_σ of every image up to a constant, real (batch,)."""

    def score(self, image: torch.Tensor, level: float = 0.0) -> torch.Tensor:
        """Return ∇ log p_σ, complex like the image."""


@dataclass(frozen=True)
class Density:
    """E = −``factor`` log p_σ: for data with noise η the factor η², and σ² in E_σ of ALPS."""

    prior: Prior
    factor: float
    level: float = 0.0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x)."""
        return -self.factor * self.prior.log_density(image, self.level)

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x)."""
        return self(image), -self.factor * self.prior.score(image, self.level)


@dataclass(frozen=True)
class Problem:
    """Data of several signals, each with a mask of its own."""

    prior: Prior
    truth: torch.Tensor
    """Complex (batch, 1, pixels)."""
    mask: torch.Tensor
    """Boolean (batch, 1, 1, pixels)."""
    data: torch.Tensor
    """Complex (batch, 1, 1, pixels): k-space of one coil."""

    @property
    def operator(self) -> SenseOperator:
        """A: the mask of the Fourier transform, one coil of sensitivity one."""
        return SenseOperator(torch.ones_like(self.data), self.mask)

    @property
    def energy(self) -> Density:
        """E of the posterior ∝ exp(−(½‖Ax − b‖² + E)/η²)."""
        return Density(self.prior, NOISE_STD**2)

    def log_posterior(self, image: torch.Tensor) -> torch.Tensor:
        """Return the log density of images (..., batch, 1, pixels), up to a constant of the data; real (..., batch)."""
        misfit = (self.operator.forward(image) - self.data).abs().square().flatten(-3).sum(dim=-1)
        prior = self.prior.log_density(image.reshape(-1, *self.truth.shape[1:])).reshape(misfit.shape)
        return prior - misfit / (2 * NOISE_STD**2)


def draw_problem(prior: Prior, count: int, generator: torch.Generator) -> Problem:
    """Draw signals, masks of as many frequencies each, and noise."""
    truth = prior.draw(count, generator)
    pixels = truth.shape[-1]
    order = torch.rand(count, pixels, generator=generator).argsort(dim=1)
    mask = (order < round(MEASURED * pixels))[:, None, None]
    exact = SenseOperator(torch.ones(count, 1, 1, pixels, dtype=truth.dtype), mask).forward(truth)
    data = exact + NOISE_STD * mask * complex_normal_like(exact, generator=generator)
    return Problem(prior, truth, mask, data)


@dataclass(frozen=True)
class Exact:
    """The posterior of every signal: moments, and independent samples or those of a long chain."""

    mean: torch.Tensor
    """Complex (batch, 1, pixels)."""
    covariance: torch.Tensor
    """Of the pixels, E[(x − m)(x − m)ᴴ]/2: on the diagonal variances per real component; (batch, pixels, pixels)."""
    samples: torch.Tensor
    """Complex (sample, batch, 1, pixels)."""


def standard_normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return complex noise of double precision."""
    return complex_normal(shape, generator=generator, dtype=torch.complex128)


def fourier_matrix(pixels: int) -> torch.Tensor:
    """Return F of the operator, complex (pixels, pixels)."""
    unit = torch.eye(pixels, dtype=torch.complex128)[:, None, None]
    ones = torch.ones(pixels, 1, 1, pixels, dtype=torch.complex128)
    return SenseOperator(ones, ones.real.bool()).forward(unit[:, 0])[:, 0, 0].T
