"""MoL: the fixed point for a linear network, contraction, and the implicit gradient against unrolled autograd."""

import itertools

import pytest
import torch

from direct_deepen.inference import equilibrium
from direct_deepen.priors import Denoiser

TIGHT = {"tolerance": 1e-10, "max_iterations": 3000}


@pytest.fixture
def problem(random_operator, draw):
    A = random_operator(2)
    return A, A.forward(draw(2, 8, 8, seed=3)), draw(2, 8, 8, seed=4)


def contraction(seed=0):
    """A network H whose Lipschitz constant is below one: half the image minus a small residual."""

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.inner = Denoiser(hidden_channels=3, num_layers=2, activation="elu").double()

        def forward(self, image):
            return 0.5 * image - 0.5 * (image - self.inner(image))

    return Half()


@pytest.mark.parametrize("damping", [0.1, 0.5, 1.0])
def test_for_a_linear_network_it_is_a_linear_system_whatever_the_damping(problem, dense_normal, damping):
    # H = hI: (λAᴴA + (1 − h)I)x = λAᴴb.
    A, kspace, start = problem
    result = equilibrium(A, kspace, lambda x: 0.6 * x, damping=damping, data_weight=3.0, init=start, **TIGHT)
    assert bool(result.converged.all())
    for i in range(2):
        part = A.select(torch.tensor([i]))
        matrix = 3.0 * dense_normal(part) + 0.4 * torch.eye(64)
        expected = torch.linalg.solve(matrix, 3.0 * part.adjoint(kspace[i : i + 1]).reshape(-1))
        torch.testing.assert_close(result.image[i].reshape(-1), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("damping", [0.3, 1.0])
def test_a_network_with_a_small_lipschitz_constant_contracts_by_one_minus_alpha_m(problem, damping):
    # H = 0.9·I turned by 90 degrees, m = 0.1: distances shrink by 1 − αm at least in every step.
    A, kspace, start = problem
    limit = equilibrium(A, kspace, lambda x: 0.9j * x, data_weight=3.0, damping=damping, init=start, **TIGHT).image
    distances = [
        float((equilibrium(
            A, kspace, lambda x: 0.9j * x, data_weight=3.0, damping=damping, init=start, tolerance=1e-10,
            max_iterations=count,
        ).image - limit).norm())
        for count in (5, 6, 7)
    ]  # fmt: skip
    for before, after in itertools.pairwise(distances):
        assert 0 < after <= (1 - 0.1 * damping) * before * (1 + 1e-6)


def test_the_implicit_gradient_is_that_of_unrolled_autograd(problem, draw):
    A, kspace, start = problem
    target = draw(2, 8, 8, seed=5)
    damping = 0.5

    def gradients(reconstruct):
        network = contraction()
        weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        image = reconstruct(network, weight)
        torch.view_as_real(image - target).square().sum().backward()
        return image.detach(), [weight.grad, *(parameter.grad for parameter in network.parameters())]

    def implicit(network, weight):
        options = {"damping": damping, "init": start, "differentiable": True}
        return equilibrium(A, kspace, network, data_weight=weight, **options, **TIGHT).image

    def unrolled(network, weight):
        # The same iteration with a dense inverse, so that autograd goes through all of it.
        normal = [A.select(torch.tensor([i])) for i in range(2)]
        basis = torch.eye(64, dtype=torch.complex128).reshape(64, 1, 8, 8)
        matrices = torch.stack([part.normal(basis).reshape(64, 64).T for part in normal])
        x, adjoint = start, A.adjoint(kspace)
        inverse = torch.linalg.inv(torch.eye(64) + damping * weight * matrices)
        for _ in range(120):
            right = (1 - damping) * x + damping * network(x) + damping * weight * adjoint
            x = (inverse @ right.reshape(2, 64, 1)).reshape(2, 8, 8)
        return x

    (image, found), (expected_image, expected) = gradients(implicit), gradients(unrolled)
    torch.testing.assert_close(image, expected_image, rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(found, expected, strict=True):
        assert float(theirs.abs().max()) > 1e-6
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_without_gradients_enabled_or_asked_for_there_is_no_graph(problem):
    A, kspace, start = problem
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        result = equilibrium(A, kspace, contraction(), damping=0.5, data_weight=weight, init=start, differentiable=True)
    assert not result.image.requires_grad
    assert not equilibrium(A, kspace, contraction(), damping=0.5, data_weight=weight, init=start).image.requires_grad


@pytest.mark.parametrize(("key", "value"), [("damping", 0.0), ("data_weight", 0.0), ("data_weight", float("inf"))])
def test_arguments_out_of_range_are_refused(problem, one_line_error, key, value):
    A, kspace, _ = problem
    with one_line_error(key, str(value)):
        equilibrium(A, kspace, lambda x: x, **({"damping": 0.5, "data_weight": 1.0} | {key: value}))
