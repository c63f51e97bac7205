"""The energy of the paper: convolutions, a linear layer to a scalar, absolute value."""

from collections.abc import Sequence

import torch
from torch import nn

from direct_deepen.errors import require, require_choice, require_positive
from direct_deepen.priors.convolutional_energy import ConvolutionalEnergy
from direct_deepen.priors.networks import ACTIVATIONS, convolutional_stack

HEADS = ("pooled", "flattened")
TOPS = ("absolute", "smooth")


class ConvEnergy(ConvolutionalEnergy):
    r"""E(x) = |w · φ(x) + v|, φ a stack of 3×3 convolutions (DEEPEN, section III-B).

    Parameters
    ----------
    hidden_channels
        Channels of every convolution.
    num_layers
        Number of 3×3 convolutions, each followed by the activation.
    activation
        ``relu`` (the paper's), ``softplus``, ``silu`` or ``elu``.
    head
        ``flattened``: w has one weight per channel and pixel, the paper's linear layer, tied to ``image_size``.
        ``pooled``: w has one weight per channel, that is a 1×1 convolution summed over pixels, for any image size.
    image_size
        (height, width), required by the flattened head and by it alone.
    top
        ``absolute``: |f|, the paper's, with a kink at f = 0. ``smooth``: √(f² + δ²).
    top_width
        δ > 0 of the smooth top.

    Notes
    -----
    ∇E is Lipschitz only for a smooth activation and a smooth top; with ``relu`` or ``absolute`` it jumps, and a
    majorizer exists between the jumps only.

    Raises
    ------
    DeepenError
        If an argument is out of range, ``image_size`` does not match the head, or an image has another size.
    """

    def __init__(
        self,
        *,
        hidden_channels: int = 64,
        num_layers: int = 5,
        activation: str = "relu",
        head: str = "pooled",
        image_size: Sequence[int] | None = None,
        top: str = "absolute",
        top_width: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice("head", head, HEADS)
        require_choice("top", top, TOPS)
        require_positive("top_width", top_width)
        require(
            (image_size is not None) == (head == "flattened"),
            f"image_size is {image_size!r}; allowed: [height, width] with head: flattened, null with head: pooled",
        )
        self.image_size = None if image_size is None else tuple(image_size)
        self.top = top
        self.top_width = top_width
        self.features = convolutional_stack(
            in_channels=2,
            hidden_channels=hidden_channels,
            out_channels=hidden_channels,
            num_layers=num_layers,
            activation=activation,
        ).append(ACTIVATIONS[activation]())
        self.head: nn.Module
        if self.image_size is None:
            self.head = nn.Conv2d(hidden_channels, 1, kernel_size=1)
        else:
            self.head = nn.Linear(hidden_channels * self.image_size[0] * self.image_size[1], 1)
        self.to(memory_format=torch.channels_last)

    @property
    def stack(self) -> nn.Sequential:
        """The convolutions φ."""
        return self.features

    def energy_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return |w · φ + v|, or its smooth form."""
        if self.image_size is None:
            scalar = self.head(features).sum(dim=(1, 2, 3))
        else:
            size = tuple(features.shape[-2:])
            require(
                size == self.image_size,
                f"image has size {size}; allowed with this flattened head: {self.image_size} "
                "(head: pooled takes any size)",
            )
            scalar = self.head(features.flatten(1)).squeeze(1)
        if self.top == "absolute":
            return scalar.abs()
        return torch.sqrt(scalar**2 + self.top_width**2)
