"""The inferences with one image as their answer, as ``model.inference.name`` chooses them."""

import time
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn

from direct_deepen.errors import require
from direct_deepen.inference.base import Estimate, Estimator, inferences, learned
from direct_deepen.inference.iterations import FixedPointResult, equilibrium, proximal_iteration, unrolled_gradient
from direct_deepen.inference.mm_map import START_TOLERANCE, MapResult, Stopping, mm_map
from direct_deepen.inference.noise_by_ring import noise_by_ring
from direct_deepen.parts import setting
from direct_deepen.physics.problem import Problem
from direct_deepen.priors.energy import DifferentiableEnergy, Energy, NoiseDependentEnergy, SumEnergy, at_noise


@inferences("map")
@dataclass
class Map(Estimator):
    """MAP by majorize-minimize, min ½‖Ax − b‖² + w(ε/ε₀)²E(x): :func:`~direct_deepen.mm_map`."""

    needs = ("value_and_grad", "at_noise")
    prior_weight: float = setting(1.0, above=0)
    """w of the cost ½‖Ax − b‖² + w(ε/ε₀)²E(x)."""
    noise_std: float | None = setting(None, above=0)
    """ε of the data, √2 times their noise per real component, in scaled intensities; null for ε₀ =
    ``model.noise_std``, that of training. The cost has (ε/ε₀)²E, the posterior is ∝ exp(−2C/ε²)."""
    noise_level: str = setting("given", choices=("given", "estimated"))
    """``given``: that is ε. ``estimated``: ε = √2η of every slice, η that of its own k-space
    (:func:`~direct_deepen.physics.estimated_noise_std`), and ``noise_std`` is null."""
    noise_by_ring: bool = False
    """Whether that is only where to begin, given or estimated, and every ring of k-space has its own η, with what the
    operator does not explain: :mod:`~direct_deepen.inference.noise_by_ring`."""
    tolerance: float = setting(1e-6, above=0)
    """Change of the cost, relative to its decrease so far plus the misfit, below which the iteration ends."""
    max_iterations: int = setting(500, least=1)
    """When it ends anyway."""
    accuracy: float | None = setting(None, above=0)
    """In units of η, the noise of the data per real component: the iteration ends, too, when its last five steps moved
    the image by no more, root mean square. The minimum is then about as far away (projects/speed)."""

    @property
    def posterior_noise_std(self) -> float:
        """ε of the posterior."""
        return self.shared.noise_std if self.noise_std is None else self.noise_std

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        require(
            self.noise_level == "given" or self.noise_std is None,
            f"{path}.noise_std is {self.noise_std!r}; allowed with {path}.noise_level: estimated: null",
        )

    def weighted(self, prior: DifferentiableEnergy | NoiseDependentEnergy, noise_std: float | None = None) -> SumEnergy:
        """Return w(ε/ε₀)²E, or w times the energy that the prior has for ε, by default that of the configuration."""
        known = self.posterior_noise_std if noise_std is None else noise_std
        ((weight, energy),) = at_noise(prior, known, trained_noise_std=self.shared.noise_std).terms
        return SumEnergy([(self.prior_weight * weight, energy)])

    def with_noise(self, problem: Problem, prior: nn.Module) -> tuple[Problem, dict[str, torch.Tensor]]:
        """Return the problem with samples weighted by the noise of their ring, where this is asked for, and levels."""
        if not self.noise_by_ring or problem.noise_by_ring is not None:
            return problem, {}
        require(
            hasattr(problem.A, "weighted"),
            f"noise_by_ring is True; allowed with a {type(problem.A).__name__}, which has no `weighted`: False",
        )
        begin, energy = time.perf_counter(), cast("DifferentiableEnergy", prior)
        levels, evaluations = list[torch.Tensor](), list[float]()
        for index, noise_std in enumerate(self.noise_std_of(problem).tolist()):
            part = problem.select(torch.tensor([index]))
            white = self._minimum(part, energy, noise_std)
            energy_of = partial(self.weighted, energy)
            found = noise_by_ring(part, energy_of, noise_std=noise_std, init=white.image)
            levels.append(found.noise_std)
            evaluations.append(white.gradient_evaluations + found.gradient_evaluations)
        by_ring = torch.stack(levels).to(problem.scale.dtype)
        seconds = (time.perf_counter() - begin) / len(levels)
        return problem.with_noise_by_ring(by_ring), {
            "noise_by_ring": by_ring,
            "noise_gradient_evaluations": torch.tensor(evaluations),
            "noise_seconds": torch.full((len(levels),), seconds),
        }

    def solve(self, problem: Problem, prior: nn.Module) -> Estimate:
        """Minimise the cost: of a batch at once, or of one image after the other where every one has its ε."""
        problem, _ = self.with_noise(problem, prior)
        if self.noise_level == "given" and problem.noise_by_ring is None:
            return self._solve(problem, prior, self.posterior_noise_std)
        levels = self.noise_std_of(problem)
        parts = [
            self._solve(problem.select(torch.tensor([i])), prior, level) for i, level in enumerate(levels.tolist())
        ]
        arrays = {name: torch.cat([part.arrays[name] for part in parts]) for name in parts[0].arrays}
        return Estimate(torch.cat([part.image for part in parts]), {**arrays, "noise_std": levels}, "map")

    def _solve(self, problem: Problem, prior: nn.Module, noise_std: float) -> Estimate:
        begin = time.perf_counter()
        result = self._minimum(problem, cast("DifferentiableEnergy", prior), noise_std)
        batch = len(problem.names)
        arrays = {
            "cost": result.cost_history[-1],
            "converged": result.converged,
            "map_gradient_evaluations": torch.full((batch,), result.gradient_evaluations / batch),
            "map_seconds": torch.full((batch,), (time.perf_counter() - begin) / batch),
        }
        return Estimate(result.image, arrays, "map")

    def _minimum(self, problem: Problem, energy: DifferentiableEnergy, noise_std: float) -> MapResult:
        return mm_map(
            problem.A,
            problem.masked_kspace,
            self.weighted(energy, noise_std),
            init=self.sense(problem, tolerance=START_TOLERANCE),
            stopping=Stopping(
                self.tolerance,
                max_iterations=self.max_iterations,
                accuracy=None if self.accuracy is None else self.accuracy * noise_std / 2**0.5,
            ),
            progress=True,
        )


