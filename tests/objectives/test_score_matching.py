"""Denoising score matching against its closed form for Gaussian data."""

import math
from collections.abc import Callable

import pytest
import torch

from direct_deepen.objectives import denoising_score_matching_loss
from direct_deepen.physics import complex_normal

DATA_STD, MAX_NOISE_STD = 0.3, 0.5
COUNT, HEIGHT, WIDTH = 20_000, 4, 5
PIXELS = HEIGHT * WIDTH
VOLUME = (2, 5, 2)
"""Of as many pixels."""
COMPONENTS = 2 * PIXELS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(slope: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The energy whose gradient is ``slope`` times the image."""
    return lambda image: 0.5 * slope * image.abs().square().flatten(1).sum(dim=1)


def expected_loss(slope: float) -> float:
    """E‖a(x + z) − z‖²/P = 2(a²s² + (a − 1)²σ²), two components a pixel, with the mean σ_max²/3 of σ²."""
    return 2 * (slope**2 * DATA_STD**2 + (slope - 1) ** 2 * MAX_NOISE_STD**2 / 3)


BEST_SLOPE = (MAX_NOISE_STD**2 / 3) / (DATA_STD**2 + MAX_NOISE_STD**2 / 3)
"""Minimises the expected loss among linear gradients: Tweedie's formula averaged over the levels."""


def loss_of(slope: float, *, seed: int = 0, size: tuple[int, ...] = (HEIGHT, WIDTH)) -> float:
    data = DATA_STD * complex_normal((COUNT, *size), generator=generator(100), dtype=torch.complex128)
    options = {"max_noise_std": MAX_NOISE_STD, "generator": generator(seed)}
    return denoising_score_matching_loss(linear(slope), data, **options).item()


def standard_error(slope: float) -> float:
    """Of the mean over images: given σ the loss is v(σ)·χ²/P with K = 2P degrees of freedom, v = a²s² + (a − 1)²σ²."""
    a, b = slope**2 * DATA_STD**2, (slope - 1) ** 2
    mean_square = a**2 + 2 * a * b * MAX_NOISE_STD**2 / 3 + b**2 * MAX_NOISE_STD**4 / 5
    second_moment = (COMPONENTS**2 + 2 * COMPONENTS) * mean_square / PIXELS**2
    return math.sqrt((second_moment - expected_loss(slope) ** 2) / COUNT)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), VOLUME], ids=str)
@pytest.mark.parametrize("slope", [0.0, BEST_SLOPE, 1.0])
def test_value_is_the_closed_form_for_gaussian_data_and_linear_gradients(slope, size):
    assert abs(loss_of(slope, size=size) - expected_loss(slope)) <= 3 * standard_error(slope)


@pytest.mark.parametrize("offset", [-0.3, -0.05, 0.05, 0.3])
def test_any_other_linear_gradient_is_worse(offset):
    # Of the same images and the same noise, so only the difference scatters, and far less than the loss itself.
    assert loss_of(BEST_SLOPE + offset) > loss_of(BEST_SLOPE)


def test_at_one_noise_level_the_minimiser_is_minus_sigma_squared_times_the_score():
    # Levels are drawn from U[0, σ_max]; an energy that knows them sees Tweedie's formula: the slope σ²/(s² + σ²).
    data = DATA_STD * complex_normal((COUNT, HEIGHT, WIDTH), generator=generator(100), dtype=torch.complex128)
    levels = drawn_noise(COUNT, seed=3).abs().square().mean(dim=(1, 2), keepdim=True) / 2
    exact = levels / (DATA_STD**2 + levels)

    def informed(factor: float) -> float:
        def energy(image: torch.Tensor) -> torch.Tensor:
            return (0.5 * factor * exact * image.abs().square()).sum(dim=(1, 2))

        options = {"max_noise_std": MAX_NOISE_STD, "generator": generator(3)}
        return denoising_score_matching_loss(energy, data, **options).item()

    assert informed(1.0) < loss_of(BEST_SLOPE, seed=3)
    assert informed(1.0) < min(informed(0.9), informed(1.1))


# ---- The noise


