"""Classical reconstructions: optimality conditions of what they minimise."""

import pytest
import sigpy
import torch

from direct_deepen.evaluation.classical import l1_wavelet, total_variation
from direct_deepen.physics import SenseOperator


@pytest.fixture
def problem(random_operator, draw) -> tuple[SenseOperator, torch.Tensor]:
    A = random_operator(2, 3, 16, 16, dtype=torch.complex64)
    return A, A.forward(draw(2, 16, 16, dtype=torch.complex64))


def wavelet(image: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(sigpy.fwt(image.numpy(), wave_name="db4"))


def test_the_gradient_of_the_data_term_is_a_subgradient_of_the_l1_norm(problem):
    A, kspace = problem
    regularization = 0.5
    image = l1_wavelet(A, kspace, regularization=regularization, max_iterations=500)
    assert image.dtype == kspace.dtype
    for index in range(2):
        # W has more coefficients than pixels at the edges, so that 0 ∈ AᴴAx − Aᴴb + λWᴴ∂‖Wx‖₁ is checked as
        # Re⟨x, Aᴴ(b − Ax)⟩ = λ‖Wx‖₁, which every minimiser of a convex function plus a norm meets.
        part = A.select(torch.tensor([index]))
        x = image[index : index + 1]
        residual = part.adjoint(kspace[index : index + 1] - part.forward(x))
        product = float((x.conj() * residual).real.sum())
        norm = float(wavelet(x[0]).abs().sum())
        assert norm > 0
        # The border, where W is not unitary: measured 5 %.
        assert product == pytest.approx(regularization * norm, rel=0.1)


def test_the_gradient_of_the_data_term_is_a_subgradient_of_total_variation(problem):
    A, kspace = problem
    image = total_variation(A, kspace, regularization=0.3, max_iterations=3000)
    for index in range(2):
        part = A.select(torch.tensor([index]))
        x = image[index : index + 1]
        residual = part.adjoint(kspace[index : index + 1] - part.forward(x))
        product = float((x.conj() * residual).real.sum())
        norm = float(sum((x - x.roll(1, axis)).abs().sum() for axis in (1, 2)))
        assert norm > 1.0
        # Complex single precision and 3000 iterations: measured 0.1 %.
        assert product == pytest.approx(0.3 * norm, rel=0.01)


@pytest.mark.parametrize("method", [l1_wavelet, total_variation])
def test_no_regularisation_fits_the_data(problem, method):
    A, kspace = problem
    fitted = method(A, kspace, regularization=1e-6, max_iterations=500)
    assert float((A.forward(fitted) - kspace).norm() / kspace.norm()) < 1e-2


def test_too_much_total_variation_gives_a_constant_and_too_many_wavelets_nothing(problem):
    A, kspace = problem
    flat = total_variation(A, kspace, regularization=1e3, max_iterations=3000)
    assert float(flat.flatten(1).std(dim=1).max()) < 1e-3
    assert float(l1_wavelet(A, kspace, regularization=1e3).abs().max()) == 0.0


@pytest.mark.usefixtures("global_generators_untouched")
def test_nothing_given_is_changed(problem):
    A, kspace = problem
    copy = kspace.clone()
    for method in (l1_wavelet, total_variation):
        first, second = (method(A, kspace, regularization=0.1, max_iterations=5) for _ in range(2))
        assert torch.equal(kspace, copy)
        assert torch.equal(first, second)
