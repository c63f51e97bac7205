"""The engines of the systems that DEEPEN is compared with: each names its prior's objective and its inference."""

import time
from abc import abstractmethod
from typing import ClassVar, cast

import torch
from direct.utils.events import get_event_storage

from direct_deepen.engines.guard import Vitals
from direct_deepen.engines.prior_engine import PriorEngine
from direct_deepen.engines.reconstruction import Reconstruction
from direct_deepen.engines.settings import SystemSettings
from direct_deepen.engines.system_settings import ELDERSettings, MoLSettings, MuSESettings, PnPISTASettings
from direct_deepen.inference import (
    FixedPointResult,
    differentiable_equilibrium,
    equilibrium,
    mm_map,
    proximal_iteration,
    unrolled_gradient,
)
from direct_deepen.objectives import (
    denoising_loss,
    denoising_score_matching_loss,
    lipschitz_quotient,
    log_barrier,
    mean_squared_error,
)
from direct_deepen.physics.problem import Problem
from direct_deepen.priors import Energy, SumEnergy


class SystemEngine[Settings: SystemSettings](PriorEngine[Settings]):
    """Base of engines with one loss and one image as their answer.

    Attributes
    ----------
    objective_name
        What the loss is logged as.
    """

    objective_name: ClassVar[str]

    @abstractmethod
    def objective(self, reference: torch.Tensor, problem: Problem, generator: torch.Generator) -> torch.Tensor:
        """Return the loss of an update, with a graph to the weights."""

    @abstractmethod
    def solve(self, problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the images of a batch in scaled intensities, and figures of the batch that go into the file."""

    def loss_name(self, iteration: int) -> str:
        """Return the name of the loss."""
        return self.objective_name

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Return the loss of an update; there is nothing to watch besides."""
        loss = self.objective(reference, problem, generator)
        return loss, Vitals(float(loss.detach()))

    @torch.no_grad()
    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Return the images in the units of the data."""
        begin = time.perf_counter()
        image, figures = self.solve(problem)
        image = problem.to_data_units(image)
        seconds = (time.perf_counter() - begin) / len(problem.names)
        arrays = {"image": image, "scale": problem.scale, "seconds": torch.full_like(problem.scale, seconds)}
        return Reconstruction(image, arrays | figures)


class MuSEEngine(SystemEngine[MuSESettings]):
    """Train an energy by denoising score matching; reconstruct by MAP with a weight of the prior."""

    settings_type = MuSESettings
    objective_name = "score_matching_loss"

    def objective(self, reference: torch.Tensor, problem: Problem, generator: torch.Generator) -> torch.Tensor:
        """Match ∇E(x + z) to z."""
        settings = self.settings.objective
        return denoising_score_matching_loss(
            self.model,
            reference,
            max_noise_std=settings.max_noise_std,
            energy_weight=settings.image_energy_weight,
            generator=generator,
        )

    def solve(self, problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Minimise ½‖Ax − b‖² + wE(x)."""
        assert isinstance(self.prior, Energy)
        settings = self.settings.inference
        result = mm_map(
            problem.A,
            problem.masked_kspace,
            SumEnergy([(settings.prior_weight, self.prior)]),
            init=self._start(problem),
            tolerance=settings.tolerance,
            max_iterations=settings.max_iterations,
            progress=True,
        )
        evaluations = torch.full_like(problem.scale, result.gradient_evaluations / len(problem.names))
        return result.image, {"converged": result.converged, "gradient_evaluations": evaluations}


class PnPISTAEngine(SystemEngine[PnPISTASettings]):
    """Train a denoiser at one noise level; reconstruct by proximal iteration."""

    settings_type = PnPISTASettings
    objective_name = "denoising_loss"

    def objective(self, reference: torch.Tensor, problem: Problem, generator: torch.Generator) -> torch.Tensor:
        """Compare D(x + z) with x."""
        noise_std = self.settings.objective.noise_std
        return denoising_loss(self.model, reference, noise_std=noise_std, generator=generator)

    def solve(self, problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Iterate x ← D(x − sAᴴ(Ax − b))."""
        settings = self.settings.inference
        result = proximal_iteration(
            problem.A,
            problem.masked_kspace,
            self.prior,
            step_size=settings.step_size,
            init=self._start(problem),
            tolerance=settings.tolerance,
            max_iterations=settings.max_iterations,
            progress=True,
        )
        return result.image, _figures(result, problem)


class ELDEREngine(SystemEngine[ELDERSettings]):
    """Train an energy, and the step of its gradient iteration, through all steps; reconstruct by the same steps."""

    settings_type = ELDERSettings
    objective_name = "reconstruction_loss"

    def objective(self, reference: torch.Tensor, problem: Problem, generator: torch.Generator) -> torch.Tensor:
        """Compare the last iterate with the reference."""
        get_event_storage().add_scalar("train/learned_step_size", float(self._step_size().detach()))
        return mean_squared_error(self._iterate(problem), reference)

    def solve(self, problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Take the gradient steps."""
        steps = torch.full_like(problem.scale, float(self.settings.inference.num_steps))
        return self._iterate(problem), {"gradient_evaluations": steps}

    def _iterate(self, problem: Problem) -> torch.Tensor:
        # In training through any wrapper for parallel training, which is no energy but may be called like one.
        energy = self.model if torch.is_grad_enabled() else self.prior
        return unrolled_gradient(
            problem.A,
            problem.masked_kspace,
            cast("Energy", energy),
            step_size=self._step_size(),
            num_steps=self.settings.inference.num_steps,
            init=self._start(problem),
            progress=not torch.is_grad_enabled(),
        )

    def _step_size(self) -> torch.Tensor:
        """Return the learned α, with a graph."""
        return self.prior.get_submodule("step_size")()


class MoLEngine(SystemEngine[MoLSettings]):
    """Train a network, and the weight of the data, through an equilibrium; reconstruct by the same equilibrium."""

    settings_type = MoLSettings
    objective_name = "reconstruction_loss"

    def objective(self, reference: torch.Tensor, problem: Problem, generator: torch.Generator) -> torch.Tensor:
        """Compare the equilibrium with the reference, behind the barrier that keeps the network monotone."""
        settings, inference = self.settings.objective, self.settings.inference
        data_weight = self._data_weight()
        image = differentiable_equilibrium(
            problem.A,
            problem.masked_kspace,
            self.model,
            damping=inference.damping,
            data_weight=data_weight,
            init=self._start(problem),
            tolerance=inference.tolerance,
            max_iterations=inference.max_iterations,
        )
        quotient = lipschitz_quotient(
            self.model, image, num_iterations=settings.barrier_iterations, generator=generator
        )
        storage = get_event_storage()
        storage.add_scalar("train/data_weight", float(data_weight.detach()))
        storage.add_scalar("train/lipschitz", float(quotient.detach().max()))
        barrier = log_barrier(quotient, settings.monotonicity)
        return mean_squared_error(image, reference) + settings.barrier_weight * barrier

    def solve(self, problem: Problem) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Solve fλAᴴ(Ax − b) + x − H(x) = 0, f the factor of the settings."""
        settings = self.settings.inference
        result = equilibrium(
            problem.A,
            problem.masked_kspace,
            self.prior,
            damping=settings.damping,
            data_weight=settings.data_weight_factor * self._data_weight(),
            init=self._start(problem),
            tolerance=settings.tolerance,
            max_iterations=settings.max_iterations,
            progress=True,
        )
        return result.image, _figures(result, problem)

    def _data_weight(self) -> torch.Tensor:
        """Return the learned λ, with a graph."""
        return self.prior.get_submodule("data_weight")()


def _figures(result: FixedPointResult, problem: Problem) -> dict[str, torch.Tensor]:
    """Return what the file is to tell of a fixed point; every iteration evaluates the network once."""
    evaluations = torch.full_like(problem.scale, float(result.iterations))
    return {"converged": result.converged, "network_evaluations": evaluations}
