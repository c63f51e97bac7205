"""Curvature estimates against energies whose Hessian is known."""

import pytest
import torch

from direct_deepen.inference.cost import image_norm, largest_curvature
from direct_deepen.inference.langevin_kernel import difference_quotient

TOP = 0.7
"""Largest eigenvalue of the Hessian below; the others are at most half of it."""


@pytest.fixture
def quadratic(gaussian_energy, draw):
    """Energy with a dense Hessian of known spectrum, for images of 5×6."""
    basis, _ = torch.linalg.qr(draw(30, 30))
    eigenvalues = torch.linspace(0.0, TOP / 2, 30, dtype=torch.float64)
    eigenvalues[0] = TOP
    noise_std = 0.1
    return gaussian_energy((basis * eigenvalues) @ basis.mH / (0.5 * noise_std**2), noise_std)


@pytest.mark.parametrize(("size", "seed"), [(0.0, 0), (1e-6, 1), (1.0, 2), (1e6, 0)])
def test_largest_curvature_of_a_quadratic_is_its_top_eigenvalue_at_every_image(quadratic, draw, size, seed):
    image = size * draw(2, 5, 6, seed=seed)
    value = largest_curvature(quadratic, image, num_iterations=30)
    # Power iteration gains a factor of two a step here: 1e-9 in the vector, less in the value; rounding of differences
    # of gradients over 1 % of ‖x‖ is some 1e-13.
    torch.testing.assert_close(value, torch.full((2,), TOP, dtype=torch.float64), rtol=1e-6, atol=0)


def test_largest_curvature_approaches_from_below(quadratic, draw):
    image = draw(2, 5, 6)
    estimates = torch.stack([largest_curvature(quadratic, image, num_iterations=n) for n in range(1, 12)])
    assert bool((estimates <= TOP * (1 + 1e-9)).all())  # rounding of differences of gradients
    assert bool((estimates.diff(dim=0) >= 0).all())


def test_largest_curvature_scales_with_the_energy_and_works_in_single_precision(quadratic, draw):
    quadratic.hessian *= 1e3
    value = largest_curvature(quadratic, 50 * draw(2, 5, 6, dtype=torch.complex64), num_iterations=30)
    assert value.dtype == torch.float32
    # Differences over 1 % of ‖x‖ of gradients rounded to 6e-8: some 1e-5.
    torch.testing.assert_close(value, torch.full((2,), 1e3 * TOP), rtol=1e-4, atol=0)


def test_largest_curvature_finds_negative_curvature_too(quadratic, draw):
    quadratic.hessian *= -1
    value = largest_curvature(quadratic, draw(2, 5, 6), num_iterations=30)
    torch.testing.assert_close(value, torch.full((2,), TOP, dtype=torch.float64), rtol=1e-6, atol=0)  # as above


def test_curvature_of_a_linear_energy_is_zero(quadratic, draw):
    quadratic.hessian *= 0
    assert largest_curvature(quadratic, draw(2, 5, 6)).tolist() == [0.0, 0.0]


def test_images_do_not_know_of_one_another(energy_type_case, draw):
    energy, images = energy_type_case.build(5, 6), draw(3, 5, 6)
    first = largest_curvature(energy, images[[0, 1]], num_iterations=3)[0]
    again = largest_curvature(energy, images[[0, 2]], num_iterations=3)[0]
    # Beside either image the first one starts in the same direction: rounding of differences of gradients only.
    torch.testing.assert_close(again, first, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("global_generators_untouched")
def test_result_is_reproducible_and_leaves_the_image_alone(energy_type_case, draw):
    energy, image = energy_type_case.build(5, 6), draw(2, 5, 6)
    copy = image.clone()
    assert torch.equal(largest_curvature(energy, image), largest_curvature(energy, image))
    assert torch.equal(image, copy)


def test_one_gradient_an_iteration_and_one_at_the_image(quadratic, draw):
    largest_curvature(quadratic, draw(2, 5, 6), num_iterations=7)
    assert quadratic.batches == [2] * 8


def test_a_gradient_that_is_known_is_not_computed_again(quadratic, draw):
    image = draw(2, 5, 6)
    expected = largest_curvature(quadratic, image, num_iterations=3)
    _, gradient = quadratic.value_and_grad(image)
    quadratic.batches.clear()
    assert torch.equal(largest_curvature(quadratic, image, num_iterations=3, gradient=gradient), expected)
    assert quadratic.batches == [2] * 3


def test_one_iteration_gives_the_root_mean_square_of_the_eigenvalues(gaussian_energy, draw):
    # 225 eigenvalues of a diagonal Hessian; ‖Hv‖²/‖v‖² of white noise v varies by (var λ²)^½/(15 mean λ²), 6 %.
    eigenvalues = torch.linspace(0.1, 1.0, 225, dtype=torch.float64)
    energy = gaussian_energy(torch.diag(eigenvalues + 0j) / (0.5 * 0.1**2), 0.1)
    value = largest_curvature(energy, draw(1, 15, 15), num_iterations=1)
    assert float(value) == pytest.approx(float(eigenvalues.square().mean().sqrt()), rel=0.1)


def test_difference_quotient_is_a_lower_bound_of_the_top_eigenvalue_and_exact_along_it(quadratic, draw):
    step = draw(20, 5, 6)
    quotient = difference_quotient(step[None], quadratic.value_and_grad(step)[1][None])
    assert bool((quotient <= TOP).all())
    top = torch.linalg.eigh(quadratic.hessian).eigenvectors[:, -1].reshape(1, 5, 6)
    quotient = difference_quotient(top[None], quadratic.value_and_grad(top)[1][None])
    assert float(quotient) == pytest.approx(TOP, rel=1e-12)  # rounding


def test_difference_quotient_of_no_step_is_zero():
    zero = torch.zeros(2, 1, 3, 3, dtype=torch.complex64)
    assert difference_quotient(zero, zero).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("leading", [0, 1, 2])
def test_image_norm_is_euclidean_over_the_pixels_of_an_image_of_any_dimension(draw, leading):
    images = draw(4, 3, 5, 6)
    expected = images.abs().square().sum(dim=(0, 1, 2, 3)[leading:]).sqrt()
    torch.testing.assert_close(image_norm(images, leading=leading), expected, rtol=1e-14, atol=0)  # rounding
    torch.testing.assert_close(image_norm(images.abs(), leading=leading), expected, rtol=1e-14, atol=0)
