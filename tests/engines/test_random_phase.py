"""Random phases of training: the same data, another gauge, the same for a slice wherever it appears."""

import pytest
import torch

from direct_deepen.data.random_phase import with_random_phase
from direct_deepen.physics import SenseOperator
from direct_deepen.physics.problem import Problem


@pytest.fixture
def problem(random_operator, draw):
    A = random_operator(3, 3, 16, 16, dtype=torch.complex64)
    kspace = A.forward(draw(3, 16, 16, dtype=torch.complex64))
    return Problem(A, kspace, torch.ones(3), [("folder/a.h5", 0), ("folder/a.h5", 1), ("b.h5", 0)])


def phase_of(problem, changed):
    """e^{iφ} of the image: the maps carry its conjugate."""
    return (problem.A.sensitivity_map * changed.A.sensitivity_map.conj()).sum(dim=1)


def test_the_data_are_explained_by_the_image_of_another_phase(problem, draw):
    changed = with_random_phase(problem, 1.0)
    image = draw(3, 16, 16, dtype=torch.complex64)
    phase = phase_of(problem, changed)
    torch.testing.assert_close(phase.abs(), torch.ones(3, 16, 16), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(changed.A.forward(phase * image), problem.A.forward(image), rtol=1e-4, atol=1e-5)
    assert changed.masked_kspace is problem.masked_kspace
    assert isinstance(changed.A, SenseOperator)


def test_phases_are_smooth_differ_between_slices_and_are_spread_over_the_circle(problem):
    phase = phase_of(problem, with_random_phase(problem, 1.0))
    steps = (phase[:, 1:] * phase[:, :-1].conj()).angle().abs()
    # Slopes of some radians from edge to middle, over eight pixels.
    assert float(steps.max()) < 1.5
    assert float((phase[0] - phase[1]).abs().mean()) > 0.1
    names = [(f"{number}.h5", 0) for number in range(300)]
    A = problem.A.select(torch.zeros(300, dtype=torch.long))
    many = Problem(A, problem.masked_kspace[:1].expand(300, -1, -1, -1), torch.ones(300), names)
    middles = phase_of(many, with_random_phase(many, 1.0))[:, 8, 8]
    # The mean of 300 points of the unit circle has length 300^-½ = 0.06.
    assert float(middles.mean().abs()) < 0.2


def test_a_slice_has_the_same_phase_in_every_batch_and_folder(problem):
    alone = problem.select(torch.tensor([1]))
    alone.names[0] = ("elsewhere/a.h5", 1)
    expected = with_random_phase(problem, 1.0).A.sensitivity_map[1:2]
    assert torch.equal(with_random_phase(alone, 1.0).A.sensitivity_map, expected)


def test_the_share_is_that_of_the_slices_that_change(problem):
    names = [(f"{number}.h5", 0) for number in range(400)]
    A = problem.A.select(torch.zeros(400, dtype=torch.long))
    many = Problem(A, problem.masked_kspace[:1].expand(400, -1, -1, -1), torch.ones(400), names)
    phase = phase_of(many, with_random_phase(many, 0.25))
    changed = ((phase - 1).abs().flatten(1).amax(dim=1) > 1e-4).double().mean()
    # Three binomial standard errors.
    assert abs(float(changed) - 0.25) <= 3 * (0.25 * 0.75 / 400) ** 0.5
    assert torch.equal(with_random_phase(many, 0.0).A.sensitivity_map, A.sensitivity_map)


@pytest.mark.usefixtures("global_generators_untouched")
def test_nothing_given_is_changed(problem):
    copy = problem.A.sensitivity_map.clone()
    with_random_phase(problem, 1.0)
    assert torch.equal(problem.A.sensitivity_map, copy)
