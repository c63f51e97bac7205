"""What the solvers and samplers ask of a forward model."""

from typing import Protocol, Self, runtime_checkable

import torch


@runtime_checkable
class LinearOperator(Protocol):
    """A linear map A from images (batch, height, width) to data (batch, ...).

    ``normal`` is AᴴA. An inpainting or deblurring operator with these three methods is as good as a SENSE operator.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return Ax."""

    def adjoint(self, data: torch.Tensor) -> torch.Tensor:
        """Return Aᴴy."""

    def normal(self, image: torch.Tensor) -> torch.Tensor:
        """Return AᴴAx."""


@runtime_checkable
class BatchedOperator(LinearOperator, Protocol):
    """An operator that also takes images with extra leading dimensions, and can be cut to a part of its batch."""

    def select(self, index: torch.Tensor) -> Self:
        """Return the operator of the images ``index`` (integers or booleans) of the batch."""


@runtime_checkable
class SupportsSampling(LinearOperator, Protocol):
    """An operator that samples k-space."""

    sampling_mask: torch.Tensor

    def fully_sampled(self) -> Self:
        """Return the same operator with every sample of k-space acquired."""


def normal_over_chains(A: LinearOperator, images: torch.Tensor) -> torch.Tensor:
    """Return AᴴA of images (chain, batch, height, width): in one call where ``A`` takes leading dimensions."""
    if isinstance(A, BatchedOperator):
        return A.normal(images)
    return torch.stack([A.normal(image) for image in images])


def forward_over_chains(A: LinearOperator, images: torch.Tensor) -> torch.Tensor:
    """Return A of images (chain, batch, height, width): in one call where ``A`` takes leading dimensions."""
    if isinstance(A, BatchedOperator):
        return A.forward(images)
    return torch.stack([A.forward(image) for image in images])


def adjoint_over_chains(A: LinearOperator, data: torch.Tensor) -> torch.Tensor:
    """Return Aᴴ of data (chain, batch, ...): in one call where ``A`` takes leading dimensions."""
    if isinstance(A, BatchedOperator):
        return A.adjoint(data)
    return torch.stack([A.adjoint(part) for part in data])


def norm_squared(A: LinearOperator, template: torch.Tensor, *, num_iterations: int = 20) -> float:
    """Largest eigenvalue of AᴴA: the operator's own bound if it has one, otherwise by power iteration.

    Power iteration approaches from below; 20 iterations from a flat spectrum are within a few percent, which the
    callers' safety factors cover. ``template`` gives shape, dtype and device of an image.
    """
    bound = getattr(A, "norm_squared_bound", None)
    if bound is not None:
        return float(bound)
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(template.shape, generator=generator, dtype=template.dtype).to(template.device)
    value = 0.0
    for _ in range(num_iterations):
        vector = vector / torch.linalg.vector_norm(vector)
        vector = A.normal(vector)
        value = float(torch.linalg.vector_norm(vector))
        if value == 0.0:
            break
    return value
