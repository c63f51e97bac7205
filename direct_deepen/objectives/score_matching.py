"""Denoising score matching, the objective of MuSE and the warm start of DEEPEN."""

from collections.abc import Callable

import torch

from direct_deepen.physics.noise import complex_normal


def denoising_score_matching_loss(
    energy: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    max_noise_std: float,
    generator: torch.Generator,
) -> torch.Tensor:
    r"""Match ∇E to the noise in noisy images.

    .. math:: \frac{1}{N} \sum_i \|\nabla E(x_i + z_i) - z_i\|^2, \quad z_i \sim N(0, \sigma_i^2 I), \;
              \sigma_i \sim U[0, \sigma_{max}]

    Its minimiser among all gradients is x̃ − E[x | x̃] (Tweedie): at noise level σ, −σ² times the score of the noisy
    images (Vincent, 2011; MuSE; DEEPEN, section IV).

    Parameters
    ----------
    energy
        E, differentiable twice; complex (batch, height, width) → real (batch,).
    image
        Noise-free images, complex (batch, height, width).
    max_noise_std
        σ_max > 0, per real component.
    generator
        Source of randomness.

    Returns
    -------
    Scalar with a graph to the weights of the energy, all of which take part in it (with a zero gradient where ∇E does
    not depend on them, so that data-parallel training finds every one).
    """
    levels = torch.rand(image.shape[0], generator=generator, device=generator.device).to(image.device)
    noise = complex_normal(image.shape, generator=generator, dtype=image.dtype, device=image.device)
    noise = noise * (max_noise_std * levels).to(image.real.dtype)[:, None, None]
    with torch.enable_grad():
        noisy = (image + noise).detach().requires_grad_()
        value = energy(noisy)
        (gradient,) = torch.autograd.grad(value.sum(), noisy, create_graph=True)
        error = torch.view_as_real(gradient - noise).square().flatten(1).sum(dim=1)
        return error.mean() + 0.0 * value.sum()
