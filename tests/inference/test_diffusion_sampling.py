"""DPS: its steps against their recursion, its guidance against finite differences, and its bias where it is known."""

import numpy as np
import pytest
import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.inference import diffusion_posterior_sampling
from direct_deepen.inference.diffusion_sampling import _guided
from direct_deepen.inference.noise_levels import power_schedule

SAMPLES = 4000
VARIANCE = torch.tensor([[1.0, 4.0, 0.25, 0.01]], dtype=torch.float64)
LEVELS = power_schedule(20.0, 0.02, 60)


def denoiser(image, level):
    """The posterior mean of the prior N(0, V)."""
    return VARIANCE / (VARIANCE + level**2) * image


def test_without_guidance_it_samples_the_prior(inpainting_operator, draw):
    A = inpainting_operator(torch.ones(1, 1, 4, dtype=torch.float64))
    samples = diffusion_posterior_sampling(
        A, draw(1, 1, 4), denoiser, noise_levels=LEVELS, guidance=0.0, num_samples=SAMPLES, max_images=SAMPLES,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert samples.images.shape == (SAMPLES, 1, 1, 4)
    assert samples.gradient_evaluations == SAMPLES * len(LEVELS)
    variance = torch.view_as_real(samples.images).square().mean(dim=(0, -1))[0, 0].numpy()
    # The recursion of the steps, which tends to V as they get short.
    expected = np.full(4, LEVELS[0] ** 2)
    prior = VARIANCE[0].numpy()
    for level, after in zip(LEVELS, [*LEVELS[1:], 0.0], strict=True):
        ratio = (after / level) ** 2
        factor = 1 + (1 - ratio) * (prior / (prior + level**2) - 1)
        expected = factor**2 * expected + after**2 * (1 - ratio)
    np.testing.assert_allclose(variance, expected, rtol=3 / SAMPLES**0.5)
    np.testing.assert_allclose(expected, prior, rtol=0.25)


def test_guidance_goes_down_the_gradient_of_the_misfit_through_the_denoiser(random_operator, draw):
    A = random_operator(2, 3, 6, 5)
    data = draw(2, 3, 6, 5, seed=1) * A.sampling_mask

    def curved(image, level):
        return image / (1 + level * image.abs().square())

    x = draw(1, 2, 6, 5, seed=2)
    denoised, residual, gradient = _guided(A, data, curved, x, 0.4)
    torch.testing.assert_close(denoised[0], curved(x[0], 0.4))
    direction = draw(1, 2, 6, 5, seed=3)

    def misfit(image):
        return torch.linalg.vector_norm((A.forward(curved(image[0], 0.4)) - data).flatten(1), dim=1)

    torch.testing.assert_close(residual[0], misfit(x))
    slope = (misfit(x + 1e-6 * direction) - misfit(x - 1e-6 * direction)) / 2e-6
    expected = (gradient[0].conj() * direction[0]).real.sum(dim=(1, 2))
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-8)


def test_guidance_pulls_to_the_data(random_operator, draw):
    A = random_operator(1, 3, 6, 4)
    truth = draw(1, 6, 4) * VARIANCE.sqrt()
    data = A.forward(truth)
    misfits = [
        float((A.forward(diffusion_posterior_sampling(
            A, data, denoiser, noise_levels=LEVELS, guidance=guidance, generator=torch.Generator().manual_seed(0)
        ).images[0]) - data).norm())
        for guidance in (0.0, 0.5)
    ]  # fmt: skip
    assert misfits[1] < 0.2 * misfits[0]


def test_data_that_are_met_exactly_do_not_divide_by_zero(inpainting_operator):
    A = inpainting_operator(torch.ones(1, 1, 4, dtype=torch.float64))
    zeros = torch.zeros(1, 1, 4, dtype=torch.complex128)
    _, _, gradient = _guided(A, zeros, denoiser, zeros[None], 1.0)
    assert torch.equal(gradient, zeros[None])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"noise_levels": []}, "noise_levels"),
        ({"noise_levels": [1.0, 1.0]}, "noise_levels"),
        ({"guidance": -1.0}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"num_samples": 0}, "num_samples"),
        ({"max_images": 0}, "max_images"),
    ],
)
def test_arguments_out_of_range_are_refused(inpainting_operator, draw, one_line_error, changes, word):
    arguments = {"noise_levels": LEVELS, "generator": torch.Generator()} | changes
    A = inpainting_operator(torch.ones(1, 1, 4, dtype=torch.float64))
    with one_line_error(word, "allowed"):
        diffusion_posterior_sampling(A, draw(1, 1, 4), denoiser, **arguments)


def test_a_guidance_that_blows_up_stops_with_its_level(inpainting_operator, draw, one_line_error):
    A = inpainting_operator(torch.ones(1, 1, 4, dtype=torch.float64))
    with one_line_error("DPS", "guidance", error=DivergenceError):
        diffusion_posterior_sampling(
            A, draw(1, 1, 4), lambda x, _: x**3, noise_levels=LEVELS, guidance=1.0, generator=torch.Generator()
        )
