r"""The intensity scale: one number per image that makes noise levels and curvatures mean the same everywhere.

The scale is proportional to the root mean square of the acquired samples in a fixed central disc of k-space,

.. math:: s = 3 \left( \frac{1}{HW} \sum_{c} \sum_{|k| \le r} |b_c(k)|^2 \right)^{1/2},

with the radius ``r`` a fixed share of the band, so by Parseval's theorem ``s`` is three times the root mean square over
the field of view of the low-pass image. The factor of three puts the magnitudes of a scaled brain image into about
[0, 1], where noise levels in the literature (0.01 for sampling, up to 0.1 for score matching) are meant.

Only acquired samples enter. Where a mask leaves holes in the disc (radial or random centres), the missing samples are
predicted from the acquired ones by SENSE, whose coil maps interpolate k-space; that is the correction for the sampling
density, and it keeps the scale within a few percent of its value for a full centre.

A mean over the field of view depends on it: twice the air around a head makes the scale √2 smaller, and changes what a
noise level means. The scale named ``field_of_view`` is for weights that were trained with it, on data of about one such
field; :func:`~direct_deepen.intensity_scale` takes that field where the data have a larger one, as with readout
oversampling. The scale named ``object`` knows neither air nor the size of the head:

.. math:: s = 3 \left( \frac{\sum_r I^4}{\sum_r I^2} \right)^{1/2}, \qquad
          I^2 = \sum_c |F^H (w b_c)|^2, \qquad w = \cos^2\!\Big(\frac{\pi |k|}{2 r}\Big),

the root mean square of the low-pass image I with its own energy as weight: zeros add nothing to either sum. The window
goes to zero at the edge of the disc, so that its image is narrow and does not reach around the field of view.
"""

import logging
from collections.abc import Sequence

import torch

from direct_deepen.errors import require, require_choice
from direct_deepen.physics.fourier import ifft, ifft2, squared_radius
from direct_deepen.physics.per_image import per_image
from direct_deepen.physics.sense import require_finite_data, sense, within_mask
from direct_deepen.physics.sense_operator import SenseOperator, coil_gain

_logger = logging.getLogger(__name__)

DISC_RADIUS = 0.0375
"""Radius of the disc in cycles per pixel: 12 samples at 320, inside a fully sampled centre of 8 % of the lines."""

BRAIN_MAXIMUM = 3.0
"""Magnitude of the brightest tissue over the root mean square of the field of view, roughly, in brain images."""

_TOLERATED_GAIN = 1.5
"""Of coil maps without a word; what a receive profile that is left in maps with Σ|S|² of about one may have."""

FIELD_OF_VIEW, OBJECT = "field_of_view", "object"

SCALES = (FIELD_OF_VIEW, OBJECT)
"""Conventions of the scale, by name; the first is that of all weights before the second came."""


def central_disc(height: int, width: int, *, device: torch.device | str = "cpu") -> torch.Tensor:
    """Boolean (height, width) mask of the centred k-space samples within :data:`DISC_RADIUS` of the centre."""
    return squared_radius((height, width), device=device) <= DISC_RADIUS**2


def full_sampling_scale(
    kspace: torch.Tensor, *, kind: str = FIELD_OF_VIEW, field_of_view: Sequence[int | torch.Tensor] | None = None
) -> torch.Tensor:
    """Intensity scale of fully sampled k-space; complex (..., coil, height, width) → real (...).

    ``kind`` and ``field_of_view`` are those of :func:`~direct_deepen.intensity_scale`.
    """
    require_choice("kind", kind, SCALES)
    height, width = kspace.shape[-2:]
    if kind == OBJECT:
        radius = squared_radius((height, width), device=kspace.device).sqrt().clamp(max=DISC_RADIUS)
        image = ifft2(kspace * torch.cos(0.5 * torch.pi / DISC_RADIUS * radius) ** 2)
        square = (image.abs() ** 2).sum(dim=-3)
        energy = square.sum(dim=(-2, -1))
        mean = (square**2).sum(dim=(-2, -1)) / torch.where(energy > 0, energy, 1)
    else:
        disc = central_disc(height, width, device=kspace.device)
        sizes = [torch.as_tensor(size, device=kspace.device) for size in field_of_view or (height, width)]
        require(
            len(sizes) == 2 and all(bool((size >= 1).all()) for size in sizes),
            f"field_of_view is {[size.tolist() for size in sizes]}; allowed: rows and columns, at least 1",
        )
        # A crop has left less than that; rotations by a right angle have exchanged rows and columns.
        pixels = (sizes[0] * sizes[1]).clamp(max=height * width)
        mean = (kspace.abs() ** 2 * disc).sum(dim=(-3, -2, -1)) / pixels
    return BRAIN_MAXIMUM * mean.sqrt()


