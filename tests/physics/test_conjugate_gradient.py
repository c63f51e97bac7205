"""Conjugate gradients against dense solutions, and the stopping rule they promise."""

from collections.abc import Callable

import pytest
import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.physics import conjugate_gradient

SIZE = 12
CONDITION_NUMBERS = (1.0, 10.0, 1e4)


def hermitian(draw: Callable[..., torch.Tensor], eigenvalues: torch.Tensor, seed: int) -> torch.Tensor:
    basis, _ = torch.linalg.qr(draw(SIZE, SIZE, seed=seed))
    return (basis * eigenvalues) @ basis.mH


class Systems:
    """A batch of dense Hermitian positive definite systems of different conditioning; counts applications."""

    def __init__(self, draw: Callable[..., torch.Tensor]) -> None:
        exponents = torch.linspace(0, 1, SIZE, dtype=torch.float64)
        self.matrix = torch.stack(
            [hermitian(draw, condition**exponents, seed) for seed, condition in enumerate(CONDITION_NUMBERS)]
        )
        self.right_hand_side = draw(len(CONDITION_NUMBERS), SIZE, seed=10)
        self.solution = torch.linalg.solve(self.matrix, self.right_hand_side)
        self.applications = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.applications += 1
        return torch.einsum("bij,bj->bi", self.matrix, x)

    def alone(self, image: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: torch.einsum("bij,bj->bi", self.matrix[image : image + 1], x)


@pytest.fixture
def systems(draw) -> Systems:
    return Systems(draw)


def norms(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=1)


# ---- The solution


def test_solution_equals_the_dense_one_whatever_the_conditioning(systems):
    x = conjugate_gradient(systems, systems.right_hand_side, tolerance=1e-13, max_iterations=400)
    error = norms(x - systems.solution) / norms(systems.solution)
    # The relative error is at most the condition number, 1e4, times the relative residual, 1e-13 plus rounding.
    assert float(error.max()) <= 1e-8
    # The identity is solved at once.
    assert float(error[0]) <= 1e-14


def test_real_systems_are_solved_too(systems):
    matrix = systems.matrix.real + 2 * torch.eye(SIZE)  # the real part of a positive definite matrix is one too
    x = conjugate_gradient(
        lambda v: torch.einsum("bij,bj->bi", matrix, v),
        systems.right_hand_side.real,
        tolerance=1e-13,
        max_iterations=400,
    )
    assert x.dtype == torch.float64
    expected = torch.linalg.solve(matrix, systems.right_hand_side.real)
    assert float((norms(x - expected) / norms(expected)).max()) <= 1e-9  # condition number below 1e4


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6, 1e-9])
def test_relative_residual_reaches_the_tolerance(systems, tolerance):
    x = conjugate_gradient(systems, systems.right_hand_side, tolerance=tolerance, max_iterations=400)
    residual = norms(systems.right_hand_side - systems(x)) / norms(systems.right_hand_side)
    # The rule is applied to the recursion for the residual: 1 % and 1e-12 allow for the rounding between the two.
    assert bool((residual <= 1.01 * tolerance + 1e-12).all())


def test_a_looser_tolerance_costs_less_and_the_cost_does_not_depend_on_the_units(systems):
    def cost(tolerance: float, unit: float) -> int:
        systems.applications = 0
        conjugate_gradient(systems, unit * systems.right_hand_side, tolerance=tolerance, max_iterations=400)
        return systems.applications

    assert cost(1e-1, 1.0) < cost(1e-4, 1.0) < cost(1e-10, 1.0)
    assert cost(1e-4, 1.0) == cost(1e-4, 2.0**40)  # powers of two: the same digits


