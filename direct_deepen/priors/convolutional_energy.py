"""Energies that are a number made of what a stack of convolutions puts out."""

from abc import abstractmethod

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from direct_deepen.priors.energy import Energy
from direct_deepen.priors.networks import image_to_channels

_CPU_PIXELS = 25600
"""Pixels of a part for every thread of a CPU: 6 MB for every activation of 64 channels, which stay in its cache."""
_GPU_PIXELS = 2**22
"""Pixels of a part on a GPU: 1 GiB for every activation of 64 channels."""


def images_at_once(images: torch.Tensor) -> int:
    """Return how many of such images go through a network at once: small ones together, large ones one by one."""
    pixels = _CPU_PIXELS * torch.get_num_threads() if images.device.type == "cpu" else _GPU_PIXELS
    return max(1, pixels // images.shape[-2:].numel())


class ConvolutionalEnergy(Energy):
    """E(x) = h(φ(x)), φ a stack of convolutions and h a head that makes a number of its output.

    ∇E, and the gradient of E by the weights where none by the image is asked for, take a few images at once: the
    memory of a batch is that of a few images.
    """

    @property
    @abstractmethod
    def stack(self) -> nn.Sequential:
        """The convolutions φ, real (batch, 2, height, width) → (batch, channel, height, width)."""

    @abstractmethod
    def energy_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return h ≥ 0, real (batch,), of what the stack puts out, differentiable."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x); complex (batch, height, width) → real (batch,)."""
        channels = image_to_channels(image, self)
        if channels.requires_grad:
            return self._energy(channels)
        # Of a part only its images are kept; they pass a second time for the gradient.
        parts = channels.split(images_at_once(channels))
        return torch.cat(
            [checkpoint(self._energy, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        )

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x), detached; see :meth:`Energy.value_and_grad`."""
        parts = [Energy.value_and_grad(self, part) for part in image.split(images_at_once(image))]
        values, gradients = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(gradients)

    def _energy(self, channels: torch.Tensor) -> torch.Tensor:
        features = self.stack(channels).to(channels.dtype)
        # Sums over pixels are too long for 16 bits.
        with torch.autocast(channels.device.type, enabled=False):
            return self.energy_of_features(features)
