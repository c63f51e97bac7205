"""Classical reconstructions that need no training, by sigpy and by conjugate gradients, as functions of one problem."""

from collections.abc import Callable
from typing import Any

import numpy as np
import sigpy.mri.app
import torch

from direct_deepen.physics.sense import sense
from direct_deepen.physics.sense_operator import SenseOperator


def l1_wavelet(
    A: SenseOperator, masked_kspace: torch.Tensor, *, regularization: float, max_iterations: int = 50
) -> torch.Tensor:
    """Minimise ½‖Ax − b‖² + λ‖Wx‖₁, W the Daubechies-4 wavelet transform, by sigpy's FISTA.

    For ‖A‖ ≤ 1; complex64 (batch, coil, height, width) → (batch, height, width), λ in the unit of b. sigpy's shrinkage
    takes W for unitary, which it is but for the border (Lustig et al., Sparse MRI, 2007).
    """
    # The step that ‖A‖ ≤ 1 allows; sigpy would estimate one, with global random numbers.
    return _by_sigpy(sigpy.mri.app.L1WaveletRecon, A, masked_kspace, regularization, alpha=1.0, max_iter=max_iterations)


def total_variation(
    A: SenseOperator, masked_kspace: torch.Tensor, *, regularization: float, max_iterations: int = 100
) -> torch.Tensor:
    """Minimise ½‖Ax − b‖² + λ‖Gx‖₁, G the differences of neighbours along both axes (cyclic), by sigpy.

    By the primal-dual hybrid gradient method, for ‖A‖ ≤ 1; complex64 (batch, coil, height, width) → (batch, height,
    width), λ in the unit of b (Block, Uecker and Frahm, Undersampled radial MRI with multiple coils, 2007).
    """
    return _by_sigpy(
        sigpy.mri.app.TotalVariationRecon,
        A,
        masked_kspace,
        regularization,
        # τσ‖(A, G)‖² ≤ 1 with ‖G‖² ≤ 8; sigpy would estimate τ, with global random numbers. Of σ = 1, 0.1, 0.02, 0.005
        # the third is closest to its limit after 100 iterations on scaled intensities; with 1 it is far from it.
        tau=1 / (9 * 0.02),
        sigma=0.02,
        max_iter=max_iterations,
    )


def _by_sigpy(
    app: Callable[..., Any], A: SenseOperator, masked_kspace: torch.Tensor, regularization: float, **options: float
) -> torch.Tensor:
    images = []
    for kspace, maps, mask in zip(masked_kspace, A.sensitivity_map, A.sampling_mask, strict=True):
        solver = app(
            kspace.cpu().numpy(),
            maps.cpu().numpy(),
            regularization,
            # Without it sigpy takes samples that are zero for samples that are missing.
            weights=(mask[0] != 0).cpu().numpy().astype("float32"),
            show_pbar=False,
            **options,
        )
        images.append(torch.from_numpy(solver.run()))
    return torch.stack(images).to(masked_kspace)


CLASSICAL: dict[str, Callable[..., torch.Tensor]] = {
    "sense": sense,
    "l1_wavelet": l1_wavelet,
    "total_variation": total_variation,
}
"""Methods with one ``regularization`` to tune, by the name of their rows in a table."""

ZERO_FILLED = "zero_filled"
"""Aᴴb, which has nothing to tune."""

REGULARIZATIONS = tuple(float(value) for value in np.geomspace(1e-4, 1.0, 17))
"""Candidates of λ of every classical method; the best on validation data is used."""
