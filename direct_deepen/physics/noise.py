"""The one noise convention of this package.

A complex Gaussian ``z`` has *standard deviation per real component*: ``z = σ (u + i v)`` with ``u, v ~ N(0, 1)``
independent, hence ``E|z|² = 2σ²``. Every noise level of the package (measurement noise η, Langevin noise ε, data
noise, denoising levels) is given this way. Some published codes state ``E|z|² = σ²`` instead: their σ is √2 ours.
"""

from collections.abc import Sequence

import torch


def complex_normal(
    shape: Sequence[int],
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Draw complex Gaussian noise of unit standard deviation per real component, ``E|z|² = 2``.

    The generator draws on its own device: one seed gives one sequence of numbers whatever the ``device`` of the result.
    ``dtype`` is ``complex64`` or ``complex128``.
    """
    real_dtype = torch.float64 if dtype == torch.complex128 else torch.float32
    parts = torch.randn(*shape, 2, generator=generator, dtype=real_dtype, device=generator.device)
    return torch.view_as_complex(parts).to(device)


def complex_normal_like(tensor: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Draw :func:`complex_normal` noise of the shape, dtype and device of a complex tensor."""
    return complex_normal(tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device)
