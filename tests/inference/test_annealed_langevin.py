"""ALPS and its exact sibling on Gaussian priors, where every distribution is known in closed form."""

import math

import numpy as np
import pytest
import torch

from direct_deepen import SenseOperator
from direct_deepen.errors import DivergenceError
from direct_deepen.inference import (
    annealed_langevin,
    mask_shaped_noise,
    preconditioned_annealed_langevin,
)
from direct_deepen.inference.noise_levels import power_schedule

ETA = 0.3
LEVELS = power_schedule(3.0, 0.2, 6)
SAMPLES = 4000


class SmoothedGaussian:
    """E_σ of the prior N(0, V), V real diagonal: ½σ² xᴴ(V + σ²)⁻¹x, so that x − ∇E_σ = V(V + σ²)⁻¹x is the mean."""

    def __init__(self, variance, level):
        self.hessian = level**2 / (variance + level**2)

    def __call__(self, image):
        return self.value_and_grad(image)[0]

    def value_and_grad(self, image):
        gradient = self.hessian * image
        return 0.5 * (image.conj() * gradient).real.sum(dim=(1, 2)), gradient


VARIANCE = torch.tensor([[1.0, 4.0, 0.25, 1.0, 0.01, 9.0]], dtype=torch.float64)
"""Of the pixels, in a row."""

MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
"""Three are measured."""


def energy_at(level):
    return SmoothedGaussian(VARIANCE, level)


class Broad:
    """E = ½‖x‖²/10, whatever the level."""

    def __init__(self, level):
        pass

    def value_and_grad(self, image):
        return 0.05 * image.abs().square().sum(dim=(1, 2)), 0.1 * image


class Inpainting:
    """Ax = mx, for any leading dimensions."""

    takes_leading_dimensions = True

    def __init__(self, mask):
        self.mask = mask

    def forward(self, image):
        return self.mask * image

    adjoint = forward
    normal = forward


@pytest.fixture
def problem(draw):
    """Inpainting of one row of pixels, and its data."""
    return Inpainting(MASK[None]), MASK * draw(1, 1, 6)


def recursion(levels, inner_steps, data):
    """Mean and variance per pixel of the authors' rule: Σ' = MΣMᴴ + P⁻¹, without P⁻¹ on a level's last step."""
    mask, variance = MASK[0].numpy(), VARIANCE[0].numpy()

    def precision(level):
        return mask / ETA**2 + 1 / level**2

    mean = data / ETA**2 / precision(levels[0])
    spread = 1 / precision(levels[0])
    for number, level in enumerate(levels):
        denoise = variance / (variance + level**2)
        factor = denoise / level**2 / precision(level)
        for step in range(inner_steps):
            mean = data / ETA**2 / precision(level) + factor * mean
            spread = factor**2 * spread + (0 if step == inner_steps - 1 else 1 / precision(level))
        if number + 1 < len(levels):
            spread = spread + 1 / precision(levels[number + 1])
    return mean, spread


