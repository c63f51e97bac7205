"""PnP-ISTA: with a denoiser that is a proximal map it is proximal gradient descent, whose minimiser is known."""

import pytest
import torch

from direct_deepen.inference import mm_map, proximal_iteration
from direct_deepen.physics import sense
from direct_deepen.priors import Denoiser


@pytest.fixture
def problem(random_operator, draw):
    A = random_operator(2)
    return A, A.forward(draw(2, 8, 8, seed=3))


@pytest.mark.parametrize("step_size", [0.3, 1.0, 1.7])
def test_with_the_proximal_map_of_a_square_it_is_sense(problem, step_size):
    # D = prox of s·(λ/2)‖x‖², a division by 1 + sλ: the fixed point minimises ½‖Ax − b‖² + (λ/2)‖x‖² for every s.
    A, kspace = problem
    result = proximal_iteration(
        A, kspace, lambda q: q / (1 + step_size * 0.2), step_size=step_size, tolerance=1e-13, max_iterations=2000
    )
    assert bool(result.converged.all())
    expected = sense(A, kspace, regularization=0.2, tolerance=1e-13)
    torch.testing.assert_close(result.image, expected, rtol=1e-9, atol=1e-9)


def test_with_the_proximal_map_of_an_energy_it_is_map(problem, gaussian_energy):
    # Precision different for every pixel, so that a denoiser applied in the wrong place would show.
    A, kspace = problem
    precision = torch.linspace(0.5, 2.0, 64, dtype=torch.float64)
    energy = gaussian_energy(torch.diag(precision), noise_std=1.0)
    hessian = (0.5 * precision).reshape(8, 8)
    result = proximal_iteration(
        A, kspace, lambda q: q / (1 + hessian), step_size=1.0, tolerance=1e-13, max_iterations=2000
    )
    expected = mm_map(A, kspace, energy, tolerance=1e-15, max_iterations=500, cg_tolerance=1e-10).image
    torch.testing.assert_close(result.image, expected, rtol=1e-6, atol=1e-6)


def test_a_network_is_a_denoiser_and_the_end_is_a_fixed_point(problem):
    A, kspace = problem
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(hidden_channels=4, num_layers=3).double()
    result = proximal_iteration(A, kspace, denoiser, step_size=1.0, tolerance=1e-10, max_iterations=5000)
    assert bool(result.converged.all())
    with torch.no_grad():
        again = denoiser(result.image - A.normal(result.image) + A.adjoint(kspace))
    torch.testing.assert_close(again, result.image, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("step_size", [0.0, 2.0, -1.0])
def test_a_step_that_cannot_converge_is_refused(problem, one_line_error, step_size):
    with one_line_error("step_size", str(step_size)):
        proximal_iteration(*problem, lambda q: q, step_size=step_size)


def test_data_that_are_not_finite_are_refused(problem, one_line_error):
    A, kspace = problem
    kspace[1, 0, 0, 0] = float("nan")
    with one_line_error("masked_kspace", "[1]"):
        proximal_iteration(A, kspace, lambda q: q, step_size=1.0)
