"""Diffusion posterior sampling (DPS): reverse diffusion, guided by the data at every step."""

from collections.abc import Callable, Sequence

import torch

from direct_deepen.errors import require_weight
from direct_deepen.inference.noise_levels import require_falling
from direct_deepen.inference.samples import Samples, chain_groups, require_finite_samples
from direct_deepen.physics.noise import ChainGenerators, complex_normal_like
from direct_deepen.physics.operator import LinearOperator, over_chains
from direct_deepen.physics.per_image import per_image
from direct_deepen.physics.precision import without_autocast
from direct_deepen.physics.sense import require_finite_data, within_mask
from direct_deepen.progress import METRICS_INTERVAL, progress_bar, show_metrics

DenoiserAt = Callable[[torch.Tensor, float], torch.Tensor]
"""(x, σ) ↦ E[image | x = image + noise of standard deviation σ], complex (batch, height, width) → the same."""


@without_autocast
@torch.no_grad()
def diffusion_posterior_sampling(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    denoiser: DenoiserAt,
    *,
    noise_levels: Sequence[float],
    generator: torch.Generator,
    guidance: float = 1.0,
    num_samples: int = 1,
    max_images: int = 32,
    progress: bool = False,
) -> Samples:
    r"""Sample by DPS with the ancestral steps of the variance-exploding diffusion.

    .. math::
        x_{i-1} = x_i + (1 - r) (D(x_i, \sigma_i) - x_i) + \sigma_{i-1} \sqrt{1 - r} \, z
                   - \zeta \, \nabla_{x_i} \| A D(x_i, \sigma_i) - b \|,
        \qquad r = \sigma_{i-1}^2 / \sigma_i^2,

    from x_N = σ_N z to σ_0 = 0, where the image is the denoised one. The gradient goes through the network. The last
    term is that of Chung et al.: a step ζ/‖r‖ along the gradient of ‖r‖², up to the factor two that ζ absorbs.

    The likelihood of a noisy image is replaced by that of its denoised mean, which ignores the spread of the images it
    may come from: DPS is biased, and ζ has to be tuned; it is not the noise of the measurement.

    Parameters
    ----------
    A, masked_kspace, progress
        As for :func:`~direct_deepen.mm_map`, and so are the errors.
    denoiser
        D, differentiable in its image.
    noise_levels
        σ_N > … > σ_1 > 0, per real component; N steps.
    guidance
        ζ ≥ 0; 0 samples the prior.
    num_samples, max_images
        Independent runs, and how many images are given to the network at once.

    References
    ----------
    Chung, Kim, McCann, Klasky and Ye, Diffusion posterior sampling for general noisy inverse problems, ICLR 2023,
    algorithm 1. Song et al., Score-based generative modeling through stochastic differential equations, ICLR 2021,
    appendix F, for the steps.
    """
    require_weight("guidance", guidance)
    require_falling(noise_levels)
    require_finite_data(masked_kspace)
    masked_kspace = within_mask(A, masked_kspace)
    template = A.adjoint(masked_kspace)
    groups, parts = chain_groups(num_samples, len(template), max_images), []
    generators = ChainGenerators.from_one(generator, num_samples, len(template))
    with progress_bar(name="DPS", unit="step", total=num_samples * len(noise_levels), shown=progress) as bar:
        for group in groups:
            chains, count = generators[group], group.stop - group.start
            x = noise_levels[0] * complex_normal_like(template.expand(count, *template.shape), generator=chains)
            for step, (level, after) in enumerate(zip(noise_levels, [*noise_levels[1:], 0.0], strict=True)):
                denoised, residual, gradient = _guided(A, masked_kspace, denoiser, x, level)
                ratio = (after / level) ** 2
                x = x + (1 - ratio) * (denoised - x) - guidance * gradient
                if after > 0:
                    x = x + after * (1 - ratio) ** 0.5 * complex_normal_like(x, generator=chains)
                require_finite_samples(x, f"DPS with guidance {guidance!r}", level)
                if step % METRICS_INTERVAL == 0:
                    show_metrics(bar, noise_level=level, residual=residual)
                bar.update(count)
            parts.append(x)
    return Samples.independent(torch.cat(parts), num_samples * len(template) * len(noise_levels))


def _guided(
    A: LinearOperator, masked_kspace: torch.Tensor, denoiser: DenoiserAt, x: torch.Tensor, level: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return D(x), ‖AD(x) − b‖ and its gradient, of chains (chain, batch, ...)."""
    with torch.enable_grad():
        variable = x.detach().requires_grad_()
        denoised = denoiser(variable.flatten(0, 1), level).unflatten(0, x.shape[:2])
    residual = over_chains(A).forward(denoised.detach()) - masked_kspace
    norm = torch.linalg.vector_norm(residual.flatten(2), dim=2)
    # ∇‖r‖² = 2J_Dᴴ Aᴴ r, so ∇‖r‖ = J_Dᴴ Aᴴ r/‖r‖; zero where the data are met.
    length = per_image(norm.clamp_min(torch.finfo(norm.dtype).tiny), x)
    direction = over_chains(A).adjoint(residual) / length
    (gradient,) = torch.autograd.grad(denoised, variable, direction)
    return denoised.detach(), norm, gradient
