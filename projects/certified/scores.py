"""What samples are worth beside the exact posterior: mean square error, regions and intervals, CRPS, deviations."""

import math
from dataclasses import dataclass

import numpy as np
import scoringrules
import torch

from projects.certified.problem import Exact, Problem, fourier_matrix

LEVELS = (50, 90, 95)
"""Per cent of the regions and intervals."""

PARTS = ("pixels", "measured", "not_measured")
"""Of what variances are: of pixels, of measured frequencies, and of the others."""


@dataclass(frozen=True)
class Scores:
    """A number for every signal, real (batch,)."""

    excess: torch.Tensor
    """‖mean − exact mean‖², less what so many independent samples have by chance: per real component, summed."""
    variance: torch.Tensor
    """Of the samples, per real component: summed over pixels, measured frequencies and the others; (batch, 3)."""
    exact_variance: torch.Tensor
    """What it is to be. Summed over pixels it is also the mean square error of the exact mean."""
    crps: torch.Tensor
    """Mean over real components of the CRPS of the truth."""
    region: torch.Tensor
    """Whether the truth is in the highest-density region of each of the levels; (batch, level)."""
    interval: torch.Tensor
    """Share of real components whose central interval holds the truth; (batch, level)."""


def score(samples: torch.Tensor, problem: Problem, exact: Exact) -> Scores:
    """Return the scores of samples, complex (sample, batch, 1, pixels).

    Regions and intervals are those of ranks: with S samples of the exact posterior the rank of the truth is uniform on
    0…S, so that they hold it just as often as they say where S + 1 is a multiple of 20 (40 for intervals of 95 %).
    """
    count = len(samples)
    mean = samples.mean(dim=0)
    variance = _variances(samples - mean, problem)
    density = (problem.log_posterior(samples) < problem.log_posterior(problem.truth)).sum(dim=0)
    components, truth = _real(samples), _real(problem.truth)
    below = (components < truth).sum(dim=0)
    return Scores(
        excess=0.5 * (mean - exact.mean).abs().square().sum(dim=(1, 2)) - variance[:, 0] / count,
        variance=variance,
        exact_variance=_exact_variances(exact, problem),
        crps=_crps(components, truth),
        region=torch.stack([density >= (1 - level / 100) * (count + 1) - 1e-9 for level in LEVELS], dim=1).double(),
        interval=torch.stack([_held(below, count, level) for level in LEVELS], dim=1),
    )


def _variances(apart: torch.Tensor, problem: Problem) -> torch.Tensor:
    """Return the unbiased variances of what is left of samples without their mean."""
    frequencies = apart @ fourier_matrix(apart.shape[-1]).T
    pixels, power = (0.5 * part.abs().square().sum(dim=0)[:, 0] / (len(part) - 1) for part in (apart, frequencies))
    return _summed(pixels, power, problem)


def _exact_variances(exact: Exact, problem: Problem) -> torch.Tensor:
    F = fourier_matrix(exact.covariance.shape[-1])
    power = torch.einsum("ij,bjk,ik->bi", F, exact.covariance, F.conj()).real
    return _summed(exact.covariance.diagonal(dim1=1, dim2=2).real, power, problem)


def _summed(pixels: torch.Tensor, power: torch.Tensor, problem: Problem) -> torch.Tensor:
    measured = problem.mask[:, 0, 0].to(power.dtype)
    return torch.stack([part.sum(dim=1) for part in (pixels, measured * power, (1 - measured) * power)], dim=1)


def _real(image: torch.Tensor) -> torch.Tensor:
    """Return the real components of images (..., batch, 1, pixels); (..., batch, components)."""
    return torch.view_as_real(image).flatten(-3)


def _crps(samples: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    # By moments weighted with ranks, which is the fair estimate: its expectation does not depend on how many there are.
    values = scoringrules.crps_ensemble(
        truth.numpy(), np.moveaxis(samples.numpy(), 0, -1), estimator="pwm", backend="numpy"
    )
    return torch.as_tensor(values).mean(dim=1)


def _held(below: torch.Tensor, count: int, level: float) -> torch.Tensor:
    """Return the share of components whose rank is in the middle ``level`` per cent of the S + 1."""
    left_out = (1 - level / 100) / 2 * (count + 1)
    # Between whole ranks what is left out of the last one is left out of its probability.
    outside = (left_out - torch.minimum(below, count - below)).clamp(0, 1)
    return (1 - outside).mean(dim=1)


def summary(scores: Scores, exact_samples: Scores) -> dict[str, float]:
    """Return means over signals with their standard errors, ``_se``; of ratios, those of a ratio of means.

    The gap is in dB. Deviations and CRPS are in per cent: of the exact deviation, and of the CRPS of as many samples of
    the exact posterior, both less one hundred.
    """
    ratio, error = _ratio(scores.excess, scores.exact_variance[:, 0])
    row = {"gap": 10 * math.log10(1 + ratio), "gap_se": 10 / math.log(10) * error / (1 + ratio)}
    for number, part in enumerate(PARTS):
        ratio, error = _ratio(scores.variance[:, number], scores.exact_variance[:, number])
        row |= {f"deviation_{part}": 100 * (ratio**0.5 - 1), f"deviation_{part}_se": 50 * error / ratio**0.5}
    ratio, error = _ratio(scores.crps, exact_samples.crps)
    row |= {"crps": float(scores.crps.mean()), "crps_excess": 100 * (ratio - 1), "crps_excess_se": 100 * error}
    for name, held in (("region", scores.region), ("interval", scores.interval)):
        for level, values in zip(LEVELS, held.T, strict=True):
            row |= {f"{name}_{level}": 100 * float(values.mean())}
            row |= {f"{name}_{level}_se": 100 * float(values.std()) / len(values) ** 0.5}
    return row


def _ratio(above: torch.Tensor, below: torch.Tensor) -> tuple[float, float]:
    """Return the ratio of two means over signals, and its standard error to first order."""
    ratio = float(above.mean() / below.mean())
    return ratio, float((above - ratio * below).std() / below.mean()) / len(above) ** 0.5
