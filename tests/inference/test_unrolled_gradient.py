"""ELDER's iteration: its closed form for a quadratic cost, and the gradient through it."""

import pytest
import torch

from direct_deepen.inference import unrolled_gradient
from direct_deepen.priors import QuadraticEnergy, SumEnergy


@pytest.fixture
def problem(random_operator, draw):
    A = random_operator(1)
    return A, A.forward(draw(1, 8, 8, seed=3)), draw(1, 8, 8, seed=4)


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        energy = QuadraticEnergy(hidden_channels=3, num_layers=2).double()
    for parameter in energy.parameters():
        parameter.detach().mul_(2.0)
    return energy


def test_for_a_quadratic_cost_it_is_a_power_of_a_matrix(problem, dense_normal, gaussian_energy):
    # x_K − x* = (I − αH)^K (x_0 − x*) with H = AᴴA + Hessian of E and Hx* = Aᴴb.
    A, kspace, start = problem
    precision = torch.diag(torch.linspace(0.5, 2.0, 64, dtype=torch.float64))
    energy = gaussian_energy(precision, noise_std=1.0)
    hessian = dense_normal(A) + energy.hessian
    limit = torch.linalg.solve(hessian, A.adjoint(kspace).reshape(-1))
    step = torch.eye(64) - 0.4 * hessian
    expected = limit + torch.linalg.matrix_power(step, 7) @ (start.reshape(-1) - limit)
    with torch.no_grad():
        image = unrolled_gradient(A, kspace, energy, step_size=0.4, num_steps=7, init=start)
    torch.testing.assert_close(image.reshape(-1), expected, rtol=1e-10, atol=1e-10)


def test_with_and_without_a_graph_it_is_the_same(problem):
    A, kspace, start = problem
    arguments = {"step_size": 0.5, "num_steps": 4, "init": start}
    attached = unrolled_gradient(A, kspace, network(), **arguments)
    assert attached.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(unrolled_gradient(A, kspace, network(), **arguments), attached.detach())


def test_the_gradient_to_weights_and_step_is_that_of_finite_differences(problem, draw):
    A, kspace, start = problem
    energy, target = network(), draw(1, 8, 8, seed=5)
    step = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def loss():
        image = unrolled_gradient(A, kspace, energy, step_size=step, num_steps=4, init=start)
        return torch.view_as_real(image - target).square().sum()

    loss().backward()
    for parameter in (step, *energy.parameters()):
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-6 * direction)
                values.append(float(loss()))
                parameter.sub_(sign * 1e-6 * direction)
        slope = (values[0] - values[1]) / 2e-6
        # The last bias of a residual has a gradient too, as E = ½‖r‖² depends on it.
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("key", "value"), [("step_size", 0.0), ("num_steps", 0)])
def test_arguments_out_of_range_are_refused(problem, one_line_error, key, value):
    A, kspace, _ = problem
    with one_line_error(key, str(value)):
        unrolled_gradient(A, kspace, network(), **({"step_size": 0.5, "num_steps": 2} | {key: value}))


class WithoutCall:
    """An energy of which there is no more than value and gradient."""

    def __init__(self, energy):
        self.value_and_grad = energy.value_and_grad


def test_an_energy_without_a_function_has_the_same_image_and_gradients_alone_and_in_a_sum(problem):
    A, kspace, start = problem
    trained, other = network(), network(1)

    def gradients(energy):
        step, first = torch.tensor(0.5, dtype=torch.float64, requires_grad=True), start.clone().requires_grad_()
        image = unrolled_gradient(A, kspace, energy, step_size=step, num_steps=4, init=first)
        weights = list(trained.parameters()) if isinstance(energy, SumEnergy) else []
        return image.detach(), *torch.autograd.grad(image.abs().square().sum(), [step, first, *weights])

    for full, bare in (
        (other, WithoutCall(other)),
        (SumEnergy([(1.0, trained), (0.5, other)]), SumEnergy([(1.0, trained), (0.5, WithoutCall(other))])),
    ):
        # Central differences: the cube root of the precision, squared, 4e-11, times third derivatives.
        for expected, found in zip(gradients(full), gradients(bare), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))
