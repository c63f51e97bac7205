"""Weighted sums of energies."""

import pytest
import torch

from direct_deepen.priors import DifferentiableEnergy, SumEnergy


@pytest.fixture
def analytic(gaussian_energy) -> DifferentiableEnergy:
    return gaussian_energy(torch.diag(torch.linspace(0.5, 2.0, 35)), noise_std=1.0)


def test_sum_is_the_weighted_sum_of_values_and_gradients(energy_type_case, analytic, draw):
    trained, image = energy_type_case.build(5, 7), draw(3, 5, 7)
    total = SumEnergy([(0.25, trained), (3.0, analytic)])
    value, gradient = total.value_and_grad(image)
    (first, first_gradient), (second, second_gradient) = (e.value_and_grad(image) for e in (trained, analytic))
    # Rounding of one sum.
    torch.testing.assert_close(value, 0.25 * first + 3.0 * second, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, 0.25 * first_gradient + 3.0 * second_gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(total(image), value, rtol=1e-14, atol=0)
    assert value.shape == (3,)


def test_precision_is_kept(energy_type_case, draw):
    energy = energy_type_case.build(5, 7, dtype=torch.float32)
    value, gradient = SumEnergy([(0.1, energy), (2.0, energy)]).value_and_grad(draw(3, 5, 7, dtype=torch.complex64))
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.complex64


def test_sums_nest(analytic, draw):
    image = draw(3, 5, 7)
    nested = SumEnergy([(2.0, SumEnergy([(0.5, analytic), (1.0, analytic)])), (0.0, analytic)])
    torch.testing.assert_close(nested(image), 3.0 * analytic(image), rtol=1e-14, atol=0)  # rounding
    assert isinstance(nested, DifferentiableEnergy)


def test_terms_without_a_function_of_their_own_add_up_too(draw):
    class GradientOnly:
        def value_and_grad(self, image):
            return image.abs().square().sum(dim=(1, 2)), 2 * image

    image = draw(3, 5, 7)
    assert torch.equal(SumEnergy([(2.0, GradientOnly())])(image), 2 * GradientOnly().value_and_grad(image)[0])


def test_gradients_reach_the_weights_of_the_terms(energy_type_case, draw):
    energy = energy_type_case.build(5, 7)
    SumEnergy([(2.0, energy)])(draw(3, 5, 7)).sum().backward()
    assert all(parameter.grad is not None for parameter in energy.parameters())


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_weights_are_finite_and_not_negative(analytic, one_line_error, weight):
    with one_line_error("weight", repr(weight)):
        SumEnergy([(1.0, analytic), (weight, analytic)])


def test_no_terms_are_refused(one_line_error):
    with one_line_error("terms"):
        SumEnergy([])
