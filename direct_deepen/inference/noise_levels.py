"""Sequences of falling noise levels that annealed samplers and diffusions go through."""

import math
from collections.abc import Sequence
from itertools import pairwise

from direct_deepen.errors import require, require_count, require_positive


def power_schedule(largest: float, smallest: float, count: int, *, exponent: float = 5.0) -> list[float]:
    r"""Return ``count`` noise levels from the largest down to the smallest (Karras et al. 2022, equation 5; ALPS).

    .. math:: \sigma_i = \left( \sigma_{max}^{1/\rho} + \frac{i}{T - 1} (\sigma_{min}^{1/\rho} -
              \sigma_{max}^{1/\rho}) \right)^{\rho}

    Parameters
    ----------
    largest, smallest
        σ_max > σ_min > 0, per real component.
    count
        T ≥ 2.
    exponent
        ρ > 0: 1 is linear, larger ones dwell at low levels; ALPS uses 5.

    Raises
    ------
    DeepenError
        If an argument is out of range.
    """
    require_positive("smallest", smallest)
    require(smallest < largest < math.inf, f"largest is {largest!r}; allowed: finite and > smallest = {smallest!r}")
    require_count("count", count, 2)
    require_positive("exponent", exponent)
    first, last = largest ** (1 / exponent), smallest ** (1 / exponent)
    levels = [(first + step / (count - 1) * (last - first)) ** exponent for step in range(count)]
    # The ends are what was asked for, to the last digit.
    return [largest, *levels[1:-1], smallest]


def variance_exploding_level(time: float, base: float) -> float:
    r"""Return the noise level at a time of the variance-exploding diffusion dx = Λ^t dw (DEEPEN, section IV).

    .. math:: \sigma(t)^2 = \frac{\Lambda^{2t} - 1}{2 \log \Lambda}

    Parameters
    ----------
    time
        t ≥ 0; one is the end of the diffusion.
    base
        Λ > 1.
    """
    require(0 <= time < math.inf, f"time is {time!r}; allowed: finite and >= 0")
    require(1 < base < math.inf, f"base is {base!r}; allowed: finite and > 1")
    return math.sqrt(math.expm1(2 * time * math.log(base)) / (2 * math.log(base)))


def variance_exploding_schedule(count: int, base: float) -> list[float]:
    """Return the levels at times 1, 1 − 1/N, …, 1/N of :func:`variance_exploding_level`, N = ``count`` of them."""
    require_count("count", count)
    return [variance_exploding_level(step / count, base) for step in range(count, 0, -1)]


def require_falling(noise_levels: Sequence[float]) -> None:
    """Raise :class:`DeepenError` unless there are levels, all positive and each below the one before."""
    require(len(noise_levels) > 0, "noise_levels is empty; allowed: one or more")
    for level in noise_levels:
        require_positive("noise_levels", level)
    falling = all(before > after for before, after in pairwise(noise_levels))
    require(falling, f"noise_levels is {list(noise_levels)!r}; allowed: falling")
