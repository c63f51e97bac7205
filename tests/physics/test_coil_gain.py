"""Coil maps in another unit: S·f and x/f explain the same data, and what an energy is for is x."""

import logging

import pytest
import torch

from direct_deepen import Chains, align_phase, intensity_scale, langevin, load_pretrained, mm_map, sense
from direct_deepen.evaluation.metrics import quality
from direct_deepen.physics import SenseOperator, coil_gain, normalize_sensitivity_map
from direct_deepen.physics.fourier import fft2

FACTORS = [0.1, 2.83, 10.0]
ROUNDING = 1e-5
"""Single precision, in another order."""


def aligned(phantom, maps):
    """Operator, scale and scaled data as README has them."""
    kspace = phantom.kspace() * phantom.mask
    A = align_phase(SenseOperator(maps, phantom.mask), kspace)
    scale = intensity_scale(A, kspace)
    return A, scale, kspace / scale


@pytest.fixture(scope="module")
def normalized(phantom_slice):
    return aligned(phantom_slice, phantom_slice.sensitivity_map)


def test_the_gain_is_the_factor_and_exactly_one_for_normalised_maps(phantom_slice):
    kspace = phantom_slice.kspace() * phantom_slice.mask
    for factor in (1.0, *FACTORS):
        A = SenseOperator(phantom_slice.sensitivity_map * factor, phantom_slice.mask)
        assert float(coil_gain(A, kspace)) == pytest.approx(factor, rel=ROUNDING)
        assert factor != 1 or float(coil_gain(A, kspace)) == 1
        assert float(coil_gain(A, 1e18 * kspace)) == pytest.approx(factor, rel=ROUNDING)
        assert float(coil_gain(A, 0 * kspace)) == 1


def test_with_a_profile_in_the_maps_it_is_the_mean_of_its_square_over_the_image(draw):
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, 32, dtype=torch.float64)], indexing="ij")
    maps = normalize_sensitivity_map(torch.stack([torch.exp(-((x - a) ** 2) + 1j * a * y) for a in (-1.0, 0, 1)])[None])
    body, profile = torch.exp(-(x**2 + y**2) / 0.3), 1.5 + x
    kspace = fft2(body * profile * maps)
    found = coil_gain(SenseOperator(profile * maps, torch.ones(1, 1, 32, 32)), kspace)
    expected = ((body * profile).square().sum() / body.square().sum()).sqrt()
    # The window smooths the body, by a tenth of its width.
    assert float(found) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("factor", FACTORS)
def test_scale_sense_map_and_samples_do_not_know_the_factor(phantom_slice, normalized, factor):
    first = aligned(phantom_slice, phantom_slice.sensitivity_map * factor)
    torch.testing.assert_close(first[1], normalized[1], rtol=ROUNDING, atol=0)
    energy, chains = load_pretrained("brain_phantom_2d4x"), Chains(2, 4)

    def results(A, b):
        image = mm_map(A, b, energy, max_iterations=5).image
        generator = torch.Generator().manual_seed(0)
        return sense(A, b), image, langevin(A, b, energy, noise_std=0.01, chains=chains, generator=generator).images

    for found, expected in zip(results(first[0], first[2]), results(normalized[0], normalized[2]), strict=True):
        # Steps of iterations enlarge rounding.
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("factor", FACTORS)
def test_the_image_of_maps_in_another_unit_is_as_good(phantom_slice, factor):
    A, scale, b = aligned(phantom_slice, phantom_slice.sensitivity_map * factor)
    image = mm_map(A, b, load_pretrained("brain_phantom_2d4x")).image * scale
    # Measured: 37.18 dB for every factor; 23.4, 32.0 and 25.8 dB with 0.1, 2.83 and 10 left in the maps.
    assert quality(image[0], phantom_slice.image[0]).psnr == pytest.approx(37.18, abs=0.5)
    # That of these maps is as much smaller: together they explain the data.
    given = SenseOperator(phantom_slice.sensitivity_map * factor, phantom_slice.mask)
    phase = (A.sensitivity_map * given.sensitivity_map.conj()).sum(dim=1).sgn()
    explained, expected = given.forward(image * phase / factor), A.forward(image)
    torch.testing.assert_close(explained, expected, rtol=1e-4, atol=1e-4 * float(scale))


def test_the_scale_warns_of_maps_in_another_unit_and_of_no_others(phantom_slice, caplog):
    caplog.set_level(logging.WARNING)
    kspace = phantom_slice.kspace() * phantom_slice.mask
    profile = torch.linspace(0.8, 1.3, 64)
    for maps, told in ((1.0, 0), (profile, 0), (2.83, 1), (0.1, 1)):
        caplog.clear()
        intensity_scale(SenseOperator(phantom_slice.sensitivity_map * maps, phantom_slice.mask), kspace)
        assert len(caplog.records) == told
    assert "0.01 over the image" in caplog.text
    assert "align_phase" in caplog.text
