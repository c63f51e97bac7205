"""Centred orthonormal two-dimensional Fourier transform, DIRECT's ``fft2``/``ifft2`` on complex tensors."""

import torch

_SPATIAL = (-2, -1)


def fft2(image: torch.Tensor) -> torch.Tensor:
    """Centred orthonormal FFT over the last two dimensions of a complex tensor of any precision and parity."""
    shifted = torch.fft.ifftshift(image, dim=_SPATIAL)
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=_SPATIAL)


def ifft2(kspace: torch.Tensor) -> torch.Tensor:
    """Inverse, and adjoint, of :func:`fft2`."""
    shifted = torch.fft.ifftshift(kspace, dim=_SPATIAL)
    return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=_SPATIAL)
