"""The centred orthonormal Fourier transform against its definition."""

import cmath
import itertools
import math

import pytest
import torch

from direct_deepen.physics import SenseOperator
from direct_deepen.physics.fourier import FourierConvention, fft, fft2, ifft, ifft2, squared_radius

SIZES = [(8, 8), (7, 9), (8, 5), (1, 6)]


def centred_dft(length: int) -> torch.Tensor:
    """The matrix of the definition: both indices counted from the sample ``length // 2``."""
    index = range(-(length // 2), length - length // 2)
    rows = [[cmath.exp(-2j * cmath.pi * k * n / length) / math.sqrt(length) for n in index] for k in index]
    return torch.tensor(rows, dtype=torch.complex128)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_fft2_is_the_centred_orthonormal_transform_of_odd_and_even_sizes(draw, height, width):
    image = draw(2, 3, height, width)
    expected = centred_dft(height) @ image @ centred_dft(width).T
    # Rounding of a sum of at most 72 terms of order one in double precision: about 1e-15.
    torch.testing.assert_close(fft2(image), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_ifft2_is_inverse_and_adjoint(draw, height, width):
    image, kspace = draw(2, height, width, seed=0), draw(2, height, width, seed=1)
    torch.testing.assert_close(ifft2(fft2(image)), image, rtol=0, atol=1e-13)  # rounding, as above
    left = torch.vdot(fft2(image).flatten(), kspace.flatten())
    right = torch.vdot(image.flatten(), ifft2(kspace).flatten())
    assert abs(left - right) <= 1e-12 * abs(left)


@pytest.mark.parametrize("axes", [(-1,), (-3, -1), (-3, -2, -1), (-2, -1)], ids=str)
def test_the_transform_of_any_axes_is_that_of_one_after_the_other(draw, axes):
    image = draw(2, 4, 5, 6)
    expected = image
    for axis in axes:
        expected = (expected.movedim(axis, -1) @ centred_dft(image.shape[axis]).T).movedim(-1, axis)
    torch.testing.assert_close(fft(image, axes), expected, rtol=0, atol=1e-13)  # rounding, as above
    torch.testing.assert_close(ifft(fft(image, axes), axes), image, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("axes", "shape"), [((-2, -1), (1, 5, 6)), ((-3, -2, -1), (4, 5, 6)), ((-3, -1), (4, 1, 6))])
def test_the_radius_of_kspace_is_that_of_its_axes_alone(axes, shape):
    radius = squared_radius((4, 5, 6), axes, dtype=torch.float64)
    assert radius.shape == shape
    largest = {-3: 2 / 4, -2: 2 / 5, -1: 3 / 6}
    assert float(radius.max()) == pytest.approx(sum(largest[axis] ** 2 for axis in axes))
    # The centre is where the transform of a constant is.
    constant = fft(torch.ones(4, 5, 6, dtype=torch.complex128), axes).abs()
    assert bool((constant[radius.expand(4, 5, 6) == 0] > 0.5).all())
    assert float(radius.min()) == 0


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_is_kept(draw, dtype):
    image = draw(4, 5, dtype=dtype)
    assert fft2(image).dtype == dtype
    assert ifft2(image).dtype == dtype


# ---- Other conventions

CONVENTIONS = [FourierConvention(*flags) for flags in itertools.product((True, False), repeat=2)]


def transform(convention: FourierConvention, image: torch.Tensor) -> torch.Tensor:
    """DIRECT's ``fft2(centered=…, normalized=…)``, in double precision, which it refuses."""
    image = torch.fft.ifftshift(image, dim=(-2, -1)) if convention.centered else image
    kspace = torch.fft.fft2(image, norm="ortho" if convention.normalized else None)
    return torch.fft.fftshift(kspace, dim=(-2, -1)) if convention.centered else kspace


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_rewritten_data_have_the_same_cost_up_to_the_gram_factor(draw, convention, height, width):
    maps, image, kspace = draw(2, 3, height, width), draw(2, height, width, seed=1), draw(2, 3, height, width, seed=2)
    mask = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(3)) < 0.7
    A = SenseOperator(convention.standard_maps(maps), mask)
    # Whichever maps are smoother: the others go with the image times the phase.
    images = image * (A.sensitivity_map[:, 0] / maps[:, 0]).conj() * rewriting(convention, height, width)
    residual = A.forward(images) - mask * convention.standard_kspace(kspace)
    expected = mask * (transform(convention, maps * image[:, None]) - kspace)
    gram = 1 if convention.normalized else height * width
    costs = residual.abs().square().sum(dim=(1, 2, 3)), expected.abs().square().sum(dim=(1, 2, 3)) / gram
    torch.testing.assert_close(*costs, rtol=1e-12, atol=0)  # rounding of double precision


def rewriting(convention: FourierConvention, height: int, width: int) -> torch.Tensor:
    """P of the definition."""
    if convention.centered:
        return torch.ones(height, width, dtype=torch.complex128)
    axes = [torch.arange(size, dtype=torch.float64) * (size // 2) / size for size in (height, width)]
    return torch.exp(-2j * torch.pi * (axes[0][:, None] + axes[1]))


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_rewritten_operator_is_a_phase_times_the_dense_one(draw, convention, height, width):
    maps = draw(1, 2, height, width)
    mask = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(3)) < 0.7
    A = SenseOperator(rewriting(convention, height, width) * maps, mask)
    basis = torch.eye(height * width, dtype=torch.complex128).unflatten(1, (height, width))
    dense = (mask * transform(convention, maps * basis[:, None])).flatten(1).T
    gram = 1 if convention.normalized else height * width
    # The same normal equations, hence the same solutions.
    torch.testing.assert_close(A.normal(basis[:, None])[:, 0].flatten(1).T, dense.mH @ dense / gram, rtol=0, atol=1e-13)
    kspace = draw(1, 2, height, width, seed=4)
    adjoint = (dense.mH @ kspace.flatten() / gram).unflatten(0, (height, width))
    torch.testing.assert_close(A.adjoint(convention.standard_kspace(kspace))[0], adjoint, rtol=0, atol=1e-13)
    # The other way about, an image whose data are b: rewritten, it is the same image.
    torch.testing.assert_close(
        A.forward(basis[:, None])[:, 0].flatten(1),
        convention.standard_kspace(dense.T.unflatten(1, (2, height, width))).flatten(1),
        rtol=0,
        atol=1e-13,
    )


def test_maps_that_are_smooth_stay_and_alternating_ones_become_so():
    convention = FourierConvention(centered=False)
    smooth = torch.ones(2, 3, 8, 9, dtype=torch.complex128)
    assert torch.equal(convention.standard_maps(smooth), smooth)
    alternating = smooth * rewriting(convention, 8, 9).conj()
    torch.testing.assert_close(convention.standard_maps(alternating), smooth, rtol=0, atol=1e-14)
    mixed = torch.stack([smooth[0], alternating[1]])
    torch.testing.assert_close(convention.standard_maps(mixed), smooth, rtol=0, atol=1e-14)


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_rewriting_keeps_precision_and_what_it_is_given(draw, convention):
    kspace = draw(2, 3, 6, 5, dtype=torch.complex64)
    before = kspace.clone()
    assert convention.standard_kspace(kspace).dtype == convention.standard_maps(kspace).dtype == torch.complex64
    assert torch.equal(kspace, before)
