"""Priors without an energy: networks that map an image closer to the images of training."""

import torch
from torch import nn

from direct_deepen.priors.networks import channels_to_image, convolutional_stack, image_to_channels


class ImageNetwork(nn.Module):
    """A stack of 3×3 convolutions from images to images, the network H of MoL.

    With PyTorch's initial weights it is a contraction: the Lipschitz constant is well below one.

    Parameters
    ----------
    hidden_channels
        Channels between the convolutions.
    num_layers
        Number of 3×3 convolutions.
    activation
        ``relu`` (the paper's), ``softplus``, ``silu`` or ``elu``.

    Raises
    ------
    DeepenError
        If an argument is out of range, or an image is not of the precision of the weights.
    """

    def __init__(self, *, hidden_channels: int = 64, num_layers: int = 5, activation: str = "relu") -> None:
        super().__init__()
        self.layers = convolutional_stack(
            in_channels=2,
            hidden_channels=hidden_channels,
            out_channels=2,
            num_layers=num_layers,
            activation=activation,
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the network's image; complex (batch, height, width) → the same."""
        return channels_to_image(self.layers(image_to_channels(image, self)))


class Denoiser(ImageNetwork):
    """D(x) = x − r(x), r a stack of 3×3 convolutions: the denoiser of PnP-ISTA.

    It need not be the gradient of anything, nor a contraction. Arguments and errors are those of :class:`ImageNetwork`.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return D(x); complex (batch, height, width) → the same."""
        return image - super().forward(image)
