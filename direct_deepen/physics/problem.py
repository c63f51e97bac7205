"""A reconstruction problem: operator and data in scaled intensities."""

from dataclasses import dataclass
from typing import Self

import torch

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

    def to_data_units(self, image: torch.Tensor) -> torch.Tensor:
        """Undo the scaling of images (..., batch, height, width)."""
        return image * self.scale[:, None, None]

    def select(self, index: torch.Tensor) -> Self:
        """Return the problem of the images ``index`` (integers) of the batch; without a copy if these are all."""
        chosen = index.tolist()
        if chosen == list(range(len(self.names))):
            return self
        names = [self.names[i] for i in chosen]
        return type(self)(self.A.select(index), self.masked_kspace[index], self.scale[index], names)