def drawn_noise(count: int, *, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    """The noise that the loss adds, as an energy sees it."""
    seen = []

    def spy(image: torch.Tensor) -> torch.Tensor:
        seen.append(image.detach().clone())
        return image.abs().square().sum(dim=(1, 2))

    images = torch.zeros(count, HEIGHT, WIDTH, dtype=dtype)
    denoising_score_matching_loss(spy, images, max_noise_std=MAX_NOISE_STD, generator=generator(seed))
    assert len(seen) == 1
    return seen[0]


def test_every_image_has_a_level_of_its_own_uniform_up_to_the_maximum():
    noise = drawn_noise(COUNT)
    variance = torch.view_as_real(noise).square().mean(dim=(1, 2, 3))
    # σ² estimated from K components has mean σ² and relative standard deviation √(2/K); over U[0, m] the mean of σ² is
    # m²/3 and that of σ⁴ is m⁴/5.
    mean = MAX_NOISE_STD**2 / 3
    second_moment = MAX_NOISE_STD**4 / 5 * (1 + 2 / COMPONENTS)
    assert abs(float(variance.mean()) - mean) <= 3 * math.sqrt((second_moment - mean**2) / COUNT)
    # The mean of σ⁴ tells a uniform level from any fixed one. Its relative standard error is √(25/9 − 1)/√n, about 1 %:
    # three of them.
    assert float(variance.square().mean()) == pytest.approx(second_moment, rel=0.03)
    # No level is above the maximum: K components exceed it by half only once in 10⁶ draws.
    assert float(variance.sqrt().max()) < 1.5 * MAX_NOISE_STD
    # Levels reach down to zero: 2 % of them lie below 2 %, with a standard error of 0.1 %. Three of these, and 0.05 %
    # for the scatter of the estimates.
    low = float((variance.sqrt() < 0.02 * MAX_NOISE_STD).double().mean())
    assert abs(low - 0.02) <= 0.0035


def test_noise_is_isotropic_within_an_image():
    noise = drawn_noise(COUNT)
    scaled = noise / noise.abs().square().mean(dim=(1, 2), keepdim=True).sqrt()
    # |z|² over its mean over the image has mean one and, for K/2 pixels, variance below one.
    assert float((scaled.abs().square().mean(dim=0) - 1).abs().max()) <= 5 / math.sqrt(COUNT)
    # Real and imaginary part: half each.
    assert abs(float(scaled.real.square().mean()) - 0.5) <= 3 / math.sqrt(COUNT * HEIGHT * WIDTH)


@pytest.mark.usefixtures("global_generators_untouched")
def test_the_generator_alone_decides_the_noise():
    assert torch.equal(drawn_noise(5, seed=0), drawn_noise(5, seed=0))
    assert not torch.equal(drawn_noise(5, seed=0), drawn_noise(5, seed=1))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_is_that_of_the_images(dtype):
    assert drawn_noise(5, dtype=dtype).dtype == dtype


# ---- Training


def test_loss_is_the_mean_over_images_of_the_squared_error_of_the_gradient(energy_case, draw):
    energy, images = energy_case.build(HEIGHT, WIDTH), draw(6, HEIGHT, WIDTH)
    loss = denoising_score_matching_loss(energy, images, max_noise_std=MAX_NOISE_STD, generator=generator(2))
    noise = drawn_noise(6, seed=2)
    _, gradient = energy.value_and_grad(images + noise)
    expected = (gradient - noise).abs().square().mean()
    # The same gradient, once with a graph and once without: rounding.
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("scale", [0.125, 3.0])
def test_scale_is_that_of_the_energy(energy_case, draw, scale, weight):
    # κ times the energy, matched at scale κ, is the energy matched at scale one.
    energy, images = energy_case.build(HEIGHT, WIDTH), draw(6, HEIGHT, WIDTH)

    def loss(factor: float) -> torch.Tensor:
        return denoising_score_matching_loss(
            lambda image: factor * energy(image),
            images,
            max_noise_std=MAX_NOISE_STD,
            generator=generator(),
            scale=factor,
            energy_weight=weight,
        )

    torch.testing.assert_close(loss(scale), loss(1.0), rtol=1e-12, atol=0)  # rounding


def test_weighted_energy_is_that_of_the_noise_free_images_a_pixel(energy_case, draw):
    energy, images = energy_case.build(HEIGHT, WIDTH), draw(6, HEIGHT, WIDTH)
    with_weight, without = (
        denoising_score_matching_loss(
            energy, images, max_noise_std=MAX_NOISE_STD, generator=generator(), energy_weight=weight
        )
        for weight in (0.7, 0.0)
    )
    expected = 0.7 * energy(images).mean() / PIXELS
    torch.testing.assert_close(with_weight - without, expected, rtol=1e-9, atol=1e-12)  # rounding of a difference


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_weight_that_the_gradient_does_not_depend_on_takes_part_with_gradient_zero(draw, weight):
    # Data-parallel training waits for a gradient of every weight: here of the constant in E.
    slope, constant = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.5, 2.0))
    images = draw(6, HEIGHT, WIDTH)

    def energy(image: torch.Tensor) -> torch.Tensor:
        return slope * image.abs().square().sum(dim=(1, 2)) + constant

    denoising_score_matching_loss(
        energy, images, max_noise_std=MAX_NOISE_STD, generator=generator(), energy_weight=weight
    ).backward()
    assert constant.grad.item() == pytest.approx(weight / PIXELS)
    assert slope.grad.item() != 0


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_every_weight_takes_part_the_last_bias_too(energy_case, draw, weight):
    energy, images = energy_case.build(HEIGHT, WIDTH), draw(6, HEIGHT, WIDTH)
    denoising_score_matching_loss(
        energy, images, max_noise_std=MAX_NOISE_STD, generator=generator(), energy_weight=weight
    ).backward()
    gradients = {name: parameter.grad for name, parameter in energy.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert max(float(gradient.abs().max()) for gradient in gradients.values()) > 0
    assert images.grad is None
    assert not images.requires_grad


def test_gradient_of_the_loss_predicts_its_change(smooth_energy_case, draw):
    energy, images = smooth_energy_case.build(HEIGHT, WIDTH), draw(6, HEIGHT, WIDTH)

    def loss() -> torch.Tensor:
        return denoising_score_matching_loss(energy, images, max_noise_std=MAX_NOISE_STD, generator=generator())

    gradients = torch.autograd.grad(loss(), list(energy.parameters()))
    squares = sum(float(gradient.square().sum()) for gradient in gradients)
    step = 1e-6 / math.sqrt(squares)
    shifted = []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, gradient in zip(energy.parameters(), gradients, strict=True):
                parameter += sign * step * gradient
            shifted.append(loss().item())
    # Central difference along the gradient: truncation 1e-12, rounding 1e-16·loss/1e-6 beside a slope of order one.
    assert (shifted[0] - shifted[1]) / (2 * step) == pytest.approx(squares, rel=1e-5)
