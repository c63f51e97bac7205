"""Annealed Langevin posterior sampling (ALPS): multi-scale energies, from coarse to fine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from direct_deepen.errors import DivergenceError, require_count, require_positive
from direct_deepen.inference.curvature import image_norm
from direct_deepen.inference.langevin import langevin
from direct_deepen.inference.metric import DataMetric
from direct_deepen.inference.noise_levels import require_falling
from direct_deepen.physics.operator import LinearOperator, normal_over_chains
from direct_deepen.physics.sense import require_finite_data
from direct_deepen.priors.energy import DifferentiableEnergy, SumEnergy

EnergyAt = Callable[[float], DifferentiableEnergy]
"""σ ↦ E_σ, with x − ∇E_σ(x) the mean of images whose noisy version x is, noise of standard deviation σ."""

_TOLERANCE = 1e-2
"""Error of a solve, relative to the noise that the sampler adds."""


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


@torch.no_grad()
def annealed_langevin(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy_at: EnergyAt,
    *,
    noise_std: float,
    noise_levels: Sequence[float],
    generator: torch.Generator,
    num_samples: int = 1,
    inner_steps: int = 5,
    max_images: int = 32,
    progress: bool = False,
) -> IndependentSamples:
    r"""Sample by the rule of ALPS.

    At every noise level σ, from the largest to the smallest, come ``inner_steps`` draws

    .. math:: x \sim N(P^{-1}(A^H b/\eta^2 + d/\sigma^2), P^{-1}), \quad d = x - \nabla E_\sigma(x), \quad
              P = A^H A/\eta^2 + I/\sigma^2,

    the last of a level without its noise, and then noise of the covariance P⁻¹ of the next level; the last level ends
    with a mean. It starts from the conditional of the first level with d = 0.

    The rule goes to the denoised *mean* d, so that it does not reach the posterior: for a prior N(0, 1) and a direction
    that is not measured the variance tends to one half. :func:`preconditioned_annealed_langevin` does reach it.

    Parameters
    ----------
    A
        Forward model with ‖A‖ of order one.
    masked_kspace
        b, complex (batch, coil, height, width), in the intensities that the energy expects.
    energy_at
        σ ↦ E_σ.
    noise_std
        η > 0, the measurement noise per real component: likelihood ∝ exp(−‖Ax − b‖²/2η²).
    noise_levels
        σ per real component, falling. In single precision a ratio σ/η above 10⁴ is lost to rounding.
    generator
        Source of randomness.
    num_samples
        Independent runs, at least one.
    inner_steps
        K ≥ 1; five in ALPS.
    max_images
        Images given to the network at once.
    progress
        Show a progress bar, if standard error is a terminal.

    Raises
    ------
    DeepenError
        If an argument is out of range or the data are not finite.
    DivergenceError
        If a sample leaves the finite numbers.

    References
    ----------
    ALPS: annealed Langevin posterior sampling with distilled energies, 2026. Noise by perturb-and-solve: Orieux, Féron
    and Giovannelli, 2012.
    """
    require_count("num_samples", num_samples)
    template = _checked(A, masked_kspace, noise_std, noise_levels, inner_steps)
    parts = []
    for count in _groups(num_samples, len(template), max_images):
        chains = template.expand(count, *template.shape)
        conditional = _Conditional(A, masked_kspace, noise_std, noise_levels[0])
        x = conditional.draw(torch.zeros_like(chains), generator)
        for level, after in zip(_bar(noise_levels, progress), [*noise_levels[1:], None], strict=True):
            conditional = _Conditional(A, masked_kspace, noise_std, level)
            energy = energy_at(level)
            for step in range(inner_steps):
                denoised = _denoised(energy, x)
                last = step == inner_steps - 1
                x = conditional.mean(denoised) if last else conditional.draw(denoised, generator)
            if after is not None:
                x = x + _Conditional(A, masked_kspace, noise_std, after).noise(x, generator)
            _require_finite(x, level)
        parts.append(x)
    evaluations = num_samples * len(template) * len(noise_levels) * inner_steps
    return IndependentSamples(torch.cat(parts), evaluations)


@torch.no_grad()
def annealed_map(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy_at: EnergyAt,
    *,
    noise_std: float,
    noise_levels: Sequence[float],
    inner_steps: int = 5,
    progress: bool = False,
) -> torch.Tensor:
    """Return the image of :func:`annealed_langevin` without any noise: coarse-to-fine MAP, deterministic.

    Every step minimises ‖Ax − b‖²/2η² plus the majorizer of E_σ/σ² at the last iterate with L = 1. Arguments and errors
    are those of :func:`annealed_langevin`.

    Returns
    -------
    Complex (batch, height, width).
    """
    template = _checked(A, masked_kspace, noise_std, noise_levels, inner_steps)
    x = _Conditional(A, masked_kspace, noise_std, noise_levels[0]).mean(torch.zeros_like(template[None]))
    for level in _bar(noise_levels, progress):
        conditional = _Conditional(A, masked_kspace, noise_std, level)
        energy = energy_at(level)
        for _ in range(inner_steps):
            x = conditional.mean(_denoised(energy, x))
        _require_finite(x, level)
    return x[0]


@torch.no_grad()
def preconditioned_annealed_langevin(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy_at: EnergyAt,
    *,
    noise_std: float,
    noise_levels: Sequence[float],
    generator: torch.Generator,
    num_samples: int = 1,
    inner_steps: int = 5,
    step_size: float = 0.5,
    metropolis: bool = False,
    max_images: int = 32,
    progress: bool = False,
) -> IndependentSamples:
    r"""Sample by steps that do have the posterior of every noise level as their limit.

    .. math:: x \leftarrow x - h P^{-1} \nabla U(x) + \sqrt{2h} \, P^{-1/2} z, \qquad
              U(x) = \|Ax - b\|^2 / 2\eta^2 + E_\sigma(x) / \sigma^2,

    with P as in :func:`annealed_langevin`: :func:`~direct_deepen.inference.langevin.langevin` with the cost η²U,
    ε = √2 η and the preconditioner η²/σ², at one level after the other. What the last level samples is the posterior
    of the prior smoothed by its σ, up to the bias of the step, or none with ``metropolis``.

    Parameters
    ----------
    step_size
        0 < h; a step too large for a level is refused by ``metropolis`` and biased without.
    metropolis
        Accept or refuse every step.
    A, masked_kspace, energy_at, noise_std, noise_levels, generator, num_samples, inner_steps, max_images, progress
        As for :func:`annealed_langevin`.

    Raises
    ------
    DeepenError, DivergenceError
        As for :func:`annealed_langevin`.
    """
    require_count("num_samples", num_samples)
    require_positive("step_size", step_size)
    template = _checked(A, masked_kspace, noise_std, noise_levels, inner_steps)
    x = _Conditional(A, masked_kspace, noise_std, noise_levels[0]).draw(
        torch.zeros_like(template).expand(num_samples, *template.shape), generator
    )
    evaluations = 0
    for level in _bar(noise_levels, progress):
        samples = langevin(
            A,
            masked_kspace,
            SumEnergy([((noise_std / level) ** 2, energy_at(level))]),
            noise_std=2**0.5 * noise_std,
            num_steps=inner_steps,
            num_samples=num_samples,
            init=x,
            step_size=step_size,
            metropolis=metropolis,
            preconditioner=(noise_std / level) ** 2,
            max_images=max_images,
            generator=generator,
        )
        x = samples.images
        evaluations += samples.gradient_evaluations
    return IndependentSamples(x, evaluations)


class _Conditional:
    """The Gaussian N(P⁻¹(Aᴴb/η² + d/σ²), P⁻¹), P = AᴴA/η² + I/σ², of chains (chain, batch, height, width)."""

    def __init__(self, A: LinearOperator, masked_kspace: torch.Tensor, noise_std: float, level: float) -> None:
        self.noise_std = noise_std
        # P = (AᴴA + μI)/η² with μ = η²/σ².
        self.metric = DataMetric(A, masked_kspace, (noise_std / level) ** 2, 1.0)
        self.level = level
        self.adjoint_data = A.adjoint(masked_kspace)

    def mean(self, denoised: torch.Tensor) -> torch.Tensor:
        """Return the mean, around d."""
        return denoised + self._solve(self._pull(denoised))

    def draw(self, denoised: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a sample: mean and noise by one solve."""
        noise = self.noise_std * self.metric.noise(denoised, generator)
        return denoised + self._solve(self._pull(denoised) + noise)

    def noise(self, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return noise of covariance P⁻¹."""
        return self._solve(self.noise_std * self.metric.noise(like, generator))

    def _pull(self, denoised: torch.Tensor) -> torch.Tensor:
        return self.adjoint_data - normal_over_chains(self.metric.A, denoised)

    def _solve(self, right_hand_side: torch.Tensor) -> torch.Tensor:
        # In directions that are not measured a residual r leaves the error r/μ; it is to be small against σ there.
        pixels = right_hand_side.shape[-2] * right_hand_side.shape[-1]
        allowed = _TOLERANCE * self.metric.weight * self.level * (2 * pixels) ** 0.5
        largest = float(image_norm(right_hand_side).max())
        self.metric.tolerance = min(_TOLERANCE, allowed / largest) if largest > 0 else _TOLERANCE
        return self.metric.solve(right_hand_side)


def _denoised(energy: DifferentiableEnergy, x: torch.Tensor) -> torch.Tensor:
    _, gradient = energy.value_and_grad(x.flatten(0, 1))
    return x - gradient.unflatten(0, x.shape[:2])


def _checked(
    A: LinearOperator, masked_kspace: torch.Tensor, noise_std: float, noise_levels: Sequence[float], inner_steps: int
) -> torch.Tensor:
    """Check what all three share, and return an image of the right shape and type."""
    require_positive("noise_std", noise_std)
    require_count("inner_steps", inner_steps)
    require_falling(noise_levels)
    require_finite_data(masked_kspace)
    return A.adjoint(masked_kspace)


def _groups(num_samples: int, batch: int, max_images: int) -> Iterator[int]:
    """Yield how many chains run at once."""
    require_count("max_images", max_images)
    size = max(1, max_images // batch)
    for first in range(0, num_samples, size):
        yield min(size, num_samples - first)


def _bar(noise_levels: Sequence[float], progress: bool) -> "tqdm[float]":
    return tqdm(noise_levels, desc="annealing", unit="level", disable=None if progress else True, leave=False)


def _require_finite(x: torch.Tensor, level: float) -> None:
    norms = image_norm(x)
    if not bool(torch.isfinite(norms).all()):
        raise DivergenceError(f"annealing: norms {norms.tolist()} at noise level {level}; allowed: finite values")
