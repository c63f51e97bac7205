"""Annealed Langevin posterior sampling (ALPS): multi-scale energies, from coarse to fine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from direct_deepen.errors import require_count, require_positive
from direct_deepen.inference.conditional_noise import ConditionalNoise
from direct_deepen.inference.curvature import image_norm
from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.inference.metric import DataMetric
from direct_deepen.inference.noise_levels import require_falling
from direct_deepen.inference.samples import Samples, group_sizes, require_finite_samples
from direct_deepen.physics.operator import LinearOperator, over_chains
from direct_deepen.physics.sense import require_finite_data
from direct_deepen.priors.energy import DifferentiableEnergy, SumEnergy
from direct_deepen.progress import METRICS_INTERVAL, progress_bar, show_metrics

EnergyAt = Callable[[float], DifferentiableEnergy]
"""σ ↦ E_σ, with x − ∇E_σ(x) the mean of images whose noisy version x is, noise of standard deviation σ."""

_TOLERANCE = 1e-2
"""Error of a solve, relative to the noise that the sampler adds."""


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
    conditional_noise: ConditionalNoise | None = None,
    max_images: int = 32,
    progress: bool = False,
) -> Samples:
    r"""Sample by the rule of ALPS.

    At every noise level σ, from the largest to the smallest, come ``inner_steps`` draws

    .. math:: x \sim N(P^{-1}(A^H b/\eta^2 + d/\sigma^2), P^{-1}), \quad d = x - \nabla E_\sigma(x), \quad
              P = A^H A/\eta^2 + I/\sigma^2,

    the last of a level without its noise, and then noise of the covariance P⁻¹ of the next level; the last level ends
    with a mean. It starts from the conditional of the first level with d = 0.

    As the rule goes to the denoised *mean* d, its limit is not the posterior: for a prior N(0, 1) the variance in a
    direction that is not measured tends to one half. :func:`preconditioned_annealed_langevin` has the right limit.

    Parameters
    ----------
    A, masked_kspace
        As for :func:`~direct_deepen.mm_map`.
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
    conditional_noise
        Replaces noise of covariance P⁻¹, such as :func:`~direct_deepen.inference.mask_shaped_noise`; None draws it
        exactly.
    max_images
        Images given to the network at once.
    progress
        Show a progress bar, if standard error is a terminal: noise level and E_σ.

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
    conditionals = _conditionals(A, masked_kspace, noise_std, noise_levels, inner_steps, conditional_noise)
    batch = len(masked_kspace)
    steps = num_samples * len(noise_levels) * inner_steps
    with progress_bar(name="annealing", unit="step", total=steps, shown=progress) as bar:
        images = [
            _anneal(conditionals, energy_at, count, inner_steps, generator, bar)
            for count in group_sizes(num_samples, batch, max_images)
        ]
    return Samples.independent(torch.cat(images), batch * steps)


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
    conditionals = _conditionals(A, masked_kspace, noise_std, noise_levels, inner_steps)
    steps = len(noise_levels) * inner_steps
    with progress_bar(name="annealing", unit="step", total=steps, shown=progress) as bar:
        return _anneal(conditionals, energy_at, 1, inner_steps, None, bar)[0]


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
) -> Samples:
    r"""Sample by Langevin steps whose limit is the posterior of every noise level.

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
    first, *_ = _conditionals(A, masked_kspace, noise_std, noise_levels, inner_steps)
    x = first.draw(first.origin(num_samples), generator)
    evaluations = 0
    bar = progress_bar(noise_levels, name="annealing", unit="level", shown=progress)
    for level in bar:
        samples = langevin(
            A,
            masked_kspace,
            SumEnergy([((noise_std / level) ** 2, energy_at(level))]),
            noise_std=2**0.5 * noise_std,
            init=x,
            chains=Chains(num_samples, inner_steps, max_images=max_images),
            step=LangevinStep(step_size, metropolis, preconditioner=(noise_std / level) ** 2),
            generator=generator,
        )
        assert samples.cost_trace is not None
        show_metrics(bar, noise_level=level, cost=samples.cost_trace[-1])
        x = samples.images
        evaluations += samples.gradient_evaluations
    return Samples.independent(x, evaluations)


@dataclass(frozen=True)
class _Conditional:
    """The Gaussian N(P⁻¹(Aᴴb/η² + d/σ²), P⁻¹), P = AᴴA/η² + I/σ², of chains (chain, batch, height, width)."""

    adjoint_data: torch.Tensor
    noise_std: float
    level: float
    metric: DataMetric
    """P = (AᴴA + μI)/η² with μ = η²/σ²."""
    stand_in: ConditionalNoise | None
    """Noise to draw in the place of the exact one."""

    def origin(self, count: int) -> torch.Tensor:
        """Return zeros for ``count`` chains."""
        return torch.zeros_like(self.adjoint_data).expand(count, *self.adjoint_data.shape)

    def mean(self, denoised: torch.Tensor) -> torch.Tensor:
        """Return the mean, around d."""
        return denoised + self._solve(self._pull(denoised))

    def draw(self, denoised: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a sample: mean and exact noise by one solve."""
        if self.stand_in is not None:
            return self.mean(denoised) + self.stand_in(denoised, self.level, generator)
        noise = self.noise_std * self.metric.noise(denoised, generator)
        return denoised + self._solve(self._pull(denoised) + noise)

    def noise(self, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return noise of covariance P⁻¹, or what stands in for it."""
        if self.stand_in is not None:
            return self.stand_in(like, self.level, generator)
        return self._solve(self.noise_std * self.metric.noise(like, generator))

    def _pull(self, denoised: torch.Tensor) -> torch.Tensor:
        return self.adjoint_data - over_chains(self.metric.A).normal(denoised)

    def _solve(self, right_hand_side: torch.Tensor) -> torch.Tensor:
        # In directions that are not measured a residual r leaves the error r/μ; it is to be small against σ there.
        pixels = right_hand_side.shape[-2] * right_hand_side.shape[-1]
        allowed = _TOLERANCE * self.metric.weight * self.level * (2 * pixels) ** 0.5
        largest = float(image_norm(right_hand_side).max())
        tolerance = min(_TOLERANCE, allowed / largest) if largest > 0 else _TOLERANCE
        return self.metric.solve(right_hand_side, tolerance)


def _conditionals(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    noise_std: float,
    noise_levels: Sequence[float],
    inner_steps: int,
    conditional_noise: ConditionalNoise | None = None,
) -> list[_Conditional]:
    """Check the arguments that all three samplers have, and return the conditional of every level."""
    require_positive("noise_std", noise_std)
    require_count("inner_steps", inner_steps)
    require_falling(noise_levels)
    require_finite_data(masked_kspace)
    adjoint_data = A.adjoint(masked_kspace)
    metrics = [DataMetric(A, masked_kspace, (noise_std / level) ** 2, _TOLERANCE) for level in noise_levels]
    return [
        _Conditional(adjoint_data, noise_std, level, metric, conditional_noise)
        for level, metric in zip(noise_levels, metrics, strict=True)
    ]


def _anneal(
    conditionals: Sequence[_Conditional],
    energy_at: EnergyAt,
    count: int,
    inner_steps: int,
    generator: torch.Generator | None,
    bar: tqdm,
) -> torch.Tensor:
    """Run ``count`` chains through all levels by the authors' rule; without a generator there is no noise."""

    def moved(conditional: _Conditional, denoised: torch.Tensor, noisy: bool) -> torch.Tensor:
        return conditional.draw(denoised, generator) if noisy and generator is not None else conditional.mean(denoised)

    x = moved(conditionals[0], conditionals[0].origin(count), True)
    for number, conditional in enumerate(conditionals):
        if number > 0 and generator is not None:
            x = x + conditional.noise(x, generator)
        energy = energy_at(conditional.level)
        for step in range(inner_steps):
            value, gradient = energy.value_and_grad(x.flatten(0, 1))
            denoised = x - gradient.unflatten(0, x.shape[:2])
            require_finite_samples(denoised, "annealing", conditional.level)
            if (number * inner_steps + step) % METRICS_INTERVAL == 0:
                show_metrics(bar, noise_level=conditional.level, energy=value)
            x = moved(conditional, denoised, step < inner_steps - 1)
            bar.update(count)
    return x
