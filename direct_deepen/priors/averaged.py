"""A network and the running average of its weights, which reconstruction uses."""

import copy

import torch
from torch import nn

from direct_deepen.errors import require


class Averaged(nn.Module):
    r"""In training mode the network itself, in evaluation mode the average of its weights over the updates.

    .. math:: \bar\theta \leftarrow d \bar\theta + (1 - d) \theta, \qquad d = \min(d_{max}, (1 + n)/(10 + n))

    after n updates, so that early, poor weights are forgotten quickly. Both are in the state dict, so that training
    can be resumed; the average takes no gradient. ``decay`` is d_max, 0 ≤ d_max < 1; a :class:`DeepenError` otherwise.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        require(0 <= decay < 1, f"decay is {decay!r}; allowed: 0 or above, and below 1")
        self.module = module
        self.average = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def current(self) -> nn.Module:
        """The network of the current mode."""
        return self.module if self.training else self.average

    def forward(self, *arguments: torch.Tensor | float) -> torch.Tensor:
        """Call the network of the current mode."""
        return self.current(*arguments)

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        assert isinstance(self.updates, torch.Tensor)
        self.updates += 1
        number = int(self.updates)
        decay = min(self.decay, (1 + number) / (10 + number))
        for mean, weight in zip(self.average.parameters(), self.module.parameters(), strict=True):
            mean.lerp_(weight, 1 - decay)
