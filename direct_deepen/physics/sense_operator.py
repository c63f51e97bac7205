"""The multi-coil forward model A = sampling · Fourier · coils."""

from typing import Self

import torch

from direct_deepen.errors import require

_SPATIAL = (-2, -1)


class SenseOperator:
    r"""SENSE forward model with DIRECT's centred orthonormal Fourier transform.

    .. math:: (Ax)_c = M F (S_c x), \qquad A^H y = \sum_c \bar S_c F^H (M y_c)

    with coil maps S, Fourier transform F and sampling mask M. It equals DIRECT's
    ``apply_mask(fft2(expand_operator(x, S)), M)``, and sigpy's ``Sense`` operator.

    The maps are used as given. Where Σ_c |S_c|² = 1 or 0, as DIRECT's and ESPIRiT maps are and as
    :func:`normalize_sensitivity_map` makes them, ‖A‖ ≤ 1; otherwise ``norm_squared_bound`` says what ‖AᴴA‖ cannot
    exceed.

    Parameters
    ----------
    sensitivity_map
        Complex (batch, coil, height, width), finite.
    sampling_mask
        Real, integer or boolean (batch, 1, height, width), zeros and ones, at least one sample in every image.

    Notes
    -----
    Images have shape (..., batch, height, width), data (..., batch, coil, height, width): extra leading dimensions,
    such as chains, share maps and mask. Nothing given is changed. The shifts of the centred transform are folded into
    maps and mask once, so that ``normal`` shifts images only, never coil images.

    Raises
    ------
    DeepenError
        If shapes or types do not fit, values are not finite, the mask is empty or has values besides 0 and 1; and, by
        the methods, if an image or k-space has not the shape of the maps.
    """

    def __init__(self, sensitivity_map: torch.Tensor, sampling_mask: torch.Tensor) -> None:
        _check_maps_and_mask(sensitivity_map, sampling_mask)
        self.sensitivity_map = sensitivity_map
        self.sampling_mask = sampling_mask
        real_dtype = torch.float64 if sensitivity_map.dtype == torch.complex128 else torch.float32
        self._shifted_map = torch.fft.ifftshift(sensitivity_map, dim=_SPATIAL)
        self._shifted_map_conj = self._shifted_map.conj().resolve_conj()
        self._shifted_mask = torch.fft.ifftshift(sampling_mask, dim=_SPATIAL).to(real_dtype)

    @property
    def norm_squared_bound(self) -> float:
        """An upper bound of ‖AᴴA‖: the largest Σ_c |S_c|² of any pixel (F is unitary, M a projection)."""
        return float((self.sensitivity_map.abs() ** 2).sum(dim=1).max())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Masked k-space Ax of an image; complex (..., batch, height, width) → (..., batch, coil, height, width)."""
        kspace = self._shifted_kspace(image)
        return torch.fft.fftshift(kspace, dim=_SPATIAL)

    def adjoint(self, kspace: torch.Tensor) -> torch.Tensor:
        """Coil-combined image Aᴴy; complex (..., batch, coil, height, width) → (..., batch, height, width)."""
        expected = tuple(self.sensitivity_map.shape)
        require(
            tuple(kspace.shape[-4:]) == expected,
            f"kspace has shape {tuple(kspace.shape)}; allowed with this sensitivity_map: (..., {str(expected)[1:]}",
        )
        return self._combine(torch.fft.ifftshift(kspace, dim=_SPATIAL) * self._shifted_mask)

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """AᴴAx; complex (..., batch, height, width) → the same."""
        return self._combine(self._shifted_kspace(image))

    def select(self, index: torch.Tensor) -> Self:
        """Return the operator of the images ``index`` of the batch."""
        return type(self)(self.sensitivity_map[index], self.sampling_mask[index])

    def fully_sampled(self) -> Self:
        """Return the same operator with every sample of k-space acquired."""
        return type(self)(self.sensitivity_map, torch.ones_like(self.sampling_mask))

    def _shifted_kspace(self, image: torch.Tensor) -> torch.Tensor:
        batch, _, *size = self.sensitivity_map.shape
        require(
            list(image.shape[-3:]) == [batch, *size],
            f"image has shape {tuple(image.shape)}; allowed with this sensitivity_map: "
            f"(..., {batch}, {size[0]}, {size[1]})",
        )
        coil_images = torch.fft.ifftshift(image, dim=_SPATIAL).unsqueeze(-3) * self._shifted_map
        return torch.fft.fft2(coil_images, norm="ortho") * self._shifted_mask

    def _combine(self, shifted_kspace: torch.Tensor) -> torch.Tensor:
        coil_images = torch.fft.ifft2(shifted_kspace, norm="ortho")
        return torch.fft.fftshift((coil_images * self._shifted_map_conj).sum(dim=-3), dim=_SPATIAL)


def normalize_sensitivity_map(sensitivity_map: torch.Tensor) -> torch.Tensor:
    """Scale coil maps (batch, coil, height, width) so that Σ_c |S_c|² = 1 where any is non-zero, 0 elsewhere."""
    norm = torch.linalg.vector_norm(sensitivity_map, dim=1, keepdim=True)
    return torch.where(norm > 0, sensitivity_map / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0)


def _check_maps_and_mask(sensitivity_map: torch.Tensor, sampling_mask: torch.Tensor) -> None:
    maps, mask = tuple(sensitivity_map.shape), tuple(sampling_mask.shape)
    require(
        len(maps) == 4 and sensitivity_map.is_complex(),
        f"sensitivity_map has shape {maps} and dtype {sensitivity_map.dtype}; "
        "allowed: complex (batch, coil, height, width)",
    )
    require(not sampling_mask.is_complex(), f"sampling_mask has dtype {sampling_mask.dtype}; allowed: real or boolean")
    require(
        mask == (maps[0], 1, *maps[2:]),
        f"sampling_mask has shape {mask}; allowed with sensitivity_map of shape {maps}: {(maps[0], 1, *maps[2:])}",
    )
    require(
        bool(torch.isfinite(sensitivity_map).all()),
        "sensitivity_map has NaN or infinite values; allowed: finite values",
    )
    require(
        bool(((sampling_mask == 0) | (sampling_mask == 1)).all()),
        "sampling_mask has values besides 0 and 1; allowed: a boolean mask, or zeros and ones",
    )
    empty = (~(sampling_mask != 0).flatten(1).any(dim=1)).nonzero().flatten().tolist()
    require(
        not empty, f"sampling_mask is zero everywhere for images {empty} of the batch; allowed: at least one sample"
    )
