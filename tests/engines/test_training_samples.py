"""The samples of training: each kind of start, and the descent that takes chains to what MAP would find."""

import pytest
import torch
from direct_deepen.engines.persistent_chains import PersistentChains
from direct_deepen.engines.training_samples import draw_training_samples

from direct_deepen.engines.settings import ChainSettings, ChainStartSettings
from direct_deepen.inference.cost import cost_terms
from direct_deepen.physics import SenseOperator
from direct_deepen.physics.problem import Problem

NOISE_STD = 0.01


class SlowEnergy:
    """½·h‖x − m‖², so flat that a chain of unit steps moves by 2 % of the way at a time where nothing is sampled."""

    curvature = 0.02

    def __init__(self, minimum):
        self.minimum = minimum

    def value_and_grad(self, image):
        distance = image - self.minimum
        return 0.5 * self.curvature * distance.abs().square().sum(dim=(1, 2)), self.curvature * distance


@pytest.fixture
def problem(draw):
    """Two of eight columns of k-space of two images with one coil."""
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[..., 3:5] = True
    A = SenseOperator(torch.ones(2, 1, 8, 8, dtype=torch.complex128), mask)
    return Problem(A, A.forward(draw(2, 8, 8)), torch.ones(2), [("a.h5", 0), ("a.h5", 1)])


def sample(problem, energy, kind, *, num_steps=15, map_steps=0, stored=None):
    nothing = {name: ChainStartSettings(0.0, 1) for name in ("noise", "sense", "persistent")}
    chains = ChainSettings(**nothing | {kind: ChainStartSettings(1.0, num_steps, map_steps)})
    return draw_training_samples(
        problem,
        energy,
        noise_std=NOISE_STD,
        noise_start_std=0.1,
        sense_regularization=0.01,
        chains=chains,
        stored=PersistentChains(10) if stored is None else stored,
        generator=torch.Generator().manual_seed(0),
    ).image


def cost(problem, energy, image):
    return cost_terms(problem.A, problem.masked_kspace, energy, image).cost


@pytest.mark.parametrize("kind", ["noise", "sense", "persistent"])
def test_steps_of_map_take_a_chain_of_any_start_to_the_minimum(problem, draw, kind):
    energy = SlowEnergy(5 * draw(2, 8, 8, seed=1))
    # 200 dimensions of energy ε²/2 each, at most: what samples have above the minimum.
    floor = cost(problem, energy, sample(problem, energy, kind, num_steps=5000)) + 200 * NOISE_STD**2
    short, descended = (sample(problem, energy, kind, map_steps=steps) for steps in (0, 8))
    assert bool((cost(problem, energy, short) > 2 * floor).all())
    assert bool((cost(problem, energy, descended) < floor).all())


def test_no_step_of_map_leaves_the_chain_as_it_was(problem, draw):
    energy = SlowEnergy(draw(2, 8, 8, seed=1))
    stored = PersistentChains(10)
    first = sample(problem, energy, "persistent", stored=stored)
    assert torch.equal(first, sample(problem, energy, "sense"))
    # The second visit goes on from the first, and comes nearer to the minimum.
    second = sample(problem, energy, "persistent", stored=stored)
    assert bool((cost(problem, energy, second) < cost(problem, energy, first)).all())
