"""Repeating a map: where it ends, when it stops, and what it says when it leaves the finite numbers."""

import pytest
import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.inference.iterations import iterate_to_fixed_point


def test_it_ends_at_the_fixed_point_and_counts(draw):
    target, start = draw(2, 4, 4, seed=1), draw(2, 4, 4, seed=2)
    result = iterate_to_fixed_point(lambda x: 0.5 * (x + target), start, tolerance=1e-12, max_iterations=100)
    torch.testing.assert_close(result.image, target, rtol=1e-11, atol=1e-11)
    assert bool(result.converged.all())
    # Errors halve: 2^-n relative to the first, which is of order one.
    assert 38 <= result.iterations <= 42
    assert bool((result.relative_change <= 1e-12).all())


def test_every_image_stops_on_its_own(draw):
    target, start = draw(2, 4, 4, seed=1), draw(2, 4, 4, seed=2)
    rate = torch.tensor([0.1, 0.9])[:, None, None]
    both = iterate_to_fixed_point(
        lambda x: rate * x + (1 - rate) * target, start, tolerance=1e-3, max_iterations=200
    ).image
    alone = [
        iterate_to_fixed_point(
            lambda x, i=i: rate[i] * x + (1 - rate[i]) * target[i : i + 1],
            start[i : i + 1],
            tolerance=1e-3,
            max_iterations=200,
        ).image
        for i in range(2)
    ]
    assert torch.equal(both, torch.cat(alone))


def test_a_limit_ends_it_and_says_so(draw):
    start = draw(1, 4, 4)
    result = iterate_to_fixed_point(lambda x: -x, start, tolerance=1e-6, max_iterations=5)
    assert not bool(result.converged.any())
    assert result.iterations == 5
    assert float(result.relative_change) == pytest.approx(2.0)


def test_divergence_ends_with_iteration_and_norms(draw, one_line_error):
    with one_line_error("mine", "iteration", "norms", error=DivergenceError):
        iterate_to_fixed_point(lambda x: 1e100 * x, draw(1, 4, 4), tolerance=1e-6, max_iterations=50, name="mine")


@pytest.mark.parametrize(("key", "value"), [("tolerance", 0.0), ("max_iterations", 0)])
def test_arguments_out_of_range_are_refused(draw, one_line_error, key, value):
    arguments = {"tolerance": 1e-3, "max_iterations": 3} | {key: value}
    with one_line_error(key, str(value)):
        iterate_to_fixed_point(lambda x: x, draw(1, 4, 4), **arguments)
