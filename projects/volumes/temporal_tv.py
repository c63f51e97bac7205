"""Total variation along time, a classical reconstruction of series."""

import torch

from direct_deepen.physics import LinearOperator

_DUAL_STEP = 0.1


def temporal_tv(
    A: LinearOperator, masked_kspace: torch.Tensor, *, regularization: float, max_iterations: int = 200
) -> torch.Tensor:
    """Minimise ½‖Ax − b‖² + λ‖Dx‖₁, D the differences of neighbouring frames (cyclic), for ‖A‖ ≤ 1.

    The primal-dual iteration of Condat (2013) and Vũ (2013) with 1/τ = ½ + σ‖D‖², ‖D‖² ≤ 4. K-space is complex
    (batch, coil, frame, row, column), the result (batch, frame, row, column); λ is in the unit of b.
    """
    adjoint = A.adjoint(masked_kspace)
    x, dual = adjoint, torch.zeros_like(adjoint)
    step = 1 / (0.5 + 4 * _DUAL_STEP)
    for _ in range(max_iterations):
        before = x
        x = x - step * (A.normal(x) - adjoint + dual - dual.roll(-1, dims=1))
        ahead = 2 * x - before
        dual = dual + _DUAL_STEP * (ahead - ahead.roll(1, dims=1))
        dual = dual * (regularization / dual.abs().clamp_min(regularization))
    return x
