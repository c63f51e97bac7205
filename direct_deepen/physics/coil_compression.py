r"""Many receive coils as a few virtual ones: the combinations with the most signal.

.. math:: b' = U^H b, \qquad S' = U^H S

with U the first left singular vectors of samples about the centre of k-space (Buehrer et al., MRM 57, 1131, 2007). They
are orthonormal: white noise stays white and as loud as it is, and U takes maps of virtual coils back.
"""

import torch

from direct_deepen.errors import require, require_count


def principal_combinations(samples: torch.Tensor, count: int) -> tuple[torch.Tensor, float]:
    """Return U, complex (coil, virtual coil), of samples, complex (coil, sample), and what it keeps of their energy.

    A :class:`DeepenError` for fewer samples or coils than ``count``.
    """
    require_count("count", count)
    require(
        count <= min(samples.shape),
        f"samples have shape {tuple(samples.shape)}; allowed for {count} virtual coils: as many coils, and samples",
    )
    vectors, values, _ = torch.linalg.svd(samples, full_matrices=False)
    kept = float(values[:count].square().sum() / values.square().sum())
    return vectors[:, :count], kept


def combined(coils: torch.Tensor, combinations: torch.Tensor) -> torch.Tensor:
    """Return Uᴴ of coils, complex (coil, …): k-space, samples, or coil maps."""
    return torch.einsum("cv,c...->v...", combinations.conj(), coils)
