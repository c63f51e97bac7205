"""The metrics that steps are taken in: their solves, the covariance of their noise, and their eigenvalues."""

import pytest
import torch

from direct_deepen.inference.metric import DataMetric, Metric
from direct_deepen.physics.noise import ChainGenerators

WEIGHT = 0.2
DRAWS = 20_000


def generators(seed, num_chains):
    return ChainGenerators.from_one(torch.Generator().manual_seed(seed), num_chains, 1)


def metric_of(operator, draw):
    return DataMetric(operator, operator.forward(draw(1, *operator.sampling_mask.shape[2:])), WEIGHT, 1e-10)


@pytest.fixture
def operator(random_operator):
    return random_operator(1, 2, 2, 3)


@pytest.fixture
def data_metric(operator, draw):
    return metric_of(operator, draw)


def inverse_of(operator, dense_normal):
    """(AᴴA + μI)⁻¹ as a matrix over pixels."""
    normal = dense_normal(operator)
    return torch.linalg.inv(normal + WEIGHT * torch.eye(len(normal), dtype=normal.dtype))


@pytest.fixture
def dense(operator, dense_normal):
    return inverse_of(operator, dense_normal)


@pytest.mark.parametrize("size", [(2, 3), (2, 3, 4)], ids=str)
def test_a_solve_is_that_of_the_dense_matrix_for_every_chain(random_operator, dense_normal, draw, size):
    operator, images = random_operator(1, 2, *size, fourier_dimensions=len(size)), draw(3, 1, *size)
    expected = (images.flatten(1) @ inverse_of(operator, dense_normal).T).reshape(images.shape)
    torch.testing.assert_close(metric_of(operator, draw).solve(images), expected, rtol=1e-8, atol=1e-8)
    assert torch.equal(Metric().solve(images), images)


def test_solved_noise_has_the_metric_as_its_covariance(data_metric, dense):
    like = torch.zeros(DRAWS, 1, 2, 3, dtype=torch.complex128)
    generator = generators(0, DRAWS)
    noise = data_metric.solve(data_metric.noise(like, generator)).reshape(DRAWS, 6)
    covariance = noise.T @ noise.conj() / (2 * DRAWS)
    # The error of an entry of a sample covariance is below its largest diagonal entry over √draws; four of those.
    assert float((covariance - dense).abs().max()) < 4 * float(dense.diagonal().real.max()) / DRAWS**0.5
    plain = Metric().noise(like, generator).reshape(DRAWS, 6)
    assert float((plain.T @ plain.conj() / (2 * DRAWS) - torch.eye(6)).abs().max()) < 4 / DRAWS**0.5


def test_an_operator_of_three_methods_will_do(data_metric, plain_operator, draw):
    plain = DataMetric(plain_operator(data_metric.A), data_metric.masked_kspace, WEIGHT, 1e-10)
    images = draw(2, 1, 2, 3)
    torch.testing.assert_close(plain.solve(images), data_metric.solve(images))
    noises = [metric.noise(images, generators(3, 2)) for metric in (plain, data_metric)]
    torch.testing.assert_close(*noises)


@pytest.mark.parametrize("curvature", [0.0, 0.1, 5.0])
def test_the_largest_eigenvalue_bounds_that_of_metric_times_hessian(
    data_metric, dense, operator, dense_normal, curvature
):
    hessian = dense_normal(operator) + curvature * torch.eye(6, dtype=torch.complex128)
    found = data_metric.largest_eigenvalue(1.0, torch.tensor(curvature, dtype=torch.float64))
    largest = float(torch.linalg.eigvals(dense @ hessian).real.max())
    assert largest <= float(found) + 1e-12
    plain = Metric().largest_eigenvalue(1.0, torch.tensor(curvature, dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(hessian).max()) <= float(plain) + 1e-12
