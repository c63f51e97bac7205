"""Calibration of a posterior given by samples, against the magnitude of a reference.

Do central intervals of |x| have their nominal coverage, or is the posterior overconfident? Does the standard deviation
predict the error? Which scale of the samples about their mean would correct the coverage?
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import bisect
from scipy.stats import spearmanr
from scipy.stats import t as student

from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.progress import progress_bar, show_metrics

LEVELS = tuple(step / 20 for step in range(1, 20))
"""Nominal coverages of a calibration curve: 5 to 95 per cent."""

REMOVED = tuple(step / 20 for step in range(20))
"""Shares of pixels that a sparsification curve leaves out: 0 to 95 per cent."""

_SCALE_STEP = 1.25
_SCALE_STEPS = 10


def object_pixels(reference: torch.Tensor) -> torch.Tensor:
    """Return the pixels inside the object: where a magnitude (..., height, width) is above 5 % of its largest value.

    The rest is air, noise without an image, whose share of the pixels depends on the field of view alone.
    """
    return reference > 0.05 * reference.amax(dim=(-2, -1), keepdim=True)


def with_data_noise(reference: torch.Tensor, noise_std: float, generator: torch.Generator) -> torch.Tensor:
    """Return |r + n| for a magnitude r, with n complex noise of standard deviation ``noise_std`` per real component.

    Samples of a posterior trained with data noise of standard deviation cε are of images with such noise. The phase of
    r does not matter, as n is circular.
    """
    noise = complex_normal_like(torch.complex(reference, torch.zeros_like(reference)), generator=generator)
    return (reference + noise_std * noise).abs()


def containing_level(posterior: Posterior, reference: torch.Tensor) -> torch.Tensor:
    """Return the level of the smallest central interval of |x| that holds a magnitude, real (batch, height, width).

    The reference lies in :meth:`Posterior.interval` of a level if and only if that level is not below this one, which
    is 0 at the median and 1 at or beyond the outermost samples, of which there are two or more.
    """
    magnitude = posterior.images.abs()
    count = magnitude.shape[0]
    require(count >= 2, f"posterior has {count} sample; allowed: 2 or more")
    under = magnitude <= reference
    number = under.sum(dim=0)
    below = torch.where(under, magnitude, -torch.inf).amax(dim=0)
    above = torch.where(under, torch.inf, magnitude).amin(dim=0)
    # Between two samples the quantile function is linear, and so is its inverse.
    share = (number - 1 + (reference - below) / (above - below)) / (count - 1)
    return torch.where(number > 0, (2 * share - 1).abs(), 1.0)


def coverage(containing: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """Return, for nominal levels, the share of pixels whose reference lies in their interval, float64 (level,).

    ``containing`` is that of :func:`containing_level`, or of :func:`predictive_level`, at the pixels of interest.
    """
    return torch.tensor([float((containing <= level).double().mean()) for level in levels], dtype=torch.float64)


def predictive_level(
    mean: torch.Tensor, std: torch.Tensor, reference: torch.Tensor, *, num_chains: int
) -> torch.Tensor:
    r"""Return the level of the smallest interval, predicted for one more sample, that holds a reference, real (...).

    .. math:: m \pm t_{S-1} \, s \sqrt{1 + 1/S}

    with the quantile t of Student's distribution. Quantiles of few samples hold less than they should
    (:func:`attainable_coverage`); this holds its share of a normal distribution, however few there are. S counts
    chains, as states of one chain are not independent: where 4 of correlation 0.9 are kept of each of 8 chains, 90 %
    hold 90 %, which counted by states were 85 %; where they are independent, 94 %.
    """
    distance = (reference - mean).abs() / (std * (1 + 1 / num_chains) ** 0.5)
    return torch.from_numpy(1 - 2 * student.sf(distance.double().cpu().numpy(), num_chains - 1))


def attainable_coverage(level: float, num_samples: int) -> float:
    """Return the coverage of the interval between quantiles of S independent samples of the exact posterior.

    The ends of an interval between quantiles of samples are uncertain, which lowers coverage: between order statistics
    i and j of S samples lies (j − i)/(S + 1) of any distribution on average, but (j − i)/(S − 1) of the samples by
    linearly interpolated quantiles. So the coverage is (S − 1)/(S + 1) of the level: 87.2 % of 90 % for 64 samples. It
    is exact where the ends are samples, and for a uniform distribution.
    """
    return level * (num_samples - 1) / (num_samples + 1)


def correlations(std: torch.Tensor, error: torch.Tensor) -> tuple[float, float]:
    """Return Pearson's and Spearman's correlation of standard deviations and absolute errors, real (pixel,)."""
    pearson = torch.corrcoef(torch.stack([std, error]).double())[0, 1]
    return float(pearson), float(spearmanr(std.cpu().numpy(), error.cpu().numpy()).statistic)


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


def fit_std_scale(
    posteriors: Sequence[Posterior], references: Sequence[torch.Tensor], *, level: float, progress: bool = False
) -> float:
    """Return the scale s of :meth:`Posterior.rescaled` with which intervals of ``level`` have just that coverage.

    Coverage is that inside the object, averaged over posteriors of one image each, with references (1, height, width).
    Of several solutions it is the one nearest to one: very large scales lift both ends of an interval, and its coverage
    falls again. It is a :class:`DeepenError` if no scale within a factor of ten does it.
    """

    def excess(log_scale: float) -> float:
        shares = [
            coverage(containing_level(posterior.rescaled(math.exp(log_scale)), reference)[pixels], [level])
            for posterior, reference, pixels in zip(posteriors, references, inside, strict=True)
        ]
        share = float(torch.stack(shares).mean())
        show_metrics(bar, scale=math.exp(log_scale), coverage=share)
        bar.update()
        return share - level

    inside = [object_pixels(reference) for reference in references]
    with progress_bar(name="fit", unit="scale", shown=progress) as bar:
        widen = excess(0.0) < 0
        step = math.log(_SCALE_STEP) * (1 if widen else -1)
        for number in range(1, _SCALE_STEPS + 1):
            if (excess(number * step) >= 0) == widen:
                return math.exp(bisect(excess, (number - 1) * step, number * step, xtol=1e-3))
        unscaled = excess(0.0) + level
    raise DeepenError(
        f"no scale of the samples from {_SCALE_STEP**-_SCALE_STEPS:.2g} to {_SCALE_STEP**_SCALE_STEPS:.2g} brings the "
        f"coverage of {level:.0%} intervals to {level:.0%}: it is {unscaled:.1%} without a scale"
    )
