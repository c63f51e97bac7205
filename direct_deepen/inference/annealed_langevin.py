"""Annealed Langevin posterior sampling (ALPS): multi-scale energies, from coarse to fine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from direct_deepen.errors import require, require_count, require_positive
from direct_deepen.inference.cost import image_norm
from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.inference.metric import DataMetric
from direct_deepen.inference.noise_levels import require_falling
from direct_deepen.inference.samples import Samples, chain_groups, require_finite_samples
from direct_deepen.physics.fourier import ifft2
from direct_deepen.physics.noise import ChainGenerators, complex_normal_like
from direct_deepen.physics.operator import LinearOperator, over_chains
from direct_deepen.physics.precision import without_autocast
from direct_deepen.physics.sense import require_finite_data
from direct_deepen.priors.energy import DifferentiableEnergy, SumEnergy
from direct_deepen.progress import METRICS_INTERVAL, progress_bar, show_metrics

EnergyAt = Callable[[float], DifferentiableEnergy]
"""σ ↦ E_σ, with x − ∇E_σ(x) the mean of images whose noisy version x is, noise of standard deviation σ."""

ConditionalNoise = Callable[[torch.Tensor, float, ChainGenerators], torch.Tensor]
"""(images, σ, generators) ↦ noise of their shape, (chain, batch, ...)."""

_TOLERANCE = 1e-2
"""Error of a solve, relative to the noise that the sampler adds."""


@without_autocast
@torch.no_grad()
def annealed_langevin(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy_at: EnergyAt,
    *,
    noise_std: float,
    noise_levels: Sequence[float],
    generator: torch.Generator | None,
    num_samples: int = 1,
    inner_steps: int = 5,
    conditional_noise: ConditionalNoise | None = None,
    max_images: int = 32,
    progress: bool = False,
) -> Samples:
    r"""Sample by the rule of ALPS (annealed Langevin posterior sampling with distilled energies, 2026).

    At every noise level σ, from the largest to the smallest, come ``inner_steps`` draws

    .. math:: x \sim N(P^{-1}(A^H b/\eta^2 + d/\sigma^2), P^{-1}), \quad d = x - \nabla E_\sigma(x), \quad
              P = A^H A/\eta^2 + I/\sigma^2,

    the last of a level without its noise, and then noise of the covariance P⁻¹ of the next level; the last level ends
    with a mean. It starts from the conditional of the first level with d = 0.

    As the rule goes to the denoised *mean* d, its limit is not the posterior: for a prior N(0, 1) the variance in a
    direction that is not measured tends to one half. :func:`preconditioned_annealed_langevin` has the right limit.

    Parameters
    ----------
    A, masked_kspace, progress
        As for :func:`~direct_deepen.mm_map`, and so are the errors.
    energy_at
        σ ↦ E_σ.
    noise_std
        η > 0, the measurement noise per real component: likelihood ∝ exp(−‖Ax − b‖²/2η²).
    noise_levels
        σ per real component, falling. In single precision a ratio σ/η above 10⁴ is lost to rounding.
    generator
        Source of the noise; None for none, which is MAP from coarse to fine: every step then minimises ‖Ax − b‖²/2η²
        plus the majorizer of E_σ/σ² at the last iterate with L = 1.
    num_samples, max_images
        Independent runs, and how many images are given to the network at once.
    inner_steps
        K ≥ 1; five in ALPS.
    conditional_noise
        Replaces noise of covariance P⁻¹, such as :func:`~direct_deepen.inference.mask_shaped_noise`; None draws it
        exactly, by perturb-and-solve (Orieux, Féron and Giovannelli, 2012).
    """
    rule = _Rule(A, masked_kspace, noise_std, noise_levels, inner_steps, conditional_noise)
    batch = len(masked_kspace)
    steps = num_samples * len(noise_levels) * inner_steps
    with progress_bar(name="annealing", unit="step", total=steps, shown=progress) as bar:
        groups = chain_groups(num_samples, batch, max_images)
        generators = None if generator is None else ChainGenerators.from_one(generator, num_samples, batch)
        images = [
            rule.run(energy_at, group.stop - group.start, None if generators is None else generators[group], bar)
            for group in groups
        ]
    return Samples.independent(torch.cat(images), batch * steps)


@without_autocast
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

    The step h > 0 is ``step_size``; too large for a level it is refused by ``metropolis``, and biased without. All
    other arguments and the errors are those of :func:`annealed_langevin`.
    """
    require_count("num_samples", num_samples)
    require_positive("step_size", step_size)
    x = _Rule(A, masked_kspace, noise_std, noise_levels, inner_steps).start(
        num_samples, ChainGenerators.from_one(generator, num_samples, len(masked_kspace))
    )
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


