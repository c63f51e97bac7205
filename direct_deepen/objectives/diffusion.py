"""Objectives over all noise levels: of the network of a diffusion, and of energies distilled from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from direct_deepen.errors import require
from direct_deepen.objectives.base import Loss, Objective, Update, objectives
from direct_deepen.parts import require_increasing, setting
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.per_image import per_image
from direct_deepen.priors import energy_gradient

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x, σ) ↦ D(x, σ), complex (batch, height, width) and (batch,) → complex (batch, height, width)."""


def draw_noise_levels(
    count: int, *, smallest: float, largest: float, generator: torch.Generator, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Draw noise levels whose logarithms are uniform, real (count,): every octave gets its share."""
    uniform = torch.rand(count, generator=generator, device=generator.device).to(device)
    return smallest * (largest / smallest) ** uniform


def diffusion_loss(
    denoiser: Denoiser, image: torch.Tensor, noise_std: torch.Tensor, *, generator: torch.Generator
) -> torch.Tensor:
    r"""Denoising score matching over noise levels (Vincent, 2011; Song et al., 2021, equation 7, with λ = σ²).

    .. math:: \frac{1}{NP} \sum_i \| D(x_i + \sigma_i z_i, \sigma_i) - x_i \|^2 / \sigma_i^2

    which is σ² times the squared error of the score (D(x, σ) − x)/σ² against that of the noise: a scalar, of noise-free
    images x, complex (batch, height, width), and ``noise_std`` σ > 0 per real component, real (batch,).
    """
    level = per_image(noise_std.to(image.real.dtype), image)
    noise = complex_normal_like(image, generator=generator)
    error = (denoiser(image + level * noise, noise_std) - image) / level
    return torch.view_as_real(error).square().sum(dim=-1).mean()


def distillation_loss(
    energy: Callable[[torch.Tensor, torch.Tensor | float], torch.Tensor],
    teacher: Denoiser,
    image: torch.Tensor,
    noise_std: torch.Tensor,
    noise_share: torch.Tensor,
    *,
    generator: torch.Generator,
) -> torch.Tensor:
    r"""Match the score of an energy to that of a diffusion, over noise levels (ALPS).

    .. math:: \frac{1}{NP} \sum_i \| \nabla E_{\sigma_i}(y_i) - (y_i - D(y_i, \sigma_i)) \|^2 / \sigma_i^2,
              \qquad y_i = x_i + u_i \sigma_i z_i

    With u = 1 the energy learns the score where the diffusion of its level is. Annealed chains go elsewhere: what is
    measured has far less noise than σ in them. The teacher denoises such images all the same; an energy that has never
    seen one may have any gradient there.

    ``energy`` is (x, σ) ↦ E_σ(x), real (batch,), differentiable twice. The loss is a scalar with the graph of ∇E_σ; no
    gradient goes into the teacher, D. Images x are free of noise, or
    samples of the teacher, complex (batch, height, width); ``noise_std`` σ > 0, per real component, and ``noise_share``
    u, from 0 to 1, are real (batch,).
    """
    level = per_image(noise_std.to(image.real.dtype), image)
    share = per_image(noise_share.to(level), image)
    noisy = image + share * level * complex_normal_like(image, generator=generator)
    with torch.no_grad():
        target = noisy - teacher(noisy, noise_std)
    error = (energy_gradient(energy, noisy, noise_std) - target) / level
    return torch.view_as_real(error).square().sum(dim=-1).mean()


@objectives("diffusion")
@dataclass
class Diffusion(Objective):
    """Denoising score matching over noise levels whose logarithms are uniform (DPS): :func:`diffusion_loss`."""

    needs = ("forward of a level",)
    smallest_noise_std: float = setting(0.005, above=0)
    """Smallest noise level, per real component, in scaled intensities."""
    largest_noise_std: float = setting(10.0, above=0)
    """Largest noise level, per real component, in scaled intensities."""

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        require_increasing(self, "smallest_noise_std", "largest_noise_std", path)

    def loss(self, update: Update) -> Loss:
        """Compare D(x + σz, σ) with x."""
        levels = self._noise_levels(update)
        loss = diffusion_loss(update.model, update.reference, levels, generator=update.generator)
        return Loss(loss, "diffusion_loss")

    def _noise_levels(self, update: Update) -> torch.Tensor:
        return draw_noise_levels(
            len(update.reference),
            smallest=self.smallest_noise_std,
            largest=self.largest_noise_std,
            generator=update.generator,
            device=update.reference.device,
        )


@objectives("distillation")
@dataclass
class Distillation(Diffusion):
    """Distillation of an energy from a trained diffusion (ALPS): :func:`distillation_loss`."""

    needs = ("at",)
    teacher_configuration: str = ""
    """Configuration of the trained diffusion; only training reads it."""
    teacher_checkpoint: str = ""
    """Its weights."""
    least_noise_share: float = setting(0.0, least=0, most=1)
    """Images get noise of a share of their noise level that is uniform between this and one. With one the energy sees
    what the diffusion sees, and annealed chains, whose measured part has little noise, diverge."""

    def __post_init__(self) -> None:
        self._teacher: nn.Module | None = None

    def loss(self, update: Update) -> Loss:
        """Match ∇E_σ to the teacher."""
        if self._teacher is None:
            for name in ("teacher_configuration", "teacher_checkpoint"):
                given = getattr(self, name) != ""
                require(given, f"model.objective.{name} is ''; allowed: a file of the teacher's training")
            teacher = update.load_denoiser(Path(self.teacher_checkpoint), Path(self.teacher_configuration))
            self._teacher = teacher.to(update.reference.device)
        levels, generator = self._noise_levels(update), update.generator
        uniform = torch.rand(len(levels), generator=generator, device=generator.device).to(levels.device)
        share = 1 - (1 - self.least_noise_share) * uniform
        loss = distillation_loss(update.model, self._teacher, update.reference, levels, share, generator=generator)
        return Loss(loss, "distillation_loss")
