"""Falling noise levels: their ends, their order, and the formulas they come from."""

import math
from itertools import pairwise

import numpy as np
import pytest

from direct_deepen.inference.noise_levels import (
    power_schedule,
    require_falling,
    variance_exploding_schedule,
)


def test_the_power_schedule_is_that_of_the_authors_for_ten_levels():
    # ALPS with ρ = 5 from 100 to 0.1, as their program prints it.
    expected = [100, 64.8, 40.3, 23.8, 13.2, 6.8, 3.15, 1.27, 0.42, 0.10]
    np.testing.assert_allclose(power_schedule(100.0, 0.1, 10), expected, rtol=5e-3)


def test_an_exponent_of_one_is_linear():
    np.testing.assert_allclose(power_schedule(1.0, 0.2, 5, exponent=1.0), [1.0, 0.8, 0.6, 0.4, 0.2])


def test_levels_fall_between_the_ends_that_were_asked_for():
    levels = power_schedule(2.0, 0.003, 17, exponent=7.0)
    assert (levels[0], levels[-1]) == (2.0, 0.003)
    assert all(before > after for before, after in pairwise(levels))


def test_the_exploding_variance_is_the_integral_of_the_squared_diffusion():
    base, levels = 25.0, variance_exploding_schedule(10, 25.0)
    for time, level in zip(np.arange(10, 0, -1) / 10, levels, strict=True):
        steps = (np.arange(100_000) + 0.5) / 100_000 * time
        # dx = Λ^t dw; midpoint rule.
        assert level**2 == pytest.approx(np.mean(base ** (2 * steps)) * time, rel=1e-8)
    require_falling(levels)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: power_schedule(1.0, 0.0, 5), "smallest"),
        (lambda: power_schedule(1.0, 1.0, 5), "largest"),
        (lambda: power_schedule(math.inf, 1.0, 5), "largest"),
        (lambda: power_schedule(2.0, 1.0, 1), "count"),
        (lambda: power_schedule(2.0, 1.0, 3, exponent=0.0), "exponent"),
        (lambda: variance_exploding_schedule(4, 1.0), "base"),
        (lambda: variance_exploding_schedule(0, 25.0), "count"),
        (lambda: require_falling([]), "noise_levels"),
        (lambda: require_falling([1.0, 0.0]), "noise_levels"),
        (lambda: require_falling([1.0, 1.0]), "noise_levels"),
    ],
)
def test_what_is_no_schedule_is_refused(one_line_error, call, word):
    with one_line_error(word, "allowed"):
        call()
