"""The engines of DPS and ALPS: priors of all noise levels, whose answer is a set of independent samples."""

import time
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from direct_deepen.engines.diffusion_settings import ALPSSettings, DPSSettings, NoiseRangeSettings, SamplerSettings
from direct_deepen.engines.guard import Vitals
from direct_deepen.engines.prior_engine import PriorEngine
from direct_deepen.engines.reconstruction import Reconstruction, image_generator, posterior_arrays, posterior_attributes
from direct_deepen.errors import require
from direct_deepen.inference import (
    Samples,
    annealed_langevin,
    annealed_map,
    diffusion_posterior_sampling,
    mask_shaped_noise,
    power_schedule,
    preconditioned_annealed_langevin,
    variance_exploding_schedule,
)
from direct_deepen.objectives import diffusion_loss, distillation_loss, draw_noise_levels
from direct_deepen.physics.problem import Problem
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.posterior.posterior_file import FileAttributes
from direct_deepen.priors import Averaged, NoiseConditionalEnergy


class SamplerEngine[Settings: SamplerSettings](PriorEngine[Settings]):
    """Base of engines of an :class:`~direct_deepen.priors.Averaged` network that draw independent samples."""

    @abstractmethod
    def draw(self, problem: Problem, generator: torch.Generator) -> Samples:
        """Return samples of one image, in scaled intensities."""

    @property
    def averaged(self) -> Averaged:
        """The network and its average."""
        averaged = self.prior.get_submodule("averaged")
        assert isinstance(averaged, Averaged)
        return averaged

    def before_update(self, iteration: int) -> None:
        """Take the weights that the last update left into the average."""
        if iteration > 0:
            self.averaged.update()

    def reconstruction(self, problem: Problem) -> Reconstruction:
        """Return the mean of the samples of every image, and what they say of its uncertainty."""
        columns = []
        for i, name in enumerate(problem.names):
            part = problem.select(torch.tensor([i]))
            begin = time.perf_counter()
            samples = self.draw(part, image_generator(self.seed, name, part.masked_kspace.device))
            seconds = time.perf_counter() - begin
            posterior = Posterior.from_images(samples.images)
            arrays = posterior_arrays(part, posterior, self.settings.inference, seconds=seconds)
            arrays["posterior_gradient_evaluations"] = torch.tensor([float(samples.gradient_evaluations)])
            columns.append(arrays)
        arrays = {name: torch.cat([column[name] for column in columns]) for name in columns[0]}
        return Reconstruction(arrays["mean"], arrays | {"scale": problem.scale})

    def _file_attributes(self) -> FileAttributes:
        return super()._file_attributes() | posterior_attributes(self.settings.inference)

    def _noise_levels(
        self, objective: NoiseRangeSettings, reference: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        return draw_noise_levels(
            len(reference),
            smallest=objective.smallest_noise_std,
            largest=objective.largest_noise_std,
            generator=generator,
            device=reference.device,
        )


class DPSEngine(SamplerEngine[DPSSettings]):
    """Train a diffusion by score matching over noise levels; reconstruct by guided reverse diffusion."""

    settings_type = DPSSettings

    def loss_name(self, iteration: int) -> str:
        """Return the name of the loss."""
        return "diffusion_loss"

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Compare D(x + σz, σ) with x."""
        levels = self._noise_levels(self.settings.objective, reference, generator)
        loss = diffusion_loss(self.model, reference, levels, generator=generator)
        return loss, Vitals(float(loss.detach()))

    def draw(self, problem: Problem, generator: torch.Generator) -> Samples:
        """Run the reverse diffusion."""
        settings = self.settings.inference
        return diffusion_posterior_sampling(
            problem.A,
            problem.masked_kspace,
            self.prior,
            noise_levels=variance_exploding_schedule(settings.num_steps, settings.base),
            guidance=settings.guidance,
            num_samples=settings.num_samples,
            max_images=settings.max_images,
            generator=generator,
            progress=True,
        )


class ALPSEngine(SamplerEngine[ALPSSettings]):
    """Distil energies of all noise levels from a diffusion; reconstruct by annealed Langevin sampling."""

    settings_type = ALPSSettings

    def loss_name(self, iteration: int) -> str:
        """Return the name of the loss."""
        return "distillation_loss"

    def loss(
        self, reference: torch.Tensor, problem: Problem, iteration: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Vitals]:
        """Match ∇E_σ to the teacher."""
        objective = self.settings.objective
        levels = self._noise_levels(objective, reference, generator)
        uniform = torch.rand(len(reference), generator=generator, device=generator.device).to(reference.device)
        share = 1 - (1 - objective.least_noise_share) * uniform
        loss = distillation_loss(self.model, self._teacher, reference, levels, share, generator=generator)
        return loss, Vitals(float(loss.detach()))

    @cached_property
    def _teacher(self) -> nn.Module:
        # Imported here: it reads configurations of this package, and so the engines' settings.
        from direct_deepen.engines.trained import load_denoiser

        objective = self.settings.objective
        for name in ("teacher_configuration", "teacher_checkpoint"):
            given = getattr(objective, name) != ""
            require(given, f"model.objective.{name} is ''; allowed: a file of the teacher's training")
        teacher = load_denoiser(Path(objective.teacher_checkpoint), Path(objective.teacher_configuration))
        return teacher.to(self.device)

    def draw(self, problem: Problem, generator: torch.Generator) -> Samples:
        """Sample by the rule of the configuration."""
        settings = self.settings.inference
        energy = self.averaged.average
        assert isinstance(energy, NoiseConditionalEnergy)
        shared: dict[str, Any] = {
            "noise_std": settings.noise_std,
            "noise_levels": power_schedule(
                settings.largest_noise_std,
                settings.smallest_noise_std,
                settings.num_levels,
                exponent=settings.exponent,
            ),
            "inner_steps": settings.inner_steps,
            "progress": True,
        }
        sampler: Callable[..., Samples] = annealed_langevin
        match settings.rule:
            case "map":
                image = annealed_map(problem.A, problem.masked_kspace, energy.at, **shared)
                return Samples.independent(image[None], settings.num_levels * settings.inner_steps)
            case "mask_shaped":
                shared["conditional_noise"] = mask_shaped_noise(problem.A.sampling_mask, settings.noise_std)
            case "langevin" | "metropolis":
                sampler = preconditioned_annealed_langevin
                shared |= {"step_size": settings.step_size, "metropolis": settings.rule == "metropolis"}
        return sampler(
            problem.A,
            problem.masked_kspace,
            energy.at,
            **shared,
            num_samples=settings.num_samples,
            max_images=settings.max_images,
            generator=generator,
        )
