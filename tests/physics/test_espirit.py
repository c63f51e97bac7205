"""ESPIRiT maps of a smooth object with known coil maps."""

import math

import numpy as np
import pytest
import sigpy
import sigpy.mri.app
import torch

from direct_deepen.physics import SenseOperator, normalize_sensitivity_map
from direct_deepen.physics.espirit import (
    KERNEL_WIDTH,
    LARGEST_CALIBRATION,
    VIRTUAL_COILS,
    calibration_width,
    espirit_maps,
)
from direct_deepen.physics.fourier import fft2, ifft2

SIZE, COILS, CENTRE = 32, 6, 16


def coordinates() -> tuple[torch.Tensor, torch.Tensor]:
    axis = (torch.arange(SIZE) - SIZE // 2) / SIZE
    return axis[:, None], axis[None, :]


def smooth_object() -> torch.Tensor:
    """An ellipse with a soft edge, structure and a smooth phase: (size, size)."""
    y, x = coordinates()
    radius = ((y / 0.36) ** 2 + (x / 0.3) ** 2).sqrt()
    magnitude = torch.sigmoid((1 - radius) * 40) * (1 + 0.5 * torch.cos(20 * y) * torch.cos(17 * x))
    return torch.polar(magnitude, 2.0 * y - 3.0 * x)


def smooth_maps() -> torch.Tensor:
    """Coils around the object: (coil, size, size)."""
    y, x = coordinates()
    maps = []
    for coil in range(COILS):
        angle = 2 * math.pi * coil / COILS
        distance = (y - 0.5 * math.sin(angle)) ** 2 + (x - 0.5 * math.cos(angle)) ** 2
        maps.append(torch.polar(torch.exp(-distance / 0.3), angle + 1.5 * (y * math.sin(angle) - x * math.cos(angle))))
    return normalize_sensitivity_map(torch.stack(maps)[None])[0]


def centre_mask(height: int, width: int, rows: int, columns: int) -> torch.Tensor:
    """A fully sampled centre placed as DIRECT places it, and nothing else."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    top, left = (height - rows + 1) // 2, (width - columns + 1) // 2
    mask[top : top + rows, left : left + columns] = True
    return mask


@pytest.fixture(scope="module")
def coil_images() -> torch.Tensor:
    return smooth_maps() * smooth_object()


@pytest.fixture(scope="module")
def mask() -> torch.Tensor:
    """A fully sampled centre, and every second column outside it."""
    mask = centre_mask(SIZE, SIZE, CENTRE, CENTRE)
    mask[:, ::2] = True
    return mask


@pytest.fixture(scope="module")
def maps(coil_images, mask) -> torch.Tensor:
    return espirit_maps(fft2(coil_images) * mask, mask)


@pytest.fixture(scope="module")
def inside() -> torch.Tensor:
    return smooth_object().abs() > 0.3


def test_sum_of_squares_is_one_in_the_object_and_one_or_zero_elsewhere(maps, inside):
    squares = (maps.abs() ** 2).sum(dim=0)
    # Single precision, normalised by sigpy: a few roundings of 6e-8.
    assert bool(((squares - 1).abs() <= 1e-5)[inside].all())
    assert bool(((squares - 1).abs().minimum(squares) <= 1e-5).all())


def test_maps_explain_the_coil_images(maps, coil_images, inside):
    combined = (maps.conj() * coil_images).sum(dim=0)
    residual = torch.linalg.vector_norm((maps * combined - coil_images)[:, inside])
    # What the maps cannot explain of the noise-free coil images: measured 0.3 %. Maps of constant phase, or shifted by
    # a pixel, leave far more.
    assert float(residual / torch.linalg.vector_norm(coil_images[:, inside])) <= 0.01


def test_phase_between_coils_is_kept_so_the_combined_image_has_the_root_sum_of_squares(maps, coil_images, inside):
    combined = (maps.conj() * coil_images).sum(dim=0).abs()
    root_sum_of_squares = torch.linalg.vector_norm(coil_images, dim=0)
    # Cauchy and Schwarz: never more; less by the part the maps do not explain, measured 0.0001 at the worst pixel.
    # Maps that had lost the phases between coils would leave far less.
    assert bool((combined <= root_sum_of_squares * (1 + 1e-5)).all())
    assert float((combined / root_sum_of_squares)[inside].min()) >= 0.998
    without_phases = (maps.abs() * coil_images).sum(dim=0).abs()
    assert float((without_phases / root_sum_of_squares)[inside].median()) < 0.9


def test_maps_equal_the_true_ones_up_to_a_phase_common_to_all_coils(maps, inside):
    common = (maps.conj() * smooth_maps()).sum(dim=0)
    assert float(common.abs()[inside].min()) >= 0.998  # one for parallel vectors, measured 0.0001 less


def test_maps_fit_the_sense_operator(maps, mask):
    A = SenseOperator(maps[None], mask[None, None])
    assert A.norm_squared_bound <= 1 + 1e-5  # single precision


@pytest.mark.usefixtures("global_generators_untouched")
def test_maps_are_reproducible_of_the_precision_of_the_data_and_leave_them_alone(coil_images, mask, maps):
    kspace = (fft2(coil_images) * mask).to(torch.complex128)
    copy = kspace.clone()
    again = espirit_maps(kspace, mask)
    assert again.dtype == torch.complex128
    assert again.shape == maps.shape
    assert torch.equal(kspace, copy)
    assert torch.equal(again.to(torch.complex64), maps)  # both computed in single precision


def test_uncentred_samples_do_not_calibrate(coil_images, mask, maps):
    # Samples outside the calibration square are not looked at.
    only_centre = centre_mask(SIZE, SIZE, CENTRE, CENTRE)
    assert torch.equal(espirit_maps(fft2(coil_images) * only_centre, only_centre), maps)


# ---- The calibration square


@pytest.mark.parametrize("side", [1, 6, 7, 12, 13])
@pytest.mark.parametrize("height", [24, 25])
@pytest.mark.parametrize("width", [24, 25, 31])
def test_calibration_square_is_fully_sampled_where_sigpy_takes_it(height, width, side):
    mask = centre_mask(height, width, side, side)
    found = calibration_width(mask)
    square = sigpy.resize(mask.numpy(), [found, found])  # the call of sigpy's EspiritCalib
    assert bool(square.all())
    # A side that is even in an image that is odd has a sample more on one side of the centre than on the other, and
    # DIRECT and sigpy differ in which; one line is lost then.
    assert found in (side, side - 1)
    if side % 2 or (height % 2 == 0 and width % 2 == 0):
        assert found == side


def test_calibration_width_is_that_of_the_narrower_side_and_of_any_mask_type():
    mask = centre_mask(32, 32, 20, 9)
    assert calibration_width(mask) == 9
    assert calibration_width(mask.float()) == 9
    assert calibration_width(torch.zeros(8, 8)) == 0
    assert calibration_width(torch.ones(8, 10)) == 8


def test_wide_centres_cost_no_more_than_the_largest_calibration(draw, monkeypatch):
    seen = {}

    class Recorder:
        def __init__(self, kspace: np.ndarray, **options: int) -> None:
            seen.update(options)
            self.maps = kspace

        def run(self) -> np.ndarray:
            return self.maps

    monkeypatch.setattr("sigpy.mri.app.EspiritCalib", Recorder)
    espirit_maps(draw(2, 40, 40, dtype=torch.complex64), torch.ones(40, 40))
    assert seen["calib_width"] == LARGEST_CALIBRATION


@pytest.mark.parametrize("side", [0, 1, KERNEL_WIDTH - 1])
def test_centre_narrower_than_the_kernel_is_refused(coil_images, one_line_error, side):
    mask = centre_mask(SIZE, SIZE, side, side)
    mask[0] = True
    with one_line_error("fully sampled centre", f"is {side} samples", f">= {KERNEL_WIDTH}"):
        espirit_maps(fft2(coil_images) * mask, mask)


def test_a_centre_some_samples_wider_than_the_kernel_is_accepted(coil_images, inside):
    mask = centre_mask(SIZE, SIZE, KERNEL_WIDTH + 4, KERNEL_WIDTH + 4)
    maps = espirit_maps(fft2(coil_images) * mask, mask)
    assert bool(torch.isfinite(torch.view_as_real(maps)).all())


def test_zero_filled_images_of_the_maps_agree_with_the_operator(maps, coil_images, mask):
    # The same convention of the transform in maps and operator: Aᴴb is the combination of zero-filled coil images.
    kspace = fft2(coil_images) * mask
    A = SenseOperator(maps[None], mask[None, None])
    expected = (maps.conj() * ifft2(kspace)).sum(dim=0)
    torch.testing.assert_close(A.adjoint(kspace[None])[0], expected, rtol=0, atol=1e-6)  # single precision


def test_a_centre_too_narrow_for_so_many_coils_is_refused_instead_of_maps_of_zeros(draw, one_line_error):
    # A square of 7×7 holds four positions of the kernel: far fewer than the dimensions of 16 coils.
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[5:12, 5:12] = True
    kspace = draw(16, 16, 16, dtype=torch.complex64) * mask
    with one_line_error("ESPIRiT finds no coil map", "7 samples", "16 coils", "compress_coils"):
        espirit_maps(kspace, mask)


# ---- Many coils


def ring_maps(num_coils: int) -> torch.Tensor:
    """So many coils around the object: (coil, size, size)."""
    y, x = coordinates()
    angles = [2 * math.pi * coil / num_coils for coil in range(num_coils)]
    distances = [(y - 0.5 * math.sin(angle)) ** 2 + (x - 0.5 * math.cos(angle)) ** 2 for angle in angles]
    maps = [torch.polar(torch.exp(-d / 0.3), 3 * angle + x) for d, angle in zip(distances, angles, strict=True)]
    return normalize_sensitivity_map(torch.stack(maps)[None])[0]


@pytest.mark.parametrize("num_coils", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_many_coils_are_combined_to_few_and_get_maps_of_their_own(monkeypatch, mask, inside, num_coils):
    seen = []
    estimate = sigpy.mri.app.EspiritCalib.__init__

    def watched(self, kspace, **keywords):
        seen.append(len(kspace))
        estimate(self, kspace, **keywords)

    monkeypatch.setattr(sigpy.mri.app.EspiritCalib, "__init__", watched)
    true = ring_maps(num_coils)
    maps = espirit_maps(fft2(true * smooth_object()) * mask, mask)
    # Time and memory of sigpy are those of so many coils, however many there are.
    assert seen == [VIRTUAL_COILS]
    assert maps.shape == true.shape
    # One for parallel vectors: what the combination leaves out costs nothing that is seen here, measured 0.0002 less.
    assert float((maps.conj() * true).sum(dim=0).abs()[inside].min()) >= 0.998
    squares = (maps.abs() ** 2).sum(dim=0)
    assert bool(((squares - 1).abs() <= 1e-5)[inside].all())


def test_the_combination_of_coils_leaves_fewer_coils_alone(coil_images, mask, maps, monkeypatch):
    assert VIRTUAL_COILS > COILS
    monkeypatch.setattr("direct_deepen.physics.espirit.VIRTUAL_COILS", COILS)
    assert torch.equal(espirit_maps(fft2(coil_images) * mask, mask), maps)
    monkeypatch.setattr("direct_deepen.physics.espirit.VIRTUAL_COILS", COILS - 1)
    assert not torch.equal(espirit_maps(fft2(coil_images) * mask, mask), maps)
