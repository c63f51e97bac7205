"""The samples of training: each kind of start, and the descent that takes chains to what MAP would find."""

import pytest
import torch

from direct_deepen.inference import LangevinStep, langevin, mm_map
from direct_deepen.inference.cost import cost_terms
from direct_deepen.objectives import Contrastive, training_samples
from direct_deepen.objectives.training_samples import (
    ChainSettings,
    PersistentChains,
    PersistentChainSettings,
    draw_training_samples,
)
from direct_deepen.parts import SharedSettings, check_settings
from direct_deepen.physics import SenseOperator, sense
from direct_deepen.physics.problem import Problem

NOISE_STD = 0.01


class SlowEnergy:
    """½·h‖x − m‖², so flat that a chain of unit steps moves by 2 % of the way at a time where nothing is sampled."""

    curvature = 0.02

    def __init__(self, minimum):
        self.minimum = minimum
        self.images = []

    def value_and_grad(self, image):
        self.images.append(image)
        distance = image - self.minimum
        return 0.5 * self.curvature * distance.abs().square().sum(dim=(1, 2)), self.curvature * distance


@pytest.fixture
def problem(draw):
    """Two of eight columns of k-space of two images with one coil."""
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[..., 3:5] = True
    A = SenseOperator(torch.ones(2, 1, 8, 8, dtype=torch.complex128), mask)
    return Problem(A, A.forward(draw(2, 8, 8)), torch.ones(2), [("a.h5", 0), ("a.h5", 1)])


def sample(problem, energy, start, *, num_steps=15, map_steps=0, stored=None, seed=0):
    return draw_training_samples(
        problem,
        energy,
        shared=SharedSettings(noise_std=NOISE_STD),
        chains=PersistentChainSettings(start, num_steps, map_steps),
        stored=PersistentChains(10) if stored is None else stored,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]


def cost(problem, energy, image):
    return cost_terms(problem.A, problem.masked_kspace, energy, image).cost


@pytest.mark.parametrize("kind", ["noise", "sense", "persistent"])
def test_steps_of_map_take_a_chain_of_any_start_to_the_minimum(problem, draw, kind):
    energy = SlowEnergy(5 * draw(1, 8, 8, seed=1))
    # 200 dimensions of energy ε²/2 each, at most: what samples have above the minimum.
    least = mm_map(problem.A, problem.masked_kspace, energy, max_iterations=500, tolerance=1e-12).image
    floor = cost(problem, energy, least) + 200 * NOISE_STD**2
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


@pytest.mark.parametrize("averaged_noise", [False, True])
def test_chains_step_as_their_settings_say(problem, draw, monkeypatch, averaged_noise):
    steps = []
    monkeypatch.setattr(
        training_samples,
        "langevin",
        lambda *args, **options: steps.append(options["step"]) or langevin(*args, **options),
    )
    draw_training_samples(
        problem,
        SlowEnergy(draw(2, 8, 8, seed=1)),
        shared=SharedSettings(noise_std=NOISE_STD),
        chains=ChainSettings(num_steps=2, map_steps=0, step_size=0.3, averaged_noise=averaged_noise),
        generator=torch.Generator().manual_seed(0),
    )
    assert steps == [LangevinStep(0.3, averaged_noise=averaged_noise)]


def test_noise_for_map_without_steps_of_map_is_refused(one_line_error):
    with one_line_error("model.objective.chains.map_noise_curvature is 0.25", "map_steps: 0: null"):
        check_settings(ChainSettings(map_steps=0, map_noise_curvature=0.25), "model.objective.chains")


def start_of(problem, start, stored=None, seed=1):
    """The images that chains begin at: the first that the energy is evaluated at."""
    energy = SlowEnergy(torch.zeros((), dtype=torch.complex128))
    end = sample(problem, energy, start, stored=stored, seed=seed)
    return energy.images[0], end


@pytest.mark.parametrize("start", ["sense", "noise"])
def test_a_chain_begins_where_its_settings_say(problem, start):
    images, _ = start_of(problem, start)
    centre = sense(problem.A, problem.masked_kspace, regularization=0.01) if start == "sense" else 0.0
    # 256 numbers: a standard error of 4 %.
    expected = NOISE_STD if start == "sense" else 0.1
    assert float(torch.view_as_real(images - centre).std()) == pytest.approx(expected, rel=0.15)


def test_a_persistent_chain_goes_on_where_the_same_slice_with_the_same_mask_was_left(problem):
    stored = PersistentChains(10)
    begun, left = start_of(problem, "persistent", stored)
    assert torch.equal(begun, start_of(problem, "sense")[0])
    # In another batch, in another order.
    continued, end = start_of(problem.select(torch.tensor([1, 0])), "persistent", stored, seed=2)
    assert torch.equal(continued, left.flip(0))
    mask = problem.A.sampling_mask.clone()
    mask[1, ..., 5] = True
    other = Problem(SenseOperator(problem.A.sensitivity_map, mask), problem.masked_kspace, problem.scale, problem.names)
    images, _ = start_of(other, "persistent", stored, seed=3)
    assert torch.equal(images[0], end[1])
    assert torch.equal(images[1], start_of(other, "sense", seed=3)[0][1])


class SumOverFrames:
    """An energy of series whose frames have nothing to do with one another."""

    def __init__(self, energy):
        self.energy = energy

    def value_and_grad(self, image):
        value, gradient = self.energy.value_and_grad(image[0])
        return value.sum()[None], gradient[None]


@pytest.mark.parametrize("start", ["sense", "noise", "persistent"])
def test_chains_of_a_series_come_to_what_its_frames_come_to(problem, draw, start):
    frames = SlowEnergy(draw(2, 8, 8, seed=1))
    maps, mask = problem.A.sensitivity_map[:1, :, None], problem.A.sampling_mask[:, 0][None, None]
    kspace = problem.masked_kspace.movedim(0, 1)[None]
    series = Problem(SenseOperator(maps, mask), kspace, torch.ones(1), [("a.h5", 0)])
    # Without noise all there is to see is the minimum, and that of a sum over frames is that of each.
    found = draw_training_samples(
        series,
        SumOverFrames(frames),
        shared=SharedSettings(noise_std=1e-9),
        chains=PersistentChainSettings(start, num_steps=1, map_steps=40, map_noise_curvature=0.3),
        stored=PersistentChains(1),
        generator=torch.Generator().manual_seed(0),
    ).images[0, 0]
    expected = mm_map(problem.A, problem.masked_kspace, frames, max_iterations=200, tolerance=1e-14).image
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# ---- What is said before training


@pytest.mark.parametrize(
    ("iterations", "changes", "warned"),
    [
        (12, {}, False),
        (12, {"max_stored": 3}, True),
        (11, {}, True),
        (11, {"start": "sense", "max_stored": 3}, False),
        (6, {"max_stored": 3}, False),
    ],
)
def test_chains_that_cannot_persist_are_warned_of(iterations, changes, warned):
    # Four slices, batches of two, six iterations of warm start: with twelve every slice comes three times.
    chains = PersistentChainSettings(**{"start": "persistent", "max_stored": 4} | changes)
    objective = Contrastive(warm_start_iterations=6, chains=chains)
    told = objective.warnings(num_slices=4, batch_size=2, num_iterations=iterations)
    assert len(told) == warned
    assert all(f"places for {chains.max_stored} chains" in message for message in told)
