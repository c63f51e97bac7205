"""The convolutional network shared by the priors of the paper, and complex images as its channels."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from direct_deepen.errors import require, require_choice
from direct_deepen.priors.cpu.winograd import Convolution

# In place where the derivative is read off the result: a convolution does not need its own.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "elu": partial(nn.ELU, inplace=True),
}
"""``relu`` is the paper's. The other three have a continuous derivative, which a Lipschitz ∇E needs."""


def convolutional_stack(
    *, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, activation: str
) -> nn.Sequential:
    """Return ``num_layers`` 3×3 convolutions with an activation between them (DEEPEN, section III-B).

    Parameters
    ----------
    in_channels, hidden_channels, out_channels
        Channels at the input, between layers, and at the output.
    num_layers
        Number of convolutions, at least two.
    activation
        One of :data:`ACTIVATIONS`.

    Raises
    ------
    DeepenError
        If a number is out of range or the activation is unknown.
    """
    require_choice("activation", activation, tuple(ACTIVATIONS))
    require(num_layers >= 2, f"num_layers is {num_layers!r}; allowed: >= 2")
    require(hidden_channels >= 1, f"hidden_channels is {hidden_channels!r}; allowed: >= 1")
    widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
    layers: list[nn.Module] = []
    for layer, (before, after) in enumerate(pairwise(widths)):
        if layer > 0:
            layers.append(ACTIVATIONS[activation]())
        layers.append(Convolution(before, after))
    return nn.Sequential(*layers)


def image_to_channels(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """Real and imaginary part as two channels; complex (batch, height, width) → (batch, 2, height, width).

    A complex tensor is in channels-last layout already, the fastest one for convolutions.

    Raises
    ------
    DeepenError
        If the image is not a complex (batch, height, width) tensor of the precision of the network's weights.
    """
    require(
        image.ndim == 3 and image.is_complex(),
        f"image has shape {tuple(image.shape)} and dtype {image.dtype}; allowed: complex (batch, height, width)",
    )
    weight = next(network.parameters())
    allowed = torch.complex128 if weight.dtype == torch.float64 else torch.complex64
    require(
        image.dtype == allowed,
        f"image has dtype {image.dtype}; allowed with weights of {weight.dtype}: {allowed} "
        "(.double() makes the weights double)",
    )
    return torch.view_as_real(image.resolve_conj()).permute(0, 3, 1, 2)


def channels_to_image(channels: torch.Tensor) -> torch.Tensor:
    """Two channels as a complex image; (batch, 2, height, width) → complex (batch, height, width)."""
    return torch.view_as_complex(channels.permute(0, 2, 3, 1).contiguous())
