"""What a cell of a benchmark says of a method's posterior on one slice."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.stats import t as student

from direct_deepen.posterior.calibration import object_pixels

_LEVEL = 0.9


@dataclass(frozen=True)
class PosteriorRow:
    """The posterior of one method on one slice of one problem; means are over the pixels inside the object.

    Attributes
    ----------
    method, mask, case
        Names of the method, the problem and the slice.
    num_samples
        Samples that mean and standard deviation were taken from.
    sample_seconds, sample_evaluations
        Seconds, and evaluations of ∇E or of the network, of one sample; MAP is not counted.
    std
        Mean standard deviation of the magnitude, in scaled intensities.
    error
        Mean absolute error of the posterior mean.
    coverage_90
        Share of the pixels whose reference lies in the 90 % interval, :func:`coverage`.
    """

    method: str
    mask: str
    case: str
    num_samples: int
    sample_seconds: float
    sample_evaluations: float
    std: float
    error: float
    coverage_90: float


def posterior_row(
    method: str, problem: str, case: str, arrays: Mapping[str, torch.Tensor], *, chains: int, num_samples: int,
    scale: torch.Tensor, reference: torch.Tensor
) -> PosteriorRow:  # fmt: skip
    """Return the row of one slice.

    Parameters
    ----------
    method, problem, case
        Names.
    arrays
        What the engine's reconstruction has for the posterior file, with a batch of one.
    chains, num_samples
        Chains that time and evaluations are shared among, and samples kept of all of them.
    scale
        Takes scaled intensities to those of ``arrays``, real (1,).
    reference
        In scaled intensities, complex (1, height, width).
    """
    truth = reference[0].abs()
    mean, std = (arrays[name][0].abs() / scale for name in ("mean", "std"))
    inside = object_pixels(truth)
    return PosteriorRow(
        method,
        problem,
        case,
        num_samples,
        float(arrays["posterior_seconds"]) / chains,
        float(arrays["posterior_gradient_evaluations"]) / chains,
        float(std[inside].mean()),
        float((mean - truth)[inside].abs().mean()),
        coverage(mean[inside], std[inside], truth[inside], num_samples=num_samples),
    )


def coverage(mean: torch.Tensor, std: torch.Tensor, reference: torch.Tensor, *, num_samples: int) -> float:
    r"""Return the share of references in the 90 % interval that S samples predict for one more of the same kind.

    .. math:: m \pm t_{S-1} \, s \sqrt{1 + 1/S}

    with the quantile t of Student's distribution. Quantiles of few samples hold less than they should (those at 5 and
    95 % of 16 samples hold 79 % of what the samples are drawn from); this holds 90 % of a normal distribution, however
    few there are.
    """
    factor = float(student.ppf((1 + _LEVEL) / 2, num_samples - 1)) * (1 + 1 / num_samples) ** 0.5
    return float(((reference - mean).abs() <= factor * std).double().mean())
