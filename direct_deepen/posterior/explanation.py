r"""Whether the model explains the data: what is left of them by place in k-space, and what that is likely to come from.

Of C coils whose noise has the standard deviation η per real component, ε = √2η, an image x leaves at a sample s

.. math:: q_s = \frac{1}{C\varepsilon^2} \sum_c |(Ax - b)_{cs}|^2 ,

which for the truth is of a gamma distribution of shape C and mean one, whatever the place: noise is alike everywhere,
and errors of the model are not. Coil maps that are wrong leave their share of the *signal*, most of it at the centre; a
wrong noise level shows where there is hardly any signal, at the edge; a spike is a single sample among others that are
explained. With Q the median of q over the outermost ring (:mod:`~direct_deepen.physics.rings`), M that of the gamma
distribution, N the number of samples of all coils, P that of pixels, and U(s) the other samples not further than three
rows and columns from s:

.. math::
    \text{unexplained}^2 = \frac{(\|Ax - b\|^2 - N\varepsilon^2)_+}{\|b\|^2}, \quad
    \text{noise above} = \frac{Q}{M}, \quad
    \text{noise below} = \Big(1 - \frac{P}{N}\Big)_{\!+} \frac{M}{Q}, \quad
    \text{spike} = \max_s \frac{q_s}{1 + \operatorname{mean}_{U(s)} q} .

An image fitted to the data by least squares alone leaves the share 1 − P/N of the noise, and a prior makes that more:
only below it noise is less than was said. The median is moved by no spike. Off-centre is the distance, in samples, of
the largest data, means over 3×3 places, from the middle of k-space.
"""

from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch.nn.functional import avg_pool2d

from direct_deepen.physics.rings import num_rings, ring_numbers

FEWEST = 32
"""Samples of a ring that its median is taken of; with eight coils it is known within 8 % then."""
_NEIGHBOURHOOD = 7


@dataclass(frozen=True)
class Explanation:
    """Figures of a batch, each real (batch,)."""

    unexplained: torch.Tensor
    """Root of the share of the data's energy that the image leaves beyond noise: wrong coil maps leave their error."""
    noise_above: torch.Tensor
    """What is left at the edge of k-space over what noise leaves: above one it is more than was said."""
    noise_below: torch.Tensor
    """What least squares leave of the noise over what is left at the edge: above one noise is less than was said."""
    spike: torch.Tensor
    """What is left at the worst sample over that at its neighbours: of one that was disturbed."""
    off_centre: torch.Tensor
    """Samples between the largest data and the middle of k-space."""


def explanation(
    residual: torch.Tensor, masked_kspace: torch.Tensor, sampling_mask: torch.Tensor, noise_std: float | torch.Tensor
) -> Explanation:
    """Return the figures of Ax − b and b, complex (batch, coil, height, width), zero where the mask is.

    The mask is (batch, 1, height, width), and ``noise_std`` is ε, one number or one for every image.
    """
    sampled = (sampling_mask[:, 0] != 0).expand(len(residual), -1, -1)
    coils, (height, width) = residual.shape[1], residual.shape[-2:]
    variance = torch.as_tensor(noise_std, device=residual.device).to(residual.real.dtype).square().expand(len(residual))
    left = residual.abs().square().mean(dim=1) / variance[:, None, None] * sampled
    numbers = sampled.sum(dim=(1, 2)).to(left.dtype)
    beyond = (left.sum(dim=(1, 2)) - numbers).clamp_min(0) * coils * variance
    energy = masked_kspace.abs().square().sum(dim=(1, 2, 3))
    edge = _median_at_the_edge(left, sampled) / float(gammaincinv(coils, 0.5) / coils)
    least = (1 - height * width / (coils * numbers)).clamp_min(0)
    return Explanation(
        unexplained=(beyond / positive(energy)).sqrt(),
        noise_above=edge,
        noise_below=least / positive(edge),
        spike=(left / (1 + _mean_of_neighbours(left, sampled))).amax(dim=(1, 2)),
        off_centre=_distance_of_largest(masked_kspace),
    )


def _median_at_the_edge(left: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """Return the median over the outermost ring that has enough samples, real (batch,); of all, where none has."""
    height, width = left.shape[-2:]
    rings = ring_numbers(height, width, device=left.device)
    result = []
    for values, places in zip(left, sampled, strict=True):
        chosen = places
        for ring in reversed(range(num_rings(height, width))):
            within = places & (rings == ring)
            if int(within.sum()) >= FEWEST:
                chosen = within
                break
        result.append(values[chosen].median())
    return torch.stack(result)


def _mean_of_neighbours(left: torch.Tensor, sampled: torch.Tensor) -> torch.Tensor:
    """Return the mean over the other samples about every place; zero where there are none."""

    def total(values: torch.Tensor) -> torch.Tensor:
        about = avg_pool2d(values[:, None], _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2)[:, 0]
        return about * _NEIGHBOURHOOD**2 - values

    # In double precision: a spike is a million times its neighbours, and is taken from the sum.
    number = total(sampled.double()).round()
    return (total(left.double()).clamp_min(0) / number.clamp_min(1)).to(left.dtype)


def _distance_of_largest(kspace: torch.Tensor) -> torch.Tensor:
    height, width = kspace.shape[-2:]
    amplitude = avg_pool2d(kspace.abs().square().sum(dim=1).sqrt()[:, None], 3, 1, 1)[:, 0]
    largest = amplitude.flatten(1).argmax(dim=1)
    row, column = largest // width - height // 2, largest % width - width // 2
    return torch.hypot(row.to(amplitude.dtype), column.to(amplitude.dtype))


def positive(value: torch.Tensor) -> torch.Tensor:
    """Return numbers to divide by: the least above zero in the place of zero."""
    return value.clamp_min(torch.finfo(value.dtype).tiny)
