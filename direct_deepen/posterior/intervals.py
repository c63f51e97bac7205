r"""Intervals that samples predict for one more, and the level of the one that just holds a value.

.. math:: m \pm t_{S-1} \, s \sqrt{1 + 1/S}

with mean m and standard deviation s of S samples and the quantile t of Student's distribution: the prediction interval
of a normal distribution, which holds its share however few samples there are (Hahn and Meeker, Statistical intervals,
1991, section 4.7). Quantiles of S samples, whose ends are themselves uncertain, hold (S − 1)/(S + 1) of it. S counts
chains, as states of one chain are not independent: where 4 of correlation 0.9 are kept of each of 8 chains, 90 % hold
90 %, which counted by states were 85 %; where they are independent, 94 %. Of antithetic pairs the mean is better known
than that of as many independent chains, and the deviation less well: at 90 % the one makes up for the other (four
pairs: 90.2 %, eight: 90.0 %).
"""

from collections.abc import Sequence

import torch
from scipy.stats import t as student

from direct_deepen.errors import require


def predictive_interval(
    mean: torch.Tensor, std: torch.Tensor, level: float, *, num_chains: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ends of the interval of a level between zero and one; real (...) each.

    A :class:`DeepenError` for another level, and for a single chain, which says nothing of its width.
    """
    require(0 < level < 1, f"level is {level!r}; allowed: between 0 and 1")
    _require_chains(num_chains)
    half = float(student.ppf((1 + level) / 2, num_chains - 1)) * (1 + 1 / num_chains) ** 0.5 * std
    return mean - half, mean + half


def containing_level(
    mean: torch.Tensor, std: torch.Tensor, reference: torch.Tensor, *, num_chains: int
) -> torch.Tensor:
    """Return the level of the smallest :func:`predictive_interval` that holds a reference, real (...), float64.

    Zero at the mean; one where there is no deviation to reach the reference.
    """
    _require_chains(num_chains)
    distance = (reference - mean).abs() / (std * (1 + 1 / num_chains) ** 0.5)
    level = torch.from_numpy(1 - 2 * student.sf(distance.double().cpu().numpy(), num_chains - 1))
    return torch.where((reference == mean).cpu(), 0.0, level)


def coverage(containing: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """Return, for nominal levels, the share of values that lie in their interval, float64 (level,).

    ``containing`` is that of :func:`containing_level`, at what is of interest.
    """
    return torch.tensor([float((containing <= level).double().mean()) for level in levels], dtype=torch.float64)


def _require_chains(num_chains: int) -> None:
    require(num_chains >= 2, f"there is {num_chains} chain; allowed for an interval: 2 or more")
