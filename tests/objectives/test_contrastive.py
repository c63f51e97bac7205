"""The contrastive loss: its value, its penalty, and what its gradient is."""

import math

import pytest
import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.inference import langevin
from direct_deepen.objectives import contrastive_loss, energy_unit
from direct_deepen.physics import complex_normal

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


# ---- What training converges to


class OneCurvature(torch.nn.Module):
    """E = (h/2)‖x‖² with h to be trained."""

    def __init__(self, curvature: float) -> None:
        super().__init__()
        self.curvature = torch.nn.Parameter(torch.tensor(curvature, dtype=torch.float64))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.curvature * image.abs().square().sum(dim=(1, 2))

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self(image).detach(), self.curvature.detach() * image


class NothingSampled:
    """A = 0."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(image)

    adjoint = forward
    normal = forward


def trained_curvature(factor: float, *, updates: int = 300, step_size: float | None = 1.0) -> float:
    """Train one curvature on noise of standard deviation cε: persistent chains of one step size, nothing sampled."""
    noise_std = 0.01
    energy, generator = OneCurvature(0.6), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(energy.parameters(), lr=0.02)
    A = NothingSampled()
    data = torch.zeros(4, 32, 32, dtype=torch.complex128)
    state: str | torch.Tensor = "noise"
    history = []
    for _ in range(updates):
        samples = langevin(
            A, data, energy, noise_std=noise_std, num_steps=10, init=state, init_std=noise_std, step_size=step_size,
            generator=generator,
        )  # fmt: skip
        state = samples.images[0]
        noise = complex_normal(data.shape, generator=generator, dtype=data.dtype)
        unit = energy_unit(32 * 32, noise_std)
        loss = contrastive_loss(energy(factor * noise_std * noise), energy(state)) / unit
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(energy.curvature.detach()))
    return sum(history[-100:]) / 100


@pytest.mark.parametrize("factor", [1.2, 3.0])
def test_curvature_settles_where_the_chain_has_the_variance_of_the_data(factor):
    # c² = 1/(h(2 − h)). The images of an update have 8192 real components: their variance is known to 1.6 %, over 100
    # updates to less; the chain is 1 % from its stationary variance after 10 steps of the smallest h.
    expected = 1 - (1 - 1 / factor**2) ** 0.5
    assert trained_curvature(factor) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("factor", [0.5, 0.9])
def test_with_less_noise_than_the_chain_has_there_is_no_such_place(factor):
    # The chain's variance is at least ε², at h = 1: curvature rises past it until the chain diverges at h = 2.
    with pytest.raises(DivergenceError):
        trained_curvature(factor, updates=2000)


def test_with_less_noise_the_adapting_step_leaves_a_place_at_a_larger_curvature():
    # With A = 0 it is τ = 1.6/2h, and the variance of the chain τε²/(1 − (1 − τh)²) = ε²/1.2h: c² = 1/1.2h.
    assert trained_curvature(0.9, updates=160, step_size=None) == pytest.approx(1 / (1.2 * 0.9**2), rel=0.05)
