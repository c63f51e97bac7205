"""The contrastive loss: its value, its penalty, and what its gradient is."""

import math

import pytest
import torch

from direct_deepen.objectives import contrastive_loss, energy_unit

TRUE, SAMPLE = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.0, 1.0])


def test_loss_is_the_gap_of_mean_energies():
    assert contrastive_loss(TRUE, SAMPLE).item() == 2.5 - 1.0


@pytest.mark.parametrize("penalty", [0.1, 2.0])
def test_penalty_adds_mean_squares_of_both_energies(penalty):
    expected = 1.5 + penalty * (17 / 2 + 5 / 3)
    assert contrastive_loss(TRUE, SAMPLE, penalty=penalty).item() == pytest.approx(
        expected, rel=1e-6
    )  # single precision


def test_loss_is_zero_for_samples_like_the_data_and_falls_as_data_gain_probability():
    assert contrastive_loss(TRUE, TRUE).item() == 0
    assert contrastive_loss(TRUE - 1, SAMPLE) < contrastive_loss(TRUE, SAMPLE)
    assert contrastive_loss(TRUE, SAMPLE + 1) < contrastive_loss(TRUE, SAMPLE)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_gradient_is_the_difference_of_the_gradients_of_the_energies(energy_case, draw, penalty):
    energy = energy_case.build(5, 7)
    data, samples = draw(3, 5, 7, seed=1), draw(2, 5, 7, seed=2)

    def gradients(scalar: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(scalar, list(energy.parameters()))

    contrastive_loss(energy(data), energy(samples), penalty=penalty).backward()
    terms = zip(
        energy.parameters(),
        gradients(energy(data).mean()),
        gradients(energy(samples).mean()),
        gradients(energy(data).square().mean()),
        gradients(energy(samples).square().mean()),
        strict=True,
    )
    for parameter, of_data, of_samples, square_of_data, square_of_samples in terms:
        expected = of_data - of_samples + penalty * (square_of_data + square_of_samples)
        # The same derivatives, summed in another order: rounding.
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-9)


def test_a_step_down_the_loss_lowers_the_energy_of_data_against_that_of_samples(energy_case, draw):
    energy = energy_case.build(5, 7)
    data, samples = draw(3, 5, 7, seed=1), draw(3, 5, 7, seed=2)
    before = contrastive_loss(energy(data), energy(samples))
    gradients = torch.autograd.grad(before, list(energy.parameters()))
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    with torch.no_grad():
        for parameter, gradient in zip(energy.parameters(), gradients, strict=True):
            parameter -= 1e-6 / norm * gradient
        after = contrastive_loss(energy(data), energy(samples))
    # First order: a step of length 1e-6 lowers the loss by 1e-6 times the norm of its gradient, up to its curvature.
    assert float(before.detach() - after) == pytest.approx(1e-6 * norm, rel=1e-3)


# ---- Unit of energy


@pytest.mark.parametrize("c", [0.7, 2.0])
@pytest.mark.parametrize("noise_std", [0.01, 0.3])
def test_energy_unit_is_the_energy_of_data_noise_whatever_its_level(draw, c, noise_std):
    pixels, count = 20, 20_000
    noise = c * noise_std * draw(count, 4, 5)
    energies = 0.5 / (2 * c**2) * noise.abs().square().sum(dim=(1, 2))
    # 3 standard errors: the energies are multiples of χ² with two degrees of freedom a pixel.
    unit = energy_unit(pixels, noise_std)
    assert abs(float(energies.mean()) / unit - 1) <= 3 / math.sqrt(pixels * count)
