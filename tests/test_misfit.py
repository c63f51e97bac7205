"""Figures that show a result not to be trusted: closed forms, who is flagged and who is not, and where it is said."""

import h5py
import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from direct_deepen import SenseOperator, align_phase, intensity_scale, load_pretrained, misfit, mm_map, sense
from direct_deepen.data.phantom import brain_volume
from direct_deepen.pages.posterior_view import posterior_view
from direct_deepen.physics import complex_normal
from direct_deepen.physics.fourier import fft2, ifft2
from direct_deepen.physics.scale import full_sampling_scale
from direct_deepen.posterior.misfit import ENERGY, LIMITS, energy_of_object, exceeded, measured_band
from direct_deepen.posterior.posterior_file import misfit_text, read_posterior

SIZE = 64
ETA = 0.007
"""Noise of the phantoms per real component, in scaled intensities."""


def box(rows, columns, size=SIZE):
    mask = torch.zeros(1, 1, size, size)
    mask[..., rows, columns] = 1
    return mask


def lines(centre=10):
    """Every fourth line and so many about the centre; 5 are fastMRI's 8 %."""
    mask = box(slice(None), slice((SIZE - centre) // 2, (SIZE + centre) // 2))
    mask[..., ::4] = 1
    return mask


# ---- Closed forms


def test_the_share_beyond_the_band_is_that_of_the_plane_waves_there():
    kspace = torch.zeros(1, SIZE, SIZE, dtype=torch.complex128)
    # Of squared amplitudes 9, 4 and 3 the last two lie beyond |k| <= 16: one by its row, one by its column.
    kspace[0, 40, 30], kspace[0, 60, 32], kspace[0, 32, 4] = 3, 2j, 3**0.5
    A = SenseOperator(torch.ones(1, 1, SIZE, SIZE, dtype=torch.complex128), box(slice(16, 48), slice(16, 48)))
    image = ifft2(kspace)
    figures = misfit(A, A.forward(image), image, image, 0.01)
    torch.testing.assert_close(figures.outside_band, torch.tensor([7 / 16], dtype=torch.float64))
    # The same image in the place of SENSE's, and data that are its own.
    assert (float(figures.brightness), float(figures.departure), float(figures.residual)) == (1, 0, 0)
    assert figures.energy_per_pixel is None


def test_brightness_and_departure_of_a_multiple_of_the_sense_image():
    A = SenseOperator(torch.ones(1, 1, 8, 8, dtype=torch.complex128), torch.ones(1, 1, 8, 8))
    image = complex_normal((1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    figures = misfit(A, A.forward(image), 3 * image, image, 0.01)
    torch.testing.assert_close(figures.brightness, torch.tensor([3.0], dtype=torch.float64))
    torch.testing.assert_close(figures.departure, torch.tensor([4.0], dtype=torch.float64))


def test_fully_sampled_data_have_the_figures_of_what_was_measured(draw):
    maps, image = draw(1, 3, 16, 16), draw(1, 16, 16, seed=1)
    A = SenseOperator(maps, box(slice(4, 12), slice(4, 12), 16))
    b = A.forward(image) + A.sampling_mask * 0.01
    figures, unmasked = (misfit(A, data, image, image, 0.01).arrays() for data in (b, b + (1 - A.sampling_mask)))
    assert all(torch.equal(figures[name], unmasked[name]) for name in figures)


def test_the_residual_of_the_truth_is_one_within_its_standard_error():
    generator = torch.Generator().manual_seed(0)
    maps = complex_normal((2, 4, SIZE, SIZE), generator=generator)
    A = SenseOperator(maps, lines().expand(2, -1, -1, -1))
    image = complex_normal((2, SIZE, SIZE), generator=generator)
    b = A.forward(image) + ETA * complex_normal(maps.shape, generator=generator) * A.sampling_mask
    residual = misfit(A, b, image, image, 2**0.5 * ETA).residual
    samples = 4 * int(lines().sum())
    # ‖n‖² of N complex samples is 2Nη² ± 2√N η².
    torch.testing.assert_close(residual, torch.ones(2), rtol=0, atol=4 / samples**0.5)


def test_the_band_reaches_the_edges_of_masks_that_do_and_follows_an_ellipse():
    assert bool(measured_band(torch.ones(1, 64, 48)).all())
    assert bool(measured_band(lines()[:, 0]).all())
    # The half that partial Fourier leaves out has its mirror image there, but for the row at half the sampling rate.
    assert bool(measured_band(box(slice(24, None), slice(None))[:, 0])[:, 1:].all())
    centred = torch.arange(64) - 32
    disc = (centred[:, None] ** 2 + centred**2 <= 20**2)[None]
    assert torch.equal(measured_band(disc), disc)


def test_an_operator_without_a_mask_measures_everything():
    class Identity:
        def forward(self, image):
            return image

        adjoint = normal = forward

    image = complex_normal((1, 8, 8), generator=torch.Generator().manual_seed(0))
    assert float(misfit(Identity(), image, image, image, 0.01).outside_band) == 0


# ---- Who is flagged


def figures_of(kspace, maps, mask):
    A, b = align_phase(SenseOperator(maps, mask), kspace * mask), kspace * mask
    b = b / intensity_scale(A, b)[:, None, None, None]
    energy, start = load_pretrained("brain_phantom_2d4x"), sense(A, b)
    return misfit(A, b, mm_map(A, b, energy, init=start).image, start, 2**0.5 * ETA, energy)


@pytest.fixture(scope="module")
def head():
    """A phantom of one slice: its k-space with noise of η, and its coil maps."""
    volume = brain_volume(np.random.default_rng([3, 0]), num_slices=1, size=SIZE, num_coils=8)
    return torch.from_numpy(volume.kspace), torch.from_numpy(volume.sensitivity_map)[None]


def radius():
    axis = torch.linspace(-1, 1, SIZE)
    return (axis[:, None] ** 2 + axis**2).sqrt()


OBJECTS = {
    "bottle": lambda: 1 / (1 + torch.exp(15 * (radius() - 0.85))),
    "broad Gaussian": lambda: torch.exp(-(radius() ** 2) / 0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bottle", "broad Gaussian"])
def test_structures_invented_beyond_zero_filled_kspace_are_flagged(name, head):
    image, maps = OBJECTS[name]().to(torch.complex64)[None], head[1]
    kspace = fft2(image[:, None] * maps)
    kspace = kspace + ETA * complex_normal(kspace.shape, generator=torch.Generator().manual_seed(0))
    figures = figures_of(kspace, maps, box(slice(16, 48), slice(16, 48)))
    assert bool(figures.flagged)
    # Measured: 0.28 and 0.50, 6.8 and 4.8.
    assert float(figures.outside_band) > 0.2
    assert float(figures.brightness) > 4


def test_a_head_that_wraps_with_one_set_of_maps_is_flagged(head):
    kspace, maps = head
    # Every second row: the head folded onto half the field of view, each half with coils of its own; the maps of one
    # of them are all that a single set has.
    folded, upper = kspace[:, :, ::2], maps[:, :, SIZE // 4 : 3 * SIZE // 4]
    figures = figures_of(folded, upper, lines()[:, :, ::2])
    assert bool(figures.flagged)
    assert float(figures.residual) > LIMITS["residual"]


def test_lines_on_one_coil_are_flagged(head):
    kspace, maps = head
    combined = fft2((ifft2(kspace) * maps.conj()).sum(dim=1, keepdim=True))
    figures = figures_of(combined, torch.ones(1, 1, SIZE, SIZE, dtype=torch.complex64), lines(5))
    assert bool(figures.flagged)
    assert float(figures.departure) > LIMITS["departure"]


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (5, 8))])
@pytest.mark.parametrize("mask", [lines(), box(slice(16, 48), slice(16, 48)), box(slice(16, None), slice(None))])
def test_ordinary_phantoms_are_not(seed, mask):
    volume = brain_volume(np.random.default_rng([seed, 0]), num_slices=1, size=SIZE, num_coils=8)
    figures = figures_of(torch.from_numpy(volume.kspace), torch.from_numpy(volume.sensitivity_map)[None], mask)
    assert not bool(figures.flagged), figures


# ---- The energy of the object


class Norm:
    """E(x) = ½‖x‖² + 7."""

    def value_and_grad(self, image):
        return 0.5 * image.abs().square().sum(dim=(1, 2)) + 7, image


def test_the_energy_is_that_of_the_object_over_its_pixels():
    square = torch.zeros(2, 32, 32, dtype=torch.complex64)
    square[0, 8:24, 8:24] = 1j
    # The means of 7×7 pixels are n/49 at the corners beside the square; their mean, weighted by itself, (13.71/16)² =
    # 0.735. A twentieth of it is more than 1/49 and less than 2/49: the square, three pixels around it, but no corner.
    expected = torch.tensor([0.5 * 16**2 / (22**2 - 4), 0])
    torch.testing.assert_close(energy_of_object(Norm(), square), expected)


def test_air_beside_the_head_changes_no_energy_and_no_verdict(head):
    kspace, maps = head
    image = (ifft2(kspace) * maps.conj()).sum(dim=1)
    image = image / full_sampling_scale(kspace)[:, None, None]
    energy, margin = load_pretrained("brain_phantom_2d4x"), (SIZE // 2,) * 4
    noise = 2**0.5 * ETA * complex_normal((1, 2 * SIZE, 2 * SIZE), generator=torch.Generator().manual_seed(0))
    around = pad(image, margin)
    noisy = around + noise * (pad(torch.ones(SIZE, SIZE), margin) == 0)
    expected, *others = (energy_of_object(energy, x) for x in (image, around, noisy, pad(image, (0, 0, *margin[:2]))))
    # Measured: 0.2 % for zeros, at the edges of the smaller field, and a pixel more of 2,000 for noise. E per pixel of
    # all the field was 0.29, 1.01 and 0.53 times as large.
    for other in others:
        torch.testing.assert_close(other, expected, rtol=0.01, atol=0)
    # Just below and just above the limit of training, which has seen half this energy and a hundredth less.
    for factor, verdict in ((1.98, False), (2.02, True)):
        seen = (float(expected) / factor, 0.0)
        figures = [exceeded({ENERGY: np.asarray(x)}, seen) for x in (expected, *others)]
        assert [bool(found) for found in figures] == [verdict] * 4


# ---- Where it is said


def test_limits_are_of_the_slices_beyond_them_and_of_the_energies_of_training():
    figures = {"residual": np.array([0.9, 50.0, np.nan]), ENERGY: np.array([1.0, 1.4, 2.1])}
    assert exceeded(figures) == {"residual": (LIMITS["residual"], [1, 2])}
    assert exceeded(figures, (1.0, 0.1))[ENERGY] == (2.0, [2])
    assert ENERGY not in exceeded(figures, (1.0, 0.3))
    assert exceeded({}) == {}


@pytest.fixture
def posterior_file(tmp_path):
    path = tmp_path / "head.posterior.h5"
    with h5py.File(path, "w") as file:
        file["map"] = np.ones((3, 4, 4), dtype=np.complex64)
        file["scale"] = np.ones(3, dtype=np.float32)
    return path


def test_a_file_without_these_figures_is_read_without_a_word(posterior_file):
    assert misfit_text(posterior_file) == ""
    assert "not to be trusted" not in posterior_view(read_posterior(posterior_file)).text()


def test_line_and_page_name_slices_and_figures(posterior_file):
    with h5py.File(posterior_file, "a") as file:
        file["brightness"] = np.array([1.0, 7.4, 2.0], dtype=np.float32)
        file[ENERGY] = np.array([1e-5, 1e-5, 9e-5], dtype=np.float32)
        file.attrs["training_energy"] = [1e-5, 1e-6]
    assert misfit_text(posterior_file) == (
        "head.h5: not to be trusted: brightness up to 7.4, above 1.6 (values that the prior made up), in slices 2, 3; "
        "energy_per_pixel up to 9e-05, above 2e-05 (what training never saw, or more noise), in slice 3."
    )
    first, second, third = posterior_view(read_posterior(posterior_file)).statistics
    assert "not to be trusted" not in first
    assert second["not to be trusted"] == "largest value, of SENSE's 7.4, above 1.6 (values that the prior made up)"
    assert third["not to be trusted"].endswith(
        "; E per pixel 9e-05, above 2e-05 (what training never saw, or more noise)"
    )
