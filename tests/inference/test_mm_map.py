"""Majorize-minimize: descent for every energy, and the closed form for Gaussian priors."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.inference import MapResult, MapStep, Stopping, mm_map
from direct_deepen.inference.cost import cost_terms
from direct_deepen.physics import SenseOperator, sense
from direct_deepen.priors import DifferentiableEnergy

NOISE_STD = 0.5

TIGHT = {"tolerance": 1e-15, "max_iterations": 2000}
"""Iterate until C does not change in double precision."""


class Counting:
    """An energy that keeps the size of every batch it was evaluated for."""

    def __init__(self, energy: DifferentiableEnergy) -> None:
        self.energy = energy
        self.batches: list[int] = []

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.batches.append(image.shape[0])
        return self.energy.value_and_grad(image)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(actual - expected) / torch.linalg.vector_norm(expected))


def diagonal_precision(draw: Callable[..., torch.Tensor]) -> torch.Tensor:
    """One precision a pixel, between 0.4 and 4."""
    return torch.diag(torch.logspace(-0.4, 0.6, 64, dtype=torch.float64).flip(0))


def dense_precision(draw: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Pixels that depend on one another, eigenvalues between 0.4 and 4."""
    basis, _ = torch.linalg.qr(draw(64, 64, seed=30))
    return (basis * torch.logspace(-0.4, 0.6, 64, dtype=torch.float64)) @ basis.mH


PRECISIONS = pytest.mark.parametrize("precision", [diagonal_precision, dense_precision], ids=["diagonal", "dense"])


@pytest.fixture
def make_problem(random_operator, draw) -> Callable[..., tuple[SenseOperator, torch.Tensor]]:
    """An undersampled operator, different for three images, and data of random images with noise."""

    def make(size: tuple[int, ...] = (8, 8), fourier_dimensions: int = 2) -> tuple[SenseOperator, torch.Tensor]:
        A = random_operator(3, 3, *size, fourier_dimensions=fourier_dimensions)
        return A, A.forward(draw(3, *size, seed=3)) + 0.1 * draw(3, 3, *size, seed=4) * A.sampling_mask

    return make


@pytest.fixture
def problem(make_problem) -> tuple[SenseOperator, torch.Tensor]:
    """Of slices."""
    return make_problem()


SHAPES = pytest.mark.parametrize(
    "shape", [((8, 8), 2), ((4, 4, 4), 2), ((4, 4, 4), 3)], ids=["slice", "series", "volume"]
)
"""Of 64 pixels each, and how many of their axes have a Fourier transform."""


def closed_form(
    A: SenseOperator, kspace: torch.Tensor, hessian: torch.Tensor, dense_normal: Callable[..., torch.Tensor]
) -> torch.Tensor:
    """The MAP (AᴴA + (ε²/2)Q)⁻¹Aᴴb of every image."""
    images = []
    for image in range(kspace.shape[0]):
        part = A.select(torch.tensor([image]))
        right_hand_side = part.adjoint(kspace[image : image + 1]).flatten()
        images.append(
            torch.linalg.solve(dense_normal(part) + hessian, right_hand_side).reshape(A.sampling_mask.shape[2:])
        )
    return torch.stack(images)


# ---- The solution


@pytest.mark.parametrize("memory", [0, 5], ids=["plain", "memory"])
@PRECISIONS
@SHAPES
def test_gaussian_prior_reaches_the_closed_form(
    make_problem, dense_normal, gaussian_energy, draw, precision, memory, shape
):
    A, kspace = make_problem(*shape)
    energy = gaussian_energy(precision(draw), NOISE_STD)
    result = mm_map(A, kspace, energy, memory=memory, **TIGHT)
    expected = closed_form(A, kspace, energy.hessian, dense_normal)
    # C, of condition number about 20, is minimised to 1e-15 or so, the image to the root of it.
    assert relative_error(result.image, expected) <= 1e-5
    assert bool(result.converged.all())


@PRECISIONS
def test_single_precision_reaches_the_closed_form_to_its_accuracy(
    problem, dense_normal, gaussian_energy, draw, precision, random_operator
):
    A, kspace = problem
    energy = gaussian_energy(precision(draw), NOISE_STD)
    single = SenseOperator(A.sensitivity_map.to(torch.complex64), A.sampling_mask)
    result = mm_map(single, kspace.to(torch.complex64), energy, **TIGHT)
    expected = closed_form(A, kspace, energy.hessian, dense_normal).to(torch.complex64)
    assert result.image.dtype == torch.complex64
    # The root of 6e-8, the rounding of C, would be 2e-4.
    assert relative_error(result.image, expected) <= 2e-4


