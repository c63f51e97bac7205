"""The limited memory: dense BFGS, the secant equation, and descent whatever the pairs."""

import pytest
import torch

from direct_deepen.inference.cost import inner_product
from direct_deepen.inference.curvature_pairs import CurvaturePairs, inverse_curvature

SIZE = 4


@pytest.fixture
def hessians(draw) -> torch.Tensor:
    """A Hermitian positive definite matrix for each of two images, eigenvalues 0.5 to 5."""
    bases, _ = torch.linalg.qr(draw(2, SIZE**2, SIZE**2, seed=50))
    return (bases * torch.linspace(0.5, 5, SIZE**2, dtype=torch.float64)) @ bases.mH


def apply(matrices: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return (matrices @ images.flatten(1)[..., None]).reshape(images.shape)


def real(image: torch.Tensor) -> torch.Tensor:
    """The image as a real vector: the geometry is that of Re⟨·, ·⟩."""
    return torch.view_as_real(image).flatten()


def all_images() -> torch.Tensor:
    return torch.ones(2, dtype=torch.bool)


def remembered(hessians, draw, size, count):
    """Pairs after ``count`` random steps on a quadratic, and what went in, oldest first."""
    pairs, went_in = CurvaturePairs.empty(size, draw(2, SIZE, SIZE)), []
    for number in range(count):
        step = draw(2, SIZE, SIZE, seed=60 + number)
        went_in.append((step, apply(hessians, step)))
        pairs = pairs.updated(*went_in[-1], inverse_curvature(*went_in[-1]), forget=~all_images())
    return pairs, went_in


def solve(images: torch.Tensor) -> torch.Tensor:
    """An initial inverse Hessian that is no multiple of the identity."""
    weights = torch.linspace(0.2, 2, SIZE**2, dtype=torch.float64).reshape(SIZE, SIZE)
    return weights * images


@pytest.mark.parametrize(("size", "count"), [(0, 2), (1, 1), (3, 2), (3, 5)])
def test_direction_is_that_of_dense_bfgs(hessians, draw, size, count):
    pairs, went_in = remembered(hessians, draw, size, count)
    gradient = draw(2, SIZE, SIZE, seed=70)
    direction = pairs.direction(gradient, solve)
    for image in range(2):
        identity = torch.eye(2 * SIZE**2, dtype=torch.float64)
        inverse = torch.diag(real(solve(torch.ones(SIZE, SIZE, dtype=torch.complex128) * (1 + 1j))))
        for step, change in went_in[count - min(size, count) :]:
            s, y = real(step[image]), real(change[image])
            left = identity - torch.outer(s, y) / (s @ y)
            inverse = left @ inverse @ left.T + torch.outer(s, s) / (s @ y)
        torch.testing.assert_close(real(direction[image]), -inverse @ real(gradient[image]), rtol=1e-10, atol=1e-10)


def test_the_newest_pair_meets_the_secant_equation(hessians, draw):
    pairs, went_in = remembered(hessians, draw, 3, 5)
    step, change = went_in[-1]
    torch.testing.assert_close(pairs.direction(change, solve), -step, rtol=1e-10, atol=1e-10)


def test_pairs_of_negative_curvature_are_left_out_and_directions_descend(hessians, draw):
    pairs, _ = remembered(hessians, draw, 3, 2)
    gradient, step = draw(2, SIZE, SIZE, seed=70), draw(2, SIZE, SIZE, seed=71)
    change = torch.stack([-step[0], step[1]])
    weight = inverse_curvature(step, change)
    assert float(weight[0]) == 0
    updated = pairs.updated(step, change, weight, forget=~all_images())
    before, after = pairs.direction(gradient, solve), updated.direction(gradient, solve)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    assert bool((inner_product(gradient, after) < 0).all())


def test_curvature_is_inverted_where_it_is_positive_and_finite(draw):
    step = draw(2, SIZE, SIZE, seed=71)
    torch.testing.assert_close(inverse_curvature(step, 2 * step), 0.5 / inner_product(step, step), rtol=1e-12, atol=0)
    for change in (-step, 1j * step, 0 * step, torch.full_like(step, float("nan")), torch.full_like(step, torch.inf)):
        assert inverse_curvature(step, change).tolist() == [0.0, 0.0]


def test_images_forget_select_and_skip_on_their_own(hessians, draw):
    pairs, _ = remembered(hessians, draw, 3, 2)
    gradient = draw(2, SIZE, SIZE, seed=70)
    first = torch.tensor([True, False])
    forgotten = pairs.updated(gradient, gradient, torch.zeros(2, dtype=torch.float64), forget=first)
    assert forgotten.filled().tolist() == [False, True]
    direction = forgotten.direction(gradient, solve)
    assert torch.equal(direction[0], -solve(gradient)[0])
    assert torch.equal(direction[1], pairs.direction(gradient, solve)[1])
    alone = pairs[torch.tensor([1])].direction(gradient[1:], solve)
    torch.testing.assert_close(alone[0], direction[1], rtol=1e-12, atol=1e-12)
    step = draw(2, SIZE, SIZE, seed=72)
    weight = torch.where(first, inverse_curvature(step, step), 0.0)
    skipped = pairs.updated(step, step, weight, forget=~all_images())
    assert torch.equal(skipped.direction(gradient, solve)[1], direction[1])


def test_nothing_given_is_changed(hessians, draw):
    pairs, _ = remembered(hessians, draw, 3, 2)
    gradient = draw(2, SIZE, SIZE, seed=70)
    copy, steps, weights = gradient.clone(), pairs.steps.clone(), pairs.weights.clone()
    pairs.direction(gradient, solve)
    pairs.updated(gradient, gradient, inverse_curvature(gradient, gradient), forget=all_images())
    assert torch.equal(gradient, copy)
    assert torch.equal(pairs.steps, steps)
    assert torch.equal(pairs.weights, weights)
