r"""The noise level of a scan from its own samples, without a reference and without a noise scan.

All w×w windows of the fully sampled centre of k-space, each with the samples of all coils in one row, make a matrix H.
Without noise its rank is low, as coils are smooth and the object does not fill the field of view (Uecker et al., MRM
71, 2014, equation 5; Shin et al., MRM 72, 2014); noise fills what is left, and the smallest eigenvalues of HᴴH are
those of noise. With z white noise of unit standard deviation per real component and i the smallest twentieth,

.. math:: \eta^2 = \sum_i \lambda_i(H_b^H H_b) \Big/ \sum_i \mathrm{E}\, \lambda_i(H_z^H H_z) .

Noise is told from signal by singular values elsewhere too (Veraart et al., NeuroImage 142, 2016). Neither coil maps nor
a prior have a part in it. The corners of k-space say it too, where they were measured.
"""

import math
from functools import lru_cache

import torch

from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.espirit import LARGEST_CALIBRATION, calibration_width
from direct_deepen.physics.prewhitening import corner_noise_covariance

LEAST_COILS, LEAST_CENTRE = 4, 20.0
"""Fewest coils, and least width of the centre times the root of their number: eight samples with seven coils, ten with
four."""

_SMALLEST_SHARE, _ROWS = 0.05, 2.0
"""Of the eigenvalues; rows of H to a column. Of 26 simulated slices of 4 to 20 coils the level is 0.98 to 1.11 times
the truth with a centre of 24 samples, 0.99 to 1.19 times with 16, 1.06 to 1.21 times with 12, and up to 1.6 times with
the fewest, by what is left of the signal. With as many rows as columns the smallest eigenvalues are near zero, and
signal makes them smaller still: the level is up to 30 % too small."""

_LEAST_OF_CENTRE = 0.5
"""Of the level of the centre, below which the corners are not believed."""
_DRAWS = 8


def estimated_noise_std(masked_kspace: torch.Tensor, sampling_mask: torch.Tensor) -> torch.Tensor:
    """Estimate η per real component, in the unit of the data, real (batch,), of white noise alike in all coils.

    K-space is complex (batch, coil, height, width) and zero where the mask, (batch, 1, height, width), is. It is
    estimated from the fully sampled centre if that is wide enough (:data:`LEAST_CENTRE`), and from the corners
    (:func:`~direct_deepen.physics.prewhitening.corner_noise_covariance`) if they have the samples. What signal is left
    makes either too large, so of two the smaller is taken, half of the centre's at least: a scanner's filter, or zeros
    around the image, take noise out of the corners alone. Where noise differs between coils, whiten the data first: the
    centre has the level of those with the least.

    Raises
    ------
    DeepenError
        If neither centre nor corners have the samples for it.
    """
    require(
        masked_kspace.ndim == 4,
        f"masked_kspace has shape {tuple(masked_kspace.shape)}; allowed for a noise level that is estimated: "
        "(batch, coil, height, width)",
    )
    levels = [_of_slice(kspace, mask[0]) for kspace, mask in zip(masked_kspace, sampling_mask, strict=True)]
    return torch.tensor(levels, dtype=masked_kspace.real.dtype, device=masked_kspace.device)


def _of_slice(kspace: torch.Tensor, mask: torch.Tensor) -> float:
    coils, width = len(kspace), min(calibration_width(mask), LARGEST_CALIBRATION)
    enough = coils >= LEAST_COILS and width * math.sqrt(coils) >= LEAST_CENTRE
    levels = [_of_centre(kspace, width)] if enough else []
    try:
        levels.append(float(corner_noise_covariance(kspace).diagonal().real.mean().sqrt()))
    except DeepenError as error:
        if not levels:
            raise DeepenError(
                f"the noise level cannot be estimated: the fully sampled centre has {width} samples and {coils} coils "
                f"(allowed: >= {LEAST_COILS} coils, and width·√coils >= {LEAST_CENTRE:g}), and {error}"
            ) from error
    return min(levels[0], max(levels[-1], _LEAST_OF_CENTRE * levels[0]))


def _of_centre(kspace: torch.Tensor, width: int) -> float:
    height, columns = kspace.shape[-2:]
    top, left = height // 2 - width // 2, columns // 2 - width // 2
    centre = kspace[:, top : top + width, left : left + width].to("cpu", torch.complex128)
    # In units of the largest sample: the squares of its eigenvalues would leave the range of numbers otherwise.
    unit = float(centre.abs().max())
    require(unit > 0, "the centre of k-space is zero everywhere; allowed: data with a signal")
    smallest = _smallest_eigenvalues(centre / unit)
    return unit * math.sqrt(float(smallest) / _of_unit_noise(len(kspace), width))


def _smallest_eigenvalues(centre: torch.Tensor) -> torch.Tensor:
    """Return the sum of the smallest eigenvalues of HᴴH; complex (coil, width, width)."""
    coils, width = centre.shape[:2]
    side = max(2, round((width + 1) / (1 + math.sqrt(_ROWS * coils))))
    windows = centre.unfold(1, side, 1).unfold(2, side, 1)
    matrix = windows.permute(1, 2, 0, 3, 4).reshape(windows.shape[1] * windows.shape[2], -1)
    eigenvalues = torch.linalg.svdvals(matrix).square()
    return eigenvalues[-max(1, round(_SMALLEST_SHARE * len(eigenvalues))) :].sum()


@lru_cache(maxsize=64)
def _of_unit_noise(coils: int, width: int) -> float:
    """Return what :func:`_smallest_eigenvalues` is on average for noise of unit standard deviation per component."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(_DRAWS, coils, width, width, 2, generator=generator, dtype=torch.float64)
    return float(torch.stack([_smallest_eigenvalues(draw) for draw in torch.view_as_complex(draws)]).mean())