def test_a_looser_tolerance_stops_earlier_by_the_stated_rule(problem, gaussian_energy, draw):
    A, kspace = problem
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    part, kspace = A.select(torch.tensor([0])), kspace[:1]
    lengths = []
    for tolerance in (1e-2, 1e-4, 1e-8):
        loose = {"tolerance": tolerance, "gradient_tolerance": 1e9}
        result = mm_map(part, kspace, energy, **loose)
        cost = result.cost_history[:, 0]
        # The images on the way are those of shorter runs.
        images = [mm_map(part, kspace, energy, max_iterations=n + 1, **loose).image for n in range(result.iterations)]
        misfit = torch.stack([0.5 * (part.forward(image) - kspace).abs().square().sum() for image in images])
        change = (cost[:-1] - cost[1:]) / (cost[0] - cost[1:] + misfit)
        assert bool(result.converged)
        assert float(change[-1]) <= tolerance
        # Earlier iterations changed more, or were refused and changed nothing.
        assert bool(((change[:-1] > tolerance) | (change[:-1] == 0)).all())
        lengths.append(result.iterations)
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize("gradient_tolerance", [1e-2, 1e-5])
def test_a_short_step_is_no_end_before_the_gradient_is_small(problem, gaussian_energy, draw, gradient_tolerance):
    A, kspace = problem
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    start = sense(A, kspace)
    # Every step is short enough for this tolerance.
    result = mm_map(A, kspace, energy, init=start, tolerance=1.0, gradient_tolerance=gradient_tolerance)
    first = torch.linalg.vector_norm(cost_terms(A, kspace, energy, start).gradient, dim=(1, 2))
    assert bool(result.converged.all())
    done_early = (result.cost_history.diff(dim=0) < 0).sum(dim=0) == 5
    ratio = result.gradient_norm / first
    assert bool(((ratio <= gradient_tolerance) | done_early).all())
    # Five short steps in a row end it in any case; from one or two that are refused the memory learns.
    assert int((result.cost_history.diff(dim=0) < 0).sum(dim=0).max()) <= 5
    assert result.iterations <= 7


def test_iteration_limit_is_kept_and_reported(problem, gaussian_energy, draw):
    A, kspace = problem
    result = mm_map(A, kspace, gaussian_energy(dense_precision(draw), NOISE_STD), tolerance=1e-15, max_iterations=3)
    assert result.iterations == 3
    assert result.cost_history.shape == (4, 3)
    assert not bool(result.converged.any())


@pytest.mark.parametrize("accuracy", [1e-2, 1e-4])
def test_an_image_is_done_when_five_steps_move_it_by_less_than_the_accuracy(problem, gaussian_energy, draw, accuracy):
    A, kspace = problem
    A, kspace = A.select(torch.tensor([0])), kspace[:1]
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)

    def run(**options: float) -> MapResult:
        return mm_map(A, kspace, energy, tolerance=1e-15, gradient_tolerance=1e-15, **options)

    result, minimum = run(accuracy=accuracy), mm_map(A, kspace, energy, **TIGHT).image
    assert bool(result.converged.all())
    # The path is that without the rule. None of its steps is refused.
    path = [run(max_iterations=number).image for number in range(result.iterations - 6, result.iterations + 1)]
    assert torch.equal(path[-1], result.image)
    moves = [rms(after - before) for before, after in pairwise(path)]
    assert min(moves) > 0
    assert sum(moves[1:]) < accuracy <= sum(moves[:-1])
    # Of a quadratic cost every step brings a share of the rest; five of them more than half.
    assert rms(result.image - minimum) <= accuracy


def rms(image: torch.Tensor) -> float:
    """Root mean square over the components."""
    return float(image.abs().square().mean().div(2).sqrt())


def test_start_is_sense_by_default_and_any_start_reaches_the_same_minimum(problem, gaussian_energy, draw):
    A, kspace = problem
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    default = mm_map(A, kspace, energy, **TIGHT)
    # The history ends with the cost of the image; what came before is that and the steps, each rounded once.
    first = cost_terms(A, kspace, energy, sense(A, kspace, tolerance=1e-2)).cost
    torch.testing.assert_close(default.cost_history[0], first, rtol=1e-12, atol=0)
    start = 10 * draw(3, 8, 8, seed=40)
    copy = start.clone()
    other = mm_map(A, kspace, energy, init=start, **TIGHT)
    assert relative_error(other.image, default.image) <= 2e-5  # twice the accuracy of either
    assert torch.equal(start, copy)


