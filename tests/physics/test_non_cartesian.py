"""The operator of non-Cartesian sampling against the sum that it stands for, a grid, and itself."""

import pytest
import torch

from direct_deepen.inference import langevin, mm_map
from direct_deepen.inference.langevin import Chains, LangevinStep
from direct_deepen.physics import SenseOperator, normalize_sensitivity_map, sense
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.non_cartesian import (
    NonCartesianOperator,
    adjoint_transform,
    density_compensation,
    transform,
)
from direct_deepen.physics.operator import norm_squared


def positions(count, seed=0):
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def grid(height, width):
    rows, columns = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2)


@pytest.fixture
def operator(draw):
    """Two images of three coils, 9×12 (of either parity), 70 samples."""
    return NonCartesianOperator(draw(2, 3, 9, 12, seed=1), positions(70))


def test_samples_are_the_sum_of_their_definition(operator, draw):
    image = draw(2, 9, 12)
    rows, columns = torch.arange(9) - 4, torch.arange(12) - 6
    phase = operator.trajectory[:, 0, None, None] * rows[:, None] + operator.trajectory[:, 1, None, None] * columns
    waves = torch.exp(-2j * torch.pi * phase) / (9 * 12) ** 0.5
    expected = torch.einsum("jhw,nchw,nhw->ncj", waves, operator.sensitivity_map, image)
    # finufft is asked for 1e-12.
    torch.testing.assert_close(operator.forward(image), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (9, 12)])
def test_on_a_grid_it_is_the_centred_orthonormal_transform(draw, size):
    image = draw(2, *size)
    torch.testing.assert_close(transform(image, grid(*size)), fft2(image).flatten(1), rtol=1e-9, atol=1e-9)
    maps = draw(2, 3, *size, seed=1)
    A = NonCartesianOperator(maps, grid(*size))
    B = SenseOperator(maps, torch.ones(2, 1, *size))
    torch.testing.assert_close(A.normal(image), B.normal(image), rtol=1e-8, atol=1e-8)


def test_the_adjoint_is_that_and_normal_is_the_adjoint_of_forward(operator, draw):
    image, data = draw(2, 9, 12), draw(2, 3, 70, seed=2)
    left, right = torch.vdot(operator.forward(image).flatten(), data.flatten()), operator.adjoint(data)
    torch.testing.assert_close(left, torch.vdot(image.flatten(), right.flatten()), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(operator.normal(image), operator.adjoint(operator.forward(image)), rtol=1e-8, atol=1e-8)


def test_single_precision_and_leading_dimensions(operator, draw):
    chains = draw(4, 2, 9, 12)
    single = NonCartesianOperator(operator.sensitivity_map.to(torch.complex64), operator.trajectory.float())
    for name in ("forward", "normal"):
        expected = torch.stack([getattr(operator, name)(image) for image in chains])
        torch.testing.assert_close(getattr(operator, name)(chains), expected, rtol=1e-8, atol=1e-8)
        found = getattr(single, name)(chains.to(torch.complex64))
        assert found.dtype == torch.complex64
        # finufft is asked for 1e-6.
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    data = draw(4, 2, 3, 70)
    expected = torch.stack([operator.adjoint(one) for one in data])
    torch.testing.assert_close(operator.adjoint(data), expected, rtol=1e-8, atol=1e-8)


def test_its_bound_is_one_and_a_part_of_the_batch_is_that(draw):
    operator = NonCartesianOperator(normalize_sensitivity_map(draw(2, 3, 9, 12, seed=1)), positions(70))
    power = norm_squared(_Without(operator), draw(2, 9, 12))
    assert (operator.norm_squared_bound >= power).all()
    # The largest of its spectrum on twice the field, whatever the coils: 4.1 times at random positions.
    assert (operator.norm_squared_bound < 5 * power).all()
    image = draw(2, 9, 12)
    part = operator.select(torch.tensor([1]))
    torch.testing.assert_close(part.normal(image[1:]), operator.normal(image)[1:])


class _Without:
    """An operator without its bound."""

    def __init__(self, A):
        self.normal = A.normal


def test_solvers_and_chains_take_it_as_it_is(operator, draw):
    """MAP and the mean of chains of a quadratic energy are the dense solution."""

    class Ridge:
        def value_and_grad(self, image):
            return 0.5 * image.abs().square().sum(dim=(1, 2)), image

    b = operator.forward(draw(2, 9, 12)) + 0.1 * draw(2, 3, 70, seed=3)
    expected = sense(operator, b, regularization=1.0, tolerance=1e-10, max_iterations=500)
    found = mm_map(operator, b, Ridge(), tolerance=1e-12, max_iterations=500).image
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    samples = langevin(
        operator, b, Ridge(), noise_std=0.1, init=expected, chains=Chains(40, 30, 4),
        step=LangevinStep(0.5, preconditioner=1.0), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    mean = samples.images.mean(dim=0)
    # Deviations of at most ε/2 a component, forty chains: five standard errors of a complex number.
    assert (mean - expected).abs().max() < 5 * 2**0.5 * 0.05 / 40**0.5


def test_with_its_weights_the_adjoint_is_nearly_the_inverse():
    """Radial rays, a smooth object: without weights its middle is far too bright, with them it is right within 3 %."""
    angles = torch.arange(100, dtype=torch.float64) * torch.pi / 100
    radius = (torch.arange(64, dtype=torch.float64) - 32) / 64
    trajectory = torch.stack(
        [radius[:, None] * torch.sin(angles), radius[:, None] * torch.cos(angles)], dim=-1
    ).reshape(-1, 2)
    y, x = torch.meshgrid(*[torch.arange(64, dtype=torch.float64) - 32] * 2, indexing="ij")
    image = torch.exp(-(y**2 + x**2) / 200).to(torch.complex128)
    weights = density_compensation(trajectory, (64, 64))
    samples = transform(image, trajectory)
    found = adjoint_transform(weights * samples, trajectory, (64, 64)).real
    inside = image.real > 0.2
    assert float((found - image.real)[inside].abs().max()) < 0.03
    plain = adjoint_transform(samples, trajectory, (64, 64)).real
    assert float((plain - image.real)[inside].abs().max()) > 0.5
    # Weights on a grid are one.
    torch.testing.assert_close(density_compensation(grid(8, 8), (8, 8)), torch.ones(64, dtype=torch.float64))


def test_what_is_no_trajectory_is_one_line(draw, one_line_error):
    maps = draw(1, 2, 8, 8)
    for trajectory, words in (
        (torch.rand(5, 3), ("trajectory has shape (5, 3)",)),
        (torch.ones(5, 2), ("reaches 1 ", "0.5")),
        (torch.full((5, 2), torch.nan), ("reaches nan",)),
        (torch.zeros(0, 2), ("(0, 2)",)),
    ):
        with one_line_error(*words):
            NonCartesianOperator(maps, trajectory)
    with one_line_error("sensitivity_map has shape (2, 8, 8)"):
        NonCartesianOperator(maps[0], positions(5))
    with one_line_error("data have 6 samples", "5"):
        NonCartesianOperator(maps, positions(5)).adjoint(draw(1, 2, 6))
