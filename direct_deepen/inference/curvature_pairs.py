"""The limited memory of a quasi-Newton method: the curvature of C along past steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch

from direct_deepen.inference.cost import inner_product
from direct_deepen.physics.per_image import per_image

_LEAST_COSINE = 1e-6
"""Pairs whose step and change of gradient are closer to orthogonal are dominated by rounding."""


@dataclass(frozen=True)
class CurvaturePairs:
    r"""The last steps s of every image and the changes y = ∇C(x + s) − ∇C(x) they made, the newest first.

    :meth:`direction` applies the inverse Hessian of limited-memory BFGS (Nocedal and Wright, Numerical optimization,
    algorithm 7.4) whose initial matrix is a given solve, instead of a multiple of the identity. Pairs of non-positive
    curvature, s·y ≤ 0, are left out, so that the matrix stays positive definite.
    """

    steps: torch.Tensor
    """s, complex (size, batch, ...)."""
    changes: torch.Tensor
    """y, of the same shape."""
    weights: torch.Tensor
    """1/(s·y), float64 (size, batch); zero for an empty slot, which is ignored."""

    @classmethod
    def empty(cls, size: int, like: torch.Tensor) -> Self:
        """Return ``size`` ≥ 0 empty slots for every image of ``like``; without any a direction is the solve itself."""
        slots = like.new_zeros(size, *like.shape)
        return cls(slots, slots, torch.zeros(size, like.shape[0], dtype=torch.float64, device=like.device))

    def direction(self, gradient: torch.Tensor, solve: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return −H∇C of every image, H the inverse Hessian."""
        result = gradient.clone()
        coefficients = []
        for step, change, weight in zip(self.steps, self.changes, self.weights, strict=True):
            coefficient = weight * inner_product(step, result)
            result -= _factor(coefficient, result) * change
            coefficients.append(coefficient)
        result = solve(result)
        for step, change, weight, coefficient in zip(
            self.steps.flip(0), self.changes.flip(0), self.weights.flip(0), reversed(coefficients), strict=True
        ):
            result += _factor(coefficient - weight * inner_product(change, result), result) * step
        return -result

    def filled(self) -> torch.Tensor:
        """Return whether an image has a pair, boolean (batch,)."""
        return (self.weights > 0).any(dim=0)

    def updated(self, step: torch.Tensor, change: torch.Tensor, weight: torch.Tensor, forget: torch.Tensor) -> Self:
        """Return the pairs with a new first one where its ``weight`` is above zero, and none where they are to go.

        ``weight`` is the :func:`inverse_curvature` of the new pair, float64 (batch,), or zero where it is not to be
        kept; ``forget`` is boolean (batch,). The oldest pair is dropped.
        """
        weights = torch.where(forget, 0.0, self.weights)
        if len(weights) == 0:
            return self
        keep = weight > 0
        image = per_image(keep, step)
        return type(self)(
            torch.where(image, torch.cat([step[None], self.steps[:-1]]), self.steps),
            torch.where(image, torch.cat([change[None], self.changes[:-1]]), self.changes),
            torch.where(keep[None], torch.cat([weight[None], weights[:-1]]), weights),
        )

    def __getitem__(self, index: torch.Tensor) -> Self:
        return type(self)(self.steps[:, index], self.changes[:, index], self.weights[:, index])


def inverse_curvature(step: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Return 1/(s·y) of a step s and the change y of the gradient along it, (batch, ...) → float64 (batch,).

    Zero where there is no positive curvature to learn from, nor from a change that is not finite.
    """
    curvature = inner_product(step, change)
    size = (inner_product(step, step) * inner_product(change, change)).sqrt()
    return torch.where((curvature > _LEAST_COSINE * size) & torch.isfinite(size), 1 / curvature, 0.0)


def _factor(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return per_image(values.to(like.real.dtype), like)