class Shifted:
    """E + c."""

    def __init__(self, energy: DifferentiableEnergy, constant: float) -> None:
        self.energy, self.constant = energy, constant

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, gradient = self.energy.value_and_grad(image)
        return value + self.constant, gradient


def test_a_constant_added_to_the_energy_changes_nothing(random_operator, smooth_energy_case, draw):
    A = random_operator(2, 3, dtype=torch.complex128)
    kspace = A.forward(draw(2, 8, 8, seed=3, dtype=torch.complex128))
    energy = smooth_energy_case.build(8, 8, dtype=torch.float64)
    expected = mm_map(A, kspace, energy)
    for constant in (-1000.0, 10.0):
        result = mm_map(A, kspace, Shifted(energy, constant))
        assert bool(result.converged.all())
        # The same steps, to the last digit: no decision is one of the rounding of the constant.
        assert torch.equal(result.image, expected.image)
        assert result.iterations == expected.iterations
        assert bool((result.cost_history.diff(dim=0) <= 0).all())


@pytest.mark.parametrize(("constant", "difference"), [(10.0, 1e-5), (-1000.0, 1e-5), (1e5, 1e-3)])
def test_a_constant_that_hides_the_steps_does_not_change_the_first(
    random_operator, smooth_energy_case, draw, constant, difference
):
    A = random_operator(2, 3, dtype=torch.complex64)
    kspace = A.forward(draw(2, 8, 8, seed=3, dtype=torch.complex64))
    energy = smooth_energy_case.build(8, 8, dtype=torch.float32)
    # Values are believed to four roundings of the constant, 5e-4 of a thousand and 0.05 of 1e5; the gradients tell the
    # rest to the third order of a step. Over many steps rounding refuses one sooner or later, from which the memory
    # learns, and an energy with several minima may end in another: these have them. Ten other problems, each after 1,
    # 2, 3, 4 and 8 steps, kept to both bounds.
    expected, first = (mm_map(A, kspace, e, max_iterations=8) for e in (energy, Shifted(energy, constant)))
    assert relative_error(first.image, expected.image) <= difference
    result = mm_map(A, kspace, Shifted(energy, constant))
    assert bool(result.converged.all())
    assert bool((result.cost_history.diff(dim=0) <= 0).all())


def test_a_constant_that_hides_the_steps_does_not_change_the_one_minimum(problem, gaussian_energy, draw):
    A, kspace = problem
    single = SenseOperator(A.sensitivity_map.to(torch.complex64), A.sampling_mask)
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    expected, result = (mm_map(single, kspace.to(torch.complex64), e) for e in (energy, Shifted(energy, 1e5)))
    assert bool(result.converged.all())
    # Both are minima to 1e-3 of the slope.
    assert abs(result.iterations - expected.iterations) <= 2
    assert relative_error(result.image, expected.image) <= 1e-3
    assert bool((result.cost_history.diff(dim=0) <= 0).all())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_minus_the_logarithm_of_a_density_may_be_negative(problem, gaussian_energy, dense_normal, draw, dtype):
    A, kspace = problem
    gaussian = gaussian_energy(dense_precision(draw), NOISE_STD)
    # −(ε²/2) log p with the constant of p: log det Q − 64 log 2π, and a narrow density is large.
    constant = -0.5 * NOISE_STD**2 * float(torch.logdet(1e3 * dense_precision(draw).real)) - 200
    single = SenseOperator(A.sensitivity_map.to(dtype), A.sampling_mask)
    result = mm_map(single, kspace.to(dtype), Shifted(gaussian, constant), tolerance=1e-9, gradient_tolerance=1e-5)
    assert bool((result.cost_history[-1] < 0).all())
    assert bool(result.converged.all())
    # Condition number 20 and a slope of 1e-5 of the first.
    assert relative_error(result.image, closed_form(A, kspace, gaussian.hessian, dense_normal)) <= 2e-4


