"""Estimates of the curvature of an energy, the L of a majorizer."""

import torch

from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.priors.energy import DifferentiableEnergy


def image_norm(images: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of every image; (..., height, width) → (...)."""
    if images.is_complex():
        # Of the components: ten times as fast on a CPU as the norm of complex numbers.
        return torch.linalg.vector_norm(torch.view_as_real(images.resolve_conj()), dim=(-3, -2, -1))
    return torch.linalg.vector_norm(images, dim=(-2, -1))


def difference_quotient(step: torch.Tensor, gradient_change: torch.Tensor) -> torch.Tensor:
    """‖∇E(x + d) − ∇E(x)‖/‖d‖ of every image, 0 where d = 0: a lower bound of the Lipschitz constant on the segment."""
    length = image_norm(step)
    tiny = torch.finfo(length.dtype).tiny
    return torch.where(length > 0, image_norm(gradient_change) / length.clamp_min(tiny), 0.0)


def largest_curvature(
    energy: DifferentiableEnergy,
    image: torch.Tensor,
    *,
    num_iterations: int = 10,
    relative_step: float = 1e-2,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Largest |eigenvalue| of the Hessian of E at every image, by power iteration on gradient differences.

    .. math:: v \leftarrow \frac{\nabla E(x + h v) - \nabla E(x)}{h}, \quad v \leftarrow v / \|v\|

    with h = ``relative_step`` · ‖x‖ (CLIP's difference quotients, with the pair pushed by power iteration instead of
    gradient ascent; Bungert et al., 2021). The estimate approaches from below and holds near x only: a starting value,
    not a bound.

    Parameters
    ----------
    energy
        The energy; only ``value_and_grad`` is used.
    image
        x, complex (batch, height, width).
    num_iterations
        Gradients computed, besides one at x.
    relative_step
        h over ‖x‖ (over 1 where x = 0): large enough for single precision, small enough to stay near x.
    generator
        Source of the first direction; a fixed one by default, so that the result is reproducible.

    Returns
    -------
    Real (batch,), ≥ 0.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    # The same for every image, so that results do not depend on the rest of the batch.
    first = complex_normal_like(image[0], generator=generator)
    direction = first.expand_as(image)
    norm = image_norm(image)
    length = (relative_step * torch.where(norm > 0, norm, 1.0))[:, None, None]
    _, reference = energy.value_and_grad(image)
    curvature = torch.zeros_like(norm)
    for _ in range(num_iterations):
        size = image_norm(direction)[:, None, None]
        direction = torch.where(size > 0, direction / size.clamp_min(torch.finfo(size.dtype).tiny), direction)
        _, gradient = energy.value_and_grad(image + length * direction)
        direction = (gradient - reference) / length
        curvature = image_norm(direction)
    return curvature
