"""The inferences whose answer is samples, as ``model.inference.name`` chooses them."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from direct_deepen.errors import require
from direct_deepen.inference.annealed_langevin import (
    annealed_langevin,
    mask_shaped_noise,
    preconditioned_annealed_langevin,
)
from direct_deepen.inference.base import Estimate, Sampler, inferences
from direct_deepen.inference.diffusion_sampling import diffusion_posterior_sampling
from direct_deepen.inference.estimators import Map
from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.inference.noise_levels import power_schedule, variance_exploding_schedule
from direct_deepen.inference.samples import Samples
from direct_deepen.parts import require_increasing, setting
from direct_deepen.physics.problem import Problem
from direct_deepen.priors import DenoisedResidual, DifferentiableEnergy, NoiseConditionalEnergy, ReducedPrecision


@inferences("langevin")
@dataclass
class Langevin(Sampler, Map):
    """Langevin chains of ½‖Ax − b‖² + w(ε/ε₀)²E(x), with the MAP image beside them: :func:`~direct_deepen.langevin`.

    ``prior_weight``, ``noise_std``, ``noise_level``, ``noise_by_ring``, ``tolerance`` and ``max_iterations`` are those
    of :class:`~direct_deepen.inference.Map`.
    """

    num_steps: int = setting(100, least=1)
    """Steps of every chain."""
    keep: int = setting(10, least=1)
    """States kept of every chain; R̂ needs ten."""
    start: str = setting("map", choices=("sense", "noise", "map"))
    """``sense``, ``noise`` or ``map``: where the chains start."""
    step_size: float | None = setting(None, above=0)
    """τ; null adapts it during burn-in."""
    preconditioner: float | int | str | None = setting(None, above=0, choices=("curvature",))
    """μ of chains in the metric of the data, which converge in a quarter of the steps, or ``curvature`` for that of E
    where they start; null for the paper's."""
    averaged_noise: bool = False
    """Whether the noise of a step is the mean of two draws: the deviation of samples then does not depend on τ, as far
    as the cost is quadratic."""
    momentum: float = setting(0.0, least=0, below=1)
    """Share of its momentum that a step keeps, with ``averaged_noise``: chains then need fewer steps."""
    antithetic: bool = False
    """Whether every second chain has the noise of the one before, negated: the mean then has hardly any error of its
    own, and as many chains say half as much of the deviation."""
    convolutions: str = setting("float32", choices=("float32", "bfloat16"))
    """``float32``, or ``bfloat16``: precision of the convolutions in the gradients of the chains. MAP keeps float32."""

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        super().check(path)
        Map.check(self, path)
        require(
            self.keep <= self.num_steps,
            f"{path}.keep is {self.keep!r}; allowed: 1 to {path}.num_steps = {self.num_steps}",
        )
        self.step.check(path)

    @property
    def step(self) -> LangevinStep:
        """How chains step."""
        return LangevinStep(
            self.step_size,
            preconditioner=self.preconditioner,
            averaged_noise=self.averaged_noise,
            momentum=self.momentum,
        )

    def sampling(self) -> dict[str, Any]:
        """Return what samples depend on; ε is one number, and ε₀ is named where it is another."""
        if self.noise_level == "estimated":
            return super().sampling() | {"noise_std": None, "trained_noise_std": self.shared.noise_std}
        trained = {} if self.noise_std is None else {"trained_noise_std": self.shared.noise_std}
        return super().sampling() | {"noise_std": self.posterior_noise_std} | trained

    def prepare(self, problem: Problem, prior: nn.Module) -> Estimate:
        """Return the MAP images, which are written whatever the chains start from."""
        return self.solve(problem, prior)

    def sample(
        self, problem: Problem, prior: nn.Module, generator: torch.Generator, start: torch.Tensor | None = None
    ) -> Samples:
        """Run the chains of one image; without ``start`` MAP comes first."""
        problem, _ = self.with_noise(problem, prior)
        if start is None and self.start == "map":
            start = self.solve(problem, prior).image
        energy = cast("DifferentiableEnergy", prior)
        if self.convolutions == "bfloat16":
            energy = ReducedPrecision(energy)
        (noise_std,) = self.noise_std_of(problem).tolist()
        return langevin(
            problem.A,
            problem.masked_kspace,
            self.weighted(energy, noise_std),
            noise_std=noise_std,
            init=start if start is not None and self.start == "map" else self.start,
            init_std=self.shared.noise_start_std,
            chains=Chains(
                self.num_samples, self.num_steps, self.keep, max_images=self.max_images, antithetic=self.antithetic
            ),
            step=self.step,
            generator=generator,
            progress=True,
        )


@inferences("fast")
@dataclass
class FastLangevin(Langevin):
    """:class:`Langevin` that says as much with the fewest evaluations, of what was tried (projects/speed).

    It steps in the metric of the data and the curvature of E, with averaged noise and momentum, in antithetic pairs.
    """

    num_samples: int = setting(8, least=1)
    num_steps: int = setting(40, least=1)
    preconditioner: float | int | str | None = setting("curvature", above=0, choices=("curvature",))
    averaged_noise: bool = True
    momentum: float = setting(0.8, least=0, below=1)
    antithetic: bool = True