def moments(images):
    """Mean, variance per real component and their standard errors, per pixel."""
    flat = images.reshape(len(images), -1)
    parts = torch.view_as_real(flat - flat.mean(dim=0))
    variance = parts.square().mean(dim=(0, 2))
    count = len(flat)
    return (
        flat.mean(dim=0).numpy(),
        variance.numpy(),
        (variance / count).sqrt().numpy(),
        (variance / count**0.5).numpy(),
    )


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_rule_of_the_authors_has_the_moments_of_its_recursion(problem, inner_steps):
    A, data = problem
    samples = annealed_langevin(
        A, data, energy_at, noise_std=ETA, noise_levels=LEVELS, inner_steps=inner_steps, num_samples=SAMPLES,
        max_images=SAMPLES, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert samples.images.shape == (SAMPLES, 1, 1, 6)
    assert samples.gradient_evaluations == SAMPLES * len(LEVELS) * inner_steps
    mean, variance, mean_error, variance_error = moments(samples.images)
    expected_mean, expected_variance = recursion(LEVELS, inner_steps, data[0, 0].numpy())
    # The modulus of a complex error may be 1.2 times as large as a real one.
    # Solves err by 1 % of the noise at most; four standard errors for six pixels.
    slack = 0.01 * np.sqrt(expected_variance)
    assert (np.abs(mean - expected_mean) < 4 * 1.2 * mean_error + slack).all()
    assert (np.abs(variance - expected_variance) < 4 * variance_error + 0.02 * expected_variance + 1e-12).all()


def test_its_variance_in_an_unmeasured_direction_tends_to_one_half(problem):
    """The deficit of the rule for N(0, 1), K = 5, σ from 100 to 0.1: 0.43, 0.485, 0.494, 0.497 in method and theory."""
    _, data = problem
    pixel = 3
    assert float(VARIANCE[0, pixel]) == 1
    found = [
        recursion(power_schedule(100.0, 0.1, count), 5, data[0, 0].numpy())[1][pixel] for count in (10, 50, 200, 1000)
    ]
    np.testing.assert_allclose(found, [0.43, 0.485, 0.494, 0.497], atol=0.003)


def test_the_shortcut_of_the_mask_is_exact_for_one_coil_and_too_wide_for_several(random_operator, draw):
    single = SenseOperator(
        torch.ones(1, 1, 4, 4, dtype=torch.complex128),
        torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5,
    )
    several = random_operator(1, 4, 4, 4, dtype=torch.complex128)
    variance = {}
    for name, A in (("single", single), ("several", several)):
        data = A.forward(draw(1, 4, 4))
        for noise in (None, mask_shaped_noise(A.sampling_mask, ETA)):
            samples = annealed_langevin(
                A, data, Broad, noise_std=ETA, noise_levels=[3.0], inner_steps=2, num_samples=SAMPLES,
                conditional_noise=noise, max_images=SAMPLES, generator=torch.Generator().manual_seed(2),
            )  # fmt: skip
            variance[name, noise is None] = float(moments(samples.images)[1].mean())
    # 16 pixels of 4000 samples: 0.4 % for a mean variance; solves err by 1 % of the noise.
    assert variance["single", False] == pytest.approx(variance["single", True], rel=0.03)
    assert variance["several", False] > 1.2 * variance["several", True]


def posterior_of_smoothed_prior(level, data):
    """Mean and variance of the prior N(0, V + σ²) given the data."""
    prior = VARIANCE[0].numpy() + level**2
    variance = 1 / (MASK[0].numpy() / ETA**2 + 1 / prior)
    return variance * data / ETA**2, variance


@pytest.mark.parametrize(("step_size", "metropolis", "inner_steps"), [(0.05, False, 200), (0.5, True, 60)])
def test_the_preconditioned_chain_meets_the_posterior_of_the_smoothed_prior(
    problem, step_size, metropolis, inner_steps
):
    A, data = problem
    # A thousand chains tell a variance to 3 %; noise for ε in place of η would double it.
    levels, count = power_schedule(3.0, 0.5, 4), 1000
    samples = preconditioned_annealed_langevin(
        A, data, energy_at, noise_std=ETA, noise_levels=levels, num_samples=count, max_images=count,
        inner_steps=inner_steps, step_size=step_size, metropolis=metropolis,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    mean, variance, mean_error, variance_error = moments(samples.images[:, 0])
    expected_mean, expected_variance = posterior_of_smoothed_prior(levels[-1], data[0, 0].numpy())
    # A step h has the variance 1/(1 − hλ/2) times the target's, λ ≤ 1 the eigenvalue of P⁻¹ times the Hessian of U.
    bias = 0.0 if metropolis else step_size / (2 - step_size)
    assert (np.abs(mean - expected_mean) < 3 * 1.2 * mean_error).all()
    assert (np.abs(variance - expected_variance) < 3 * variance_error + bias * expected_variance).all()


def test_without_noise_the_rule_is_deterministic_and_a_fixed_point_is_the_minimum(problem):
    A, data = problem
    arguments = {"noise_std": ETA, "noise_levels": [2.0, 0.5], "inner_steps": 400, "generator": None}
    first, second = (annealed_langevin(A, data, energy_at, **arguments).images[0] for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (1, 1, 6)
    # The minimum of ‖Ax − b‖²/2η² + E_σ/σ² at the last σ is the mean of that posterior.
    expected, _ = posterior_of_smoothed_prior(0.5, data[0, 0].numpy())
    np.testing.assert_allclose(first[0, 0].numpy(), expected, atol=0.02)


def test_groups_of_chains_and_their_seeds(problem):
    A, data = problem
    arguments = {"noise_std": ETA, "noise_levels": LEVELS, "num_samples": 5}
    runs = [
        annealed_langevin(A, data, energy_at, **arguments, max_images=size,
                          generator=torch.Generator().manual_seed(seed)).images
        for size, seed in ((2, 0), (2, 0), (2, 1))
    ]  # fmt: skip
    assert runs[0].shape == (5, 1, 1, 6)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert len(torch.view_as_real(runs[0]).flatten(1).unique(dim=0)) == 5


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"noise_std": 0.0}, "noise_std"),
        ({"noise_levels": []}, "noise_levels"),
        ({"noise_levels": [1.0, 2.0]}, "noise_levels"),
        ({"noise_levels": [1.0, -2.0]}, "noise_levels"),
        ({"inner_steps": 0}, "inner_steps"),
        ({"num_samples": 0}, "num_samples"),
        ({"max_images": 0}, "max_images"),
    ],
)
@pytest.mark.parametrize("sampler", [annealed_langevin, preconditioned_annealed_langevin])
def test_arguments_out_of_range_are_refused(problem, one_line_error, sampler, changes, word):
    arguments = {"noise_std": ETA, "noise_levels": LEVELS, "generator": torch.Generator()} | changes
    with one_line_error(word, "allowed"):
        sampler(*problem, energy_at, **arguments)


@pytest.mark.parametrize("growth", [math.inf, -1e60])
def test_a_sample_that_leaves_the_finite_numbers_stops(problem, one_line_error, growth):
    """At once, or after several steps within one level."""

    class Wild:
        def value_and_grad(self, image):
            return image.real.sum(dim=(1, 2)), image * growth

    with one_line_error("annealing", "finite values", error=DivergenceError):
        annealed_langevin(
            *problem, lambda _: Wild(), noise_std=ETA, noise_levels=LEVELS, inner_steps=9, generator=torch.Generator()
        )