def mask_shaped_noise(sampling_mask: torch.Tensor, noise_std: float) -> ConditionalNoise:
    r"""Return the noise of ALPS in its authors' implementation, an approximation of covariance P⁻¹ without coils.

    .. math:: F^H (M/\eta^2 + I/\sigma^2)^{-1/2} F z

    for a mask M, real or boolean (batch, 1, height, width), and η > 0 per real component. It costs one Fourier
    transform instead of a solve, and is exact for a single coil of sensitivity one. With several coils its variance is
    too large, increasingly with σ/η: parallel imaging measures what the mask alone does not.
    """
    require_positive("noise_std", noise_std)
    require(
        sampling_mask.ndim == 4,
        f"sampling_mask has shape {tuple(sampling_mask.shape)}; allowed for this noise: (batch, 1, height, width)",
    )
    mask = sampling_mask[:, 0]

    def draw(like: torch.Tensor, level: float, generator: ChainGenerators) -> torch.Tensor:
        gain = (mask.to(like.real.dtype) / noise_std**2 + 1 / level**2).rsqrt()
        # Fz has the distribution of z.
        return ifft2(gain * complex_normal_like(like, generator=generator))

    return draw


@dataclass
class _Rule:
    """The authors' rule, for chains (chain, batch, ...).

    Its Gaussian at a level is N(P⁻¹(Aᴴb/η² + d/σ²), P⁻¹), P = AᴴA/η² + I/σ² = (AᴴA + μI)/η² with μ = η²/σ².
    """

    A: LinearOperator
    masked_kspace: torch.Tensor
    noise_std: float
    noise_levels: Sequence[float]
    inner_steps: int
    stand_in: ConditionalNoise | None = None
    """Noise to draw in the place of that of covariance P⁻¹."""

    def __post_init__(self) -> None:
        require_positive("noise_std", self.noise_std)
        require_count("inner_steps", self.inner_steps)
        require_falling(self.noise_levels)
        require_finite_data(self.masked_kspace)
        self.adjoint_data = self.A.adjoint(self.masked_kspace)

    def run(self, energy_at: EnergyAt, count: int, generator: ChainGenerators | None, bar: tqdm) -> torch.Tensor:
        """Take ``count`` chains through all levels; without a generator there is no noise."""
        x = self.start(count, generator)
        for number, level in enumerate(self.noise_levels):
            if number > 0 and generator is not None:
                x = x + self._noise(x, level, generator)
            energy = energy_at(level)
            for step in range(self.inner_steps):
                value, gradient = energy.value_and_grad(x.flatten(0, 1))
                denoised = x - gradient.unflatten(0, x.shape[:2])
                require_finite_samples(denoised, "annealing", level)
                if (number * self.inner_steps + step) % METRICS_INTERVAL == 0:
                    show_metrics(bar, noise_level=level, energy=value)
                x = self._draw(denoised, level, generator if step < self.inner_steps - 1 else None)
                bar.update(count)
        return x

    def start(self, count: int, generator: ChainGenerators | None) -> torch.Tensor:
        """Draw ``count`` chains from the Gaussian of the first level around d = 0."""
        origin = torch.zeros_like(self.adjoint_data).expand(count, *self.adjoint_data.shape)
        return self._draw(origin, self.noise_levels[0], generator)

    def _draw(self, denoised: torch.Tensor, level: float, generator: ChainGenerators | None) -> torch.Tensor:
        """Return a sample around d, mean and exact noise by one solve; without a generator the mean."""
        pull = self.adjoint_data - over_chains(self.A).normal(denoised)
        if generator is None:
            return denoised + self._solve(pull, level)
        if self.stand_in is not None:
            return denoised + self._solve(pull, level) + self.stand_in(denoised, level, generator)
        noise = self.noise_std * self._metric(level).noise(denoised, generator)
        return denoised + self._solve(pull + noise, level)

    def _noise(self, like: torch.Tensor, level: float, generator: ChainGenerators) -> torch.Tensor:
        if self.stand_in is not None:
            return self.stand_in(like, level, generator)
        return self._solve(self.noise_std * self._metric(level).noise(like, generator), level)

    def _solve(self, right_hand_side: torch.Tensor, level: float) -> torch.Tensor:
        # In directions that are not measured a residual r leaves the error r/μ; it is to be small against σ there.
        weight = (self.noise_std / level) ** 2
        pixels = right_hand_side[0, 0].numel()
        allowed = _TOLERANCE * weight * level * (2 * pixels) ** 0.5
        norm = image_norm(right_hand_side, leading=2)
        tolerance = (allowed / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp(max=_TOLERANCE)
        return self._metric(level, tolerance).solve(right_hand_side)

    def _metric(self, level: float, tolerance: float | torch.Tensor = _TOLERANCE) -> DataMetric:
        return DataMetric(self.A, self.masked_kspace, (self.noise_std / level) ** 2, tolerance)
