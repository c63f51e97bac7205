"""The Langevin kernel, one step at a time; its distribution is tested in test_langevin_gaussian.py."""

from dataclasses import replace

import pytest
import torch

from direct_deepen.inference.cost import cost_terms, inner_product
from direct_deepen.inference.langevin_kernel import Target, first_state, log_acceptance, next_state
from direct_deepen.inference.metric import DataMetric, Metric
from direct_deepen.physics import SenseOperator
from direct_deepen.physics.noise import ChainGenerators

COLD = 1e-9


def generator():
    return ChainGenerators.from_one(torch.Generator().manual_seed(0), 3, 2)


@pytest.fixture
def problem(random_operator, energy_type_case, draw):
    A = random_operator(2, 3)
    return A, A.forward(draw(2, 8, 8, seed=3)), energy_type_case.build(8, 8)


def test_terms_of_a_target_are_those_of_the_cost(problem, draw):
    images = draw(3, 2, 8, 8)
    terms = Target(*problem, COLD, Metric())(images)
    for chain, image in enumerate(images):
        expected = cost_terms(*problem, image)
        for actual, wanted in zip(terms.tensors(), expected.tensors(), strict=True):
            # The square is expanded: rounding only, in double precision.
            torch.testing.assert_close(actual[chain], wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("metropolis", [False, True])
def test_a_cold_step_goes_down_the_gradient_and_leaves_the_state_it_came_from(problem, draw, metropolis):
    target = Target(*problem, COLD, Metric())
    state = first_state(target, draw(3, 2, 8, 8), 1e-3, metropolis=metropolis, generator=generator())
    before = [tensor.clone() for tensor in state.terms.tensors()]
    after, accepted = next_state(target, state, generator(), adapting_step=None)
    assert bool(accepted.all())
    expected = state.terms.image - 1e-3 * state.terms.gradient
    torch.testing.assert_close(after.terms.image, expected, rtol=0, atol=1e-9)  # noise of 3e-11
    assert all(torch.equal(*pair) for pair in zip(state.terms.tensors(), before, strict=True))
    assert torch.equal(after.step_size, state.step_size)


def test_only_an_adapting_step_changes_curvature_and_step_size(problem, draw):
    target = Target(*problem, 0.05, Metric())
    state = first_state(target, draw(3, 2, 8, 8), None, metropolis=True, generator=generator())
    frozen, _ = next_state(target, state, generator(), adapting_step=None)
    adapted, _ = next_state(target, state, generator(), adapting_step=1)
    assert torch.equal(frozen.terms.image, adapted.terms.image)
    assert torch.equal(frozen.step_size, state.step_size)
    assert bool((adapted.curvature >= state.curvature).all())
    assert bool((adapted.step_size != state.step_size).all())


@pytest.mark.parametrize("metric", [Metric, DataMetric])
@pytest.mark.parametrize("size", [16, 64])
def test_the_acceptance_is_right_in_single_precision(random_operator, energy_type_case, draw, size, metric):
    double = random_operator(1, 4, size, size)
    data, noise_std = double.forward(draw(1, size, size, seed=3)), 0.01
    image, move = draw(2, 1, size, size, seed=4), 0.1 * noise_std * draw(2, 1, size, size, seed=5)
    step_size = torch.full((2, 1), 0.1, dtype=torch.float64)
    found = []
    for dtype in (torch.complex64, torch.complex128):
        A, b = SenseOperator(double.sensitivity_map.to(dtype), double.sampling_mask), data.to(dtype)
        chosen = Metric() if metric is Metric else DataMetric(A, b, 0.3, 1e-9)
        target = Target(A, b, energy_type_case.build(size, size, dtype=b.real.dtype), noise_std, chosen)
        start = image.to(torch.complex64)
        # The same two images in both, to the last digit.
        here, there = target(start.to(dtype)), target((start + move.to(torch.complex64)).to(dtype))
        change = target.slope(here) - target.slope(there)
        # That of the definition, of which the parts of the data cancel.
        d = there.image - here.image
        slopes = inner_product(d, here.gradient + there.gradient, leading=2)
        expected = (2 * (here.cost - there.cost) + slopes + 0.5 * step_size * change) / noise_std**2
        found.append(log_acceptance(here, there, step_size, change, noise_std))
    torch.testing.assert_close(found[1], expected, rtol=1e-6, atol=1e-6)
    # A few roundings of E, 1 to 100 here, over ε²: with those of ‖b‖² it was off by tenths and more.
    allowed = 4 * 1.2e-7 * float(there.energy.max()) * 2 / noise_std**2 + 1e-3 * float(expected.abs().max())
    assert float((found[0] - expected).abs().max()) < allowed


def test_where_the_energy_falls_without_a_bound_nothing_is_accepted(problem, draw):
    A, kspace, energy = problem
    here = Target(A, kspace, energy, 0.1, Metric())(draw(3, 2, 8, 8))
    for value in (torch.inf, -torch.inf, torch.nan):
        there = replace(here, energy=torch.full_like(here.energy, value), cost=torch.full_like(here.cost, value))
        logarithm = log_acceptance(here, there, torch.ones(3, 2), torch.zeros(3, 2), 0.1)
        assert bool((logarithm == -torch.inf).all())
