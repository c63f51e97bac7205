"""The weight that keeps a prior what it was for data of another noise; what follows from it is tested in inference."""

import pytest
import torch

from direct_deepen import load_pretrained
from direct_deepen.priors import NoiseConditionalEnergy, at_noise, depends_on_noise

TRAINED, OF_DATA = 0.05, 0.2
"""ε₀ and ε: a weight of 16."""


@pytest.fixture
def energy(gaussian_energy):
    return gaussian_energy(torch.diag(torch.linspace(0.5, 2.0, 20)), noise_std=TRAINED)


def test_at_noise_knows_what_it_is_for_and_goes_there_and_back(energy, draw, one_line_error):
    image = draw(2, 5, 4)
    with one_line_error("trained_noise_std is None"):
        at_noise(energy, OF_DATA)
    there = at_noise(energy, OF_DATA, trained_noise_std=TRAINED)
    torch.testing.assert_close(there(image), 16 * energy(image))
    torch.testing.assert_close(at_noise(there, TRAINED)(image), energy(image))
    shipped = load_pretrained("brain_phantom_2d4x")
    # Its provenance says ε₀ = 0.01.
    assert at_noise(shipped, 0.02).terms == ((4.0, shipped),)
    for value in (0.0, -1.0, float("nan")):
        with one_line_error("noise_std"):
            at_noise(shipped, value)


def test_a_prior_of_all_noise_levels_has_no_other_noise_to_come_from(draw):
    prior = NoiseConditionalEnergy(channels=(3, 4), num_blocks=1).double()
    assert depends_on_noise(prior)
    assert not depends_on_noise(prior.at_noise(0.1))
    image = draw(2, 8, 8)
    # ε₀ is not asked for, and one that is given changes nothing.
    for trained in (None, TRAINED):
        found = at_noise(prior, OF_DATA, trained_noise_std=trained)
        assert torch.equal(found(image), prior.at_noise(OF_DATA)(image))