def test_where_rounding_hides_the_cost_and_the_slope_stays_it_is_not_called_converged(problem, caplog):
    class Absolute:
        """A sum of moduli, whose slope never vanishes, and a constant that single precision rounds to 65536."""

        def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return image.abs().sum(dim=(1, 2)) + 1e12, torch.sgn(image)

    A, kspace = problem
    single = SenseOperator(A.sensitivity_map.to(torch.complex64), A.sampling_mask)
    # With a memory it goes on learning from the kinks until its limit.
    assert not bool(mm_map(single, kspace.to(torch.complex64), Absolute()).converged.any())
    assert not caplog.records
    result = mm_map(single, kspace.to(torch.complex64), Absolute(), step=MapStep(memory=0))
    assert not bool(result.converged.any())
    (record,) = caplog.records
    assert "rounding" in record.getMessage()
    assert "[0, 1, 2]" in record.getMessage()


# ---- Descent


@pytest.mark.parametrize(("dtype", "memory"), [(torch.complex64, 5), (torch.complex128, 0)])
def test_cost_never_rises_for_any_energy(random_operator, energy_case, draw, dtype, memory):
    A = random_operator(2, 3, dtype=dtype)
    kspace = A.forward(draw(2, 8, 8, seed=3, dtype=dtype))
    energy = energy_case.build(8, 8, dtype=kspace.real.dtype)
    result = mm_map(A, kspace, energy, memory=memory, tolerance=1e-9, max_iterations=40)
    # Not a tolerance: every step that would raise C as it is computed has to be refused.
    assert bool((result.cost_history.diff(dim=0) <= 0).all())
    assert bool((result.cost_history[-1] < result.cost_history[0]).all())


def test_descent_ends_at_a_stationary_point_of_smooth_energies(random_operator, smooth_energy_case, draw):
    A = random_operator(1, 3)
    kspace = A.forward(draw(1, 8, 8, seed=3))
    energy = smooth_energy_case.build(8, 8)
    start = mm_map(A, kspace, energy, max_iterations=1)
    end = mm_map(A, kspace, energy, tolerance=1e-12, max_iterations=300)
    # Measured: 5e-7 to 2e-5. Descent that got stuck would leave order one.
    assert float(end.gradient_norm) <= 1e-3 * float(start.gradient_norm)


def test_memory_needs_less_than_half_the_gradients(problem, gaussian_energy, draw):
    A, kspace = problem
    basis, _ = torch.linalg.qr(draw(64, 64, seed=30))
    # Flat directions among curved ones: no single L suits both, where A does not help. Eigenvalues 1e-3 to 1.
    energy = gaussian_energy((basis * torch.logspace(-3, 0, 64, dtype=torch.float64)) @ basis.mH, 2**0.5)
    start = 100 * draw(3, 8, 8, seed=40)
    lowest = mm_map(A, kspace, energy, init=start, memory=0, tolerance=1e-14, max_iterations=5000).cost_history[-1]
    evaluations = {}
    for memory in (0, 10):
        history = mm_map(A, kspace, energy, init=start, memory=memory, tolerance=1e-14).cost_history
        evaluations[memory] = int(((history - lowest) / lowest > 1e-6).any(dim=1).sum())
    # Measured: 21 and 50. A memory that is not used would need as many.
    assert evaluations[10] <= 0.5 * evaluations[0]


@pytest.mark.parametrize("curvature", [1e-6, 1e-2])
def test_a_curvature_that_is_too_small_is_raised_and_descent_holds(problem, gaussian_energy, draw, curvature):
    A, kspace = problem
    energy = gaussian_energy(dense_precision(draw), noise_std=5.0)  # eigenvalues of the Hessian 5 to 50
    result = mm_map(A, kspace, energy, curvature=curvature, **TIGHT)
    assert bool((result.cost_history.diff(dim=0) <= 0).all())
    assert bool((result.curvature > 1.0).all())
    assert relative_error(result.image, mm_map(A, kspace, energy, **TIGHT).image) <= 2e-5
    # The first steps had to be refused: C stood still.
    assert bool((result.cost_history[1] == result.cost_history[0]).all())


