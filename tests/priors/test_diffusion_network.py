"""The network of diffusion priors, and the energies of many noise levels."""

import math

import pytest
import torch

from direct_deepen.priors import DenoisedResidual, DiffusionDenoiser, NoiseConditionalEnergy, at_noise, energy_gradient
from direct_deepen.priors.diffusion_network import PRECONDITIONINGS, ConditionalUNet, NoiseLevelEmbedding


def build(kind=DiffusionDenoiser, seed=0, **arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(channels=(4, 6, 8), num_blocks=1, **arguments).double()


def test_at_the_sizes_of_drunet_it_has_its_number_of_weights():
    # 32.64 million in the convolutions of the authors' program; the rest shifts blocks by the noise level.
    with torch.device("meta"):
        network = ConditionalUNet(channels=(64, 128, 256, 512), num_blocks=4)
    convolutions = sum(
        p.numel() for name, p in network.named_parameters() if "shift" not in name and "embedding" not in name
    )
    assert convolutions == pytest.approx(32.64e6, abs=5e3)


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
@pytest.mark.parametrize("size", [(8, 8), (9, 10), (5, 7)])
def test_size_dtype_and_image_are_kept(draw, preconditioning, size):
    image = draw(2, *size)
    copy = image.clone()
    result = build(preconditioning=preconditioning)(image, 0.3)
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    assert torch.equal(image, copy)


@pytest.mark.parametrize("preconditioning", PRECONDITIONINGS)
def test_a_level_for_every_image_is_that_of_each(draw, preconditioning):
    network, image = build(preconditioning=preconditioning), draw(2, 8, 8)
    levels = torch.tensor([0.1, 2.0], dtype=torch.float64)
    together = network(image, levels)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], network(image[i : i + 1], float(levels[i])))


def test_without_a_network_edm_is_the_best_linear_denoiser_and_exploding_the_identity(draw):
    image, level, std = draw(1, 8, 8), 0.4, 0.25
    for name, factor in (("edm", std**2 / (std**2 + level**2)), ("variance_exploding", 1.0)):
        network = build(preconditioning=name, image_std=std)
        network.network.tail.weight.data.zero_()
        torch.testing.assert_close(network(image, level), factor * image)


def test_edm_gives_the_network_input_and_target_of_unit_variance(draw):
    std, level = 0.25, 0.6
    image, noise = std * draw(1, 200, 200), level * draw(1, 200, 200, seed=1)
    skip, out, into = build(preconditioning="edm", image_std=std)._factors(torch.tensor([level], dtype=torch.float64))
    for values in (into * (image + noise), (image - skip * (image + noise)) / out):
        # 80 000 numbers: a standard error of 1/400.
        assert float(torch.view_as_real(values).std()) == pytest.approx(1.0, abs=0.01)


def test_the_embedding_tells_levels_apart_over_six_decades():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        embedding = NoiseLevelEmbedding().double()
    levels = torch.logspace(-3, 3, 40, dtype=torch.float64).log()
    distances = torch.cdist(embedding(levels), embedding(levels))
    assert float(distances[~torch.eye(40, dtype=torch.bool)].detach().min()) > 0.01


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": (4, 0)}, "channels"),
        ({"num_blocks": 0}, "num_blocks"),
        ({"preconditioning": "none"}, "preconditioning"),
        ({"image_std": 0.0}, "image_std"),
    ],
)
def test_arguments_out_of_range_are_refused(one_line_error, changes, word):
    with one_line_error(word, "allowed"):
        DiffusionDenoiser(**{"channels": (4, 4), "num_blocks": 1} | changes)


# ---- Energies


def test_the_energy_is_half_the_squared_distance_to_the_denoised_image(draw):
    energy, image = build(NoiseConditionalEnergy), draw(2, 8, 8)
    expected = 0.5 * (image - energy.denoiser(image, 0.3)).abs().square().sum(dim=(1, 2))
    torch.testing.assert_close(energy(image, 0.3), expected)
    torch.testing.assert_close(energy.at(0.3)(image), expected)


