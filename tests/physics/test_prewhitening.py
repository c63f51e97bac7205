"""Prewhitening: generalised least squares, the estimate of a covariance, and a coil with six times the noise."""

import pytest
import torch

from direct_deepen import (
    Chains,
    Posterior,
    align_phase,
    at_noise,
    intensity_scale,
    langevin,
    load_pretrained,
    mm_map,
    noise_covariance,
    prewhitened,
)
from direct_deepen.evaluation.metrics import quality
from direct_deepen.physics import SenseOperator, coil_gain, complex_normal, normalize_sensitivity_map, sense
from direct_deepen.physics.fourier import fft2
from direct_deepen.physics.prewhitening import corner_noise_covariance, noise_level

COILS, SIZE, SAMPLES = 4, 6, 20_000


@pytest.fixture(scope="module")
def covariance(draw):
    """Of noise that is correlated, and up to four times as large in some coils."""
    factor = draw(COILS, COILS, seed=5) * torch.tensor([1.0, 2.0, 1.0, 4.0])[:, None]
    return factor @ factor.mH + 0.5 * torch.eye(COILS)


def with_covariance(noise, covariance):
    """White noise (coil, ...) with this covariance per real component."""
    return torch.einsum("ab,b...->a...", torch.linalg.cholesky(covariance), noise)


def in_standard_errors(estimate, truth, count):
    """Real and imaginary deviations of elements, whose standard error is √(Σ_aa Σ_bb / m), or less, in that."""
    variances = truth.diagonal().real
    return (estimate - truth).abs() / (variances[:, None] * variances / count).sqrt()


# ---- The equation


def test_sense_of_whitened_data_is_generalised_least_squares(draw, covariance):
    maps, regularization = normalize_sensitivity_map(draw(1, COILS, SIZE, SIZE, seed=1)), 0.3
    kspace, mask = draw(1, COILS, SIZE, SIZE, seed=2), torch.ones(1, 1, SIZE, SIZE)
    basis = torch.eye(SIZE**2, dtype=torch.complex128).reshape(-1, 1, SIZE, SIZE)
    # Columns of A, (coil, sample) in rows, and Σ⁻¹ for every sample of k-space.
    matrix = fft2(basis * maps[0]).reshape(SIZE**2, -1).T
    inverse = torch.kron(torch.linalg.inv(covariance).contiguous(), torch.eye(SIZE**2, dtype=torch.complex128))
    variance = COILS / torch.linalg.inv(covariance).diagonal().real.sum()
    normal = variance * matrix.mH @ inverse @ matrix + regularization * torch.eye(SIZE**2, dtype=torch.float64)
    expected = torch.linalg.solve(normal, variance * matrix.mH @ inverse @ kspace.flatten())
    A = SenseOperator(prewhitened(maps, covariance), mask)
    found = sense(A, prewhitened(kspace, covariance), regularization=regularization, tolerance=1e-12)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-9, atol=1e-9)


def test_white_noise_and_another_unit_of_the_covariance_change_nothing(draw, covariance):
    kspace = draw(2, COILS, SIZE, SIZE)
    torch.testing.assert_close(prewhitened(kspace, 0.25 * torch.eye(COILS)), kspace)
    torch.testing.assert_close(prewhitened(kspace, 1e-12 * covariance), prewhitened(kspace, covariance))
    assert noise_level(0.25 * torch.eye(COILS)) == pytest.approx(0.5)
    assert noise_level(4 * covariance) == pytest.approx(2 * noise_level(covariance))
    single = prewhitened(kspace.to(torch.complex64), covariance)
    assert single.dtype == torch.complex64
    assert not prewhitened(kspace * 0, covariance).any()


def test_noise_of_whitened_data_is_white_at_the_noise_level(draw, covariance):
    noise = with_covariance(draw(COILS, SAMPLES, 1, seed=3), covariance)
    found = noise_covariance(prewhitened(noise, covariance))
    truth = noise_level(covariance) ** 2 * torch.eye(COILS, dtype=torch.complex128)
    assert in_standard_errors(found, truth, SAMPLES).max() < 4


