"""The engines of the systems that DEEPEN is compared with: each names its prior's objective and its inference."""

import time
from collections.abc import Callable

import torch
from direct.utils.events import get_event_storage

from direct_deepen.engines.guard import Vitals
from direct_deepen.engines.prior_engine import PriorEngine
from direct_deepen.engines.problem import Problem
from direct_deepen.engines.reconstruction import Reconstruction
from direct_deepen.engines.system_settings import ELDERSettings, MoLSettings, MuSESettings, PnPISTASettings
from direct_deepen.inference import (
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
from direct_deepen.priors import Energy, SumEnergy
from direct_deepen.priors.learned_scalar import PositiveScalar


def _timed(problem: Problem, reconstruct: Callable[[], tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> Reconstruction:
    """Run a reconstruction of a batch; what it gives, evaluations of the network included, goes into the file."""
    begin = time.perf_counter()
    image, figures = reconstruct()
    batch = len(problem.names)
    image = problem.to_data_units(image)
    seconds = torch.full((batch,), (time.perf_counter() - begin) / batch)
    return Reconstruction(image, {"image": image, "scale": problem.scale, "seconds": seconds} | figures)


def _evaluations(problem: Problem, number: float) -> torch.Tensor:
    return torch.full((len(problem.names),), float(number))


class MuSEEngine(PriorEngine[MuSESettings]):
    """Train an energy by denoising score matching; reconstruct by MAP with a weight of the prior."""

    settings_type = MuSESettings

    def loss_name(self, iteration: int) -> str:
        """Return the name of the loss."""
        return "score_matching_loss"

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Match ∇E(x + z) to z."""
        objective = self.settings.objective
        loss = denoising_score_matching_loss(
            self.model,
            reference,
            max_noise_std=objective.max_noise_std,
            energy_weight=objective.image_energy_weight,
            generator=generator,
        )
        return loss, Vitals(float(loss.detach()))

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Minimise ½‖Ax − b‖² + wE(x)."""
        assert isinstance(self.prior, Energy)
        energy, inference = SumEnergy([(self.settings.inference.prior_weight, self.prior)]), self.settings.inference

        def reconstruct() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            result = mm_map(
                problem.A,
                problem.masked_kspace,
                energy,
                init=self._start(problem),
                tolerance=inference.tolerance,
                max_iterations=inference.max_iterations,
                progress=True,
            )
            evaluations = _evaluations(problem, result.gradient_evaluations / len(problem.names))
            return result.image, {"converged": result.converged, "gradient_evaluations": evaluations}

        return _timed(problem, reconstruct)


class PnPISTAEngine(PriorEngine[PnPISTASettings]):
    """Train a denoiser at one noise level; reconstruct by proximal iteration."""

    settings_type = PnPISTASettings

    def loss_name(self, iteration: int) -> str:
        """Return the name of the loss."""
        return "denoising_loss"

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Compare D(x + z) with x."""
        noise_std = self.settings.objective.noise_std
        loss = denoising_loss(self.model, reference, noise_std=noise_std, generator=generator)
        return loss, Vitals(float(loss.detach()))

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Iterate x ← D(x − sAᴴ(Ax − b))."""
        inference = self.settings.inference

        def reconstruct() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            result = proximal_iteration(
                problem.A,
                problem.masked_kspace,
                self.prior,
                step_size=inference.step_size,
                init=self._start(problem),
                tolerance=inference.tolerance,
                max_iterations=inference.max_iterations,
                progress=True,
            )
            evaluations = _evaluations(problem, result.iterations)
            return result.image, {"converged": result.converged, "network_evaluations": evaluations}

        return _timed(problem, reconstruct)


class ELDEREngine(PriorEngine[ELDERSettings]):
    """Train an energy, and the step of its gradient iteration, through all steps; reconstruct by the same steps."""

    settings_type = ELDERSettings

    def loss_name(self, iteration: int) -> str:
        """Return the name of the loss."""
        return "reconstruction_loss"

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Compare the last iterate with the reference."""
        step_size = self._step_size()
        get_event_storage().add_scalar("train/learned_step_size", float(step_size.detach()))
        image = unrolled_gradient(
            problem.A,
            problem.masked_kspace,
            self.model,
            step_size=step_size,
            num_steps=self.settings.inference.num_steps,
            init=self._start(problem),
        )
        loss = mean_squared_error(image, reference)
        return loss, Vitals(float(loss.detach()))

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Take the gradient steps."""
        num_steps = self.settings.inference.num_steps

        def reconstruct() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            with torch.no_grad():
                image = unrolled_gradient(
                    problem.A,
                    problem.masked_kspace,
                    self._energy(),
                    step_size=self._step_size(),
                    num_steps=num_steps,
                    init=self._start(problem),
                )
            return image, {"gradient_evaluations": _evaluations(problem, num_steps)}

        return _timed(problem, reconstruct)

    def _energy(self) -> Energy:
        assert isinstance(self.prior, Energy)
        return self.prior

    def _step_size(self) -> torch.Tensor:
        return _learned(self.prior.step_size)


class MoLEngine(PriorEngine[MoLSettings]):
    """Train a network, and the weight of the data, through an equilibrium; reconstruct by the same equilibrium."""

    settings_type = MoLSettings

    def loss_name(self, iteration: int) -> str:
        """Return the name of the loss."""
        return "reconstruction_loss"

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Compare the equilibrium with the reference, behind the barrier that keeps the network monotone."""
        objective, inference = self.settings.objective, self.settings.inference
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
            self.model, image, num_iterations=objective.barrier_iterations, generator=generator
        )
        storage = get_event_storage()
        storage.add_scalar("train/data_weight", float(data_weight.detach()))
        storage.add_scalar("train/lipschitz", float(quotient.detach().max()))
        loss = mean_squared_error(image, reference)
        loss = loss + objective.barrier_weight * log_barrier(quotient, objective.monotonicity)
        return loss, Vitals(float(loss.detach()))

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Solve λAᴴ(Ax − b) + x − H(x) = 0."""
        inference = self.settings.inference

        def reconstruct() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            result = equilibrium(
                problem.A,
                problem.masked_kspace,
                self.prior,
                damping=inference.damping,
                data_weight=self._data_weight().detach(),
                init=self._start(problem),
                tolerance=inference.tolerance,
                max_iterations=inference.max_iterations,
                progress=True,
            )
            evaluations = _evaluations(problem, result.iterations)
            return result.image, {"converged": result.converged, "network_evaluations": evaluations}

        return _timed(problem, reconstruct)

    def _data_weight(self) -> torch.Tensor:
        return _learned(self.prior.data_weight)


def _learned(module: torch.nn.Module | torch.Tensor) -> torch.Tensor:
    assert isinstance(module, PositiveScalar)
    value = module()
    assert isinstance(value, torch.Tensor)
    return value
