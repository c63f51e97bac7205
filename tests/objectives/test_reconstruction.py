"""Supervised objectives: mean squared error, denoising, and the barrier that keeps a network monotone."""

import math

import pytest
import torch

from direct_deepen.objectives.reconstruction import denoising_loss, lipschitz_quotient, log_barrier, mean_squared_error


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_mean_squared_error_is_the_squared_norm_over_pixels(draw):
    image, reference = draw(2, 4, 5, seed=1), draw(2, 4, 5, seed=2)
    expected = float((image - reference).abs().square().sum()) / (2 * 20)
    assert float(mean_squared_error(image, reference)) == pytest.approx(expected, rel=1e-12)


def test_the_denoising_loss_of_the_identity_is_the_variance_of_the_noise(draw):
    # Two real components of standard deviation 0.3; relative standard error √(2/(2·10⁴)) = 1 %.
    loss = denoising_loss(lambda x: x, draw(1, 100, 100), noise_std=0.3, generator=generator())
    assert float(loss) == pytest.approx(2 * 0.09, rel=0.04)


def test_the_denoising_loss_compares_with_the_clean_image(draw):
    image = draw(2, 6, 6)
    assert float(denoising_loss(lambda x: image, image, noise_std=0.3, generator=generator())) == 0.0


def test_the_quotient_of_a_linear_map_is_its_largest_singular_value(draw):
    matrix = draw(36, 36, seed=3)

    def function(image):
        return (image.flatten(1) @ matrix.T).unflatten(1, (6, 6))

    quotient = lipschitz_quotient(function, draw(2, 6, 6), num_iterations=200, generator=generator())
    largest = float(torch.linalg.svdvals(matrix)[0])
    torch.testing.assert_close(quotient, torch.full((2,), largest, dtype=torch.float64), rtol=1e-4, atol=0)
    # It comes from below.
    few = lipschitz_quotient(function, draw(2, 6, 6), num_iterations=1, generator=generator())
    assert bool((few < quotient * (1 + 1e-9)).all())


def test_the_quotient_has_a_gradient_to_the_weights(draw):
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    quotient = lipschitz_quotient(lambda x: weight * x, draw(2, 6, 6), generator=generator())
    quotient.sum().backward()
    assert quotient.detach().tolist() == pytest.approx([0.7, 0.7])
    assert float(weight.grad) == pytest.approx(2.0)


def test_the_barrier_is_a_logarithm_inside_and_its_tangent_beyond():
    def barrier(value):
        return float(log_barrier(torch.tensor([value], dtype=torch.float64), 0.1))

    assert barrier(0.4) == pytest.approx(-math.log(0.5))
    # At distance 0.01 the logarithm has slope 100.
    assert barrier(0.9) == pytest.approx(-math.log(0.01) + 1.0)
    assert barrier(1.2) == pytest.approx(-math.log(0.01) + 31.0)
    assert barrier(0.89 + 1e-7) - barrier(0.89 - 1e-7) == pytest.approx(100 * 2e-7, rel=1e-3)
