"""Maximum likelihood over noise levels: one energy for data of any noise."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch

from direct_deepen.objectives.base import Loss, Update, objectives
from direct_deepen.objectives.contrastive import chain_metrics, contrastive_loss, energy_unit, seen_curvature
from direct_deepen.objectives.diffusion import Diffusion, diffusion_loss, draw_noise_levels
from direct_deepen.objectives.training_samples import ChainSettings, draw_training_samples
from direct_deepen.parts import require_increasing, setting
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.problem import Problem
from direct_deepen.priors import NoiseConditionalEnergy, energy_gradient


def data_of_noise(problem: Problem, image: torch.Tensor, noise_std: float, *, generator: torch.Generator) -> Problem:
    """Return the problem with b = Ax + n: data of images, complex (batch, height, width), and of noise η alone.

    Of data that are made so the posterior is known exactly, whatever was wrong with the coil maps of the measured ones.
    ``noise_std`` is η ≥ 0 per real component, in scaled intensities.
    """
    data = problem.A.forward(image)
    noise = complex_normal_like(data, generator=generator) * problem.A.sampling_mask
    return replace(problem, masked_kspace=data + noise_std * noise)


@objectives("contrastive_over_levels")
@dataclass
class ContrastiveOverLevels(Diffusion):
    r"""Maximum likelihood for a :class:`~direct_deepen.priors.NoiseConditionalEnergy`, at a noise drawn every update.

    .. math:: \frac{1}{N E_0} \sum_i E_\varepsilon(x_i^+) - E_\varepsilon(x_i^-), \qquad
              x_i^+ = x_i + c\varepsilon z_i, \quad b_i = A x_i^+ + \eta n_i, \quad
              x_i^- \sim \exp(-2C_\varepsilon(x)/\varepsilon^2), \quad \varepsilon = \sqrt 2\,\eta

    This is :func:`~direct_deepen.objectives.contrastive_loss`, of the energy for ε, in units of E₀ = Pε²/2: so it
    is the likelihood of a pixel, and noise of any level counts alike (less where both energies are above E₀). What
    E_ε is a prior of is x⁺, images with their noise; as the data are of them too, the loss has no gradient where
    E_ε is right, sampled directions included: of data of x alone samples would have less noise there than x⁺, which
    no energy can explain. Before it comes denoising score matching over the levels σ of the energy,
    :func:`~direct_deepen.objectives.diffusion_loss` with D(x, σ) = x − ∇E_σ.
    """

    needs = ("at_noise",)
    smallest_noise_std: float = setting(0.002, above=0)
    """Smallest noise level σ of score matching, per real component, in scaled intensities."""
    largest_noise_std: float = setting(0.5, above=0)
    """Largest one."""
    warm_start_iterations: int = setting(1000, least=0)
    """Iterations of score matching before the contrastive ones."""
    smallest_data_noise_std: float = setting(0.002, above=0)
    """Smallest η of the data, per real component, in scaled intensities; logarithms are uniform."""
    largest_data_noise_std: float = setting(0.03, above=0)
    """Largest one."""
    energy_penalty: float = setting(0.01, least=0)
    """α of α·mean(E⁺² + E⁻²)/E₀², which holds images at the bottom."""
    chains: ChainSettings = field(default_factory=ChainSettings)
    """The chains that draw x⁻."""

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        super().check(path)
        require_increasing(self, "smallest_data_noise_std", "largest_data_noise_std", path)

    def phase_start(self, iteration: int) -> int:
        """Return where score matching, or the contrastive phase, begins."""
        return self.warm_start_iterations if iteration >= self.warm_start_iterations else 0

    def loss(self, update: Update) -> Loss:
        """Return the loss of score matching, or the contrastive one."""
        if update.iteration >= self.warm_start_iterations:
            return self._contrastive(update)

        def denoised(image: torch.Tensor, noise_std: torch.Tensor) -> torch.Tensor:
            return image - energy_gradient(update.model, image, noise_std)

        levels = self._noise_levels(update)
        loss = diffusion_loss(denoised, update.reference, levels, generator=update.generator)
        return Loss(loss, "score_matching_loss")

    def _contrastive(self, update: Update) -> Loss:
        generator, reference = update.generator, update.reference
        eta = draw_noise_levels(
            1, smallest=self.smallest_data_noise_std, largest=self.largest_data_noise_std, generator=generator
        )
        noise_std = 2**0.5 * float(eta)
        energy: Any = cast("NoiseConditionalEnergy", update.prior).at_noise(noise_std)
        true_images = reference + energy.noise_std * complex_normal_like(reference, generator=generator)
        samples = draw_training_samples(
            data_of_noise(update.problem, true_images, float(eta), generator=generator),
            energy,
            shared=replace(self.shared, noise_std=noise_std),
            chains=self.chains,
            generator=generator,
        )
        # One call of the (possibly wrapped) model, so that parallel training reduces gradients once.
        energies: torch.Tensor = update.model(torch.cat([true_images, samples.images[0]]), energy.noise_std)
        unit = energy_unit(reference[0].numel(), noise_std)
        true_energy, sample_energy = (energy.weight * energies / unit).chunk(2)
        true, sample = float(true_energy.detach().mean()), float(sample_energy.detach().mean())
        # E/E₀ is one where the network explains nothing of the noise, and more where it adds errors of its own: those
        # of small noise would outweigh all other levels.
        scale = max(1.0, 0.5 * (true + sample))
        loss = contrastive_loss(true_energy, sample_energy, penalty=self.energy_penalty) / scale
        metrics = {"train/data_noise": float(eta), **chain_metrics(true, sample, samples)}
        return Loss(loss, "contrastive_loss", metrics, abs(true - sample) / scale, seen_curvature(metrics))
