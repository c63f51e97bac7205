"""Centred orthonormal Fourier transform, DIRECT's ``fft2``/``ifft2`` on complex tensors, and that of more axes.

It is the only one in this package: k-space of another convention is rewritten by :class:`FourierConvention`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_SPATIAL = (-2, -1)


def fft(image: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Centred orthonormal FFT over some axes, one or more, of a complex tensor of any precision and parity."""
    dim = tuple(axes)
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(image, dim=dim), dim=dim, norm="ortho"), dim=dim)


def ifft(kspace: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    """Inverse, and adjoint, of :func:`fft`."""
    dim = tuple(axes)
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(kspace, dim=dim), dim=dim, norm="ortho"), dim=dim)


def fft2(image: torch.Tensor) -> torch.Tensor:
    """Centred orthonormal FFT over the last two dimensions: :func:`fft`."""
    return fft(image, _SPATIAL)


def ifft2(kspace: torch.Tensor) -> torch.Tensor:
    """Inverse, and adjoint, of :func:`fft2`."""
    return ifft(kspace, _SPATIAL)


def squared_radius(
    size: Sequence[int],
    axes: Sequence[int] = _SPATIAL,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return |k|² of centred k-space of an image of ``size``, in cycles per pixel along ``axes``, which are negative.

    Real, of as many axes as the size has; those that k-space does not have are of length one.
    """
    squares = torch.zeros((), dtype=dtype, device=device)
    for axis in axes:
        frequency = (torch.arange(size[axis], dtype=dtype, device=device) - size[axis] // 2) / size[axis]
        squares = squares + frequency.square().reshape(-1, *[1] * (-axis - 1))
    return squares.reshape(*[1] * (len(size) - squares.ndim), *squares.shape)


@dataclass(frozen=True)
class FourierConvention:
    r"""The arguments ``centered`` and ``normalized`` of the transform G that k-space was written with.

    The middle of the array is the centre of k-space in all of them, as it is in DIRECT's masks and in the
    Calgary-Campinas data. Along an axis of n samples with middle c = n // 2, shifting by c is multiplying by a phase in
    the other domain, so that

    .. math:: F(P x) = Q\, G x, \qquad P_r = e^{-2\pi i r c/n}, \qquad
              Q_k = |Q| \, e^{2\pi i (k - c) c/n}, \qquad |Q| = 1 \text{ or, not normalized, } n^{-1/2}

    with F the centred orthonormal transform, and P = 1, and Q without its phase, where G is centred. For even n the
    phases are alternating signs. Q commutes with any mask M, so with b' = Qb and maps S' = PS

    .. math:: \|M F S' x - b'\| = |Q| \, \|M G S x - b\|

    holds for every x: rewritten data have the same images, masks and coil maps but for phases, and noise of
    independent samples, in the unit of the image. Costs and noise levels are those of F in every convention.
    """

    centered: bool = True
    normalized: bool = True

    def standard_kspace(self, kspace: torch.Tensor) -> torch.Tensor:
        """Rewrite k-space, complex (..., height, width), for :func:`fft2`: Qb."""
        height, width = kspace.shape[-2:]
        if not self.centered:
            rows, columns = ((torch.arange(size) - size // 2) * (size // 2) for size in (height, width))
            kspace = kspace * _phases(rows, columns, kspace)
        return kspace if self.normalized else kspace / math.sqrt(height * width)

    def standard_maps(self, maps: torch.Tensor) -> torch.Tensor:
        """Rewrite coil maps, complex (..., coil, height, width), for :func:`fft2`: PS, or S where that is smoother.

        Maps that DIRECT estimates contain the conjugate of P, and its images do not. Constant maps, and some from
        elsewhere, leave it to the image: they stay, and go with Px, which has no alternating signs.
        """
        if self.centered:
            return maps
        rows, columns = (-torch.arange(size) * (size // 2) for size in maps.shape[-2:])
        rewritten = maps * _phases(rows, columns, maps)
        return torch.where(_roughness(rewritten) <= _roughness(maps), rewritten, maps)


def _phases(rows: torch.Tensor, columns: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return e^{2πi(r/height + c/width)} of whole numbers r and c, which are reduced before they are rounded."""
    first, second = (2 * math.pi * (turns % len(turns)).double() / len(turns) for turns in (rows, columns))
    angle = first[:, None] + second
    return torch.polar(torch.ones_like(angle), angle).to(like)


def _roughness(maps: torch.Tensor) -> torch.Tensor:
    squares = (maps.diff(dim=axis).abs().square().sum(dim=(-3, -2, -1), keepdim=True) for axis in _SPATIAL)
    return sum(squares, torch.zeros((), device=maps.device))
