"""Conjugate gradients for a batch of Hermitian positive definite systems."""

from collections.abc import Callable

import torch

from direct_deepen.errors import DivergenceError, require, require_count


def conjugate_gradient(
    operator: Callable[[torch.Tensor], torch.Tensor],
    right_hand_side: torch.Tensor,
    *,
    initial: torch.Tensor | None = None,
    tolerance: float | torch.Tensor = 1e-6,
    max_iterations: int = 100,
) -> torch.Tensor:
    r"""Solve Hx = b for every image of a batch at once; complex or real b (batch, ...) → x of its shape and dtype.

    .. math::
        x \leftarrow x + \alpha p, \quad r \leftarrow r - \alpha Hp, \quad p \leftarrow r + \beta p, \qquad
        \alpha = \frac{\|r\|^2}{p^H H p}, \quad \beta = \frac{\|r_{new}\|^2}{\|r\|^2}

    Hestenes and Stiefel (1952). Every image has its own step sizes and stops on its own, when
    ‖b − Hx‖ ≤ tolerance · ‖b‖ by the recursion for r: its result does not depend on the rest of the batch. A residual
    that becomes NaN or infinite is a :class:`DivergenceError`.

    Parameters
    ----------
    operator
        H: Hermitian positive definite on each image. Neither is checked, except that a direction of non-positive
        curvature ends the iteration of that image; a non-Hermitian H will silently return a wrong result.
    initial
        Start, of the shape of b; zero by default.
    tolerance
        Relative residual, of all images or real (batch,); above zero, a :class:`DeepenError` otherwise, and below the
        precision of the dtype it only costs iterations.
    max_iterations
        Limit, at least one. Reaching it is not an error: the best iterate so far is returned.
    """
    relative = torch.as_tensor(tolerance, dtype=right_hand_side.real.dtype, device=right_hand_side.device)
    require(bool((relative > 0).all()), f"tolerance is {tolerance!r}; allowed: > 0")
    require_count("max_iterations", max_iterations)
    x = torch.zeros_like(right_hand_side) if initial is None else initial.clone()
    residual = right_hand_side.clone() if initial is None else right_hand_side - operator(x)
    direction = residual.clone()
    energy = _inner(residual, residual)
    squared_norm = _inner(right_hand_side, right_hand_side)
    target = relative.reshape(-1, *[1] * (right_hand_side.ndim - 1)) ** 2 * squared_norm
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
        x = x + step * direction
        residual = residual - step * image
        updated = _inner(residual, residual)
        _require_finite(updated, iteration)
        direction = residual + torch.where(active, updated / energy, 0.0) * direction
        energy = torch.where(active, updated, 0.0)
    return x


def not_finite(numbers: torch.Tensor) -> list[int]:
    """Return the images of a batch whose number, (batch, ...), is NaN or infinite."""
    return (~torch.isfinite(numbers).flatten(1 if numbers.ndim > 1 else 0)).nonzero()[:, 0].unique().tolist()


def _require_finite(squared_norms: torch.Tensor, iteration: int) -> None:
    if bad := not_finite(squared_norms):
        norms = squared_norms.flatten().sqrt()[bad].tolist()
        raise DivergenceError(
            f"conjugate gradients: residual norms {norms} of images {bad} of the batch at iteration {iteration}; "
            "allowed: finite values",
            bad,
        )


def _inner(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return Re⟨left, right⟩ of every image, real (batch, 1, ...): it multiplies images."""
    product = (left.conj() * right).real.flatten(1).sum(dim=1)
    return product.reshape(-1, *[1] * (left.ndim - 1))
