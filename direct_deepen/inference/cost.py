r"""The cost that MAP minimises and the posterior is made of, C(x) = ½‖Ax − b‖² + E(x).

Temperature, once for all: the posterior is ∝ exp(−2C/ε²) = exp(−‖Ax − b‖²/ε² − 2E/ε²), with ε the Langevin noise. So
the likelihood is that of measurement noise η = ε/√2 per real component, and −log prior = 2E/ε². A Gaussian prior of
precision Q, −log p = ½xᴴQx up to a constant, enters as E = (ε²/4)xᴴQx.
"""

from dataclasses import dataclass
from typing import Self

import torch

from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.per_image import per_image
from direct_deepen.priors.energy import DifferentiableEnergy

_RELATIVE_STEP = 1e-2
"""h over ‖x‖ (over 1 where x = 0): large enough for single precision, small enough to stay near x."""

SMALLEST_CURVATURE = 1e-4
"""Relative to ‖A‖ ≤ 1: below it AᴴA + LI would be singular where A is, for an energy without curvature."""

ROUNDINGS = 4
"""Roundings of the last digit of a sum over all pixels; measured: 1 to 2."""


def image_norm(images: torch.Tensor, *, leading: int = 1) -> torch.Tensor:
    """Euclidean norm of every image; the first ``leading`` axes count images, (batch, ...) → (batch,) by default."""
    # Of the components: ten times as fast on a CPU as the norm of complex numbers.
    parts = torch.view_as_real(images.resolve_conj()) if images.is_complex() else images
    return torch.linalg.vector_norm(parts, dim=tuple(range(leading, parts.ndim)))


def inner_product(left: torch.Tensor, right: torch.Tensor, *, leading: int = 1) -> torch.Tensor:
    """Re⟨left, right⟩ of every image in double precision; axes are those of ``image_norm``."""
    if left.is_complex():
        left, right = (torch.view_as_real(images.resolve_conj()) for images in (left, right))
    product = left * right
    return product.sum(dim=tuple(range(leading, product.ndim)), dtype=torch.float64)


@dataclass(frozen=True)
class CostTerms:
    """C at images and what it is made of; samplers have one more dimension, the chains, in front of all."""

    image: torch.Tensor
    """x, complex (batch, ...)."""
    cost: torch.Tensor
    """C(x), float64 (batch,)."""
    energy: torch.Tensor
    """E(x), float64 (batch,)."""
    prior_gradient: torch.Tensor
    """∇E(x), complex (batch, ...)."""
    gradient: torch.Tensor
    """∇C(x) = Aᴴ(Ax − b) + ∇E(x), complex (batch, ...)."""

    def tensors(self) -> list[torch.Tensor]:
        """Return all fields, in their order."""
        return list(vars(self).values())

    def where(self, condition: torch.Tensor, other: Self) -> Self:
        """Return these terms for the images where ``condition`` holds, and those of ``other`` elsewhere."""

        def chosen(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
            return torch.where(per_image(condition, mine), mine, theirs)

        return type(self)(*map(chosen, self.tensors(), other.tensors()))

    def __getitem__(self, index: torch.Tensor) -> Self:
        return type(self)(*(tensor[index] for tensor in self.tensors()))

    def write(self, index: torch.Tensor, part: Self) -> None:
        """Overwrite, in place, the images ``index`` of the batch by those of ``part``."""
        for mine, new in zip(self.tensors(), part.tensors(), strict=True):
            mine[index] = new


def cost_terms(
    A: LinearOperator, masked_kspace: torch.Tensor, energy: DifferentiableEnergy, image: torch.Tensor
) -> CostTerms:
    """Return C(x), E(x), ∇E(x) and ∇C(x) of images, complex (batch, ...).

    The residual is formed in the data domain: the expanded square ½xᴴAᴴAx − Re xᴴAᴴb + ½‖b‖² would lose, in single
    precision, the digits that a monotone descent has to compare.
    """
    residual = A.forward(image) - masked_kspace
    squares = torch.view_as_real(residual).square() if residual.is_complex() else residual.square()
    value, prior_gradient = energy.value_and_grad(image)
    value = value.double()
    cost = 0.5 * squares.flatten(1).sum(dim=1, dtype=torch.float64) + value
    return CostTerms(image, cost, value, prior_gradient, A.adjoint(residual) + prior_gradient)


def change_by(values: torch.Tensor, slopes: torch.Tensor, size: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the change of a function along a step from its change by ``values`` and by the trapezoidal rule.

    ``slopes`` is ½⟨∇f(x) + ∇f(x + d), d⟩, which is exact for a quadratic function and knows nothing of a constant in f;
    ``size`` is |f|, computed in the precision of ``dtype``: values are believed up to its rounding. Hager and Zhang, A
    new conjugate gradient method with guaranteed descent and an efficient line search, 2005, section 3.
    """
    rounding = ROUNDINGS * torch.finfo(dtype).eps * size
    return torch.minimum(torch.maximum(slopes, values - rounding), values + rounding)


def largest_curvature(
    energy: DifferentiableEnergy,
    image: torch.Tensor,
    *,
    num_iterations: int = 10,
    gradient: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Largest |eigenvalue| of the Hessian of E at every image, real (batch,), by power iteration on differences.

    .. math:: v \leftarrow \frac{\nabla E(x + h v) - \nabla E(x)}{h}, \quad v \leftarrow v / \|v\|

    CLIP's difference quotients (Bungert et al., 2021), with the pair pushed by power iteration instead of gradient
    ascent. The estimate approaches from below and holds near x only: a starting value, not a bound. After a single
    iteration, from a direction of white noise, it is the root mean square of the eigenvalues.

    ``gradient`` is ∇E(x), if it is known.
    """
    # The same for every image, so that results do not depend on the rest of the batch.
    first = complex_normal_like(image[0], generator=torch.Generator().manual_seed(0))
    direction = first.expand_as(image)
    norm = image_norm(image)
    length = per_image(_RELATIVE_STEP * torch.where(norm > 0, norm, 1.0), image)
    reference = energy.value_and_grad(image)[1] if gradient is None else gradient
    curvature = torch.zeros_like(norm)
    for _ in range(num_iterations):
        size = per_image(image_norm(direction), direction)
        direction = torch.where(size > 0, direction / size.clamp_min(torch.finfo(size.dtype).tiny), direction)
        _, gradient = energy.value_and_grad(image + length * direction)
        direction = (gradient - reference) / length
        curvature = image_norm(direction)
    return curvature
