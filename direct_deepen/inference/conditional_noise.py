"""The noise of ALPS in its authors' implementation: shaped by the mask, as if there were no coils."""

from collections.abc import Callable

import torch

from direct_deepen.errors import require_positive
from direct_deepen.physics.fourier import ifft2
from direct_deepen.physics.noise import complex_normal_like

ConditionalNoise = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]
"""(images, σ, generator) ↦ noise of their shape, (chain, batch, height, width)."""


def mask_shaped_noise(sampling_mask: torch.Tensor, noise_std: float) -> ConditionalNoise:
    r"""Return an approximation of noise of covariance (AᴴA/η² + I/σ²)⁻¹, A = MFC, that ignores the coils C.

    .. math:: F^H (M/\eta^2 + I/\sigma^2)^{-1/2} F z

    It costs one Fourier transform instead of a solve, and is exact for a single coil of sensitivity one. With several
    coils its variance is too large, increasingly with σ/η: parallel imaging measures what the mask alone does not.

    Parameters
    ----------
    sampling_mask
        M, real or boolean (batch, 1, height, width).
    noise_std
        η > 0 per real component.

    Raises
    ------
    DeepenError
        If η is not positive.

    References
    ----------
    ALPS: annealed Langevin posterior sampling with distilled energies, 2026: its public implementation for MRI.
    """
    require_positive("noise_std", noise_std)
    mask = sampling_mask[:, 0]

    def draw(like: torch.Tensor, level: float, generator: torch.Generator) -> torch.Tensor:
        gain = (mask.to(like.real.dtype) / noise_std**2 + 1 / level**2).rsqrt()
        # Fz has the distribution of z.
        return ifft2(gain * complex_normal_like(like, generator=generator))

    return draw
