"""The centred orthonormal Fourier transform against its definition."""

import cmath
import math

import pytest
import torch

from direct_deepen.physics.fourier import fft2, ifft2

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


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_precision_is_kept(draw, dtype):
    image = draw(4, 5, dtype=dtype)
    assert fft2(image).dtype == dtype
    assert ifft2(image).dtype == dtype
