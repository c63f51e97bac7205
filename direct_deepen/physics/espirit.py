"""Coil maps by ESPIRiT, from the fully sampled centre of masked k-space."""

import numpy as np
import torch

from direct_deepen.errors import require
from direct_deepen.physics.coil_compression import combined, principal_combinations

KERNEL_WIDTH = 6
LARGEST_CALIBRATION = 24
VIRTUAL_COILS = 16
"""More coils than these are combined to so many before ESPIRiT, whose time and memory grow with their square."""


def calibration_width(sampling_mask: torch.Tensor) -> int:
    """Side of the largest centred square of k-space that a mask, (height, width), samples fully."""
    mask = sampling_mask != 0
    height, width = mask.shape
    for side in range(1, min(height, width) + 1):
        # The square that sigpy cuts out: for even sides of odd masks DIRECT's lies one sample further.
        top, left = height // 2 - side // 2, width // 2 - side // 2
        if not bool(mask[top : top + side, left : left + side].all()):
            return side - 1
    return min(height, width)


def espirit_maps(masked_kspace: torch.Tensor, sampling_mask: torch.Tensor) -> torch.Tensor:
    r"""Estimate the coil maps of a slice: Σ_c |S_c|² = 1 inside the object, 0 outside (Uecker et al., MRM 71, 2014).

    K-space and maps are complex (coil, height, width), the mask is (height, width). Many coils are combined before to
    :data:`VIRTUAL_COILS` (:mod:`~direct_deepen.physics.coil_compression`); the maps are then :math:`S = U S'`, of the
    same sum of squares as the columns of U are orthonormal. A :class:`DeepenError` if
    the fully sampled centre is narrower than the kernel, or too narrow for so many coils.
    """
    from sigpy.mri.app import EspiritCalib  # sigpy costs a second to import, and most runs do without

    width = min(calibration_width(sampling_mask), LARGEST_CALIBRATION)
    require(
        width >= KERNEL_WIDTH,
        f"the fully sampled centre of k-space is {width} samples wide; allowed for coil_maps: espirit: "
        f">= {KERNEL_WIDTH} (raise center_fractions, or use coil_maps: direct)",
    )
    kspace = masked_kspace.cpu().to(torch.complex64)
    combinations = None
    if len(kspace) > VIRTUAL_COILS:
        height, columns = sampling_mask.shape
        top, left = height // 2 - width // 2, columns // 2 - width // 2
        centre = kspace[:, top : top + width, left : left + width]
        combinations, _ = principal_combinations(centre.flatten(1), VIRTUAL_COILS)
        kspace = combined(kspace, combinations)
    maps = EspiritCalib(kspace.numpy(), calib_width=width, kernel_width=KERNEL_WIDTH, show_pbar=False).run()
    if combinations is not None:
        maps = np.tensordot(combinations.numpy(), maps, axes=1)
    require(
        bool(np.any(maps)),
        f"ESPIRiT finds no coil map: the fully sampled centre of k-space is {width} samples wide, and there are "
        f"{len(masked_kspace)} coils; allowed for coil_maps: espirit: more samples or fewer coils (raise "
        "center_fractions, lower compress_coils, or use coil_maps: direct)",
    )
    return torch.from_numpy(np.ascontiguousarray(maps)).to(masked_kspace)
