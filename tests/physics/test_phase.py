"""The gauge of coil maps: the same data, the same magnitudes, one phase whatever the maps came with."""

import pytest
import torch

from direct_deepen.physics import SenseOperator, align_phase
from direct_deepen.physics.fourier import fft2

SIZE = 32


@pytest.fixture
def smooth():
    """A smooth object, coil maps and the full sampling mask, complex128."""
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, SIZE, dtype=torch.float64)], indexing="ij")
    body = torch.exp(-(x**2 + y**2) / 0.3)
    maps = torch.stack([torch.exp(-((x - a) ** 2) + 1j * a * y) for a in (-1.0, 0.0, 1.0)])
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    phase = torch.exp(1j * (0.7 + x - 0.5 * x * y))
    return body, maps[None], phase, torch.ones(1, 1, SIZE, SIZE)


def test_the_image_of_smooth_phase_becomes_real_and_positive(smooth):
    body, maps, phase, mask = smooth
    A = SenseOperator(maps, mask)
    kspace = A.forward((body * phase)[None].to(torch.complex128))
    image = align_phase(A, kspace).adjoint(kspace)[0]
    weight = body > 0.1
    # The window smooths the phase a little.
    assert float(image[weight].angle().abs().max()) < 0.15
    torch.testing.assert_close(image.abs(), body, rtol=1e-10, atol=1e-10)


def test_maps_that_differ_by_a_phase_give_the_same_operator(smooth):
    body, maps, phase, mask = smooth
    kspace = SenseOperator(maps, mask).forward(body[None].to(torch.complex128))
    first = align_phase(SenseOperator(maps, mask), kspace)
    second = align_phase(SenseOperator(maps * phase, mask), kspace)
    torch.testing.assert_close(first.sensitivity_map, second.sensitivity_map, rtol=1e-10, atol=1e-10)


def test_the_data_are_explained_by_the_image_of_the_opposite_phase(random_operator, draw):
    A = random_operator(2, 3, 16, 16)
    image = draw(2, 16, 16)
    kspace = A.forward(image)
    aligned = align_phase(A, kspace)
    assert aligned is not A
    phase = (aligned.sensitivity_map * A.sensitivity_map.conj()).sum(dim=1)
    torch.testing.assert_close(phase.abs(), torch.ones_like(phase.abs()), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(aligned.forward(image * phase.conj()), kspace, rtol=1e-10, atol=1e-10)


def test_data_outside_the_mask_change_nothing(random_operator, draw):
    A = random_operator(2, 3, 16, 16)
    kspace = A.forward(draw(2, 16, 16))
    unmasked = kspace + ~A.sampling_mask * draw(2, 3, 16, 16, seed=2)
    assert torch.equal(align_phase(A, unmasked).sensitivity_map, align_phase(A, kspace).sensitivity_map)


def test_no_signal_leaves_the_maps_as_they_are(random_operator):
    A = random_operator(1, 3, 16, 16)
    aligned = align_phase(A, torch.zeros_like(A.sensitivity_map))
    assert torch.equal(aligned.sensitivity_map, A.sensitivity_map)


def test_the_window_is_about_the_centre_of_the_transform(smooth):
    _, maps, _, mask = smooth
    A = SenseOperator(maps, mask)
    constant = torch.full((1, SIZE, SIZE), 1j, dtype=torch.complex128)
    kspace = fft2(constant[:, None] * maps)
    phase = (align_phase(A, kspace).sensitivity_map * maps.conj()).sum(dim=1)
    # The window smooths over the edge of the field of view, where the maps jump.
    inner = (0, slice(8, -8), slice(8, -8))
    torch.testing.assert_close(phase[inner], constant[inner], rtol=0, atol=0.05)


@pytest.mark.parametrize("axes", [(-2, -1), (-3, -2, -1)], ids=["series", "volume"])
def test_the_gauge_of_a_series_or_volume_of_equal_slices_is_that_of_a_slice(smooth, axes):
    body, maps, phase, mask = smooth
    image = (body * phase)[None].to(torch.complex128)
    flat = SenseOperator(2 * maps, mask)
    expected = align_phase(flat, flat.forward(image)).sensitivity_map
    many = [values[:, :, None].expand(-1, -1, 4, -1, -1) for values in (2 * maps, mask)]
    A = SenseOperator(*many, fourier_axes=axes)
    found = align_phase(A, A.forward(image[:, None].expand(-1, 4, -1, -1))).sensitivity_map
    torch.testing.assert_close(found, expected[:, :, None].expand_as(found), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("axes", "sign"), [((-2, -1), -1), ((-3, -2, -1), 1)], ids=["series", "volume"])
def test_along_an_axis_of_kspace_the_phase_is_that_of_the_low_pass_and_along_others_its_own(smooth, axes, sign):
    body, maps, phase, mask = smooth
    A = SenseOperator(*(each[:, :, None].expand(-1, -1, 4, -1, -1) for each in (maps, mask)), fourier_axes=axes)
    alternating = 0.2 + torch.tensor([1.0, -1.0, 1.0, -1.0]).double()[:, None, None]
    first, second = (
        align_phase(A, A.forward((factor * body * phase)[None])) for factor in (1.0 + 0 * alternating, alternating)
    )
    signs = torch.tensor([1, sign, 1, sign])[:, None, None]
    torch.testing.assert_close(second.sensitivity_map, signs * first.sensitivity_map, rtol=0, atol=1e-3)
