"""The weights of a diffusion as those of the energy that training goes on with."""

import torch

from direct_deepen.engines import models
from projects.pretrained.energy_of_diffusion import energy_weights

SIZES = {"channels": [4, 6], "num_blocks": 1}


def test_the_energy_is_half_the_squared_residual_of_the_averaged_diffusion(draw):
    section = {**SIZES, "objective": {"name": "diffusion"}, "inference": {"name": "diffusion_sampling"}}
    sampled = models.DiffusionDenoiser.of(
        {**section, "preconditioning": "edm", "image_std": 0.22, "average_decay": 0.9}
    )
    with torch.no_grad():
        for weight in sampled.averaged.average.parameters():
            weight.add_(0.01)
    section = {**SIZES, "objective": {"name": "contrastive_over_levels"}, "inference": {"name": "map"}}
    others = {"image_std": 0.22, "noise_factor": 1.0, "smallest_noise_std": 0.0, "average_decay": 0.9}
    energy = models.NoiseConditionalEnergy.of(section | others)
    energy.load_state_dict(energy_weights(sampled.state_dict()))
    image = draw(2, 8, 8, dtype=torch.complex64)
    for mode in (False, True):
        found = energy.train(mode).at(0.1)(image)
        expected = 0.5 * (image - sampled.eval()(image, 0.1)).abs().square().sum(dim=(1, 2))
        torch.testing.assert_close(found, expected)