def intensity_scale(
    A: SenseOperator,
    masked_kspace: torch.Tensor,
    *,
    kind: str = FIELD_OF_VIEW,
    field_of_view: Sequence[int | torch.Tensor] | None = None,
) -> torch.Tensor:
    """Intensity scale of undersampled k-space; divide k-space by it before, and multiply images by it after.

    Complex (batch, coil, height, width), zero where not acquired → real (batch,), above zero. A :class:`DeepenError` if
    no sample of the disc is acquired, those there are all zero, or the data are not finite. The operator may be any
    with ``forward``, ``adjoint``, ``normal``, ``sampling_mask`` and ``fully_sampled``. Of volumes and series it is the
    root mean square over slices or frames.

    ``kind`` is that of the energy's training, one of :data:`SCALES`; energies that come with the package have the
    default. ``field_of_view``, for it alone, are rows and columns of the field of view that training had, in pixels of
    the data, each for all images or one by one, where the data have a larger one: 320 of 640 rows if the readout is
    oversampled.

    It is that of an image as bright as the root sum of squares of the coils. A warning says where coil maps are in
    another unit (:func:`~direct_deepen.physics.coil_gain`): the image is not, and energies are not for it.
    """
    require(
        hasattr(A, "sampling_mask"), "intensity_scale needs an operator with a sampling_mask, such as SenseOperator"
    )
    require_finite_data(masked_kspace)
    masked_kspace = within_mask(A, masked_kspace)
    height, width = masked_kspace.shape[-2:]
    disc = central_disc(height, width, device=masked_kspace.device)
    acquired = (A.sampling_mask != 0) & disc
    require(
        bool(acquired.flatten(1).any(dim=1).all()),
        "sampling_mask has no sample in the central disc of k-space; allowed: masks that sample the centre",
    )
    _tell_unit_of_maps(A, masked_kspace)
    # In units of a power of two, which costs no digit: squares of large or small numbers leave the range of a float.
    largest = masked_kspace.abs().flatten(1).amax(dim=1)
    unit = torch.ldexp(torch.ones_like(largest), largest.frexp().exponent)
    masked_kspace = masked_kspace / per_image(unit, masked_kspace)
    filled = masked_kspace
    if not bool((acquired == disc).all()):
        # The regularisation only has to keep the unmeasured part of the image from growing.
        image = sense(A, masked_kspace, regularization=1e-2, tolerance=1e-3, max_iterations=30)
        # What is not acquired is zero in the data.
        filled = A.fully_sampled().forward(image).mul_(~acquired).add_(masked_kspace)
    scales = full_sampling_scale(_slices(A, filled), kind=kind, field_of_view=field_of_view)
    scale = scales * unit if scales.ndim == 1 else scales.square().flatten(1).mean(dim=1).sqrt() * unit
    require(
        bool((scale > 0).all()),
        "masked_kspace is zero in the central disc of k-space; allowed: data with a signal there",
    )
    return scale


def _slices(A: SenseOperator, kspace: torch.Tensor) -> torch.Tensor:
    """Return k-space (batch, coil, ..., height, width) as that of slices, (batch, ..., coil, height, width)."""
    across = [axis for axis in getattr(A, "fourier_axes", ()) if axis < -2]
    return (ifft(kspace, across) if across else kspace).movedim(1, -3)


def _tell_unit_of_maps(A: SenseOperator, masked_kspace: torch.Tensor) -> None:
    if not hasattr(A, "power"):
        return
    gain = coil_gain(A, masked_kspace)
    worst = float(gain[gain.log().abs().argmax()])
    if not 1 / _TOLERATED_GAIN < worst < _TOLERATED_GAIN:
        _logger.warning(
            "sensitivity_map has a mean Σ|S|² of %.3g over the image, energies expect 1: take the operator of "
            "align_phase, whose image is %.3g times that of these maps, or normalize_sensitivity_map.", worst**2, worst,
        )  # fmt: skip
