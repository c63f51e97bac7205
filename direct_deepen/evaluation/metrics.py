"""Quality of images and of their standard deviations, slice by slice, on magnitudes."""

from dataclasses import dataclass

import numpy as np
import torch
from skimage.metrics import structural_similarity

from direct_deepen.errors import require
from direct_deepen.posterior.calibration import object_pixels
from direct_deepen.posterior.intervals import containing_level, coverage


@dataclass(frozen=True)
class Quality:
    """PSNR in decibels by the maximum of the slice, SSIM (scikit-image's, 7×7 window), and NMSE of one slice."""

    psnr: float
    ssim: float
    nmse: float


def quality(image: torch.Tensor, reference: torch.Tensor) -> Quality:
    """Compare an image with its reference, both real or complex (height, width).

    PSNR = 20 log₁₀(max |r|/RMS(|x| − |r|)), by the maximum of the slice, where DIRECT's ``fastmri_psnr`` takes that of
    the volume; SSIM with data range max |r|; NMSE = ‖|x| − |r|‖²/‖r‖². Other shapes, or a reference that is zero
    everywhere, are a :class:`DeepenError`.
    """
    require(
        image.shape == reference.shape,
        f"image has shape {tuple(image.shape)}; allowed with this reference: {tuple(reference.shape)}",
    )
    x, r = image.abs().double().cpu().numpy(), reference.abs().double().cpu().numpy()
    peak = float(r.max())
    require(peak > 0, "reference is zero everywhere; allowed: an image with a signal")
    error = float(((x - r) ** 2).mean())
    return Quality(
        psnr=float(10 * np.log10(peak**2 / error)) if error > 0 else float("inf"),
        ssim=float(structural_similarity(x, r, data_range=peak)),
        nmse=error / float((r**2).mean()),
    )


@dataclass(frozen=True)
class PosteriorQuality:
    """Mean standard deviation of the part in phase, and mean absolute error of the posterior mean, of one slice.

    Inside the object, with the coverage there of the 90 % interval that samples predict for one more, and over all
    pixels; the coverage is not a number for a single chain.
    """

    std: float
    error: float
    coverage_90: float
    std_everywhere: float
    error_everywhere: float


def posterior_quality(
    mean: torch.Tensor, std: torch.Tensor, reference: torch.Tensor, *, num_chains: int
) -> PosteriorQuality:
    """Compare mean, and standard deviation of u, of samples of ``num_chains`` chains with the reference."""
    mean, reference = mean.abs(), reference.abs()
    inside, error = object_pixels(reference), (mean - reference).abs()
    level = containing_level(mean[inside], std[inside], reference[inside], num_chains=num_chains)
    return PosteriorQuality(
        std=float(std[inside].mean()),
        error=float(error[inside].mean()),
        coverage_90=float(coverage(level, [0.9])) if num_chains > 1 else float("nan"),
        std_everywhere=float(std.mean()),
        error_everywhere=float(error.mean()),
    )
