"""What no coil sees is zero in all that is reconstructed, whatever a prior would put there."""

import pytest
import torch

from direct_deepen.engines.reconstruction import reconstruct
from direct_deepen.inference import Langevin, Map
from direct_deepen.physics import SenseOperator
from direct_deepen.physics.problem import Problem


class TowardsOne:
    """½·h‖x − 1‖²."""

    def value_and_grad(self, image):
        return 0.1 * (image - 1).abs().square().sum(dim=(1, 2)), 0.2 * (image - 1)


@pytest.fixture
def problem(draw):
    maps = torch.ones(1, 1, 8, 8, dtype=torch.complex128)
    maps[..., :3] = 0
    A = SenseOperator(maps, torch.ones(1, 1, 8, 8))
    return Problem(A, A.forward(draw(1, 8, 8)), torch.full((1,), 2.0, dtype=torch.float64), [("a.h5", 0)])


def test_a_map_image_is_that_of_the_rest(problem):
    found = reconstruct(problem, TowardsOne(), Map(), seed=0)
    whole = Map().solve(problem, TowardsOne()).image
    assert float((whole[..., :3] - 1).abs().max()) < 0.1
    assert bool((found.image[..., :3] == 0).all())
    assert torch.equal(found.image[..., 3:], 2 * whole[..., 3:])


def test_samples_have_neither_mean_nor_spread_there(problem):
    arrays = reconstruct(problem, TowardsOne(), Langevin(num_samples=4, num_steps=8, keep=4), seed=0).arrays
    for name in ("map", "mean", "std"):
        assert bool((arrays[name][..., :3] == 0).all())
        assert bool((arrays[name][..., 3:] != 0).all())
