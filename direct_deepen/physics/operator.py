"""What solvers and samplers need of a forward model."""

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch

from direct_deepen.physics.per_image import per_image


@runtime_checkable
class LinearOperator(Protocol):
    """A linear map A from images (batch, ...), of two dimensions or more, to data (batch, ...).

    ``normal`` is AᴴA. Any operator with these three methods will do: inpainting, deblurring, SENSE.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return Ax."""

    def adjoint(self, data: torch.Tensor) -> torch.Tensor:
        """Return Aᴴy."""

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """Return AᴴAx."""


@runtime_checkable
class SupportsSelection(LinearOperator, Protocol):
    """An operator that can be cut to a part of its batch."""

    def select(self, index: torch.Tensor) -> Self:
        """Return the operator of the images ``index`` (integers or booleans) of the batch."""


def over_chains(A: LinearOperator) -> LinearOperator:
    """Return A for images (chain, batch, ...).

    An operator takes one chain after the other, unless its attribute ``takes_leading_dimensions`` says that it takes
    them itself.
    """
    return A if getattr(A, "takes_leading_dimensions", False) else _ChainByChain(A)


@dataclass(frozen=True)
class _ChainByChain:
    A: LinearOperator

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.A.forward(part) for part in image])

    def adjoint(self, data: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.A.adjoint(part) for part in data])

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.A.normal(part) for part in image])


def norm_squared(A: LinearOperator, template: torch.Tensor) -> torch.Tensor:
    """Largest eigenvalue of AᴴA for every image: the operator's own bound if it has one, otherwise by power iteration.

    Float64 (batch,); ``norm_squared_bound`` is one number or real (batch,). Power iteration approaches from below; 20
    iterations from a flat spectrum are within a few percent, which the callers' safety factors cover. ``template``
    gives shape, dtype and device of images.
    """
    bound = getattr(A, "norm_squared_bound", None)
    if bound is not None:
        return torch.as_tensor(bound, dtype=torch.float64, device=template.device).expand(len(template))
    generator = torch.Generator().manual_seed(0)
    # The same for every image, so that results do not depend on the rest of the batch.
    first = torch.randn(template.shape[1:], generator=generator, dtype=template.dtype).to(template.device)
    vector, value = first.expand_as(template), torch.ones(())
    for _ in range(20):
        norm = per_image(torch.linalg.vector_norm(vector.flatten(1), dim=1), vector)
        vector = A.normal(vector / torch.where(norm > 0, norm, 1.0))
        value = torch.linalg.vector_norm(vector.flatten(1), dim=1)
    return value.double()
