"""The inferences whose answer is samples, as ``model.inference.name`` chooses them."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from direct_deepen.errors import require
from direct_deepen.inference.annealed_langevin import (
    annealed_langevin,
    annealed_map,
    preconditioned_annealed_langevin,
)
from direct_deepen.inference.base import Estimate, Sampler, inferences
from direct_deepen.inference.conditional_noise import mask_shaped_noise
from direct_deepen.inference.diffusion_sampling import diffusion_posterior_sampling
from direct_deepen.inference.estimators import Map, weighted
from direct_deepen.inference.langevin import langevin
from direct_deepen.inference.noise_levels import power_schedule, variance_exploding_schedule
from direct_deepen.inference.samples import Samples
from direct_deepen.parts import setting
from direct_deepen.physics.problem import Problem
from direct_deepen.priors import NoiseConditionalEnergy, ReducedPrecision


@inferences("langevin")
@dataclass
class Langevin(Sampler, Map):
    """Langevin chains of ½‖Ax − b‖² + wE(x), with the MAP image beside them: :func:`~direct_deepen.langevin`.

    ``prior_weight``, ``tolerance`` and ``max_iterations`` are those of :class:`~direct_deepen.inference.Map`.

    Attributes
    ----------
    num_steps
        Steps of every chain.
    keep
        States kept of every chain; R̂ needs four.
    start
        ``sense``, ``noise`` or ``map``: where the chains start.
    step_size
        τ; null adapts it during burn-in.
    preconditioner
        μ of chains that step in the metric of the data, which converge in a quarter of the steps; null for the paper's.
    convolutions
        ``float32``, or ``bfloat16``: precision of the convolutions in the gradients of the chains. MAP keeps float32.
    """

    num_steps: int = setting(100, least=1)
    keep: int = setting(4, least=1)
    start: str = setting("map", choices=("sense", "noise", "map"))
    step_size: float | None = setting(None, above=0)
    preconditioner: float | None = setting(None, above=0)
    convolutions: str = setting("float32", choices=("float32", "bfloat16"))

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        super().check(path)
        require(
            self.keep <= self.num_steps,
            f"{path}.keep is {self.keep!r}; allowed: 1 to {path}.num_steps = {self.num_steps}",
        )

    def prepare(self, problem: Problem, prior: nn.Module) -> Estimate:
        """Return the MAP images, which are written whatever the chains start from."""
        return self.solve(problem, prior)

    def sample(
        self, problem: Problem, prior: nn.Module, generator: torch.Generator, start: torch.Tensor | None = None
    ) -> Samples:
        """Run the chains of one image; without ``start`` MAP comes first."""
        if start is None and self.start == "map":
            start = self.solve(problem, prior).image
        energy = weighted(prior, 1.0) if self.convolutions == "float32" else ReducedPrecision(cast("Any", prior))
        return langevin(
            problem.A,
            problem.masked_kspace,
            weighted(cast("nn.Module", energy), self.prior_weight),
            noise_std=self.shared.noise_std,
            num_steps=self.num_steps,
            num_samples=self.num_samples,
            keep=self.keep,
            init=start if start is not None and self.start == "map" else self.start,
            init_std=self.shared.noise_start_std,
            step_size=self.step_size,
            preconditioner=self.preconditioner,
            max_images=self.max_images,
            generator=generator,
            progress=True,
        )


@inferences("diffusion_sampling")
@dataclass
class DiffusionSampling(Sampler):
    """Guided reverse diffusion (DPS): :func:`~direct_deepen.inference.diffusion_posterior_sampling`.

    Attributes
    ----------
    num_steps
        N, from time one to 1/N.
    base
        Λ of the variance-exploding diffusion: σ(t)² = (Λ^{2t} − 1)/(2 log Λ).
    guidance
        ζ, the length of the step towards the data.
    """

    num_steps: int = setting(1000, least=1)
    base: float = setting(25.0, above=1)
    guidance: float = setting(1.0, least=0)

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
    """Annealed Langevin posterior sampling (ALPS): :func:`~direct_deepen.inference.annealed_langevin`.

    Attributes
    ----------
    rule
        ``conditional``: the authors' draws around denoised means. ``mask_shaped``: the same with their shortcut for the
        noise, which leaves the coils out. ``langevin``, ``metropolis``: preconditioned steps that have the posterior as
        their limit, or exactly. ``map``: the authors' rule without noise, one image.
    noise_std
        η, the measurement noise per real component, in scaled intensities.
    num_levels
        Noise levels of the schedule.
    largest_noise_std
        The first of them.
    smallest_noise_std
        The last of them.
    exponent
        ρ of the schedule: how unevenly they are spaced.
    inner_steps
        K at every level.
    step_size
        h of ``langevin`` and ``metropolis``.
    """

    needs = "at"
    rule: str = setting("conditional", choices=ALPS_RULES)
    noise_std: float = setting(0.007, above=0)
    num_levels: int = setting(10, least=2)
    largest_noise_std: float = setting(1.0, above=0)
    smallest_noise_std: float = setting(0.01, above=0)
    exponent: float = setting(5.0, above=0)
    inner_steps: int = setting(5, least=1)
    step_size: float = setting(0.5, above=0)

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        super().check(path)
        require(
            self.smallest_noise_std < self.largest_noise_std,
            f"{path}.largest_noise_std is {self.largest_noise_std!r}; allowed: above smallest_noise_std = "
            f"{self.smallest_noise_std!r}",
        )

    def sample(
        self, problem: Problem, prior: nn.Module, generator: torch.Generator, start: torch.Tensor | None = None
    ) -> Samples:
        """Sample by the rule."""
        energy_at = cast("NoiseConditionalEnergy", prior).at
        shared: dict[str, Any] = {
            "noise_std": self.noise_std,
            "noise_levels": power_schedule(
                self.largest_noise_std, self.smallest_noise_std, self.num_levels, exponent=self.exponent
            ),
            "inner_steps": self.inner_steps,
            "progress": True,
        }
        if self.rule == "map":
            image = annealed_map(problem.A, problem.masked_kspace, energy_at, **shared)
            return Samples.independent(image[None], self.num_levels * self.inner_steps)
        shared |= {"num_samples": self.num_samples, "max_images": self.max_images, "generator": generator}
        if self.rule in ("langevin", "metropolis"):
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
