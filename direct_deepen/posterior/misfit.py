r"""Whether a reconstruction is one that data and model can vouch for: figures that need no reference.

For an image x of data b with N samples, noise level ε (√2 times the noise η per real component), an object w of P
pixels, and the SENSE image s of the same data:

.. math::
    \text{outside} = \frac{\sum_{k \notin B} |(Fx)_k|^2}{\sum_k |(Fx)_k|^2}, \quad
    \text{brightness} = \frac{\max |x|}{\max |s|}, \quad
    \text{departure} = \frac{\|x - s\|^2}{\|s\|^2}, \quad
    \text{residual} = \frac{\|Ax - b\|^2}{2 N \eta^2} = \frac{\|Ax - b\|^2}{N \varepsilon^2}, \quad
    \text{energy} = \frac{E(wx) - E(0)}{P}, \quad
    \text{unlike training} = \frac{2}{\varepsilon_0^2} \frac{E(wx) - E(0)}{P}.

B is the measured band: about the centre of k-space, the rectangle, and within it the ellipse, that just hold all
samples and their mirror images. What lies beyond is the prior's alone, while holes within the band, and the half that
partial Fourier leaves out, are filled from what is measured. The residual of the truth is one up to
:math:`1/\sqrt{N}` (‖n‖² of complex noise has the mean 2Nη² and the variance 4Nη⁴), and of an image fitted to the data
below. Departure is, but for the noise in s, what the prior adds where nothing is measured. The object, w = 1, is where
|x|² about a pixel is a twentieth and more of its mean over the object, the mean weighted by itself: air counts for
nothing, whether it holds noise, as in the images of training, or hardly any, as in MAP images. The prior is
:math:`\exp(-2E/\varepsilon_0^2)`, so that the last figure is the exponent by pixel, one for what is as far from the
prior's images as noise of ε₀ per pixel. Figures of what is left of the data by place in k-space are those of
:mod:`~direct_deepen.posterior.explanation`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.precision import without_autocast
from direct_deepen.physics.sense import within_mask
from direct_deepen.posterior.explanation import explanation, positive
from direct_deepen.priors.energy import DifferentiableEnergy, prior_noise_std

ENERGY = "energy_per_pixel"
NOISE = ("noise_above", "noise_below")
"""Figures of the noise level that was said."""

LIMITS = {
    "outside_band": 0.1,
    "brightness": 1.6,
    "departure": 0.2,
    "residual": 12.0,
    "unexplained": 0.15,
    "noise_above": 1.8,
    "noise_below": 1.5,
    "spike": 30.0,
    "off_centre": 2.0,
    "unlike_training": 5.0,
}
"""Of figures by name: the guide has what was measured on either side."""

LIKELY = {
    "outside_band": "structures beyond what was measured",
    "brightness": "values that the prior made up",
    "departure": "an image that the prior made up",
    "residual": "coil maps that are wrong",
    "unexplained": "coil maps that are wrong",
    "noise_above": "more noise than was said",
    "noise_below": "less noise than was said",
    "spike": "a sample that was disturbed",
    "off_centre": "a centre of k-space elsewhere",
    "unlike_training": "motion, or what training never saw",
    ENERGY: "what training never saw, or more noise",
}
"""What the trouble is likely to be where a figure is above its limit."""

_OBJECT = 0.05
"""Share of the object's mean |x|² from which on a pixel is of it: magnitudes of 0.22 of its own. Air with noise of 0.05
per component, five times the usual level, has less."""
_NEIGHBOURHOOD = 7
"""Pixels along an axis over which |x|² is averaged for it: the noise of 49 makes 14 %."""

_SPREADS, _FACTOR = 5.0, 2.0
"""An energy is beyond those of training if it exceeds their mean by so many deviations, and is so many times it."""


@dataclass(frozen=True)
class Misfit:
    """Figures of a batch of reconstructions, each real (batch,)."""

    outside_band: torch.Tensor
    """Share of |Fx|² beyond the measured band; zero where that ends at the edge of k-space."""
    brightness: torch.Tensor
    """Largest |x| over that of the SENSE image."""
    departure: torch.Tensor
    """‖x − s‖² over ‖s‖² of the SENSE image s."""
    residual: torch.Tensor
    """‖Ax − b‖² over what noise alone makes of it."""
    energy_per_pixel: torch.Tensor | None = None
    """E of the object over its number of pixels, where there is an energy."""
    unlike_training: torch.Tensor | None = None
    """That times 2/ε₀², where the energy knows its ε₀."""
    unexplained: torch.Tensor | None = None
    """This and what follows: :class:`~direct_deepen.posterior.explanation.Explanation`, where there is a mask."""
    noise_above: torch.Tensor | None = None
    noise_below: torch.Tensor | None = None
    spike: torch.Tensor | None = None
    off_centre: torch.Tensor | None = None

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return the figures by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def flagged(self) -> torch.Tensor:
        """Which images have a figure above its limit, :data:`LIMITS`: boolean (batch,)."""
        figures = self.arrays()
        return torch.stack([~(figures[name] <= limit) for name, limit in LIMITS.items() if name in figures]).any(dim=0)


@without_autocast
def misfit(
    A: LinearOperator,
    b: torch.Tensor,
    image: torch.Tensor,
    sense_image: torch.Tensor,
    noise_std: float | torch.Tensor,
    energy: DifferentiableEnergy | None = None,
) -> Misfit:
    """Return the figures of images of a batch, complex (batch, height, width), that show a result not to be trusted.

    ``b`` are the data, ``sense_image`` is their :func:`~direct_deepen.sense`, and ``noise_std`` ε of the posterior, √2
    times the noise per real component, one number or one for every image, all in scaled intensities. ``energy`` is the
    prior's, by :func:`~direct_deepen.at_noise` of one that depends on the noise. Without a ``sampling_mask`` of the
    operator all data count as measured, nothing lies outside the band, and no figures are by place in k-space.
    """
    mask = getattr(A, "sampling_mask", None)
    measured = within_mask(A, b)
    left = A.forward(image) - measured
    residual = _squares(left)
    samples = torch.full_like(residual, b[0].numel())
    outside, places = torch.zeros_like(residual), dict[str, torch.Tensor]()
    if mask is not None:
        samples = (mask != 0).expand(b.shape).flatten(1).sum(dim=1).to(residual.dtype)
        spectrum = fft2(image)
        outside = _squares(spectrum * ~measured_band(mask[:, 0])) / positive(_squares(spectrum))
        places = vars(explanation(left, measured, mask, noise_std))
    largest, of_sense = (value.abs().amax(dim=(1, 2)) for value in (image, sense_image))
    per_pixel = None if energy is None else energy_of_object(energy, image)
    trained = None if energy is None else prior_noise_std(energy)
    return Misfit(
        outside_band=outside,
        brightness=largest / positive(of_sense),
        departure=_squares(image - sense_image) / positive(_squares(sense_image)),
        residual=residual / (samples * noise_std**2),
        energy_per_pixel=per_pixel,
        unlike_training=None if per_pixel is None or trained is None else 2 / trained**2 * per_pixel,
        **places,
    )


def energy_of_object(energy: DifferentiableEnergy, image: torch.Tensor) -> torch.Tensor:
    """Return (E(wx) − E(0))/P of images, complex (batch, height, width): air beside the object does not change it."""
    power = avg_pool2d(image.abs().square()[:, None], _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2)[:, 0]
    mean = power.square().sum(dim=(1, 2)) / positive(power.sum(dim=(1, 2)))
    inside = power > _OBJECT * mean[:, None, None]
    nothing = energy.value_and_grad(torch.zeros_like(image[:1]))[0]
    return (energy.value_and_grad(image * inside)[0] - nothing) / inside.sum(dim=(1, 2)).clamp_min(1)


def exceeded(
    figures: Mapping[str, np.ndarray], training_energy: tuple[float, float] | None = None
) -> dict[str, tuple[float, list[int]]]:
    """Return the limits that slices exceed, by the name of the figure, and the numbers of these slices, from 0.

    ``figures`` are those of a volume, each real (slice,); what there is not is not asked for. ``training_energy`` is
    mean and standard deviation of the energies of the images that training saw.
    """
    limits = dict(LIMITS)
    if training_energy is not None:
        mean, std = training_energy
        limits[ENERGY] = max(mean + _SPREADS * std, _FACTOR * mean)
    found = {
        name: (limit, np.flatnonzero(~(np.asarray(figures[name]) <= limit)).tolist())
        for name, limit in limits.items()
        if name in figures
    }
    return {name: (limit, slices) for name, (limit, slices) in found.items() if slices}


def measured_band(sampling_mask: torch.Tensor) -> torch.Tensor:
    """Return B of a mask, centred (batch, height, width): rectangle and ellipse that hold all samples; boolean."""
    sampled = sampling_mask != 0
    height, width = sampled.shape[-2:]
    rows, columns = (
        (torch.arange(size, device=sampled.device) - size // 2).abs().to(torch.float64) for size in (height, width)
    )
    rows, columns = (axis[None].expand(len(sampled), -1) for axis in (rows, columns))
    row_end = (rows * sampled.any(dim=2)).amax(dim=1)[:, None, None]
    column_end = (columns * sampled.any(dim=1)).amax(dim=1)[:, None, None]
    radius = (rows[:, :, None] / row_end.clamp_min(1)) ** 2 + (columns[:, None] / column_end.clamp_min(1)) ** 2
    end = (radius * sampled).amax(dim=(1, 2))[:, None, None]
    return (rows[:, :, None] <= row_end) & (columns[:, None] <= column_end) & (radius <= end)


def _squares(value: torch.Tensor) -> torch.Tensor:
    return value.abs().square().flatten(1).sum(dim=1)
