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


SHAPES = {2: "(batch, height, width)", 3: "(batch, depth or time, height, width)"}
"""Numbers of dimensions that there are convolutions for, and the shapes of their images."""

MEMORY_FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Layouts of weights, by the number of dimensions: the one that complex images have already."""


def convolutional_stack(
    hidden_channels: int, num_layers: int, activation: str, *, out_channels: int = 2, dimensions: int = 2
) -> nn.Sequential:
    """Return ``num_layers`` 3×3 convolutions with one of :data:`ACTIVATIONS` between them (DEEPEN, section III-B).

    Of three ``dimensions`` they are 3×3×3, by PyTorch's ``nn.Conv3d``. Two channels come in. A :class:`DeepenError` for
    fewer than two layers or one hidden channel, and for dimensions besides 2 and 3.
    """
    require(dimensions in SHAPES, f"dimensions is {dimensions!r}; allowed: 2, 3")
    require_choice("activation", activation, tuple(ACTIVATIONS))
    require(num_layers >= 2, f"num_layers is {num_layers!r}; allowed: >= 2")
    require(hidden_channels >= 1, f"hidden_channels is {hidden_channels!r}; allowed: >= 1")
    layers: list[nn.Module] = []
    for before, after in pairwise([2, *[hidden_channels] * (num_layers - 1), out_channels]):
        layers += [
            Convolution(before, after) if dimensions == 2 else nn.Conv3d(before, after, kernel_size=3, padding=1),
            ACTIVATIONS[activation](),
        ]
    return nn.Sequential(*layers[:-1])


def image_to_channels(image: torch.Tensor, network: nn.Module, dimensions: int = 2) -> torch.Tensor:
    """Real and imaginary part as two channels; complex (batch, height, width) → (batch, 2, height, width).

    Images of three dimensions likewise. A complex tensor is in channels-last layout already, the fastest one for
    convolutions. A :class:`DeepenError` if the image has another number of dimensions, or a single slice or frame of
    three, or not the precision of the network's weights.
    """
    require_shape(image, dimensions)
    weight = next(network.parameters())
    allowed = torch.complex128 if weight.dtype == torch.float64 else torch.complex64
    require(
        image.dtype == allowed,
        f"image has dtype {image.dtype}; allowed with weights of {weight.dtype}: {allowed} "
        "(.double() makes the weights double)",
    )
    return torch.view_as_real(image.resolve_conj()).movedim(-1, 1)


def require_shape(image: torch.Tensor, dimensions: int) -> None:
    """Raise :class:`DeepenError` unless images are complex, of so many dimensions, three with more than one slice."""
    require(
        image.ndim == dimensions + 1 and image.is_complex(),
        f"image has shape {tuple(image.shape)} and dtype {image.dtype}; allowed with a prior of {dimensions} "
        f"dimensions: complex {SHAPES[dimensions]}",
    )
    require(
        dimensions == 2 or image.shape[1] > 1,
        f"image has shape {tuple(image.shape)}, one slice or frame; allowed with a prior of 3 dimensions: two or more",
    )


def channels_to_image(channels: torch.Tensor) -> torch.Tensor:
    """Two channels as a complex image; (batch, 2, height, width) → complex (batch, height, width), or of more axes."""
    return torch.view_as_complex(channels.movedim(1, -1).contiguous())


BORDERS = ("zeros", "periodic")
"""What convolutions see beyond an image: nothing, or the image again, as the Fourier transform of k-space does."""


def margin_of(border: str, seen: int) -> int:
    """Return for how many pixels an image goes on beyond its border, of ``seen`` that a network sees on each side.

    With ``periodic`` that is, on what is left by :func:`without_margin`, circular padding in every layer. A
    :class:`DeepenError` for another border than :data:`BORDERS`.
    """
    require_choice("border", border, BORDERS)
    return seen if border == "periodic" else 0


def with_margin(image: torch.Tensor, margin: int, dimensions: int = 2) -> torch.Tensor:
    """Return images (..., height, width) that go on periodically for ``margin`` pixels on all sides.

    Of three ``dimensions`` they do so along their third last axis too: a volume, or a periodic series.
    """
    if margin == 0:
        return image
    for axis in range(-dimensions, 0):
        size = image.shape[axis]
        image = image.index_select(axis, torch.arange(-margin, size + margin, device=image.device) % size)
    return image


def without_margin(values: torch.Tensor, margin: int, dimensions: int = 2) -> torch.Tensor:
    """Return the middle of (..., height, width): all but ``margin`` pixels on all sides of so many dimensions."""
    for axis in range(-dimensions, 0) if margin > 0 else ():
        values = values.narrow(axis, margin, values.shape[axis] - 2 * margin)
    return values


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
