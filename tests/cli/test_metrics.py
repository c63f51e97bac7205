"""The three metrics of every table, against scikit-image and against the formulas."""

import itertools

import numpy as np
import pytest
import torch
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from direct_deepen.evaluation.metrics import posterior_quality, quality
from direct_deepen.posterior.intervals import containing_level, coverage


@pytest.fixture
def reference():
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 20), indexing="ij")
    magnitude = torch.exp(-(x**2) - y**2) + 0.1 * torch.rand(24, 20, generator=generator)
    return magnitude * torch.exp(1j * x * y)


@pytest.fixture
def image(reference):
    generator = torch.Generator().manual_seed(1)
    return reference + 0.05 * torch.randn(24, 20, dtype=torch.complex64, generator=generator)


def test_quality_is_that_of_scikit_image_with_the_maximum_of_the_reference_as_range(image, reference):
    found = quality(image, reference)
    x, r = image.abs().double().numpy(), reference.abs().double().numpy()
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(r, x, data_range=r.max()), rel=1e-12)
    assert found.ssim == pytest.approx(structural_similarity(r, x, data_range=r.max()), rel=1e-12)
    assert found.nmse == pytest.approx(normalized_root_mse(r, x) ** 2, rel=1e-12)


def test_a_constant_error_has_the_quality_that_the_formulas_give():
    reference = torch.full((16, 16), 2.0, dtype=torch.float64)
    reference[0, 0] = 4.0
    found = quality(reference + 0.1, reference)
    assert found.psnr == pytest.approx(20 * np.log10(4.0 / 0.1), rel=1e-12)
    assert found.nmse == pytest.approx(256 * 0.1**2 / (255 * 4 + 16), rel=1e-12)


def test_quality_looks_at_magnitudes_alone(image, reference):
    turned = quality(image * 1j, reference.abs())
    straight = quality(image, reference)
    assert turned.psnr == pytest.approx(straight.psnr, rel=1e-6)
    assert turned.ssim == pytest.approx(straight.ssim, rel=1e-6)


def test_quality_has_no_unit(image, reference):
    scaled, plain = quality(1e-5 * image, 1e-5 * reference), quality(image, reference)
    for name in ("psnr", "ssim", "nmse"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name), rel=1e-5)


def test_the_reference_itself_is_perfect(reference):
    found = quality(reference, reference)
    assert found.psnr == float("inf")
    assert found.ssim == pytest.approx(1.0)
    assert found.nmse == 0.0


def test_more_noise_is_worse_in_every_metric(reference):
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(24, 20, dtype=torch.complex64, generator=generator)
    scores = [quality(reference + level * noise, reference) for level in (0.01, 0.03, 0.1, 0.3)]
    for better, worse in itertools.pairwise(scores):
        assert better.psnr > worse.psnr
        assert better.ssim > worse.ssim
        assert better.nmse < worse.nmse


def test_another_shape_is_refused(image, reference, one_line_error):
    with one_line_error("(23, 20)", "(24, 20)", "allowed"):
        quality(image[1:], reference)


def test_a_reference_without_a_signal_is_refused(image, one_line_error):
    with one_line_error("reference is zero", "allowed"):
        quality(image, torch.zeros_like(image))


# ---- Posteriors


@pytest.mark.parametrize("samples", [3, 16])
def test_an_interval_of_few_samples_holds_ninety_per_cent_of_what_they_are_drawn_from(samples):
    draws = torch.randn(samples + 1, 40000, generator=torch.Generator().manual_seed(samples))
    mean, std = draws[1:].mean(dim=0), draws[1:].std(dim=0)
    # 40000 pixels: a standard error of 0.0015.
    held, narrow = (containing_level(mean, width * std, draws[0], num_chains=samples) for width in (1.0, 0.5))
    assert coverage(held, [0.5, 0.9]).tolist() == pytest.approx([0.5, 0.9], abs=0.01)
    assert float(coverage(narrow, [0.9])) < 0.8


@pytest.mark.parametrize("pairs", [4, 8])
def test_of_antithetic_pairs_an_interval_holds_ninety_per_cent_as_well(pairs):
    draws = torch.randn(pairs + 1, 40000, generator=torch.Generator().manual_seed(pairs))
    samples = torch.cat([draws[1:], -draws[1:]])
    held = containing_level(samples.mean(dim=0), samples.std(dim=0), draws[0], num_chains=2 * pairs)
    # 90.2 and 90.0 %, with a standard error of 0.15 %.
    assert float(coverage(held, [0.9])) == pytest.approx(0.9, abs=0.008)


def test_states_of_one_chain_are_not_counted_as_independent():
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(8, 40000, generator=generator)

    states = [draw()]
    while len(states) < 4:  # stationary, of variance one and correlation 0.9
        states.append(0.9 * states[-1] + (1 - 0.9**2) ** 0.5 * draw())
    reference = 10 + torch.randn(1, 40000, generator=generator)
    kept = 10 + torch.cat(states)
    quality = posterior_quality(kept.mean(dim=0)[None], kept.std(dim=0)[None], reference, num_chains=8)
    # 85 % if all 32 were independent.
    assert quality.coverage_90 == pytest.approx(0.9, abs=0.01)


def test_a_posterior_is_judged_inside_the_object_and_everywhere():
    reference = torch.zeros(4, 4, dtype=torch.complex64)
    reference[:2] = 1.0
    # The background is far off and must not count inside.
    mean = torch.where(reference.abs() > 0, 1.2, 50.0)
    std = torch.where(reference.abs() > 0, 0.2, 70.0)
    found = posterior_quality(mean, std, reference, num_chains=16)
    assert found.std == pytest.approx(0.2)
    assert found.error == pytest.approx(0.2)
    assert found.coverage_90 == 1.0
    assert found.std_everywhere == pytest.approx(35.1)
    assert found.error_everywhere == pytest.approx(25.1)
