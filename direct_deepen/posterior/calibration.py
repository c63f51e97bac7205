r"""Calibration of a posterior given by samples, against a reference.

Do intervals of u, the part in phase with the mean, have their nominal coverage, for pixels and for means of blocks of
them? Is the power of the samples about their mean that of the error, in every ring of k-space? Does the standard
deviation predict the error? And which factors of the samples about their mean would correct it: one for every ring,
and one for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn.functional import avg_pool2d

from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.rings import num_rings, ring_numbers
from direct_deepen.posterior.intervals import containing_level
from direct_deepen.posterior.posterior import Posterior

LEVELS = tuple(step / 20 for step in range(1, 20))
"""Nominal coverages of a calibration curve: 5 to 95 per cent."""

REMOVED = tuple(step / 20 for step in range(20))
"""Shares of pixels that a sparsification curve leaves out: 0 to 95 per cent."""

_ROUNDS, _CLOSE = 10, 0.02
"""Of the fit of ring factors, and what it ends with: the edge of the object carries power from ring to ring."""
_ROUNDING = 1e-9
"""Of a budget that is zero: (1 − 0.9)·10 − 1 is below it."""
_SMALLEST, _LARGEST = 0.25, 16.0
"""Bounds of the factor of a ring. Of little power much comes from the rings beside, whatever its factor."""
_EXTREME = 10.0
"""Factor beyond which what is fitted has nothing to do with the samples."""


def object_pixels(reference: torch.Tensor) -> torch.Tensor:
    """Return the pixels inside the object: where |r| (..., height, width) is above 5 % of its largest value.

    The rest is air, noise without an image, whose share of the pixels depends on the field of view alone.
    """
    magnitude = reference.abs()
    return magnitude > 0.05 * magnitude.amax(dim=(-2, -1), keepdim=True)


def block_means(values: torch.Tensor, size: int) -> torch.Tensor:
    """Return the means of blocks of ``size``×``size`` pixels, real (..., height, width) → (..., row, column).

    Rows and columns that fill no block are left out.
    """
    height, width = (length // size * size for length in values.shape[-2:])
    return values[..., :height, :width].unflatten(-1, (-1, size)).unflatten(-3, (-1, size)).mean(dim=(-3, -1))


@dataclass(frozen=True)
class Held:
    """What intervals of u hold, of pixels or of means of blocks of them: real (batch, row, column) each."""

    mean: torch.Tensor
    std: torch.Tensor
    reference: torch.Tensor
    containing: torch.Tensor
    """Level of the smallest interval that holds the reference, float64."""

    def at(self, places: torch.Tensor) -> Self:
        """Return those of some places, boolean (batch, row, column) → (place,)."""
        return replace(
            self, **{name: getattr(self, name)[places] for name in ("mean", "std", "reference", "containing")}
        )


def held(posterior: Posterior, reference: torch.Tensor, size: int = 1) -> Held:
    """Compare means of blocks of ``size``×``size`` pixels with those of a reference, complex (batch, height, width)."""
    values, target = (block_means(posterior.in_phase(images), size) for images in (posterior.images, reference))
    mean, std = values.mean(dim=0), values.std(dim=0)
    level = containing_level(mean, std, target, num_chains=posterior.diagnostics.num_chains)
    return Held(mean, std, target, level)


# ---- Where the error is


def correlations(std: torch.Tensor, error: torch.Tensor) -> tuple[float, float]:
    """Return Pearson's and Spearman's correlation of standard deviations and absolute errors, real (pixel,)."""
    pearson = torch.corrcoef(torch.stack([std, error]).double())[0, 1]
    return float(pearson), float(spearmanr(std.cpu().numpy(), error.cpu().numpy()).statistic)


def correlation_ceiling(std: torch.Tensor, *, seed: int = 0) -> float:
    """Return Spearman's correlation of deviations, real (pixel,), with |errors| of just these deviations.

    A normal error is drawn for every pixel: where all deviations are alike, no map of them orders errors.
    """
    deviations = std.double().cpu().numpy()
    errors = np.abs(np.random.default_rng(seed).normal(size=deviations.shape)) * deviations
    return float(spearmanr(deviations, errors).statistic)


@dataclass(frozen=True)
class Sparsification:
    """Mean error of what remains without the shares :data:`REMOVED` of pixels, over that of all, float64 (share,).

    They are removed by decreasing standard deviation, or, for the lower bound ``oracle``, by decreasing error.
    """

    by_std: torch.Tensor
    oracle: torch.Tensor

    @property
    def area(self) -> float:
        """Area between the two curves (AUSE): zero where standard deviation and error have the same order."""
        return float(torch.trapezoid(self.by_std - self.oracle, torch.tensor(REMOVED, dtype=torch.float64)))


def sparsification(std: torch.Tensor, error: torch.Tensor) -> Sparsification:
    """Return the sparsification curves of standard deviations and absolute errors, real (pixel,).

    (Ilg et al., Uncertainty estimates and multi-hypotheses networks for optical flow, 2018.)
    """

    def curve(order: torch.Tensor) -> torch.Tensor:
        # In increasing order, so that the remaining pixels come first.
        sums = error.double()[order].cumsum(dim=0)
        left = torch.tensor([max(1, round((1 - share) * len(error))) for share in REMOVED], device=error.device)
        return (sums[left - 1] / left / (sums[-1] / len(error))).cpu()

    return Sparsification(curve(std.argsort()), curve(error.argsort()))


# ---- By ring of k-space


def ring_powers(posterior: Posterior, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return, by ring of k-space, the power of the error x̄ − r and what samples predict of it, float64 (ring,) each.

    .. math:: \sum_{k \in ring} |F w(\bar x - r)|^2, \quad
        \frac{1 + 1/S}{S' - 1} \sum_j \sum_{k \in ring} |F w(x_j - \bar x)|^2

    w is one inside the object, falls off over its edge, and is zero in air, where a reference has the noise of the
    measurement and samples that of training; S are chains and S' samples. Complex (batch, height, width), of which the
    batch is summed over.
    """
    weight = _tapered(object_pixels(reference))
    rings, count = ring_numbers(*reference.shape[-2:], device=reference.device), len(posterior.images)
    total = num_rings(*reference.shape[-2:])
    mean = posterior.mean

    def power(images: torch.Tensor) -> torch.Tensor:
        square = fft2(weight * images).abs().square().double().flatten(0, -3).sum(dim=0)
        result = torch.zeros(total, dtype=torch.float64, device=square.device)
        return result.index_add_(0, rings.flatten(), square.flatten()).cpu()

    chains = posterior.diagnostics.num_chains
    predicted = sum(power((image - mean)[None]) for image in posterior.images)
    return power((mean - reference)[None]), (1 + 1 / chains) / max(1, count - 1) * torch.as_tensor(predicted)