@pytest.mark.parametrize(("factor", "smallest", "sigma"), [(1.0, 0.01, 0.02), (1.7, 0.0, 0.034), (1.7, 0.05, 0.05)])
def test_the_energy_for_a_noise_has_the_temperature_of_the_posterior(draw, factor, smallest, sigma):
    # Of images with noise σ = cε, or the least known, the logarithm of the density is −E_σ/σ²; the posterior has
    # exp(−2E/ε²).
    energy, noise_std = build(NoiseConditionalEnergy, noise_factor=factor, smallest_noise_std=smallest), 0.02
    image, found = draw(2, 8, 8), energy.at_noise(noise_std)
    torch.testing.assert_close(2 * found(image) / noise_std**2, energy(image, sigma) / sigma**2)
    value, gradient = at_noise(energy, noise_std).value_and_grad(image)
    torch.testing.assert_close(value, found(image))
    torch.testing.assert_close(gradient, energy.at(sigma).value_and_grad(image)[1] * noise_std**2 / (2 * sigma**2))
    assert at_noise(energy, noise_std).prior_noise_std == noise_std


def test_its_gradient_is_that_of_finite_differences_with_and_without_a_graph(draw):
    energy, image, direction = build(NoiseConditionalEnergy), draw(2, 8, 8), draw(2, 8, 8, seed=1)
    value, gradient = energy.at(0.3).value_and_grad(image)
    torch.testing.assert_close(value, energy(image, 0.3))
    torch.testing.assert_close(energy_gradient(energy, image, 0.3), gradient)
    slope = (energy(image + 1e-6 * direction, 0.3) - energy(image - 1e-6 * direction, 0.3)) / 2e-6
    torch.testing.assert_close(slope, (gradient.conj() * direction).real.sum(dim=(1, 2)), rtol=1e-6, atol=1e-8)


@torch.no_grad()
def test_with_a_periodic_border_an_image_may_lie_anywhere_in_the_field_of_view(draw):
    # In steps of the coarsest scale; of the network's field beyond 16 pixels only the thin outer part is missing.
    def change(border):
        energy = build(NoiseConditionalEnergy, border=border)
        image = draw(2, 24, 16)
        return float((energy(image.roll((8, -4), dims=(1, 2)), 0.3) / energy(image, 0.3) - 1).abs().max())

    assert change("periodic") < 0.01 * change("zeros")


@pytest.mark.parametrize("size", [(5, 7), (24, 17)])
def test_a_periodic_energy_is_that_of_the_extended_image_in_its_middle(draw, size):
    energy, image = build(NoiseConditionalEnergy, border="periodic"), draw(2, *size).requires_grad_()
    rows, columns = (torch.arange(-16, length + 16) % length for length in size)
    extended = image[:, rows[:, None], columns]
    residual = (extended - energy.denoiser(extended, 0.3))[:, 16:-16, 16:-16]
    expected = 0.5 * residual.abs().square().sum(dim=(1, 2))
    (expected_gradient,) = torch.autograd.grad(expected.sum(), image)
    value, gradient = energy.at(0.3).value_and_grad(image.detach())
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, expected_gradient)


def test_the_gradient_of_training_reaches_every_weight(draw):
    energy = build(NoiseConditionalEnergy)
    energy_gradient(energy, draw(2, 8, 8), torch.tensor([0.1, 0.5])).abs().square().sum().backward()
    assert all(p.grad is not None and math.isfinite(float(p.grad.abs().sum())) for p in energy.parameters())


def test_the_residual_of_a_level_is_what_the_network_takes_away(draw):
    network, image = build(), draw(3, 8, 8)
    found = network.at(0.3)
    assert isinstance(found, DenoisedResidual)
    value, residual = found.value_and_grad(image)
    expected = (image - network(image, 0.3)).detach()
    torch.testing.assert_close(residual, expected)
    torch.testing.assert_close(value, 0.5 * expected.abs().square().sum(dim=(1, 2)))
    assert not residual.requires_grad


def test_the_residual_of_the_best_denoiser_of_a_gaussian_is_the_gradient_that_annealing_asks_for(draw):
    # x − E[image | x] = σ²/(s² + σ²) x, −σ² times the score of N(0, s² + σ²).
    network, image = build(preconditioning="edm", image_std=0.25), draw(1, 8, 8)
    network.network.tail.weight.data.zero_()
    torch.testing.assert_close(network.at(0.4).value_and_grad(image)[1], 0.4**2 / (0.25**2 + 0.4**2) * image)
