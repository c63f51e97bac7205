"""The SENSE reconstruction against the dense solution."""

import pytest
import torch

from direct_deepen.physics import sense


@pytest.mark.parametrize("regularization", [1e-3, 1e-2, 1.0])
def test_sense_equals_the_dense_regularized_solution(random_operator, dense_normal, draw, regularization):
    A = random_operator(1, 3, 7, 8)
    kspace = draw(1, 3, 7, 8, seed=3)
    matrix = dense_normal(A) + regularization * torch.eye(56)
    expected = torch.linalg.solve(matrix, A.adjoint(kspace).flatten()).reshape(1, 7, 8)
    actual = sense(A, kspace, regularization=regularization, tolerance=1e-12, max_iterations=500)
    error = torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected)
    assert float(error) <= 1e-8  # condition number, at most 1001, times the tolerance, and some


def test_default_settings_are_accurate_enough_to_start_from(random_operator, dense_normal, draw):
    A = random_operator(1, 3)
    kspace = A.forward(draw(1, 8, 8, seed=3))
    matrix = dense_normal(A) + 1e-2 * torch.eye(64)
    expected = torch.linalg.solve(matrix, A.adjoint(kspace).flatten()).reshape(1, 8, 8)
    error = torch.linalg.vector_norm(sense(A, kspace) - expected) / torch.linalg.vector_norm(expected)
    assert float(error) <= 1e-4  # condition number 101 times the default tolerance of 1e-6


def test_works_with_a_plain_operator(random_operator, plain_operator, draw):
    A = random_operator()
    kspace = A.forward(draw(2, 8, 8, seed=3))
    torch.testing.assert_close(sense(plain_operator(A), kspace), sense(A, kspace), rtol=0, atol=1e-12)  # rounding


def test_start_is_used(random_operator, draw):
    A = random_operator()
    kspace = A.forward(draw(2, 8, 8, seed=3))
    solution = sense(A, kspace, tolerance=1e-12)
    # The start already fulfils the looser rule, so it comes back unchanged.
    assert torch.equal(sense(A, kspace, initial=solution, tolerance=1e-6), solution)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), complex(0, float("nan"))], ids=str)
def test_data_that_are_not_finite_are_refused_naming_the_images(random_operator, draw, one_line_error, value):
    A = random_operator(3)
    kspace = draw(3, 3, 8, 8)
    kspace[1, 0, 2, 2] = value
    with one_line_error("masked_kspace", "[1]"):
        sense(A, kspace)


@pytest.mark.parametrize("regularization", [0.0, -1.0, float("inf"), float("nan")])
def test_regularization_has_to_be_positive(random_operator, draw, one_line_error, regularization):
    with one_line_error("regularization", repr(regularization)):
        sense(random_operator(), draw(2, 3, 8, 8), regularization=regularization)


def test_a_conjugate_view_of_the_data_is_data_like_any_other(random_operator, draw):
    A, kspace = random_operator(), draw(2, 3, 8, 8)
    assert torch.equal(sense(A, kspace.conj()), sense(A, kspace.conj().resolve_conj()))