def _tapered(inside: torch.Tensor) -> torch.Tensor:
    """Return a mask (batch, height, width) with an edge of a few pixels: a jump spreads power over all rings."""
    weight = inside.to(torch.float32)[:, None]
    for _ in range(2):
        weight = avg_pool2d(weight, 3, 1, 1, count_include_pad=True)
    return weight[:, 0]


# ---- What corrects it


def fit_ring_scales(posteriors: Sequence[Posterior], references: Sequence[torch.Tensor]) -> tuple[float, ...]:
    """Return the factors of :meth:`Posterior.rescaled` with which samples have, in every ring, the power of the error.

    Powers are those of :func:`ring_powers`, summed over posteriors of one image each. Factors are a quarter to 16,
    and may be too near to one at these ends. A :class:`DeepenError` if samples have no power.
    """
    count = max(num_rings(*reference.shape[-2:]) for reference in references)
    scales = np.ones(count)
    for _ in range(_ROUNDS):
        errors, predicted = np.zeros(count), np.zeros(count)
        for posterior, reference in zip(posteriors, references, strict=True):
            found = ring_powers(posterior.rescaled(1.0, scales.tolist()), reference)
            for sums, powers in zip((errors, predicted), found, strict=True):
                sums[: len(powers)] += powers.numpy()
        require(bool((predicted > 0).all()), "samples have no spread in a ring of k-space; allowed: chains that differ")
        scales = np.clip(scales * np.sqrt(errors / predicted), _SMALLEST, _LARGEST)
        if np.abs(errors / predicted - 1).max() < _CLOSE:
            break
    return tuple(scales.tolist())