def test_a_step_that_is_refused_teaches_the_direction_that_was_not_known(problem, gaussian_energy, draw):
    A, kspace = problem
    basis, _ = torch.linalg.qr(draw(64, 64, seed=30))
    eigenvalues = torch.full((64,), 0.1, dtype=torch.float64)
    eigenvalues[0] = 50.0
    energy = gaussian_energy((basis * eigenvalues) @ basis.mH, 2**0.5)
    start = 100 * draw(3, 8, 8, seed=40)
    refused = {}
    for memory in (5, 0):
        history = mm_map(A, kspace, energy, init=start, step=MapStep(curvature=0.2, memory=memory)).cost_history
        refused[memory] = (history.diff(dim=0)[:10] == 0).sum(dim=0)
    # Without a memory L is doubled until it bounds the one stiff direction, log2(50/0.2) = 8 times. Measured with it: 5
    # or 6, in the same ten steps; a memory that learns of steps that are taken alone has the same eight.
    assert bool((refused[0] == 8).all())
    assert bool((refused[5] < 8).all())


def test_a_curvature_that_is_too_large_is_lowered(problem, gaussian_energy, draw):
    A, kspace = problem
    result = mm_map(A, kspace, gaussian_energy(dense_precision(draw), NOISE_STD), curvature=1e3, **TIGHT)
    assert bool((result.curvature < 100).all())


def test_steps_into_nan_are_refused(problem):
    A, kspace = problem
    edge = 1.5 * sense(A, kspace).abs().max()

    class Cliff:
        """Pulls every pixel to the right, to where it is no number."""

        fallen = False

        def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outside = image.abs().amax(dim=(1, 2)) > edge
            self.fallen |= bool(outside.any())
            value = 100 - image.real.sum(dim=(1, 2))
            return torch.where(outside, torch.nan, value), torch.full_like(image, -1.0)

    energy = Cliff()
    result = mm_map(A, kspace, energy, curvature=1e-3, max_iterations=50)
    assert energy.fallen
    assert bool(torch.isfinite(result.cost_history).all())
    assert bool((result.cost_history.diff(dim=0) <= 0).all())
    assert bool((result.cost_history[-1] < result.cost_history[0]).all())


