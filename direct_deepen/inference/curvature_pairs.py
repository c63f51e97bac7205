"""What past steps tell of the curvature of C: the limited memory of a quasi-Newton method."""

from collections.abc import Callable

import torch

from direct_deepen.inference.cost import inner_product

_LEAST_COSINE = 1e-6
"""Pairs whose step and change of gradient are closer to orthogonal say nothing that rounding does not."""


class CurvaturePairs:
    r"""The last steps s of every image and the changes y = ∇C(x + s) − ∇C(x) they made.

    :meth:`direction` applies the inverse Hessian of limited-memory BFGS (Nocedal and Wright, Numerical optimization,
    algorithm 7.4) whose initial matrix is a given solve, instead of a multiple of the identity. Pairs of non-positive
    curvature, s·y ≤ 0, are left out, so that the matrix stays positive definite.

    Parameters
    ----------
    size
        Largest number of pairs, ≥ 0; with none a direction is the solve itself.
    like
        Images, complex (batch, height, width), that tell shape, dtype and device.
    """

    def __init__(self, size: int, like: torch.Tensor) -> None:
        self.steps = like.new_zeros(size, *like.shape)
        self.changes = like.new_zeros(size, *like.shape)
        # 1/(s·y); zero marks an empty place, which then takes no part.
        self.weights = torch.zeros(size, like.shape[0], dtype=torch.float64, device=like.device)

    def direction(self, gradient: torch.Tensor, solve: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return −H∇C of every image, H the inverse Hessian; complex (batch, height, width)."""
        result = gradient.clone()
        coefficients = []
        for step, change, weight in zip(self.steps, self.changes, self.weights, strict=True):
            coefficient = weight * inner_product(step, result)
            result -= _per_image(coefficient, result) * change
            coefficients.append(coefficient)
        result = solve(result)
        for step, change, weight, coefficient in zip(
            self.steps.flip(0), self.changes.flip(0), self.weights.flip(0), reversed(coefficients), strict=True
        ):
            result += _per_image(coefficient - weight * inner_product(change, result), result) * step
        return -result

    def filled(self) -> torch.Tensor:
        """Return whether an image has a pair, boolean (batch,)."""
        return (self.weights > 0).any(dim=0)

    def updated(
        self, step: torch.Tensor, change: torch.Tensor, accepted: torch.Tensor, forget: torch.Tensor
    ) -> "CurvaturePairs":
        """Return the pairs with a newest one where a step was ``accepted``, and with none where they are to ``forget``.

        Both are boolean (batch,); the newest pair comes first, the oldest goes.
        """
        result = self._like(self.steps, self.changes, torch.where(forget, 0.0, self.weights))
        if len(self.weights) == 0:
            return result
        curvature = inner_product(step, change)
        size = (inner_product(step, step) * inner_product(change, change)).sqrt()
        weight = torch.where(curvature > _LEAST_COSINE * size, 1 / curvature, 0.0)
        keep = accepted & (weight > 0)
        image = keep[None, :, None, None]
        result.steps = torch.where(image, torch.cat([step[None], self.steps[:-1]]), self.steps)
        result.changes = torch.where(image, torch.cat([change[None], self.changes[:-1]]), self.changes)
        result.weights = torch.where(keep[None], torch.cat([weight[None], result.weights[:-1]]), result.weights)
        return result

    def select(self, index: torch.Tensor) -> "CurvaturePairs":
        """Return the pairs of the images ``index`` of the batch."""
        return self._like(self.steps[:, index], self.changes[:, index], self.weights[:, index])

    def _like(self, steps: torch.Tensor, changes: torch.Tensor, weights: torch.Tensor) -> "CurvaturePairs":
        result = object.__new__(CurvaturePairs)
        result.steps, result.changes, result.weights = steps, changes, weights
        return result


def _per_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.real.dtype)[:, None, None]
