"""Stacks of convolutions, complex images as their channels, and the priors that are such networks."""

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
    hidden_channels: int, num_layers: int, activation: str, *, out_channels: int = 2
) -> nn.Sequential:
    """Return ``num_layers`` 3×3 convolutions with one of :data:`ACTIVATIONS` between them (DEEPEN, section III-B).

    Two channels come in. A :class:`DeepenError` for fewer than two layers or one hidden channel.
    """
    require_choice("activation", activation, tuple(ACTIVATIONS))
    require(num_layers >= 2, f"num_layers is {num_layers!r}; allowed: >= 2")
    require(hidden_channels >= 1, f"hidden_channels is {hidden_channels!r}; allowed: >= 1")
    layers: list[nn.Module] = []
    for before, after in pairwise([2, *[hidden_channels] * (num_layers - 1), out_channels]):
        layers += [Convolution(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def image_to_channels(image: torch.Tensor, network: nn.Module) -> torch.Tensor:
    """Real and imaginary part as two channels; complex (batch, height, width) → (batch, 2, height, width).

    A complex tensor is in channels-last layout already, the fastest one for convolutions. A :class:`DeepenError` if
    the image has another shape, or not the precision of the network's weights.
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


BORDERS = ("zeros", "periodic")
"""What convolutions see beyond an image: nothing, or the image again, as the Fourier transform of k-space does."""


def margin_of(border: str, seen: int) -> int:
    """Return for how many pixels an image goes on beyond its border, of ``seen`` that a network sees on each side.

    With ``periodic`` that is, on what is left by :func:`without_margin`, circular padding in every layer. A
    :class:`DeepenError` for another border than :data:`BORDERS`.
    """
    require_choice("border", border, BORDERS)
    return seen if border == "periodic" else 0


def with_margin(image: torch.Tensor, margin: int) -> torch.Tensor:
    """Return images (..., height, width) that go on periodically for ``margin`` pixels on all sides."""
    if margin == 0:
        return image
    for axis in (-2, -1):
        size = image.shape[axis]
        image = image.index_select(axis, torch.arange(-margin, size + margin, device=image.device) % size)
    return image


def without_margin(values: torch.Tensor, margin: int) -> torch.Tensor:
    """Return the middle of (..., height, width): all but ``margin`` pixels on all sides."""
    return values if margin == 0 else values[..., margin:-margin, margin:-margin]


class ImageNetwork(nn.Module):
    """A stack of 3×3 convolutions from images to images, the network H of MoL.

    With PyTorch's initial weights it is a contraction: the Lipschitz constant is well below one. Arguments out of
    range, and images of another precision than the weights, are a :class:`DeepenError`.

    Parameters
    ----------
    hidden_channels
        Channels between the convolutions.
    num_layers
        Number of 3×3 convolutions.
    activation
        ``relu`` (the paper's), ``softplus``, ``silu`` or ``elu``.
    """

    def __init__(self, *, hidden_channels: int = 64, num_layers: int = 5, activation: str = "relu") -> None:
        super().__init__()
        self.layers = convolutional_stack(hidden_channels, num_layers, activation)
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
