"""Denoising score matching, the objective of MuSE and the warm start of DEEPEN."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from direct_deepen.objectives.base import Loss, Objective, Update, objectives
from direct_deepen.parts import setting
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.per_image import per_image


def denoising_score_matching_loss(
    energy: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    max_noise_std: float,
    generator: torch.Generator,
    scale: float = 1.0,
    energy_weight: float = 0.0,
) -> torch.Tensor:
    r"""Match ∇E to the noise in noisy images.

    .. math:: \frac{1}{NP} \sum_i \|\nabla E(x_i + z_i)/\kappa - z_i\|^2 + \lambda E(x_i)/\kappa,
              \quad z_i \sim N(0, \sigma_i^2 I), \; \sigma_i \sim U[0, \sigma_{max}]

    with P the number of pixels. Without the second term its minimiser among all gradients is κ(x̃ − E[x | x̃])
    (Tweedie): at noise level σ, −κσ² times the score of the noisy images (Vincent, 2011; MuSE; DEEPEN, section IV).

    κ is a matter of temperature. A posterior ∝ exp(−2C/ε²) of images with noise of standard deviation cε needs
    ∇E = −(ε²/2)·score, which at that noise level is κ = 1/(2c²); MuSE has κ = 1.

    The second term sets what score matching leaves open, the constant in E: with E ≥ 0 it takes the energy of
    noise-free images towards zero, the least there is, so that MAP finds nothing better than images.

    E is differentiable twice, complex (batch, ...) → real (batch,); the images x are free of noise;
    ``max_noise_std`` is σ_max > 0, per real component, ``scale`` κ > 0 and ``energy_weight`` λ ≥ 0. All weights take
    part in the loss, a scalar, with a zero gradient where ∇E does not depend on them, so that data-parallel training
    finds every one.
    """
    levels = torch.rand(image.shape[0], generator=generator, device=generator.device).to(image.device)
    noise = complex_normal_like(image, generator=generator)
    noise = noise * per_image((max_noise_std * levels).to(image.real.dtype), image)
    with torch.enable_grad():
        noisy = (image + noise).detach().requires_grad_()
        value = energy(noisy)
        (gradient,) = torch.autograd.grad(value.sum(), noisy, create_graph=True)
        error = torch.view_as_real(gradient / scale - noise).square().flatten(1).sum(dim=1).mean()
        # The zero term names weights that no gradient depends on, such as the last bias.
        pinned = energy_weight / scale * energy(image).mean() if energy_weight > 0 else 0.0 * value.sum()
        return (error + pinned) / image[0].numel()


@objectives("score_matching")
@dataclass
class ScoreMatching(Objective):
    """Denoising score matching over all noise levels up to one (MuSE): :func:`denoising_score_matching_loss`."""

    needs = ("value_and_grad",)
    max_noise_std: float = setting(0.1, above=0)
    """Largest noise level, per real component, in scaled intensities."""
    image_energy_weight: float = setting(0.0, least=0)
    """λ of the term that takes the energy of noise-free images to zero; 0 is MuSE's own objective."""

    def loss(self, update: Update) -> Loss:
        """Match ∇E(x + z) to z."""
        loss = denoising_score_matching_loss(
            update.model,
            update.reference,
            max_noise_std=self.max_noise_std,
            energy_weight=self.image_energy_weight,
            generator=update.generator,
        )
        return Loss(loss, "score_matching_loss")
