"""The quadratic form of MuSE: half the squared distance of an image to its denoised version."""

import torch
from torch import nn

from direct_deepen.errors import require_positive
from direct_deepen.priors.convolutional_energy import ConvolutionalEnergy
from direct_deepen.priors.networks import channels_to_image, convolutional_stack, image_to_channels


class QuadraticEnergy(ConvolutionalEnergy):
    r"""E(x) = (w/2)‖x − ψ(x)‖², with ∇E = w(I − J_ψ)ᴴ(x − ψ(x)) and ψ(x) = x − r(x), r a stack of 3×3 convolutions.

    Zero on the fixed points of ψ, non-negative by construction, growing at most quadratically, and free of the image
    size: the sum over pixels makes it extensive, as ½‖Ax − b‖² is.

    Parameters
    ----------
    hidden_channels
        Channels between the convolutions.
    num_layers
        Number of 3×3 convolutions.
    activation
        ``relu``, ``softplus``, ``silu`` or ``elu``; ∇E is locally Lipschitz for all but ``relu``.
    weight
        w > 0, one in MuSE. It is the temperature of the prior: with ψ a denoiser of noise of standard deviation cε, the
        posterior ∝ exp(−2C/ε²) asks for w = 1/(2c²). A weight outside the network keeps ψ well scaled in training.

    Notes
    -----
    The network learns the residual r, which is small, and E = (w/2)‖r(x)‖². Any ψ can be written so; only the start of
    training differs.

    Raises
    ------
    DeepenError
        If an argument is out of range, or an image is not of the precision of the weights.

    References
    ----------
    Chand and Jacob, Multi-scale energy (MuSE) framework for inverse problems in imaging, 2024.
    """

    def __init__(
        self, *, hidden_channels: int = 64, num_layers: int = 5, activation: str = "elu", weight: float = 1.0
    ) -> None:
        super().__init__()
        require_positive("weight", weight)
        self.weight = weight
        self.residual = convolutional_stack(
            in_channels=2,
            hidden_channels=hidden_channels,
            out_channels=2,
            num_layers=num_layers,
            activation=activation,
        )
        self.to(memory_format=torch.channels_last)

    def denoise(self, image: torch.Tensor) -> torch.Tensor:
        """Return ψ(x); complex (batch, height, width) → the same."""
        return image - channels_to_image(self.residual(image_to_channels(image, self)))

    @property
    def stack(self) -> nn.Sequential:
        """The network r of the residual."""
        return self.residual

    def energy_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return (w/2)‖r‖²."""
        return 0.5 * self.weight * features.square().sum(dim=(1, 2, 3))