def test_the_unit_of_maps_stays_one_on_average_and_a_dead_coil_is_one_less(draw):
    maps = normalize_sensitivity_map(draw(1, COILS, 64, 64))
    for std in ([1.0, 1.0, 1.0, 6.0], [1.0, 1.0, 1.0, 500.0]):
        covariance = torch.tensor(std, dtype=torch.float64).square().diag()
        power = (prewhitened(maps, covariance).abs() ** 2).sum(dim=1)
        # Its standard deviation from pixel to pixel is 0.26.
        assert float(power.mean()) == pytest.approx(1, abs=4 * 0.26 / 64)
    assert noise_level(covariance) == pytest.approx((4 / 3) ** 0.5, rel=1e-4)


# ---- The estimates


def test_the_estimated_covariance_is_within_its_standard_error(draw, covariance):
    noise = with_covariance(draw(COILS, SAMPLES, seed=4), covariance)
    assert in_standard_errors(noise_covariance(noise), covariance, SAMPLES).max() < 4
    torch.testing.assert_close(noise_covariance(noise.reshape(COILS, 100, -1)), noise_covariance(noise))


def test_corners_of_noise_alone_have_its_variances(draw):
    std = torch.tensor([1.0, 2.0, 0.5, 6.0], dtype=torch.float64)
    noise = std[:, None, None] * draw(COILS, 128, 128)
    lines = torch.arange(128) % 2 == 0
    for kspace, count in ((noise, 358), (noise * lines, 179), (noise * (torch.arange(128) > 40), 220)):
        found = corner_noise_covariance(kspace)
        assert torch.equal(found, found.diagonal().diag())
        # A quarter of 9 % of the samples, fewer where there are none.
        assert ((found.diagonal().real / std**2 - 1).abs() < 4 / count**0.5).all()


def test_corners_of_a_slice_know_the_noisy_coil(noisy):
    kspace, _, std, eta = noisy
    found = corner_noise_covariance(kspace[0]).diagonal().real.sqrt() / eta
    # Measured: 0.95 to 1.12 times. 92 samples have a standard error of 5 %, and some signal is left.
    assert ((found / std - 1).abs() < 0.3).all()


# ---- A coil with six times the noise of the others (field case 13)


@pytest.fixture(scope="module")
def noisy(phantom_slice):
    """K-space, its true covariance, noise of the coils in that of the others, and that."""
    image, maps, eta = phantom_slice.image, phantom_slice.sensitivity_map, phantom_slice.noise_std
    std = torch.ones(8)
    std[7] = 6
    noise = complex_normal(maps.shape, generator=torch.Generator().manual_seed(0))
    return fft2(image[:, None] * maps) + eta * std[:, None, None] * noise, (eta * std).square().diag(), std, eta


def problem_of(kspace, maps):
    """Operator, data in scaled intensities, and the unit of images: that of the maps as they were before whitening."""
    mask = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) < 0.13
    mask[..., 28:36, 28:36] = True
    given = SenseOperator(maps, mask)
    A, gain = align_phase(given, kspace * mask), coil_gain(given, kspace * mask)
    scale = intensity_scale(A, kspace * mask)
    return A, kspace * mask / scale, scale / gain, scale


def psnr_of_map(phantom, kspace, maps):
    A, b, unit, _ = problem_of(kspace, maps)
    return quality((mm_map(A, b, load_pretrained("brain_phantom_2d4x")).image * unit)[0], phantom.image[0]).psnr


def coverage_of(phantom, kspace, maps, level):
    """Share of the head in the 90 % intervals of 8 chains, for data of that noise level."""
    A, b, unit, scale = problem_of(kspace, maps)
    epsilon = 2**0.5 * level / float(scale)
    energy = at_noise(load_pretrained("brain_phantom_2d4x"), epsilon)
    image = mm_map(A, b, energy).image
    chains, generator = Chains(8, 60, 4), torch.Generator().manual_seed(0)
    samples = langevin(A, b, energy, noise_std=epsilon, init=image, chains=chains, generator=generator)
    posterior, truth = Posterior.from_samples(samples), phantom.image.abs()
    low, high = (bound * unit for bound in posterior.interval(0.9))
    return float(((low <= truth) & (truth <= high))[truth > 0.05 * truth.max()].float().mean())