def test_iteration_limit_returns_the_best_so_far(systems):
    systems.applications = 0
    x = conjugate_gradient(systems, systems.right_hand_side, tolerance=1e-13, max_iterations=3)
    assert systems.applications == 3
    error = x - systems.solution

    def energy_norm(v: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,bij,bj->b", v.conj(), systems.matrix, v).real

    # Conjugate gradients minimise the energy norm of the error over growing spaces, the first of which is zero.
    assert bool((energy_norm(error) < energy_norm(systems.solution)).all())


# ---- Images do not know of one another


@pytest.mark.parametrize(("tolerance", "max_iterations"), [(1e-13, 4), (0.3, 400), (1e-2, 400)])
@pytest.mark.parametrize("image", range(len(CONDITION_NUMBERS)))
def test_an_image_gets_the_same_alone(systems, image, tolerance, max_iterations):
    options = {"tolerance": tolerance, "max_iterations": max_iterations}
    together = conjugate_gradient(systems, systems.right_hand_side, **options)[image]
    alone = conjugate_gradient(systems.alone(image), systems.right_hand_side[image : image + 1], **options)[0]
    # Stopped early, so both are far from the solution unless they took the same steps; rounding may grow a little.
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_zero_right_hand_side_gives_zero_beside_others(systems):
    systems.right_hand_side[1] = 0
    x = conjugate_gradient(systems, systems.right_hand_side, tolerance=1e-10, max_iterations=400)
    assert torch.equal(x[1], torch.zeros_like(x[1]))
    assert float(norms(x - systems.solution)[2] / norms(systems.solution)[2]) <= 1e-5  # 1e4 · 1e-10, and some


def test_non_positive_curvature_ends_the_iteration_of_that_image_only(systems):
    systems.matrix[0] = -systems.matrix[0]
    x = conjugate_gradient(systems, systems.right_hand_side, tolerance=1e-12, max_iterations=400)
    assert torch.equal(x[0], torch.zeros_like(x[0]))
    assert float(norms(x - systems.solution)[1] / norms(systems.solution)[1]) <= 1e-10  # 10 · 1e-12


def test_an_image_that_met_non_positive_curvature_keeps_the_iterate_before_it():
    # H = diag(3, −1), b = (1, 1): the first step has length one; the second direction, (2, 6), has curvature 12 − 36.
    eigenvalues, ones = torch.tensor([[3.0, -1.0]]), torch.ones(1, 2)
    x = conjugate_gradient(lambda v: eigenvalues * v, ones, max_iterations=10)
    assert torch.equal(x, ones)


# ---- Start


def test_start_at_the_solution_costs_one_application_and_changes_nothing(systems):
    systems.applications = 0
    x = conjugate_gradient(systems, systems.right_hand_side, initial=systems.solution, tolerance=1e-8)
    assert systems.applications == 1
    assert torch.equal(x, systems.solution)


def test_any_start_reaches_the_solution_and_is_left_alone(systems, draw):
    start = draw(len(CONDITION_NUMBERS), SIZE, seed=20)
    copy = start.clone()
    x = conjugate_gradient(systems, systems.right_hand_side, initial=start, tolerance=1e-13, max_iterations=400)
    assert float((norms(x - systems.solution) / norms(systems.solution)).max()) <= 1e-8  # as from zero
    assert torch.equal(start, copy)


def test_tolerance_is_relative_to_the_right_hand_side_not_to_the_start(systems):
    near = systems.solution * (1 + 1e-6)
    systems.applications = 0
    # The residual at this start is 1e-6 of the right-hand side: below the tolerance.
    conjugate_gradient(systems, systems.right_hand_side, initial=near, tolerance=1e-5)
    assert systems.applications == 1


# ---- Errors


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("image", [0, 2])
def test_non_finite_right_hand_side_is_an_error_never_a_zero(systems, one_line_error, value, image):
    systems.right_hand_side[image, 3] = value
    with one_line_error("conjugate gradients", "residual", error=DivergenceError):
        conjugate_gradient(systems, systems.right_hand_side, max_iterations=400)


def test_all_infinite_right_hand_sides_are_an_error_never_a_zero(one_line_error):
    with one_line_error("residual", error=DivergenceError):
        conjugate_gradient(lambda v: 2 * v, torch.full((2, 3), float("inf")))


def test_overflow_of_the_norm_in_single_precision_is_an_error_never_a_zero(one_line_error):
    with one_line_error("residual", error=DivergenceError):
        conjugate_gradient(lambda v: 2 * v, torch.full((1, 3), 1e25, dtype=torch.complex64))


def test_operator_that_returns_nan_is_an_error(systems, one_line_error):
    with one_line_error("residual", error=DivergenceError):
        conjugate_gradient(lambda v: float("nan") * v, systems.right_hand_side)


@pytest.mark.parametrize(
    ("options", "word"), [({"tolerance": 0.0}, "tolerance"), ({"max_iterations": 0}, "max_iterations")]
)
def test_bad_arguments(systems, one_line_error, options, word):
    with one_line_error(word):
        conjugate_gradient(systems, systems.right_hand_side, **options)
