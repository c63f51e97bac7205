"""Conjugate gradients for a batch of Hermitian positive definite systems."""

from collections.abc import Callable

import torch

from direct_deepen.errors import DivergenceError, require


def conjugate_gradient(
    operator: Callable[[torch.Tensor], torch.Tensor],
    right_hand_side: torch.Tensor,
    *,
    initial: torch.Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> torch.Tensor:
    r"""Solve Hx = b for every image of a batch at once.

    .. math::
        x \leftarrow x + \alpha p, \quad r \leftarrow r - \alpha Hp, \quad p \leftarrow r + \beta p, \qquad
        \alpha = \frac{\|r\|^2}{p^H H p}, \quad \beta = \frac{\|r_{new}\|^2}{\|r\|^2}

    Hestenes and Stiefel (1952). Every image has its own step sizes and stops on its own, when
    ‖b − Hx‖ ≤ tolerance · ‖b‖ by the recursion for r: its result does not depend on the rest of the batch.

    Parameters
    ----------
    operator
        H: Hermitian positive definite on each image. Neither is checked, except that a direction of non-positive
        curvature ends the iteration of that image; a non-Hermitian H will silently return a wrong result.
    right_hand_side
        b, complex or real (batch, ...).
    initial
        Start, of the shape of b; zero by default.
    tolerance
        Relative residual, above zero; below the precision of the dtype it only costs iterations.
    max_iterations
        Limit, at least one. Reaching it is not an error: the best iterate so far is returned.

    Returns
    -------
    x, of the shape, dtype and device of b.

    Raises
    ------
    DeepenError
        For a tolerance or iteration limit out of range.
    DivergenceError
        If a residual becomes NaN or infinite.
    """
    require(tolerance > 0, f"tolerance is {tolerance!r}; allowed: > 0")
    require(max_iterations >= 1, f"max_iterations is {max_iterations!r}; allowed: >= 1")
    x = torch.zeros_like(right_hand_side) if initial is None else initial.clone()
    residual = right_hand_side.clone() if initial is None else right_hand_side - operator(x)
    direction = residual.clone()
    energy = _squared_norm(residual)
    target = tolerance**2 * _squared_norm(right_hand_side)
    for iteration in range(max_iterations):
        active = energy > target
        if not bool(active.any()):
            # NaN compares false with everything, and infinity with itself: both would end the loop as if converged.
            _require_finite(energy, iteration)
            break
        image = operator(direction)
        curvature = _inner(direction, image)
        active &= curvature > 0
        step = torch.where(active, energy / curvature, 0.0)
        x = x + _per_image(step, x) * direction
        residual = residual - _per_image(step, x) * image
        updated = _squared_norm(residual)
        _require_finite(updated, iteration)
        ratio = torch.where(active, updated / energy, 0.0)
        direction = residual + _per_image(ratio, x) * direction
        energy = torch.where(active, updated, torch.zeros_like(energy))
    return x


def _require_finite(squared_norms: torch.Tensor, iteration: int) -> None:
    if not bool(torch.isfinite(squared_norms).all()):
        norms = squared_norms.sqrt().tolist()
        raise DivergenceError(
            f"conjugate gradients: residual norms {norms} at iteration {iteration}; allowed: finite values"
        )


def _inner(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return (left.conj() * right).real.flatten(1).sum(dim=1)


def _squared_norm(x: torch.Tensor) -> torch.Tensor:
    return _inner(x, x)


def _per_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))