@inferences("proximal_iteration")
@dataclass
class ProximalIteration(Estimator):
    """x ← D(x − sAᴴ(Ax − b)) until it stands still: :func:`~direct_deepen.inference.proximal_iteration`."""

    step_size: float = setting(1.0, above=0, below=2)
    """s = α/η², below 2."""
    tolerance: float = setting(1e-6, above=0)
    """Relative change of the image below which the iteration ends."""
    max_iterations: int = setting(500, least=1)
    """When it ends anyway."""

    def solve(self, problem: Problem, prior: nn.Module) -> Estimate:
        """Iterate."""
        result = proximal_iteration(
            problem.A,
            problem.masked_kspace,
            prior,
            step_size=self.step_size,
            init=self.sense(problem),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            progress=True,
        )
        return _fixed_point(result)


@inferences("unrolled_gradient")
@dataclass
class UnrolledGradient(Estimator):
    """A fixed number of gradient steps with a learned step: :func:`~direct_deepen.inference.unrolled_gradient`."""

    needs = ("value_and_grad",)
    learns = ("step_size",)
    num_steps: int = setting(30, least=1)
    """K."""
    step_size: float = setting(1.0, above=0)
    """α before training, which learns it."""

    def solve(self, problem: Problem, prior: nn.Module) -> Estimate:
        """Take the steps."""
        steps = torch.full_like(problem.scale, float(self.num_steps))
        return Estimate(self._iterate(problem, prior, progress=True), {"gradient_evaluations": steps})

    def differentiable(self, problem: Problem, prior: nn.Module) -> torch.Tensor:
        """Take the steps, with a graph through all of them."""
        return self._iterate(problem, prior, progress=False)

    def _iterate(self, problem: Problem, prior: nn.Module, *, progress: bool) -> torch.Tensor:
        return unrolled_gradient(
            problem.A,
            problem.masked_kspace,
            # A wrapper for parallel training is no energy but may be called like one.
            cast("Energy", prior),
            step_size=learned(prior, "step_size"),
            num_steps=self.num_steps,
            init=self.sense(problem),
            progress=progress,
        )


@inferences("equilibrium")
@dataclass
class Equilibrium(Estimator):
    """The x with fλAᴴ(Ax − b) + x − H(x) = 0, λ learned: :func:`~direct_deepen.inference.equilibrium`."""

    learns = ("data_weight",)
    damping: float = setting(1.0, above=0, most=1)
    """α, at most 1; the result does not depend on it: ``tolerance`` is multiplied by it."""
    data_weight: float = setting(10.0, above=0)
    """λ before training, which learns it."""
    data_weight_factor: float = setting(1.0, above=0)
    """f, a factor on the learned λ in reconstruction; 1 is what training means."""
    tolerance: float = setting(1e-4, above=0)
    """Relative change of the image below which the iteration ends."""
    max_iterations: int = setting(200, least=1)
    """When it ends anyway."""

    def solve(self, problem: Problem, prior: nn.Module) -> Estimate:
        """Solve the equation."""
        return _fixed_point(self._solve(problem, prior, self.data_weight_factor, differentiable=False))

    def differentiable(self, problem: Problem, prior: nn.Module) -> torch.Tensor:
        """Solve the equation, with the gradient of its solution."""
        return self._solve(problem, prior, 1.0, differentiable=True).image

    def _solve(self, problem: Problem, prior: nn.Module, factor: float, *, differentiable: bool) -> FixedPointResult:
        return equilibrium(
            problem.A,
            problem.masked_kspace,
            prior,
            damping=self.damping,
            data_weight=factor * learned(prior, "data_weight"),
            init=self.sense(problem),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            differentiable=differentiable,
            progress=not differentiable,
        )


def _fixed_point(result: FixedPointResult) -> Estimate:
    """Every iteration evaluates the network once."""
    evaluations = torch.full((len(result.image),), float(result.iterations))
    return Estimate(result.image, {"converged": result.converged, "network_evaluations": evaluations})