@pytest.mark.parametrize("broken", ["energy", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_energy_that_is_no_longer_finite_is_no_convergence(problem, broken, value):
    A, kspace = problem

    class Failing:
        """½‖x‖², until it fails for good."""

        evaluations = 0

        def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.evaluations += 1
            late = value if self.evaluations > 4 else 0.0
            energy, gradient = 0.5 * image.abs().square().sum(dim=(1, 2)), image.clone()
            return (energy + late, gradient) if broken == "energy" else (energy, gradient + late)

    with pytest.raises(DivergenceError, match=r"mm_map: images \[0.*at step \d+: the shortest step leads to cost"):
        mm_map(A, kspace, Failing(), curvature=1e-3, tolerance=1e-12, max_iterations=200)


# ---- Images do not know of one another, and cost what they need


@PRECISIONS
def test_an_image_gets_the_same_alone(problem, gaussian_energy, draw, precision):
    A, kspace = problem
    energy = gaussian_energy(precision(draw), NOISE_STD)
    together = mm_map(A, kspace, energy, **TIGHT)
    for image in range(3):
        alone = mm_map(A.select(torch.tensor([image])), kspace[image : image + 1], energy, **TIGHT)
        # The first L comes from another direction, so only the minimum is the same: to the accuracy of the solver.
        assert relative_error(together.image[image : image + 1], alone.image) <= 2e-5


def test_an_image_takes_the_same_steps_alone_from_the_same_curvature(problem, energy_type_case):
    A, kspace = problem
    energy = energy_type_case.build(8, 8)
    together = mm_map(A, kspace, energy, curvature=0.5, max_iterations=5)
    for image in range(3):
        part = A.select(torch.tensor([image]))
        alone = mm_map(part, kspace[image : image + 1], energy, curvature=0.5, max_iterations=5)
        history = together.cost_history[: alone.iterations + 1, image]
        # The same steps: rounding, which five steps through a network amplify a little.
        torch.testing.assert_close(history, alone.cost_history[:, 0], rtol=1e-9, atol=0)


def near_and_far(problem, energy: DifferentiableEnergy, draw: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Starts of which the second is the solution."""
    A, kspace = problem
    start = 10 * draw(3, 8, 8, seed=40)
    start[1] = mm_map(A, kspace, energy, **TIGHT).image[1]
    return start


def test_finished_images_cost_nothing_more(problem, gaussian_energy, draw):
    A, kspace = problem
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    start = near_and_far(problem, energy, draw)
    counting = Counting(energy)
    result = mm_map(A, kspace, counting, init=start, tolerance=1e-10)
    assert bool(result.converged.all())
    iterations = counting.batches[-result.iterations :]
    assert iterations == sorted(iterations, reverse=True)
    assert iterations[0] == 3
    assert iterations[1] == 2  # the second image was done after one step
    assert torch.equal(result.cost_history[2:, 1], result.cost_history[1, 1].expand(result.iterations - 1))


@pytest.mark.parametrize(("curvature", "plain"), [(None, False), (0.5, False), (None, True)])
def test_gradient_evaluations_are_those_that_were_done(problem, energy_type_case, plain_operator, plain, curvature):
    A, kspace = problem
    counting = Counting(energy_type_case.build(8, 8))
    operator = plain_operator(A) if plain else A
    result = mm_map(operator, kspace, counting, curvature=curvature, tolerance=1e-3, max_iterations=10)
    assert result.gradient_evaluations == sum(counting.batches)


def test_a_plain_operator_gives_the_same(problem, gaussian_energy, plain_operator, draw):
    A, kspace = problem
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    start = near_and_far(problem, energy, draw)
    expected = mm_map(A, kspace, energy, init=start, tolerance=1e-10)
    result = mm_map(plain_operator(A), kspace, energy, init=start, tolerance=1e-10)
    # The same steps, though images that are done stay in the batch: rounding only.
    torch.testing.assert_close(result.cost_history, expected.cost_history, rtol=1e-10, atol=0)
    torch.testing.assert_close(result.image, expected.image, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(result.curvature, expected.curvature, rtol=1e-12, atol=0)
    assert torch.equal(result.converged, expected.converged)


def test_finished_images_wait_for_slow_ones_where_the_operator_cannot_be_cut(inpainting_operator, draw):
    # In single precision, for hundreds of iterations: nothing of the image that is done may go on growing.
    mask = torch.ones(2, 12, 12)
    mask[:, ::2] = 0
    image = torch.zeros(2, 12, 12, dtype=torch.complex64)
    image[1] = draw(12, 12, dtype=torch.complex64)

    class Smoothness:
        """A rounded total variation along rows: slow, as it is nearly flat and sharply curved."""

        def value_and_grad(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            difference = x[:, 1:] - x[:, :-1]
            length = (difference.abs().square() + 1e-6).sqrt()
            gradient = torch.zeros_like(x)
            gradient[:, 1:] += difference / length
            gradient[:, :-1] -= difference / length
            return 0.1 * length.sum(dim=(1, 2)), 0.1 * gradient

    result = mm_map(
        inpainting_operator(mask), mask * image, Smoothness(), tolerance=1e-12, max_iterations=300, memory=0
    )
    assert result.iterations > 200
    assert bool(result.converged[0])
    assert float(result.curvature[0]) < 1e3
    assert bool((result.cost_history.diff(dim=0) <= 0).all())


def test_inpainting_reaches_the_closed_form(inpainting_operator, gaussian_energy, draw):
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(2, 8, 8, generator=generator) < 0.5).double()
    energy, data = gaussian_energy(dense_precision(draw), NOISE_STD), mask * draw(2, 8, 8)
    result = mm_map(inpainting_operator(mask), data, energy, **TIGHT)
    expected = [
        torch.linalg.solve(torch.diag(m.flatten()) + energy.hessian, b.flatten()).reshape(8, 8)
        for m, b in zip(mask, data, strict=True)
    ]
    assert relative_error(result.image, torch.stack(expected)) <= 1e-5  # as above


# ---- The report


@pytest.fixture
def reported(problem, smooth_energy_case) -> tuple[MapResult, DifferentiableEnergy]:
    energy = smooth_energy_case.build(8, 8)
    return mm_map(*problem, energy, max_iterations=20), energy


def test_report_describes_the_returned_image(problem, reported):
    A, kspace = problem
    result, energy = reported
    terms = cost_terms(A, kspace, energy, result.image)
    torch.testing.assert_close(result.cost_history[-1], terms.cost, rtol=1e-12, atol=0)  # rounding in another batch
    norms = torch.linalg.vector_norm(terms.gradient, dim=(1, 2))
    torch.testing.assert_close(result.gradient_norm, norms, rtol=1e-8, atol=1e-10)
    assert result.iterations == result.cost_history.shape[0] - 1
    assert result.cost_history.dtype == torch.float64


@pytest.mark.usefixtures("global_generators_untouched")
def test_nothing_given_is_changed_and_results_repeat(problem, energy_type_case):
    A, kspace = problem
    energy, copy = energy_type_case.build(8, 8), kspace.clone()
    weights = {name: value.clone() for name, value in energy.state_dict().items()}
    first, second = (mm_map(A, kspace, energy, max_iterations=5) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(kspace, copy)
    assert all(torch.equal(value, weights[name]) for name, value in energy.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in energy.parameters())
    assert not first.image.requires_grad


# ---- Errors


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_start_that_is_not_finite_is_an_error_with_cost_and_norms(
    problem, energy_type_case, draw, one_line_error, value
):
    start = draw(3, 8, 8)
    start[1, 2, 3] = value
    with one_line_error("mm_map", "images [1]", "cost", "norm", "start", error=DivergenceError):
        mm_map(*problem, energy_type_case.build(8, 8), init=start)


def test_steps_to_where_the_gradient_is_no_number_are_refused(problem):
    A, kspace = problem
    edge = 1.1 * sense(A, kspace).abs().amax(dim=(1, 2))

    class Cliff:
        """Its value goes on beyond an edge, without a bound or downwards, where its gradient ends."""

        def __init__(self, value: float) -> None:
            self.value = value

        def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outside = image.abs().amax(dim=(1, 2)) > edge[: len(image)]
            value = torch.where(outside, self.value, -image.real.sum(dim=(1, 2)))
            return value, torch.where(outside[:, None, None], torch.nan, torch.full_like(image, -1.0))

    for value in (-1e6, float("-inf")):
        result = mm_map(A, kspace, Cliff(value), curvature=1e-3, max_iterations=30)
        assert bool(torch.isfinite(torch.view_as_real(result.image)).all())
        assert bool(torch.isfinite(result.cost_history).all())


def test_what_breaks_within_conjugate_gradients_names_image_step_and_norms(
    problem, gaussian_energy, draw, one_line_error
):
    A, kspace = problem

    class Breaking(SenseOperator):
        """An operator that overflows at its sixth product, for the last image of the batch."""

        calls = 0

        def normal(self, image: torch.Tensor) -> torch.Tensor:
            Breaking.calls += 1
            result = super().normal(image)
            if Breaking.calls > 5:
                result[-1] = torch.inf
            return result

    operator = Breaking(A.sensitivity_map, A.sampling_mask)
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    words = ("mm_map", "images [2]", "gradient norms", "step", "conjugate gradients")
    with one_line_error(*words, error=DivergenceError):
        mm_map(operator, kspace, energy, init=draw(3, 8, 8))


def test_data_that_are_not_finite_are_refused_naming_the_images(problem, energy_type_case, one_line_error):
    A, kspace = problem
    kspace[2, 0, 1, 1] = float("nan")
    with one_line_error("masked_kspace", "[2]"):
        mm_map(A, kspace, energy_type_case.build(8, 8))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tolerance", 0.0),
        ("tolerance", float("nan")),
        ("gradient_tolerance", 0.0),
        ("max_iterations", 0),
        ("curvature", 0.0),
        ("curvature", -1.0),
        ("memory", -1),
        ("cg_tolerance", 0.0),
        ("cg_iterations", 0),
    ],
)
def test_bad_arguments_are_named(problem, gaussian_energy, draw, one_line_error, name, value):
    energy = gaussian_energy(dense_precision(draw), NOISE_STD)
    with one_line_error(f"{name} is {value!r}"):
        mm_map(*problem, energy, **{name: value})


def test_groups_of_options_say_what_the_old_keywords_do(problem, energy_type_case):
    old = {"tolerance": 1e-3, "max_iterations": 6, "gradient_tolerance": 0.5, "memory": 2, "cg_iterations": 3}
    energy = energy_type_case.build(8, 8)
    expected = mm_map(*problem, energy, curvature=0.5, cg_tolerance=1e-2, **old)
    result = mm_map(*problem, energy, stopping=Stopping(1e-3, 0.5, 6), step=MapStep(0.5, 2, 1e-2, 3))
    assert torch.equal(result.image, expected.image)
    assert torch.equal(result.cost_history, expected.cost_history)


def test_a_group_and_its_old_keywords_together_are_refused(problem, energy_type_case, one_line_error):
    energy = energy_type_case.build(8, 8)
    with one_line_error("tolerance", "stopping", "Stopping"):
        mm_map(*problem, energy, stopping=Stopping(), tolerance=1e-3)
    with pytest.raises(TypeError, match="tolerence"):
        mm_map(*problem, energy, tolerence=1e-3)
