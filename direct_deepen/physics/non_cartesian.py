r"""The forward model of non-Cartesian sampling: k-space at any positions, by a non-uniform fast Fourier transform.

.. math:: (Ax)_{cj} = \frac{1}{\sqrt{HW}} \sum_r S_c(r)\, x(r)\, e^{-2\pi i k_j \cdot r}

with r in pixels from the middle, (height // 2, width // 2), and k in cycles a pixel: at the positions of a grid it is
the centred orthonormal transform. The transform is finufft's (Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput.
41, 2019). AᴴA is a convolution, for which twice the field of view is enough (Wajer and Pruessmann, ISMRM 2001; Fessler
et al., IEEE Trans. Signal Process. 53, 2005):

.. math:: A^H A x = \sum_c \bar S_c\, (p * S_c x), \qquad p(r) = \frac{1}{HW} \sum_j e^{2\pi i k_j \cdot r} .
"""

from copy import copy
from typing import Self

import numpy as np
import torch

from direct_deepen.errors import optional_import, require

_ACCURACY = {torch.complex64: 1e-6, torch.complex128: 1e-12}
_DENSITY_ITERATIONS = 20


class NonCartesianOperator:
    """SENSE forward model with samples anywhere in k-space; ``normal`` needs no transform to them.

    Images are complex (..., batch, height, width), data (..., batch, coil, sample): all images have one trajectory. It
    has what solvers and samplers may ask for: ``normal``, ``select``, ``power``, ``norm_squared_bound``, and leading
    dimensions. Arguments are never modified.

    Parameters
    ----------
    sensitivity_map
        Complex (batch, coil, height, width), finite.
    trajectory
        Real (sample, 2): cycles a pixel along rows and columns, from −0.5 to 0.5.

    Raises
    ------
    DeepenError
        For other shapes, positions beyond 0.5, and if finufft is not installed.
    """

    takes_leading_dimensions = True

    def __init__(self, sensitivity_map: torch.Tensor, trajectory: torch.Tensor) -> None:
        require(
            sensitivity_map.ndim == 4 and sensitivity_map.is_complex(),
            f"sensitivity_map has shape {tuple(sensitivity_map.shape)} and dtype {sensitivity_map.dtype}; allowed: "
            "complex (batch, coil, height, width)",
        )
        require_trajectory(trajectory)
        self.sensitivity_map = sensitivity_map
        self.trajectory = trajectory
        self._spectrum = _spectrum(trajectory, sensitivity_map)

    @property
    def power(self) -> torch.Tensor:
        """Σ_c |S_c|², real (batch, height, width)."""
        return (self.sensitivity_map.abs() ** 2).sum(dim=1)

    @property
    def norm_squared_bound(self) -> torch.Tensor:
        """Upper bound of ‖AᴴA‖, real (batch,): that of the convolution on twice the field of view, and of the maps."""
        return self._spectrum.amax() * self.power.amax(dim=(-2, -1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the samples Ax of an image; complex (..., batch, height, width) → (..., batch, coil, sample)."""
        return transform(image.unsqueeze(-3) * self.sensitivity_map, self.trajectory)

    def adjoint(self, data: torch.Tensor) -> torch.Tensor:
        """Return the coil-combined image Aᴴy; complex (..., batch, coil, sample) → (..., batch, height, width)."""
        images = adjoint_transform(data, self.trajectory, self.sensitivity_map.shape[-2:])
        return (images * self.sensitivity_map.conj()).sum(dim=-3)

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """Return AᴴAx; complex (..., batch, height, width) → the same."""
        height, width = image.shape[-2:]
        result = torch.zeros_like(image)
        # Coil by coil: on twice the field of view, temporary memory would be four times that of all coil images.
        for maps in self.sensitivity_map.unbind(dim=1):
            wide = torch.fft.fft2(image * maps, s=(2 * height, 2 * width))
            result += torch.fft.ifft2(wide.mul_(self._spectrum))[..., :height, :width] * maps.conj()
        return result

    def select(self, index: torch.Tensor) -> Self:
        """Return the operator of the images ``index`` of the batch."""
        other = copy(self)
        other.sensitivity_map = self.sensitivity_map[index]
        return other


def require_trajectory(trajectory: torch.Tensor) -> None:
    """Raise :class:`DeepenError` unless a trajectory is real (sample, 2), finite and within ±0.5."""
    require(
        trajectory.ndim == 2 and trajectory.shape[-1] == 2 and trajectory.is_floating_point() and len(trajectory) > 0,
        f"trajectory has shape {tuple(trajectory.shape)} and dtype {trajectory.dtype}; allowed: real (sample, 2)",
    )
    largest = float(trajectory.abs().max())
    # Rounding of positions that are stored in single precision.
    require(largest <= 0.5 + 1e-4, f"trajectory reaches {largest:.4g} cycles a pixel; allowed: up to 0.5, finite")


def transform(images: torch.Tensor, trajectory: torch.Tensor) -> torch.Tensor:
    """Return the samples of images, complex (..., height, width) → (..., sample)."""
    with optional_import("noncartesian", "non-Cartesian sampling needs finufft"):
        from finufft import nufft2d2
    flat, points = _prepared(images.flatten(0, -3) if images.ndim > 2 else images[None], trajectory)
    samples = nufft2d2(*points, flat, isign=-1, eps=_ACCURACY[images.dtype])
    scale = (images.shape[-2] * images.shape[-1]) ** -0.5
    found = torch.from_numpy(np.atleast_2d(samples)).to(images.device) * scale
    return found.reshape(*images.shape[:-2], len(trajectory))


def adjoint_transform(data: torch.Tensor, trajectory: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Return the adjoint of :func:`transform`, complex (..., sample) → (..., height, width)."""
    with optional_import("noncartesian", "non-Cartesian sampling needs finufft"):
        from finufft import nufft2d1
    height, width = size
    require(
        data.shape[-1] == len(trajectory),
        f"data have {data.shape[-1]} samples; allowed with this trajectory: {len(trajectory)}",
    )
    flat, points = _prepared(data.reshape(-1, data.shape[-1]), trajectory)
    images = nufft2d1(*points, flat, (height, width), isign=1, eps=_ACCURACY[data.dtype])
    found = torch.from_numpy(images.reshape(-1, height, width)).to(data.device) * (height * width) ** -0.5
    return found.reshape(*data.shape[:-1], height, width)


def _prepared(values: torch.Tensor, trajectory: torch.Tensor) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return arrays for finufft: values in one piece, and positions in radians a pixel along rows and columns."""
    real = np.float64 if values.dtype == torch.complex128 else np.float32
    angles = 2 * np.pi * trajectory.detach().cpu().double().numpy()
    array = np.ascontiguousarray(values.detach().cpu().numpy())
    return array, (np.ascontiguousarray(angles[:, 0], real), np.ascontiguousarray(angles[:, 1], real))


def _spectrum(trajectory: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the transform of p on twice the field of view, real (2·height, 2·width), for FFTs without shifts."""
    height, width = maps.shape[-2:]
    ones = torch.ones(len(trajectory), dtype=torch.complex128)
    # The adjoint of a field twice as large has half of the scale.
    kernel = 2 * adjoint_transform(ones, trajectory, (2 * height, 2 * width)) / (height * width) ** 0.5
    # Distances of a whole field do not occur, and would have no counterpart.
    kernel[0], kernel[:, 0] = 0, 0
    spectrum = torch.fft.fft2(torch.fft.ifftshift(kernel)).real
    return spectrum.to(device=maps.device, dtype=maps.real.dtype)


def density_compensation(trajectory: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    r"""Return weights of samples, real (sample,), with which the adjoint is nearly the inverse.

    .. math:: w \leftarrow \frac{w}{|\Phi w|}, \qquad \Phi = N N^H

    with N the transform of the field of view (Pipe and Menon, MRM 41, 179, 1999): k-space that is sampled densely
    counts as often as the rest. Of samples on a grid all weights are one.
    """
    weights = torch.ones(len(trajectory), dtype=torch.complex128)
    for _ in range(_DENSITY_ITERATIONS):
        spread = transform(adjoint_transform(weights, trajectory, size), trajectory)
        weights = weights / spread.abs().clamp_min(1e-12)
    return weights.real.to(trajectory.dtype)
