"""Classical reconstructions that need no training, by sigpy and by conjugate gradients, as functions of one problem."""

from collections.abc import Callable

import sigpy.mri.app
import torch

from direct_deepen.physics.sense import sense
from direct_deepen.physics.sense_operator import SenseOperator


def l1_wavelet(
    A: SenseOperator, masked_kspace: torch.Tensor, *, regularization: float, max_iterations: int = 50
) -> torch.Tensor:
    r"""Minimise ½‖Ax − b‖² + λ‖Wx‖₁, W the Daubechies-4 wavelet transform, by sigpy.

    sigpy's shrinkage takes W for unitary, which it is but for the border.

    Parameters
    ----------
    A
        Forward model with ‖A‖ ≤ 1.
    masked_kspace
        b, complex64 (batch, coil, height, width).
    regularization
        λ, in the unit of b.
    max_iterations
        Iterations of FISTA.

    Returns
    -------
    Complex (batch, height, width), on the device of b.

    References
    ----------
    Lustig et al., Sparse MRI, 2007.
    """
    images = []
    for kspace, maps, mask in zip(masked_kspace, A.sensitivity_map, A.sampling_mask, strict=True):
        app = sigpy.mri.app.L1WaveletRecon(
            kspace.cpu().numpy(),
            maps.cpu().numpy(),
            regularization,
            # Without it sigpy takes samples that are zero for samples that are missing.
            weights=(mask[0] != 0).cpu().numpy().astype("float32"),
            # The step that ‖A‖ ≤ 1 allows; sigpy would estimate one, with global random numbers.
            alpha=1.0,
            max_iter=max_iterations,
            show_pbar=False,
        )
        images.append(torch.from_numpy(app.run()))
    return torch.stack(images).to(masked_kspace)


CLASSICAL: dict[str, Callable[..., torch.Tensor]] = {"sense": sense, "l1_wavelet": l1_wavelet}
"""Methods with one ``regularization`` to tune, by the name of their rows in a table."""
