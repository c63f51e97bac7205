"""The energy on a plane of images: where its minimum lies, along noise and along aliasing.

The plane is x + α_z z + α_s s around an image x, with s = x₀ − x what SENSE leaves of the aliasing, and z complex
Gaussian noise of the norm of s: Fig. 2 of the paper. A good energy has its minimum near (0, 0).
"""

from dataclasses import dataclass

import torch

from direct_deepen.inference.cost import inner_product
from direct_deepen.physics.noise import complex_normal
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.precision import without_autocast
from direct_deepen.physics.sense import sense, within_mask
from direct_deepen.priors.energy import DifferentiableEnergy
from direct_deepen.progress import progress_bar

AXIS = torch.arange(-20, 21) / 20
"""α of both directions, from −1 to 1; at α_s = 1 the image is that of SENSE."""


@dataclass(frozen=True)
class Landscape:
    """E and C = ½‖Ax − b‖² + E, real (α_s, α_z) over :data:`AXIS`, around an image x, complex (height, width)."""

    energy: torch.Tensor
    cost: torch.Tensor
    image: torch.Tensor
    structure: torch.Tensor


def minimiser(values: torch.Tensor) -> tuple[float, float]:
    """Return (α_s, α_z) where values over the plane are least."""
    row, column = divmod(int(values.argmin()), len(AXIS))
    return float(AXIS[row]), float(AXIS[column])


@without_autocast
@torch.no_grad()
def landscape(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: DifferentiableEnergy,
    image: torch.Tensor,
    *,
    generator: torch.Generator,
    progress: bool = False,
) -> Landscape:
    """Evaluate an energy on the plane around an image x, complex (1, height, width) in scaled intensities as is b.

    ``generator`` draws the noise direction; ``progress`` shows a bar, if standard error is a terminal.
    """
    masked_kspace = within_mask(A, masked_kspace)
    structure = sense(A, masked_kspace) - image
    noise = complex_normal(image.shape, generator=generator, dtype=image.dtype)
    noise = noise * structure.norm() / noise.norm()
    # A row at a time: the plane as one batch would be 1681 images.
    weights = progress_bar(AXIS, name="landscape", unit="row", shown=progress)
    rows = [energy.value_and_grad(image + AXIS[:, None, None] * noise + weight * structure)[0] for weight in weights]
    values = torch.stack(rows)
    # The data term is a quadratic of two numbers: three residuals say all of it.
    residual, along_noise, along_structure = A.forward(image) - masked_kspace, A.forward(noise), A.forward(structure)
    alpha_s, alpha_z = AXIS[:, None].double(), AXIS[None, :].double()
    data_term = 0.5 * (
        _dot(residual, residual)
        + alpha_s**2 * _dot(along_structure, along_structure)
        + alpha_z**2 * _dot(along_noise, along_noise)
        + 2 * alpha_s * _dot(residual, along_structure)
        + 2 * alpha_z * _dot(residual, along_noise)
        + 2 * alpha_s * alpha_z * _dot(along_structure, along_noise)
    )
    return Landscape(values, data_term + values, image[0], structure[0])


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return inner_product(left, right).sum()
