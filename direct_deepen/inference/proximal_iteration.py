"""Plug-and-play reconstruction: a gradient step on the data, then a denoiser (PnP-ISTA)."""

from collections.abc import Callable

import torch

from direct_deepen.errors import require
from direct_deepen.inference.fixed_point import FixedPointResult, iterate_to_fixed_point
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.sense import require_finite_data, sense


def proximal_iteration(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    denoiser: Callable[[torch.Tensor], torch.Tensor],
    *,
    step_size: float,
    init: torch.Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    progress: bool = False,
) -> FixedPointResult:
    r"""Iterate PnP-ISTA (DEEPEN, section IV).

    .. math:: q_n = x_n - s A^H (A x_n - b), \qquad x_{n+1} = D(q_n)

    With D the proximal map of a function g it is proximal gradient descent on ½‖Ax − b‖² + g/s. A denoiser that is no
    contraction need not converge; ``converged`` of the :class:`FixedPointResult` tells.

    Parameters
    ----------
    A, masked_kspace, init, progress
        As for :func:`~direct_deepen.mm_map`, with ‖A‖ ≤ 1.
    denoiser
        D, complex (batch, height, width) → the same.
    step_size
        s = α/η² of the paper, 0 < s < 2.
    tolerance, max_iterations
        Stopping rule, :func:`~direct_deepen.inference.fixed_point.iterate_to_fixed_point`.

    Raises
    ------
    DeepenError
        If an argument is out of range or the data are not finite.
    DivergenceError
        If an image leaves the finite numbers.
    """
    require(0 < step_size < 2, f"step_size is {step_size!r}; allowed: > 0 and < 2, for ‖A‖ ≤ 1")
    require_finite_data(masked_kspace)
    start = sense(A, masked_kspace) if init is None else init
    adjoint = A.adjoint(masked_kspace)
    return iterate_to_fixed_point(
        lambda x: denoiser(x - step_size * (A.normal(x) - adjoint)),
        start,
        tolerance=tolerance,
        max_iterations=max_iterations,
        progress=progress,
        name="PnP-ISTA",
    )
