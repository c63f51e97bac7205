"""Sequences of falling noise levels that annealed samplers and diffusions go through."""

import math
from collections.abc import Sequence
from itertools import pairwise

from direct_deepen.errors import require, require_count, require_positive


def power_schedule(largest: float, smallest: float, count: int, *, exponent: float = 5.0) -> list[float]:
    r"""Return ``count`` noise levels from the largest down to the smallest (Karras et al. 2022, equation 5; ALPS).

    .. math:: \sigma_i = \left( \sigma_{max}^{1/\rho} + \frac{i}{T - 1} (\sigma_{min}^{1/\rho} -
              \sigma_{max}^{1/\rho}) \right)^{\rho}

    with T ≥ 2 levels, σ_max > σ_min > 0 per real component, and the ``exponent`` ρ > 0: 1 is linear, larger ones dwell
    at low levels; ALPS uses 5. A :class:`DeepenError` for arguments out of range.
    """
    require_positive("smallest", smallest)
    require(smallest < largest < math.inf, f"largest is {largest!r}; allowed: finite and > smallest = {smallest!r}")
    require_count("count", count, 2)
    require_positive("exponent", exponent)
    first, last = largest ** (1 / exponent), smallest ** (1 / exponent)
    levels = [(first + step / (count - 1) * (last - first)) ** exponent for step in range(count)]
    # The ends are what was asked for, to the last digit.
    return [largest, *levels[1:-1], smallest]


def variance_exploding_schedule(count: int, base: float) -> list[float]:
    r"""Return the levels of the diffusion dx = Λ^t dw at the times 1, 1 − 1/N, …, 1/N (DEEPEN, section IV).

    .. math:: \sigma(t)^2 = \frac{\Lambda^{2t} - 1}{2 \log \Lambda}

    for a ``base`` Λ > 1 and N ≥ 1; a :class:`DeepenError` for others.
    """
    require_count("count", count)
    require(1 < base < math.inf, f"base is {base!r}; allowed: finite and > 1")
    logarithm = math.log(base)
    return [math.sqrt(math.expm1(2 * (step / count) * logarithm) / (2 * logarithm)) for step in range(count, 0, -1)]


def require_falling(noise_levels: Sequence[float]) -> None:
    """Raise :class:`DeepenError` unless there are levels, all positive and each below the one before."""
    require(len(noise_levels) > 0, "noise_levels is empty; allowed: one or more")
    for level in noise_levels:
        require_positive("noise_levels", level)
    falling = all(before > after for before, after in pairwise(noise_levels))
    require(falling, f"noise_levels is {list(noise_levels)!r}; allowed: falling")
