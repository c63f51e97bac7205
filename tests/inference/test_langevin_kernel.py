"""The Langevin kernel, one step at a time; its distribution is tested in test_langevin_gaussian.py."""

import pytest
import torch

from direct_deepen.inference.cost import cost_terms
from direct_deepen.inference.langevin_kernel import Target, first_state, next_state
from direct_deepen.inference.metric import Metric

COLD = 1e-9


def generator():
    return torch.Generator().manual_seed(0)


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
    state = first_state(target, draw(3, 2, 8, 8), 1e-3, metropolis, generator())
    before = [tensor.clone() for tensor in state.terms.tensors()]
    after, accepted = next_state(target, state, generator(), adapting_step=None)
    assert bool(accepted.all())
    expected = state.terms.image - 1e-3 * state.terms.gradient
    torch.testing.assert_close(after.terms.image, expected, rtol=0, atol=1e-9)  # noise of 3e-11
    assert all(torch.equal(*pair) for pair in zip(state.terms.tensors(), before, strict=True))
    assert torch.equal(after.step_size, state.step_size)


def test_only_an_adapting_step_changes_curvature_and_step_size(problem, draw):
    target = Target(*problem, 0.05, Metric())
    state = first_state(target, draw(3, 2, 8, 8), None, True, generator())
    frozen, _ = next_state(target, state, generator(), adapting_step=None)
    adapted, _ = next_state(target, state, generator(), adapting_step=1)
    assert torch.equal(frozen.terms.image, adapted.terms.image)
    assert torch.equal(frozen.step_size, state.step_size)
    assert bool((adapted.curvature >= state.curvature).all())
    assert bool((adapted.step_size != state.step_size).all())