def fit_std_scale(posteriors: Sequence[Posterior], references: Sequence[torch.Tensor], *, level: float) -> float:
    """Return the scale s of :meth:`Posterior.rescaled` with which intervals of ``level`` have just that coverage.

    Coverage is that inside the object, averaged over posteriors of one image each, with references, complex
    (1, height, width). It is the quantile of the scales that pixels need; a :class:`DeepenError` if it is beyond a
    tenth or ten times.
    """
    needed, weights = [], []
    for posterior, reference in zip(posteriors, references, strict=True):
        inside = object_pixels(reference)
        scales = needed_scales(posterior, reference, level=level)[inside].double().cpu().numpy()
        needed.append(scales)
        weights.append(np.full(len(scales), 1 / (len(scales) * len(posteriors))))
    order = np.argsort(np.concatenate(needed))
    shares = np.cumsum(np.concatenate(weights)[order])
    place = min(int(np.searchsorted(shares, level)), len(order) - 1)
    scale = float(np.concatenate(needed)[order][place])
    if not 1 / _EXTREME <= scale <= _EXTREME:
        raise DeepenError(
            f"samples would have to be {scale:.3g} times as far from their mean for {level:.0%} intervals; allowed: "
            f"{1 / _EXTREME:g} to {_EXTREME:g}, beyond which they do not describe these references"
        )
    return scale


def needed_scales(posterior: Posterior, reference: torch.Tensor, *, level: float) -> torch.Tensor:
    """Return by which factor an interval has to be wider so that it just holds the reference, real as the reference."""
    lower, upper = posterior.interval(level)
    return (posterior.in_phase(reference) - posterior.mean.abs()).abs() / ((upper - lower) / 2)


# ---- A guarantee


def controlled_scale(needed: Sequence[torch.Tensor], *, level: float) -> float | None:
    r"""Return a scale of intervals whose expected miss on a further volume is at most 1 − ``level``; None for none.

    Conformal risk control (Angelopoulos, Bates, Fisch, Lei, Schuster, ICLR 2024, theorem 1): of n volumes with losses
    :math:`L_i(s) \in [0, 1]` that fall with s, here the share of pixels whose reference is outside,

    .. math:: \hat s = \inf\Big\{s : \frac{1}{n + 1} \Big(\sum_i L_i(s) + 1\Big) \le 1 - level\Big\}.

    It needs nothing of the posterior, but that the n volumes and the further one are exchangeable: drawn alike, in
    any order, and none with a part in how its intervals came about, such as in factors that were fitted to it.
    ``needed`` has, of every volume, the scales that its pixels need, real (pixel,). Of fewer than 1/(1 − level) − 1
    volumes none can promise that.
    """
    count = len(needed)
    budget = (1 - level) * (count + 1) - 1 + _ROUNDING
    if budget < 0:
        return None
    values = np.concatenate([scales.double().cpu().numpy() for scales in needed])
    weights = np.concatenate([np.full(len(scales), 1 / len(scales)) for scales in needed])
    order = np.argsort(values)
    # What is missed by a scale of just this value: all that need more.
    missed = count - np.cumsum(weights[order])
    enough = np.flatnonzero(missed <= budget)
    return float(values[order][enough[0]])
