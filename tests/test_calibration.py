"""Calibration where the answer is known: Gaussian posteriors whose references are drawn from what they claim to be."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, rayleigh

from direct_deepen.posterior.calibration import (
    LEVELS,
    REMOVED,
    attainable_coverage,
    containing_level,
    correlations,
    coverage,
    fit_std_scale,
    object_pixels,
    sparsification,
    with_data_noise,
)
from direct_deepen.posterior.posterior import Posterior


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def gaussian(draw):
    """``gaussian(samples, pixels, std, centre)``: samples N(x̄, std²) in every pixel, references from N(x̄, 1).

    The centre is how far x̄ is from zero: at 100 a magnitude is a real part, at 0 it is Rayleigh's.
    """

    def build(samples, pixels, *, std=1.0, centre=100.0, seed=0):
        mean = centre + draw(1, 1, pixels, seed=seed)
        images = mean + std * draw(samples, 1, 1, pixels, seed=seed + 1)
        return Posterior.from_images(images), (mean + draw(1, 1, pixels, seed=seed + 2)).abs()

    return build


# ---- Coverage


@pytest.mark.parametrize("samples", [2, 7, 40])
def test_a_reference_lies_in_just_the_intervals_of_its_level_and_above(draw, samples):
    posterior, reference = Posterior.from_images(draw(samples, 2, 8, 9)), draw(2, 8, 9, seed=1).abs()
    containing = containing_level(posterior, reference)
    assert containing.shape == reference.shape
    for level in (0.05, 0.3, 0.5, 0.77, 0.9, 0.99):
        lower, upper = posterior.interval(level)
        assert torch.equal(containing <= level, (lower <= reference) & (reference <= upper))


def test_the_level_is_zero_at_the_median_and_one_from_the_outermost_samples_on():
    posterior = Posterior.from_images(torch.tensor([1.0, 2.0, 4.0]).to(torch.complex128)[:, None, None, None])
    for reference, level in ((0.5, 1.0), (1.0, 1.0), (1.5, 0.5), (2.0, 0.0), (3.0, 0.5), (4.0, 1.0), (9.0, 1.0)):
        found = containing_level(posterior, torch.tensor([[[reference]]], dtype=torch.float64))
        assert float(found) == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize("centre", [100.0, 0.0])
def test_samples_of_the_exact_posterior_cover_what_is_attainable_and_that_is_not_the_level(gaussian, centre):
    # With 61 samples the ends at 50 and 90 % are samples: the law is exact for every distribution.
    pixels = 20_000
    posterior, reference = gaussian(61, pixels, centre=centre)
    found = coverage(containing_level(posterior, reference), [0.5, 0.9])
    for level, share in zip((0.5, 0.9), found, strict=True):
        expected = attainable_coverage(level, 61)
        # Four standard errors of a share, which at 90 % are a third of what the correction is.
        assert float(share) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / pixels))
    assert attainable_coverage(0.9, 61) == pytest.approx(0.9 * 60 / 62)


def test_a_calibration_curve_of_samples_of_half_the_width_is_the_normal_one(gaussian):
    pixels = 8000
    posterior, reference = gaussian(401, pixels, std=0.5)
    expected = 2 * norm.cdf(0.5 * norm.ppf([(1 + level) / 2 for level in LEVELS])) - 1
    found = coverage(containing_level(posterior, reference), LEVELS)
    # Four standard errors, and the ends of intervals between 401 samples cost half a per cent at most.
    np.testing.assert_allclose(found, expected, atol=4 * math.sqrt(0.25 / pixels) + 0.005)


def test_one_sample_has_no_interval(draw, one_line_error):
    with one_line_error("posterior", "1 sample", "2 or more"):
        containing_level(Posterior.from_images(draw(1, 1, 2, 2)), draw(1, 2, 2).abs())


# ---- The scale


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_the_scale_is_the_factor_by_which_the_samples_are_off(gaussian, std):
    cases = [gaussian(201, 3000, std=std, seed=seed) for seed in (0, 10)]
    posteriors, references = [posterior for posterior, _ in cases], [reference for _, reference in cases]
    scale = fit_std_scale(posteriors, references, level=0.9)
    # Coverage of 6000 pixels is known to 0.4 %, and a per cent of scale is 0.34 % of coverage: five per cent are four
    # standard errors. 201 samples instead of infinitely many need three per cent more.
    assert scale == pytest.approx(1 / std, rel=0.08)
    shares = [
        coverage(containing_level(posterior.rescaled(scale), reference), [0.9])
        for posterior, reference in cases
    ]  # fmt: skip
    assert float(torch.stack(shares).mean()) == pytest.approx(0.9, abs=1e-3)


def test_only_the_object_counts_for_the_scale(gaussian):
    posterior, reference = gaussian(201, 2000)
    air = Posterior.from_images(torch.cat([posterior.images, 3 + 0 * posterior.images], dim=-1))
    with_air = torch.cat([reference, torch.ones_like(reference)], dim=-1)
    assert fit_std_scale([air], [with_air], level=0.9) == fit_std_scale([posterior], [reference], level=0.9)


def test_a_reference_that_no_scale_reaches_is_an_error(gaussian, one_line_error):
    posterior, reference = gaussian(50, 100)
    with one_line_error("no scale", "90%", "0.0% without a scale"):
        fit_std_scale([posterior], [reference + 1000], level=0.9)


# ---- Where the error is


def test_a_standard_deviation_in_the_order_of_the_errors_is_as_good_as_the_oracle():
    error = torch.rand(1000, generator=generator(), dtype=torch.float64)
    found = sparsification(error.square(), error)
    assert torch.equal(found.by_std, found.oracle)
    assert found.area == 0


def test_sparsification_of_evenly_spread_errors_is_a_straight_line():
    error = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    shuffled = error[torch.randperm(2000, generator=generator())]
    # What is left of errors from 0 to 1 is the lower part, or the upper one: means (1 − r)/2 and (1 + r)/2, over 1/2.
    removed = torch.tensor(REMOVED, dtype=torch.float64)
    worst = sparsification(-shuffled, shuffled)
    torch.testing.assert_close(worst.oracle, 1 - removed, atol=1e-12, rtol=0)
    torch.testing.assert_close(worst.by_std, 1 + removed, atol=1e-12, rtol=0)
    assert worst.area == pytest.approx(0.95**2)


def test_correlations_tell_lines_from_orders():
    std = torch.linspace(1, 2, 50)
    assert correlations(std, 3 * std + 1) == pytest.approx((1.0, 1.0))
    pearson, spearman = correlations(std, std**20)
    assert spearman == pytest.approx(1.0)
    assert pearson < 0.9


# ---- References


def test_the_object_is_what_is_above_five_per_cent_image_by_image():
    image = torch.tensor([[1.0, 0.051, 0.049, 0.0]])
    assert object_pixels(torch.stack([image, 1000 * image])).tolist() == 2 * [[[True, True, False, False]]]


def test_data_noise_has_its_standard_deviation_in_both_components():
    count, std = 40_000, 0.3
    noisy = with_data_noise(torch.zeros(1, 1, count, dtype=torch.float64), std, generator())
    # Rayleigh's mean and second moment, four standard errors.
    assert float(noisy.mean()) == pytest.approx(rayleigh.mean(scale=std), abs=4 * std * 0.655 / math.sqrt(count))
    bright = with_data_noise(torch.full((1, 1, count), 100.0, dtype=torch.float64), std, generator())
    assert float(bright.std()) == pytest.approx(std, rel=4 / math.sqrt(2 * count))


@pytest.mark.usefixtures("global_generators_untouched")
def test_the_same_generator_gives_the_same_noise_and_the_reference_stays():
    reference = torch.ones(1, 3, 3)
    assert torch.equal(with_data_noise(reference, 0.1, generator()), with_data_noise(reference, 0.1, generator()))
    assert torch.equal(reference, torch.ones(1, 3, 3))
