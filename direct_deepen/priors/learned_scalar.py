"""A learned positive number, such as the step of an inference that a prior is trained through."""

import math

import torch
from torch import nn

from direct_deepen.errors import require_positive


class PositiveScalar(nn.Module):
    """A positive number to be learned, through its logarithm.

    Parameters
    ----------
    initial
        Where it starts, above zero.
    name
        What errors call it.

    Raises
    ------
    DeepenError
        If it is not a positive finite number.
    """

    def __init__(self, initial: float, name: str) -> None:
        super().__init__()
        require_positive(name, initial)
        self.logarithm = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> torch.Tensor:
        """Return the number, a scalar with a graph."""
        return self.logarithm.exp()
