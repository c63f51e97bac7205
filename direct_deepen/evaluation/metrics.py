"""Quality of images and of their standard deviations, slice by slice, on magnitudes."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student
from skimage.metrics import structural_similarity

from direct_deepen.errors import require
from direct_deepen.posterior.calibration import object_pixels


@dataclass(frozen=True)
class Quality:
    """PSNR in decibels, SSIM (scikit-image's, 7×7 window), and NMSE of one slice."""

    psnr: float
    ssim: float
    nmse: float


def quality(image: torch.Tensor, reference: torch.Tensor) -> Quality:
    """Compare an image with its reference, both real or complex (height, width).

    PSNR = 20 log₁₀(max |r|/RMS(|x| − |r|)); SSIM with data range max |r|; NMSE = ‖|x| − |r|‖²/‖r‖². Other shapes, or a
    reference that is zero everywhere, are a :class:`DeepenError`.
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
    """Mean standard deviation of the magnitude, and mean absolute error of the posterior mean, of one slice.

    Inside the object, with the coverage of :func:`predictive_coverage` there, and over all pixels.
    """

    std: float
    error: float
    coverage_90: float
    std_everywhere: float
    error_everywhere: float


def posterior_quality(
    mean: torch.Tensor, std: torch.Tensor, reference: torch.Tensor, *, num_samples: int
) -> PosteriorQuality:
    """Compare mean, and standard deviation of the magnitude, of ``num_samples`` samples with the reference."""
    mean, reference = mean.abs(), reference.abs()
    inside, error = object_pixels(reference), (mean - reference).abs()
    return PosteriorQuality(
        std=float(std[inside].mean()),
        error=float(error[inside].mean()),
        coverage_90=predictive_coverage(mean[inside], std[inside], reference[inside], num_samples=num_samples),
        std_everywhere=float(std.mean()),
        error_everywhere=float(error.mean()),
    )


def predictive_coverage(mean: torch.Tensor, std: torch.Tensor, reference: torch.Tensor, *, num_samples: int) -> float:
    r"""Return the share of references in the 90 % interval that S independent samples predict for one more of them.

    .. math:: m \pm t_{S-1} \, s \sqrt{1 + 1/S}

    with the quantile t of Student's distribution. Quantiles of few samples hold less than they should (those at 5 and
    95 % of 16 samples hold 79 % of what the samples are drawn from); this holds 90 % of a normal distribution, however
    few there are. States of one chain are not independent: where they are counted as if they were it holds less.
    """
    factor = float(student.ppf(0.95, num_samples - 1)) * (1 + 1 / num_samples) ** 0.5
    return float(((reference - mean).abs() <= factor * std).double().mean())
