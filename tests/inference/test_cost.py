"""The cost that MAP minimises and samplers target."""

import pytest
import torch

from direct_deepen.inference.cost import cost_terms, inner_product


@pytest.mark.parametrize("leading", [0, 1, 2])
@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 7)], ids=str)
def test_inner_product_is_the_real_part_for_every_image_in_double_precision(draw, leading, shape):
    left, right = (draw(*(2, 3)[:leading], *shape, seed=seed) for seed in (0, 1))
    expected = (left.conj().resolve_conj() * right).real.flatten(leading).sum(dim=-1)
    found = inner_product(left, right, leading=leading)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)  # rounding
    single = inner_product(left.to(torch.complex64), right.to(torch.complex64), leading=leading)
    assert (single.dtype, single.shape) == (torch.float64, (2, 3)[:leading])


def test_inner_product_of_conjugate_views(draw):
    left, right = draw(2, 5, 7, seed=0), draw(2, 5, 7, seed=1)
    torch.testing.assert_close(inner_product(left.conj(), right.conj()), inner_product(left, right), rtol=0, atol=1e-13)


def test_inner_product_of_real_images():
    left, right = torch.arange(6.0).reshape(1, 2, 3), torch.ones(1, 2, 3)
    assert inner_product(left, right).tolist() == [15.0]


def test_cost_is_half_the_squared_residual_plus_energy_and_its_gradient_predicts_changes(
    random_operator, energy_case, draw
):
    A, energy = random_operator(2, 3), energy_case.build(8, 8)
    kspace, image, direction = A.forward(draw(2, 8, 8, seed=1)), draw(2, 8, 8, seed=2), draw(2, 8, 8, seed=3)

    def cost(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (A.forward(x) - kspace).abs().square().sum(dim=(1, 2, 3)) + energy(x)

    terms = cost_terms(A, kspace, energy, image)
    torch.testing.assert_close(terms.cost, cost(image), rtol=1e-13, atol=0)  # rounding
    torch.testing.assert_close(terms.energy, energy(image), rtol=1e-13, atol=0)
    h = 1e-6
    difference = (cost(image + h * direction) - cost(image - h * direction)) / (2 * h)
    # Central differences: truncation h² = 1e-12, rounding 1e-16·C/h, some 1e-9 for costs of order ten.
    torch.testing.assert_close(inner_product(terms.gradient, direction), difference, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(terms.gradient - terms.prior_gradient, A.adjoint(A.forward(image) - kspace))


def test_cost_of_data_that_an_image_explains_is_its_energy_even_in_single_precision(random_operator, draw, energy_case):
    # The expanded square would leave rounding of the size of ‖b‖² = 1e8 · 1e-7.
    A = random_operator(2, 3, dtype=torch.complex64)
    energy, image = energy_case.build(8, 8, dtype=torch.float32), 1e4 * draw(2, 8, 8, dtype=torch.complex64)
    terms = cost_terms(A, A.forward(image), energy, image)
    assert torch.equal(terms.cost, terms.energy)
