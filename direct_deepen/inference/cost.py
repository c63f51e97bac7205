r"""The cost that MAP minimises and the posterior is made of, C(x) = ½‖Ax − b‖² + E(x).

Temperature, once for all: the posterior is ∝ exp(−2C/ε²) = exp(−‖Ax − b‖²/ε² − 2E/ε²), with ε the Langevin noise. So
the likelihood is that of measurement noise η = ε/√2 per real component, and −log prior = 2E/ε². A Gaussian prior of
precision Q, −log p = ½xᴴQx up to a constant, enters as E = (ε²/4)xᴴQx.
"""

from dataclasses import dataclass, fields
from typing import Self

import torch

from direct_deepen.physics.operator import LinearOperator
from direct_deepen.priors.energy import DifferentiableEnergy


def inner_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Re⟨left, right⟩ of every image in double precision; (..., height, width) → (...)."""
    if left.is_complex():
        product = torch.view_as_real(left.resolve_conj()) * torch.view_as_real(right.resolve_conj())
        return product.sum(dim=(-3, -2, -1), dtype=torch.float64)
    return (left * right).sum(dim=(-2, -1), dtype=torch.float64)


@dataclass(frozen=True)
class CostTerms:
    """C at images and what it is made of.

    Attributes
    ----------
    image
        x, complex (batch, height, width); samplers have one more dimension, the chains, in front of all.
    cost
        C(x), float64 (batch,).
    energy
        E(x), float64 (batch,).
    prior_gradient
        ∇E(x), complex (batch, height, width).
    gradient
        ∇C(x) = Aᴴ(Ax − b) + ∇E(x), complex (batch, height, width).
    """

    image: torch.Tensor
    cost: torch.Tensor
    energy: torch.Tensor
    prior_gradient: torch.Tensor
    gradient: torch.Tensor

    def tensors(self) -> list[torch.Tensor]:
        """Return all fields, in their order."""
        return [getattr(self, field.name) for field in fields(self)]

    def where(self, condition: torch.Tensor, other: Self) -> Self:
        """Return these terms for the images where ``condition`` holds, and those of ``other`` elsewhere."""
        pairs = zip(self.tensors(), other.tensors(), strict=True)
        return type(self)(*(torch.where(_per_image(condition, mine), mine, theirs) for mine, theirs in pairs))

    def __getitem__(self, index: torch.Tensor) -> Self:
        return type(self)(*(tensor[index] for tensor in self.tensors()))

    def write(self, index: torch.Tensor, part: Self) -> None:
        """Overwrite, in place, the images ``index`` of the batch by those of ``part``."""
        for mine, new in zip(self.tensors(), part.tensors(), strict=True):
            mine[index] = new


def cost_terms(
    A: LinearOperator, masked_kspace: torch.Tensor, energy: DifferentiableEnergy, image: torch.Tensor
) -> CostTerms:
    """Return C(x), E(x), ∇E(x) and ∇C(x) of images, complex (batch, height, width).

    The residual is formed in the data domain: the expanded square ½xᴴAᴴAx − Re xᴴAᴴb + ½‖b‖² would lose, in single
    precision, the digits that a monotone descent has to compare.
    """
    residual = A.forward(image) - masked_kspace
    squares = torch.view_as_real(residual).square() if residual.is_complex() else residual.square()
    value, prior_gradient = energy.value_and_grad(image)
    value = value.double()
    cost = 0.5 * squares.flatten(1).sum(dim=1, dtype=torch.float64) + value
    return CostTerms(image, cost, value, prior_gradient, A.adjoint(residual) + prior_gradient)


def _per_image(condition: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return condition.reshape(*condition.shape, *[1] * (like.ndim - condition.ndim))