@inferences("diffusion_sampling")
@dataclass
class DiffusionSampling(Sampler):
    """Guided reverse diffusion (DPS): :func:`~direct_deepen.inference.diffusion_posterior_sampling`."""

    needs = ("forward of a level",)
    num_steps: int = setting(1000, least=1)
    """N, from time one to 1/N."""
    base: float = setting(25.0, above=1)
    """Λ of the variance-exploding diffusion: σ(t)² = (Λ^{2t} − 1)/(2 log Λ)."""
    guidance: float = setting(1.0, least=0)
    """ζ, the length of the step towards the data."""

    def sample(
        self, problem: Problem, prior: nn.Module, generator: torch.Generator, start: torch.Tensor | None = None
    ) -> Samples:
        """Run the reverse diffusion."""
        return diffusion_posterior_sampling(
            problem.A,
            problem.masked_kspace,
            prior,
            noise_levels=variance_exploding_schedule(self.num_steps, self.base),
            guidance=self.guidance,
            num_samples=self.num_samples,
            max_images=self.max_images,
            generator=generator,
            progress=True,
        )


ALPS_RULES = ("conditional", "mask_shaped", "langevin", "metropolis", "map")


@inferences("annealed_langevin")
@dataclass
class AnnealedLangevin(Sampler):
    """Annealed Langevin posterior sampling (ALPS): :func:`~direct_deepen.inference.annealed_langevin`."""

    needs = ("at",)
    rule: str = setting("conditional", choices=ALPS_RULES)
    """``conditional``: the authors' draws around denoised means. ``mask_shaped``: the same with their shortcut for the
    noise, which leaves the coils out. ``langevin``, ``metropolis``: preconditioned steps that have the posterior as
    their limit, or exactly. ``map``: the authors' rule without noise, one image."""
    noise_std: float = setting(0.007, above=0)
    """η, the measurement noise per real component, in scaled intensities: ε/√2 of the other samplers."""
    noise_level: str = setting("given", choices=("given", "estimated"))
    """``given``: η is ``noise_std``. ``estimated``: η of every slice is that of its own k-space
    (:func:`~direct_deepen.physics.estimated_noise_std`)."""
    num_levels: int = setting(10, least=2)
    """Noise levels of the schedule."""
    largest_noise_std: float = setting(1.0, above=0)
    """The first of them."""
    smallest_noise_std: float = setting(0.01, above=0)
    """The last of them; it goes in proportion to η where that is estimated and not ``noise_std``."""
    exponent: float = setting(5.0, above=0)
    """ρ of the schedule: how unevenly they are spaced."""
    inner_steps: int = setting(5, least=1)
    """K at every level."""
    step_size: float = setting(0.5, above=0)
    """h of ``langevin`` and ``metropolis``."""

    @property
    def posterior_noise_std(self) -> float:
        """ε of the posterior."""
        return 2**0.5 * self.noise_std

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        super().check(path)
        require_increasing(self, "smallest_noise_std", "largest_noise_std", path)

    def sample(
        self, problem: Problem, prior: nn.Module, generator: torch.Generator, start: torch.Tensor | None = None
    ) -> Samples:
        """Sample by the rule."""
        energy_at = cast("NoiseConditionalEnergy", prior).at
        noise_std = float(self.noise_std_of(problem)[0]) / 2**0.5
        smallest = self.smallest_noise_std * noise_std / self.noise_std
        require(
            smallest < self.largest_noise_std,
            f"the last noise level is {smallest:.3g}; allowed: below largest_noise_std = {self.largest_noise_std!r}",
        )
        levels = power_schedule(self.largest_noise_std, smallest, self.num_levels, exponent=self.exponent)
        without_noise = self.rule == "map"
        shared: dict[str, Any] = {
            "noise_std": noise_std,
            "noise_levels": levels,
            "inner_steps": self.inner_steps,
            "generator": None if without_noise else generator,
            "num_samples": 1 if without_noise else self.num_samples,
            "max_images": self.max_images,
            "progress": True,
        }
        if self.rule in ("langevin", "metropolis"):
            require(
                not isinstance(energy_at(smallest), DenoisedResidual),
                f"rule is {self.rule!r}; allowed with a denoiser, which is the gradient of no energy: conditional, "
                "mask_shaped, map",
            )
            return preconditioned_annealed_langevin(
                problem.A,
                problem.masked_kspace,
                energy_at,
                step_size=self.step_size,
                metropolis=self.rule == "metropolis",
                **shared,
            )
        shaped = mask_shaped_noise(problem.A.sampling_mask, self.noise_std) if self.rule == "mask_shaped" else None
        return annealed_langevin(problem.A, problem.masked_kspace, energy_at, conditional_noise=shaped, **shared)
