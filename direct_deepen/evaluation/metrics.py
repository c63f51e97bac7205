"""Image quality on magnitudes, slice by slice, with the reference's maximum as peak."""

from dataclasses import dataclass

import numpy as np
import torch
from skimage.metrics import structural_similarity

from direct_deepen.errors import require


@dataclass(frozen=True)
class Quality:
    """PSNR in decibels, SSIM (scikit-image's, 7×7 window), and NMSE of one slice."""

    psnr: float
    ssim: float
    nmse: float


def quality(image: torch.Tensor, reference: torch.Tensor) -> Quality:
    """Compare an image with its reference, both real or complex (height, width).

    PSNR = 20 log₁₀(max |r|/RMS(|x| − |r|)); SSIM with data range max |r|; NMSE = ‖|x| − |r|‖²/‖r‖².

    Raises
    ------
    DeepenError
        If the shapes differ, or the reference is zero everywhere.
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
