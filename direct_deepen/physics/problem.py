"""A reconstruction problem: operator and data in scaled intensities."""

from dataclasses import dataclass, replace
from typing import Self

import torch

from direct_deepen.physics.per_image import per_image
from direct_deepen.physics.rings import ring_numbers
from direct_deepen.physics.sense_operator import SenseOperator


@dataclass(frozen=True)
class Problem:
    """A batch of reconstruction problems in scaled intensities."""

    A: SenseOperator
    masked_kspace: torch.Tensor
    """b over the scale, complex (batch, coil, height, width)."""
    scale: torch.Tensor
    """Intensity scale, real (batch,): images times it are in the units of DIRECT's batch."""
    names: list[tuple[str, int]]
    """File and slice of every image."""
    noise_by_ring: torch.Tensor | None = None
    """η of every ring of k-space per real component, real (batch, ring), where operator and data are weighted so that
    theirs is the least of them in every ring."""

    @property
    def noise_std(self) -> torch.Tensor | None:
        """ε of weighted data, √2 times the least noise of a ring, real (batch,); None where data have no weights."""
        return None if self.noise_by_ring is None else 2**0.5 * self.noise_by_ring.amin(dim=1)

    def with_noise_by_ring(self, noise_std: torch.Tensor) -> Self:
        """Return the problem with samples weighted for noise η of every ring, real (batch, ring).

        Rings are those of :func:`~direct_deepen.physics.rings.ring_numbers`.
        """
        rings = ring_numbers(*self.masked_kspace.shape[-2:], device=self.masked_kspace.device)
        weights = (noise_std.amin(dim=1, keepdim=True) / noise_std)[:, rings]
        weighted = self.masked_kspace * weights[:, None].to(self.masked_kspace.real.dtype)
        return replace(self, A=self.A.weighted(weights), masked_kspace=weighted, noise_by_ring=noise_std)

    def to_data_units(self, image: torch.Tensor) -> torch.Tensor:
        """Undo the scaling of images (..., batch, height, width), or of more dimensions as those of the operator."""
        return image * per_image(self.scale, self.A.sensitivity_map[:, 0])

    def select(self, index: torch.Tensor) -> Self:
        """Return the problem of the images ``index`` (integers) of the batch; without a copy if these are all."""
        chosen = index.tolist()
        if chosen == list(range(len(self.names))):
            return self
        names = [self.names[i] for i in chosen]
        noise = None if self.noise_by_ring is None else self.noise_by_ring[index]
        return type(self)(self.A.select(index), self.masked_kspace[index], self.scale[index], names, noise)
