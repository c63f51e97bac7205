"""Calibration where the answer is known: Gaussian posteriors whose references are drawn from what they claim to be."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.rings import ring_bounds, scale_rings
from direct_deepen.posterior.calibration import (
    LEVELS,
    REMOVED,
    block_means,
    controlled_scale,
    correlation_ceiling,
    correlations,
    fit_ring_scales,
    fit_std_scale,
    held,
    object_pixels,
    ring_powers,
    sparsification,
)
from direct_deepen.posterior.intervals import coverage
from direct_deepen.posterior.posterior import Posterior


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def gaussian(draw):
    """``gaussian(samples, pixels, std)``: samples N(x̄, std²) in every pixel, references from N(x̄, 1), x̄ about 100."""

    def build(samples, pixels, *, std=1.0, seed=0):
        mean = 100.0 + draw(1, 1, pixels, seed=seed)
        images = mean + std * draw(samples, 1, 1, pixels, seed=seed + 1)
        return Posterior.from_images(images), mean + draw(1, 1, pixels, seed=seed + 2)

    return build


@pytest.fixture
def coloured(draw):
    """``coloured(scales)``: white samples about a bright square, references off by noise whose rings are scaled."""

    def build(scales, *, samples=24, size=48, seed=0):
        mean = torch.zeros(1, size, size, dtype=torch.complex128)
        mean[:, 6:-6, 10:-10] = 10j
        images = mean + 0.1 * draw(samples, 1, size, size, seed=seed)
        return Posterior.from_images(images), mean + scale_rings(0.1 * draw(1, size, size, seed=seed + 1), scales)

    return build


# ---- Coverage


@pytest.mark.parametrize("samples", [2, 7, 40])
def test_a_reference_lies_in_just_the_intervals_of_its_level_and_above(draw, samples):
    posterior, reference = Posterior.from_images(draw(samples, 2, 8, 9)), draw(2, 8, 9, seed=1)
    found = held(posterior, reference)
    assert found.containing.shape == reference.shape
    value = posterior.in_phase(reference)
    for level in (0.05, 0.3, 0.5, 0.77, 0.9, 0.99):
        lower, upper = posterior.interval(level)
        assert torch.equal(found.containing <= level, (lower <= value) & (value <= upper))


def test_the_level_is_zero_at_the_mean_and_one_where_no_deviation_reaches():
    same = torch.full((3, 1, 1, 2), 2.0, dtype=torch.complex128)
    reference = torch.tensor([[[2.0, 2.5]]], dtype=torch.complex128)
    assert held(Posterior.from_images(same), reference).containing.tolist() == [[[0.0, 1.0]]]


def test_a_calibration_curve_of_samples_of_half_the_width_is_the_normal_one(gaussian):
    pixels = 8000
    posterior, reference = gaussian(401, pixels, std=0.5)
    expected = 2 * norm.cdf(0.5 * norm.ppf([(1 + level) / 2 for level in LEVELS])) - 1
    found = coverage(held(posterior, reference).containing, LEVELS)
    # Four standard errors, and half a per cent for 401 samples in the place of all.
    np.testing.assert_allclose(found, expected, atol=4 * math.sqrt(0.25 / pixels) + 0.005)


def test_means_of_blocks_are_those_of_their_pixels_and_what_fills_none_is_left_out():
    values = torch.arange(5 * 7, dtype=torch.float64).reshape(1, 5, 7)
    assert torch.equal(block_means(values, 1), values)
    expected = torch.stack([values[0, r : r + 2, c : c + 2].mean() for r in (0, 2) for c in (0, 2, 4)])
    torch.testing.assert_close(block_means(values, 2), expected.reshape(1, 2, 3))


def test_blocks_of_the_exact_posterior_are_held_like_its_pixels_and_those_of_a_coloured_error_are_not(coloured):
    shares = {}
    for scales in ((1.0,), (4.0, 2.0, 1.0, 0.8)):
        for size in (1, 4):
            held_ones = []
            for seed in range(0, 40, 2):
                posterior, reference = coloured(scales, seed=seed)
                inside = block_means(object_pixels(reference).double(), size) == 1
                held_ones.append(held(posterior, reference, size).at(inside).containing <= 0.9)
            shares[scales, size] = float(torch.cat(held_ones).double().mean())
    # 20 images of 63 blocks: four standard errors are 0.034, of the pixels less.
    assert shares[(1.0,), 1] == pytest.approx(0.9, abs=0.02)
    assert shares[(1.0,), 4] == pytest.approx(0.9, abs=0.034)
    # Errors that are alike over a block do not average out in it.
    assert shares[(4.0, 2.0, 1.0, 0.8), 1] > 0.8
    assert shares[(4.0, 2.0, 1.0, 0.8), 4] < 0.6


# ---- What corrects the samples


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_the_scale_is_the_factor_by_which_the_samples_are_off(gaussian, std):
    cases = [gaussian(201, 3000, std=std, seed=seed) for seed in (0, 10)]
    posteriors, references = [posterior for posterior, _ in cases], [reference for _, reference in cases]
    scale = fit_std_scale(posteriors, references, level=0.9)
    # Coverage of 6000 pixels is known to 0.4 %, and a per cent of scale is 0.34 % of coverage: five per cent are four
    # standard errors.
    assert scale == pytest.approx(1 / std, rel=0.05)
    shares = [
        coverage(held(posterior.rescaled(scale), reference).containing, [0.9])
        for posterior, reference in cases
    ]  # fmt: skip
    # One of 6000 pixels more or less.
    assert float(torch.stack(shares).mean()) == pytest.approx(0.9, abs=2e-4)


def test_only_the_object_counts_for_the_scale(gaussian):
    posterior, reference = gaussian(201, 2000)
    air = Posterior.from_images(torch.cat([posterior.images, 3 + 0 * posterior.images], dim=-1))
    with_air = torch.cat([reference, torch.ones_like(reference)], dim=-1)
    assert fit_std_scale([air], [with_air], level=0.9) == fit_std_scale([posterior], [reference], level=0.9)


def test_a_reference_that_no_scale_reaches_is_an_error(gaussian, one_line_error):
    posterior, reference = gaussian(50, 100)
    with one_line_error("90% interval", "0.1 to 10"):
        fit_std_scale([posterior], [reference + 1000], level=0.9)
    assert max(fit_ring_scales([posterior], [reference + 1000])) == 16
    same = Posterior.from_images(posterior.images[:1].expand(2, -1, -1, -1))
    with one_line_error("no spread in a ring", "chains that differ"):
        fit_ring_scales([same], [reference])


def test_the_power_of_the_error_is_what_samples_of_the_exact_posterior_predict(coloured):
    errors, predicted = torch.zeros(4), torch.zeros(4)
    for seed in range(0, 60, 2):
        error, expected = ring_powers(*coloured((1.0,), samples=6, seed=seed))
        errors, predicted = errors + error, predicted + expected
    # 30 images with 44, 148, 600 and 1500 places of k-space in their rings, which the edge of the object correlates
    # over about three by two: four standard errors of a sum of squares of the fewest are 0.3, of the others 0.15.
    ratio = errors / predicted
    assert float(ratio[0]) == pytest.approx(1, abs=0.3)
    torch.testing.assert_close(ratio[1:], torch.ones(3, dtype=ratio.dtype), rtol=0, atol=0.15)


def test_the_factors_of_the_rings_are_those_by_which_the_samples_are_off(coloured):
    true = (3.0, 2.0, 1.0, 0.7)
    cases = [coloured(true, seed=seed) for seed in range(0, 24, 2)]
    posteriors, references = [posterior for posterior, _ in cases], [reference for _, reference in cases]
    scales = fit_ring_scales(posteriors, references)
    # As above with 12 images: a standard error of 0.06 of a factor of the innermost ring, of 0.03 of the others.
    np.testing.assert_allclose(scales, true, rtol=0.2)
    powers = [ring_powers(posterior.rescaled(1.0, scales), reference) for posterior, reference in cases]
    errors, predicted = (torch.stack(found).sum(dim=0) for found in zip(*powers, strict=True))
    # What it was fitted to, up to the rounds.
    torch.testing.assert_close(errors / predicted, torch.ones_like(errors), rtol=0, atol=0.02)


def test_rings_double_and_a_factor_of_all_is_a_factor(draw):
    assert ring_bounds(64, 48) == [4, 8, 16, 40]
    images = draw(2, 33, 40)
    torch.testing.assert_close(scale_rings(images, [3.0]), 3 * images)
    torch.testing.assert_close(scale_rings(images, [3.0] * 9), 3 * images)
    # The centre and the corner are of the first and of the last.
    scaled, before = fft2(scale_rings(images, [2.0, 1.0, 1.0, 0.5])), fft2(images)
    torch.testing.assert_close(scaled[:, 16, 20], 2 * before[:, 16, 20])
    torch.testing.assert_close(scaled[:, 0, 0], 0.5 * before[:, 0, 0])


@pytest.mark.parametrize("scales", [[], [1.0, 0.0], [float("nan")]])
def test_factors_of_rings_are_positive_numbers(draw, one_line_error, scales):
    with one_line_error("scale", "allowed"):
        scale_rings(draw(1, 8, 8), scales)


# ---- The guarantee


@pytest.mark.parametrize("count", [9, 19])
def test_the_expected_miss_of_a_further_volume_is_at_most_what_is_promised_and_not_far_below(count):
    random, misses = np.random.default_rng(count), []
    for _ in range(400):
        # Volumes differ in how far they are off: pixels are not exchangeable, volumes are.
        volumes = [torch.from_numpy(abs(random.normal(size=200)) * random.lognormal(0, 0.5)) for _ in range(count + 1)]
        scale = controlled_scale(volumes[:-1], level=0.9)
        misses.append(float((volumes[-1] > scale).double().mean()))
    mean, error = np.mean(misses), np.std(misses) / 20
    # The theorem: at most 0.1, and at least 0.1 − 2/(n + 1).
    assert 0.1 - 2 / (count + 1) - 4 * error <= mean <= 0.1 + 4 * error


def test_too_few_volumes_promise_nothing():
    volumes = [torch.rand(10, generator=generator()) for _ in range(9)]
    assert controlled_scale(volumes[:8], level=0.9) is None
    # Nine of them allow no miss at all.
    assert controlled_scale(volumes, level=0.9) == float(torch.cat(volumes).max())


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


def test_the_highest_correlation_is_that_of_errors_of_just_these_deviations():
    std = torch.exp(0.3 * torch.randn(20_000, generator=generator(), dtype=torch.float64))
    # 0.29 for a deviation of the logarithm of 0.3, and none where all are alike.
    assert correlation_ceiling(std) == pytest.approx(0.29, abs=0.02)
    assert abs(correlation_ceiling(torch.exp(0.001 * std.log()))) < 0.03


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