@pytest.mark.slow
def test_whitened_a_noisy_coil_costs_half_a_decibel_and_not_six(phantom_slice, noisy):
    kspace, covariance, std, eta = noisy
    maps, weights = phantom_slice.sensitivity_map, (1 / std)[:, None, None]
    scan = eta * std[:, None] * complex_normal((8, 4096), generator=torch.Generator().manual_seed(1))

    def whitened(known):
        return psnr_of_map(phantom_slice, prewhitened(kspace, known), prewhitened(maps, known))

    found = whitened(covariance)
    assert psnr_of_map(phantom_slice, kspace, maps) < 25.5  # measured 24.65
    assert found == pytest.approx(30.76, abs=0.4)  # 31.25 with white noise
    # The same by hand: the noisy coil and its map over six.
    assert psnr_of_map(phantom_slice, kspace * weights, maps * weights) == pytest.approx(found, abs=0.02)
    assert whitened(noise_covariance(scan)) == pytest.approx(found, abs=0.1)
    assert whitened(corner_noise_covariance(kspace[0])) == pytest.approx(found, abs=0.3)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_with_white_noise_if_the_noisy_coil_is_whitened(phantom_slice, noisy):
    kspace, covariance, std, eta = noisy
    maps, corners = phantom_slice.sensitivity_map, corner_noise_covariance(kspace[0])
    white = fft2(phantom_slice.image[:, None] * maps)
    white = white + (kspace - white) / std[:, None, None]
    expected = coverage_of(phantom_slice, white, maps, eta)
    # Measured: 0.86, and 0.57, 0.85, 0.87, of one slice and one seed.
    assert expected == pytest.approx(0.86, abs=0.04)
    assert coverage_of(phantom_slice, kspace, maps, eta) < 0.65
    for known in (covariance, corners):
        whitened = (prewhitened(array, known) for array in (kspace, maps))
        assert coverage_of(phantom_slice, *whitened, noise_level(known)) == pytest.approx(expected, abs=0.05)


# ---- What is no covariance, and what it cannot be estimated from


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.eye(3), "shape (3, 3); allowed for 4 coils: (4, 4)"),
        (torch.ones(4), "shape (4,)"),
        (torch.eye(4) + torch.eye(4, 4).roll(1, 0), "conjugate transpose by 1; allowed: a Hermitian"),
        (1j * torch.eye(4), "conjugate transpose"),
        (torch.diag(torch.tensor([1.0, 1, 1, -1])), "eigenvalues from -1 to 1; allowed: a positive definite"),
        (torch.diag(torch.tensor([1.0, 1, 1, 0])), "eigenvalues from 0 to 1"),
        (torch.zeros(4, 4), "eigenvalues from 0 to 0"),
        (torch.full((4, 4), torch.nan), "NaN or infinite"),
        (torch.diag(torch.tensor([1.0, 1, 1, torch.inf])), "NaN or infinite"),
    ],
)
def test_what_is_no_covariance_is_one_line(draw, one_line_error, wrong, message):
    with one_line_error("covariance", "allowed", message):
        prewhitened(draw(4, 8, 8), wrong)


def test_what_no_covariance_can_be_estimated_from_is_one_line(draw, one_line_error):
    with one_line_error("39 samples of 4 coils", ">= 10 a coil"):
        noise_covariance(draw(4, 39))
    for wrong in (draw(4), draw(4, 100).real):
        with one_line_error("noise has shape", "allowed: complex (coil, samples)"):
            noise_covariance(wrong)
    with one_line_error("NaN"):
        noise_covariance(draw(4, 100) * torch.nan)
    with one_line_error("20 samples of noise", "4 coils: >= 40"):
        corner_noise_covariance(draw(4, 32, 32))
    with one_line_error("0 samples of noise"):
        corner_noise_covariance(draw(4, 32, 32) * 0)
    with one_line_error("kspace has shape", "allowed: complex (coil, height, width)"):
        corner_noise_covariance(draw(1, 4, 32, 32))
    with one_line_error("hold signal", "correlation of 1.00", "noise scan"):
        corner_noise_covariance(draw(1, 64, 64).expand(4, 64, 64) + 0.01 * draw(4, 64, 64))
    with one_line_error("coils have shape"):
        prewhitened(draw(4, 4), torch.eye(4))
