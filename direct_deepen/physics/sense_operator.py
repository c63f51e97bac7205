"""The multi-coil forward model A = sampling · Fourier · coils, and what coil maps are to be."""

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import torch

from direct_deepen.errors import require
from direct_deepen.physics.fourier import fft, ifft, ifft2, squared_radius
from direct_deepen.physics.per_image import per_image
from direct_deepen.physics.sense import within_mask

_CPU_SAMPLES, _GPU_SAMPLES = 2**19, 2**27
"""Complex numbers processed at once: the size of the last cache on a CPU, one GiB on a GPU."""

_WINDOW_STD = 0.075
"""Standard deviation of the low-pass window, in samples over the matrix size."""

ROUNDING = 1e-3
"""Up to which Σ|S|² = 1 of maps that were stored or resampled is meant to be one."""


class SenseOperator:
    r"""SENSE forward model with DIRECT's centred orthonormal Fourier transform.

    .. math:: (Ax)_c = M F (S_c x), \qquad A^H y = \sum_c \bar S_c F^H (M y_c)

    with coil maps S, Fourier transform F and sampling mask M. It equals DIRECT's
    ``apply_mask(fft2(expand_operator(x, S)), M)``, and sigpy's ``Sense`` operator.

    The maps are used as given. Where Σ_c |S_c|² = 1 or 0, as DIRECT's and ESPIRiT maps are and as
    :func:`normalize_sensitivity_map` makes them, ‖A‖ ≤ 1; ``norm_squared_bound`` is the bound for others. Energies
    expect maps in that unit, or with that on average: :func:`align_phase` sees to it.

    Images have shape (..., batch, height, width), data (..., batch, coil, height, width): extra leading dimensions,
    such as chains, share maps and mask. Arguments are never modified; others than these are a :class:`DeepenError`.

    Images of more dimensions have them before height and width. A volume is (batch, depth, height, width), with
    ``fourier_axes`` (-3, -2, -1). A series is (batch, time, height, width): its frames have a Fourier transform and a
    mask each, and maps that have one for all of them, (batch, coil, 1, height, width), or their own.

    All methods take a few coils at a time, so that temporary memory does not grow with the number of coils. ``normal``
    needs no shifts, as these multiply the Fourier transform by phases, which commute with the mask and cancel; nor does
    it transform along an axis on which the mask is constant, where the transform and its inverse cancel.

    Parameters
    ----------
    sensitivity_map
        Complex (batch, coil, height, width), finite; of volumes and series (batch, coil, ..., height, width).
    sampling_mask
        Real, integer or boolean (batch, 1, height, width), zeros and ones, at least one sample in every image; of
        volumes and series (batch, 1, ..., height, width).
    fourier_axes
        Axes of an image, counted from its end, along which data are k-space: (-2, -1), and (-3, -2, -1) of volumes.
    """

    takes_leading_dimensions = True

    def __init__(
        self, sensitivity_map: torch.Tensor, sampling_mask: torch.Tensor, *, fourier_axes: Sequence[int] = (-2, -1)
    ) -> None:
        self.fourier_axes = tuple(fourier_axes)
        _check_maps_and_mask(sensitivity_map, sampling_mask, self.fourier_axes)
        self.sensitivity_map = sensitivity_map
        real_dtype = torch.float64 if sensitivity_map.dtype == torch.complex128 else torch.float32
        self.sampling_mask, self._mask = sampling_mask, sampling_mask.to(real_dtype)
        self._shifted_mask = torch.fft.ifftshift(self._mask, dim=self.fourier_axes)
        self._masked_axes = _axes_that_vary(sampling_mask, self.fourier_axes)
        self._coil_axis = 1 - sampling_mask.ndim

    @property
    def power(self) -> torch.Tensor:
        """Σ_c |S_c|², real (batch, height, width)."""
        return (self.sensitivity_map.abs() ** 2).sum(dim=1).expand_as(self._mask[:, 0])

    @property
    def norm_squared_bound(self) -> torch.Tensor:
        """Upper bound of ‖AᴴA‖, real (batch,): the largest Σ_c |S_c|² of any pixel (F is unitary, M a projection)."""
        return self.power.flatten(1).amax(dim=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Masked k-space Ax of an image; complex (..., batch, height, width) → (..., batch, coil, height, width)."""
        _check_shape("image", image, self._image_shape)
        parts = [
            fft(image.unsqueeze(self._coil_axis) * maps, self.fourier_axes).mul_(self._mask)
            for maps in self.sensitivity_map.split(_coils_at_once(image), dim=1)
        ]
        return torch.cat(parts, dim=self._coil_axis) if len(parts) > 1 else parts[0]

    def adjoint(self, kspace: torch.Tensor) -> torch.Tensor:
        """Coil-combined image Aᴴy; complex (..., batch, coil, height, width) → (..., batch, height, width)."""
        batch, *size = self._image_shape
        _check_shape("kspace", kspace, (batch, self.sensitivity_map.shape[1], *size))
        dtype, axis = torch.promote_types(kspace.dtype, self.sensitivity_map.dtype), self._coil_axis
        result = kspace.new_zeros(*kspace.shape[:axis], *size, dtype=dtype)
        coils = _coils_at_once(result)
        for part, maps in zip(kspace.split(coils, dim=axis), self.sensitivity_map.split(coils, dim=1), strict=True):
            result += (ifft(part * self._mask, self.fourier_axes) * maps.conj()).sum(dim=axis)
        return result

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """AᴴAx; complex (..., batch, height, width) → the same."""
        _check_shape("image", image, self._image_shape)
        result = torch.zeros_like(image)
        for maps in self.sensitivity_map.split(_coils_at_once(image), dim=1):
            coil_images = image.unsqueeze(self._coil_axis) * maps
            if self._masked_axes:
                kspace = torch.fft.fftn(coil_images, dim=self._masked_axes, norm="ortho").mul_(self._shifted_mask)
                coil_images = torch.fft.ifftn(kspace, dim=self._masked_axes, norm="ortho")
            result += coil_images.mul_(maps.conj()).sum(dim=self._coil_axis)
        return result

    # What comes of an operator needs no check again: a check reads all of it, and makes a GPU wait.

    def select(self, index: torch.Tensor) -> Self:
        """Return the operator of the images ``index`` of the batch."""
        tensors = {name: value[index] for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return self._changed(**tensors)

    def fully_sampled(self) -> Self:
        """Return the same operator with every sample of k-space acquired."""
        mask = torch.ones_like(self._mask)
        return self._changed(
            sampling_mask=torch.ones_like(self.sampling_mask), _mask=mask, _shifted_mask=mask, _masked_axes=[]
        )

    def multiplied(self, factor: torch.Tensor) -> Self:
        """Return the operator whose coil maps are multiplied by finite numbers, (batch, height, width)."""
        return self._changed(sensitivity_map=self.sensitivity_map * factor[:, None])

    def weighted(self, weights: torch.Tensor) -> Self:
        """Return the operator WA, samples multiplied by weights above zero, up to one, real (batch, height, width).

        Data go with it as Wb: ½‖W(Ax − b)‖² is the likelihood of noise that is 1/W times as large, up to a factor.
        """
        weights = weights.to(self._mask)[:, None]
        _check_weights(weights, self._mask)
        mask = self._mask * weights
        return self._changed(
            _mask=mask,
            _shifted_mask=torch.fft.ifftshift(mask**2, dim=self.fourier_axes),
            _masked_axes=_axes_that_vary(mask, self.fourier_axes),
        )

    @property
    def _image_shape(self) -> tuple[int, ...]:
        return (self.sampling_mask.shape[0], *self.sampling_mask.shape[2:])

    def _changed(self, **attributes: Any) -> Self:
        other = copy(self)
        vars(other).update(attributes)
        return other


def _axes_that_vary(mask: torch.Tensor, axes: Sequence[int]) -> list[int]:
    return [axis for axis in axes if bool((mask.diff(dim=axis) != 0).any())]


def _coils_at_once(images: torch.Tensor) -> int:
    samples = _CPU_SAMPLES if images.device.type == "cpu" else _GPU_SAMPLES
    return max(1, samples // images.numel())


def normalize_sensitivity_map(sensitivity_map: torch.Tensor) -> torch.Tensor:
    """Scale coil maps (batch, coil, height, width) so that Σ_c |S_c|² = 1 where any is non-zero, 0 elsewhere."""
    norm = torch.linalg.vector_norm(sensitivity_map, dim=1, keepdim=True)
    return torch.where(norm > 0, sensitivity_map / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0)


def low_resolution_maps(kspace: torch.Tensor, width: int) -> torch.Tensor:
    r"""Return the coil images of the central samples of k-space over their root sum of squares.

    .. math:: S_c = \frac{F^H(w\,b_c)}{\sqrt{\sum_c |F^H(w\,b_c)|^2}}

    with w a Hann window, so that edges do not ring, of so many samples along either axis; both complex (coil, height,
    width). Where coils vary over a pixel of the low resolution, as at edges of the object, they are wrong.
    """
    window = torch.ones((), dtype=kspace.real.dtype, device=kspace.device)
    for axis, size in ((0, kspace.shape[-2]), (1, kspace.shape[-1])):
        distance = (torch.arange(size, device=kspace.device) - size // 2).to(window.dtype) / (width / 2 + 1)
        window = window * torch.where(distance.abs() < 1, torch.cos(torch.pi / 2 * distance).square(), 0).unsqueeze(
            1 - axis
        )
    return normalize_sensitivity_map(ifft2(window * kspace)[None])[0]


def align_phase(A: SenseOperator, masked_kspace: torch.Tensor) -> SenseOperator:
    r"""Return the operator with the image's smooth phase, and the unit of its coil maps, moved into these.

    Coil maps are known up to a phase e^{iφ(r)} and a factor f that the image takes over inversely: S·fe^{iφ} and
    x·e^{−iφ}/f explain the same data. DIRECT's ``RSS_ESTIMATE`` settles them so that the low-resolution image is real,
    positive and the root sum of squares of the coils; ESPIRiT, vendors' maps and simulations settle them otherwise, or
    not at all. An energy trained in one gauge is not valid in another, so energies of this package expect maps aligned
    like this:

    .. math:: S'_c = S_c\, e^{i \arg m} / f, \qquad m = \sum_c \bar S_c\, F^H (w\, b_c)

    with w a Gaussian window about the centre of k-space, b the data, complex (batch, coil, height, width), in any
    unit, and f the :func:`coil_gain`. An image x of it is the image x·e^{i arg m}/f of ``A``: for maps with Σ|S|² = 1,
    as f is 1, magnitudes are the same; for maps in another unit they become those of the root sum of squares.
    """
    image = _low_pass(A, masked_kspace)
    # A unit phase where there is no signal: angle(0) is 0.
    phase = torch.polar(torch.ones_like(image.real), image.angle())
    return A.multiplied(phase / per_image(_gain(A, image), phase))


def coil_gain(A: SenseOperator, masked_kspace: torch.Tensor) -> torch.Tensor:
    r"""Return the unit f of an operator's coil maps; with maps S/f the image is as bright as the root sum of squares.

    .. math:: f^2 = \frac{\sum_r |x|^2 \sum_c |S_c|^2}{\sum_r |x|^2}, \qquad x = m / \sum_c |S_c|^2,

    with m of :func:`align_phase`: the mean of Σ|S|² where the low-resolution image x is. Real (batch,); one, exactly,
    where it is one up to rounding or where there is no signal. A smooth profile that is left in maps stays there.
    """
    return _gain(A, _low_pass(A, masked_kspace))


def _low_pass(A: SenseOperator, masked_kspace: torch.Tensor) -> torch.Tensor:
    """Return m of :func:`align_phase`, complex (batch, height, width)."""
    radius = squared_radius(
        masked_kspace.shape[2:], A.fourier_axes, dtype=masked_kspace.real.dtype, device=masked_kspace.device
    )
    window = torch.exp(-radius / (2 * _WINDOW_STD**2))
    return (ifft(window * within_mask(A, masked_kspace), A.fourier_axes) * A.sensitivity_map.conj()).sum(dim=1)


def _gain(A: SenseOperator, low_pass: torch.Tensor) -> torch.Tensor:
    power = A.power
    # In units of its largest value, whose square may leave the range of a float.
    magnitude = low_pass.abs()
    largest = magnitude.flatten(1).amax(dim=1).clamp_min(torch.finfo(power.dtype).tiny)
    image = torch.where(power > 0, magnitude / per_image(largest, magnitude) / power, 0).square()
    squares, total = (image * power).flatten(1).sum(dim=1), image.flatten(1).sum(dim=1)
    gain = torch.where(total > 0, squares / total, 1).sqrt()
    return torch.where((gain - 1).abs() < ROUNDING, 1, gain)


def _check_shape(name: str, value: torch.Tensor, expected: tuple[int, ...]) -> None:
    require(
        tuple(value.shape[-len(expected) :]) == expected,
        f"{name} has shape {tuple(value.shape)}; allowed with this sensitivity_map: (..., {str(expected)[1:]}",
    )


def _check_weights(weights: torch.Tensor, mask: torch.Tensor) -> None:
    expected = (mask.shape[0], *mask.shape[2:])
    require(
        weights.shape == mask.shape,
        f"weights have shape {(weights.shape[0], *weights.shape[2:])}; allowed with this sampling_mask: {expected}",
    )
    outside = weights[~((weights > 0) & (weights <= 1))]
    require(outside.numel() == 0, f"weights have the value {outside[:1].tolist()}; allowed: above 0, up to 1")


def _check_sizes(maps: tuple[int, ...], mask: tuple[int, ...], fourier_axes: tuple[int, ...]) -> None:
    axes = range(2 - len(maps), 0)
    require(
        len(fourier_axes) > 0 and len(set(fourier_axes)) == len(fourier_axes) and set(fourier_axes) <= set(axes),
        f"fourier_axes is {fourier_axes}; allowed with sensitivity_map of shape {maps}: some of {list(axes)}",
    )
    # Maps of length one along an axis that is none of k-space, such as time, are the same all along it.
    free = [axis for axis in axes if axis not in fourier_axes and maps[axis] == 1]
    expected = [maps[0], 1, *maps[2:]]
    for axis in free if len(mask) == len(maps) else []:
        expected[axis] = mask[axis]
    require(
        mask == tuple(expected),
        f"sampling_mask has shape {mask}; allowed with sensitivity_map of shape {maps}: {tuple(expected)}",
    )


def _check_maps_and_mask(
    sensitivity_map: torch.Tensor, sampling_mask: torch.Tensor, fourier_axes: tuple[int, ...]
) -> None:
    require(
        sensitivity_map.ndim >= 4 and sensitivity_map.is_complex(),
        f"sensitivity_map has shape {tuple(sensitivity_map.shape)} and dtype {sensitivity_map.dtype}; "
        "allowed: complex (batch, coil, height, width), or more dimensions before height and width",
    )
    require(not sampling_mask.is_complex(), f"sampling_mask has dtype {sampling_mask.dtype}; allowed: real or boolean")
    _check_sizes(tuple(sensitivity_map.shape), tuple(sampling_mask.shape), fourier_axes)
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
