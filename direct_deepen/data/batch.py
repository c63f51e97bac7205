"""From DIRECT's batch dictionary to a problem of the core, and to the reference of its images."""

from typing import Any

import torch

from direct_deepen.errors import DeepenError, require
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.scale import intensity_scale
from direct_deepen.physics.sense import require_finite_data
from direct_deepen.physics.sense_operator import SenseOperator

_SMALLEST, _LARGEST = 1e-15, 1e15
"""Range of the largest sample in which squares, and their sums over pixels and coils, stay finite in single precision:
outside of it DIRECT's coil maps would be wrong."""


def problem_from_batch(data: dict[str, Any], sensitivity_map: torch.Tensor | None = None) -> Problem:
    """Build the problem of a batch dictionary of DIRECT's supervised two-dimensional transforms.

    Parameters
    ----------
    data
        DIRECT's batch: ``masked_kspace`` real (batch, coil, height, width, 2), ``sampling_mask`` (batch, 1, height,
        width, 1), ``sensitivity_map`` as the data, ``filename`` and ``slice_no``.
    sensitivity_map
        Coil maps to use instead of the batch's, complex (batch, coil, height, width).

    Raises
    ------
    DeepenError
        If the data are not finite, or too large or small for single precision, the mask is empty or shapes do not
        match; the message names files and slices.
    """
    names = names_of_batch(data)
    masked_kspace = to_complex(data["masked_kspace"])
    maps = to_complex(data["sensitivity_map"]) if sensitivity_map is None else sensitivity_map
    try:
        require(
            maps.shape == masked_kspace.shape,
            f"sensitivity_map has shape {tuple(maps.shape)}, masked_kspace {tuple(masked_kspace.shape)}; "
            "allowed: equal shapes",
        )
        require_finite_data(masked_kspace)
        for largest in masked_kspace.abs().flatten(1).amax(dim=1).tolist():
            require(
                largest == 0 or _SMALLEST <= largest <= _LARGEST,
                f"the largest sample of masked_kspace is {largest:.2g}; allowed: {_SMALLEST:g} to {_LARGEST:g}",
            )
        A = SenseOperator(maps, data["sampling_mask"].squeeze(-1))
        scale = intensity_scale(A, masked_kspace)
    except ValueError as error:
        where = ", ".join(f"{name} slice {number}" for name, number in names)
        raise DeepenError(f"{where}: {error}") from error
    return Problem(A, masked_kspace / scale[:, None, None, None], scale, names)


def names_of_batch(data: dict[str, Any]) -> list[tuple[str, int]]:
    """Return file and slice of every image of a batch of DIRECT."""
    return [(str(name), int(number)) for name, number in zip(data["filename"], data["slice_no"], strict=True)]


def reference_image(data: dict[str, Any], problem: Problem) -> torch.Tensor:
    """Scaled reference Σ_c conj(S_c) Fᴴk_c of the fully sampled k-space; complex (batch, height, width).

    Raises
    ------
    DeepenError
        If the batch has no fully sampled k-space, or it is not finite.
    """
    require(
        "kspace" in data,
        "kspace is missing in the batch; training needs fully sampled data and transforms.delete_kspace: false",
    )
    kspace = to_complex(data["kspace"])
    require(
        bool(torch.isfinite(torch.view_as_real(kspace)).all()),
        f"kspace of {problem.names} has NaN or infinite values; allowed: finite values",
    )
    return problem.A.fully_sampled().adjoint(kspace) / problem.scale[:, None, None]


def to_complex(tensor: torch.Tensor) -> torch.Tensor:
    """Convert DIRECT's trailing real/imaginary axis to a complex tensor."""
    return torch.view_as_complex(tensor.contiguous())
