"""Regularised least squares, the classical SENSE reconstruction."""

import torch

from direct_deepen.errors import require, require_positive
from direct_deepen.physics.conjugate_gradient import conjugate_gradient
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.precision import without_autocast


@without_autocast
def sense(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    *,
    regularization: float = 1e-2,
    initial: torch.Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> torch.Tensor:
    """Solve min ½‖Ax − b‖² + ½λ‖x‖², that is x = (AᴴA + λI)⁻¹Aᴴb, by conjugate gradients.

    Pruessmann et al., Advances in sensitivity encoding with arbitrary k-space trajectories, MRM 46 (2001).

    Parameters
    ----------
    masked_kspace
        b, complex (batch, coil, height, width); the result is complex (batch, height, width).
    regularization
        λ > 0, relative to ‖AᴴA‖ ≤ 1; it does not depend on the intensity scale.
    initial, tolerance, max_iterations
        As of :func:`~direct_deepen.physics.conjugate_gradient`.

    Raises
    ------
    DeepenError
        If λ is not a positive finite number or the data are not finite.
    """
    require_positive("regularization", regularization)
    require_finite_data(masked_kspace)
    return conjugate_gradient(
        lambda x: A.normal(x) + regularization * x,
        A.adjoint(masked_kspace),
        initial=initial,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def require_finite_data(masked_kspace: torch.Tensor) -> None:
    """Raise :class:`DeepenError` if data hold NaN or infinite values, naming the images of the batch."""
    bad = (~torch.isfinite(masked_kspace).flatten(1).all(dim=1)).nonzero().flatten().tolist()
    require(not bad, f"masked_kspace has NaN or infinite values in images {bad} of the batch; allowed: finite values")


def within_mask(A: LinearOperator, kspace: torch.Tensor) -> torch.Tensor:
    """Return k-space as zeros outside the sampling mask of an operator, if it has one: fully sampled data serve too.

    A constant ½‖b‖² of what was not measured would change no image, but costs, what a descent compares, and scales.
    """
    mask = getattr(A, "sampling_mask", None)
    return kspace if mask is None or mask.shape[-2:] != kspace.shape[-2:] else kspace * (mask != 0)
