"""Energies that are a number made of what a stack of convolutions puts out, in 16 bits too."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from direct_deepen.errors import DeepenError, require, require_choice, require_positive
from direct_deepen.priors.energy import DifferentiableEnergy, Energy
from direct_deepen.priors.networks import (
    ACTIVATIONS,
    BORDERS,
    MEMORY_FORMATS,
    channels_to_image,
    convolutional_stack,
    image_to_channels,
    margin_of,
    require_shape,
    with_margin,
    without_margin,
)

HEADS = ("pooled", "flattened")
TOPS = ("absolute", "smooth")

_CPU_PIXELS = 25600
"""Pixels of a part for every thread of a CPU: 6 MB for every activation of 64 channels, which stay in its cache."""
_GPU_PIXELS = 2**22
"""Pixels of a part on a GPU: 1 GiB for every activation of 64 channels."""


def images_at_once(images: torch.Tensor, dimensions: int = 2) -> int:
    """Return how many of such images go through a network at once: small ones together, large ones one by one.

    Their last ``dimensions`` axes are those of pixels.
    """
    pixels = _CPU_PIXELS * torch.get_num_threads() if images.device.type == "cpu" else _GPU_PIXELS
    return max(1, pixels // images.shape[-dimensions:].numel())


def value_and_grad_in_parts(energy: Energy, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what :meth:`Energy.value_and_grad` does, of a few images at once."""
    parts = [Energy.value_and_grad(energy, part) for part in image.split(images_at_once(image, image.ndim - 1))]
    values, gradients = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(gradients)


class ConvolutionalEnergy(Energy):
    """E(x) = h(φ(x)), φ a stack of convolutions and h a head that makes a number of its output.

    ∇E, and the gradient of E by the weights where none by the image is asked for, take a few images at once: the
    memory of a batch is that of a few images.
    """

    border: str = "zeros"
    """One of :data:`~direct_deepen.priors.networks.BORDERS`."""
    dimensions: int = 2
    """Of images: 2, or 3 of volumes and of series."""

    @property
    @abstractmethod
    def stack(self) -> nn.Sequential:
        """The convolutions φ, real (batch, 2, height, width) → (batch, channel, height, width), or of volumes."""

    @abstractmethod
    def energy_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return h ≥ 0, real (batch,), of what the stack puts out, differentiable."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x); complex (batch, height, width), or of three dimensions → real (batch,)."""
        channels = self._extended(image)
        if channels.requires_grad:
            return self._energy(channels)
        # Of a part only its images are kept; they pass a second time for the gradient.
        parts = channels.split(images_at_once(channels, self.dimensions))
        return torch.cat(
            [checkpoint(self._energy, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        )

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x), detached; see :meth:`Energy.value_and_grad`."""
        return value_and_grad_in_parts(self, image)

    def _energy(self, channels: torch.Tensor) -> torch.Tensor:
        features = self._features(channels).to(channels.dtype)
        # Sums over pixels are too long for 16 bits.
        with torch.autocast(channels.device.type, enabled=False):
            return self.energy_of_features(features)

    def _extended(self, image: torch.Tensor) -> torch.Tensor:
        # Before the image goes on beyond its border: the shape that is told is that of the caller's.
        require_shape(image, self.dimensions)
        return image_to_channels(with_margin(image, self._margin, self.dimensions), self, self.dimensions)

    def _features(self, channels: torch.Tensor) -> torch.Tensor:
        return without_margin(self.stack(channels), self._margin, self.dimensions)

    @property
    def _margin(self) -> int:
        layers = [layer for layer in self.stack.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
        return margin_of(self.border, sum((layer.kernel_size[0] - 1) // 2 * layer.dilation[0] for layer in layers))


class QuadraticEnergy(ConvolutionalEnergy):
    r"""E(x) = (w/2)‖x − ψ(x)‖², with ∇E = w(I − J_ψ)ᴴ(x − ψ(x)) and ψ(x) = x − r(x), r a stack of 3×3 convolutions.

    Zero on the fixed points of ψ, non-negative by construction, growing at most quadratically, and free of the image
    size: the sum over pixels makes it extensive, as ½‖Ax − b‖² is. The network learns the residual r, which is small.
    Arguments out of range, and images of another precision than the weights, are a :class:`DeepenError`.

    Chand and Jacob, Multi-scale energy (MuSE) framework for inverse problems in imaging, 2024.

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
    border
        What convolutions see beyond the image: ``zeros``, or ``periodic``, the image again: then E does not depend on
        where in the field of view the image lies.
    dimensions
        2, or 3 for volumes and series, complex (batch, depth or time, height, width): convolutions are 3×3×3 then, and
        the border is that of all three axes.
    """

    def __init__(
        self,
        *,
        hidden_channels: int = 64,
        num_layers: int = 5,
        activation: str = "elu",
        weight: float = 1.0,
        border: str = "zeros",
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        require_positive("weight", weight)
        require_choice("border", border, BORDERS)
        self.weight = weight
        self.border = border
        self.residual = convolutional_stack(hidden_channels, num_layers, activation, dimensions=dimensions)
        self.dimensions = dimensions
        self.to(memory_format=MEMORY_FORMATS[dimensions])

    def denoise(self, image: torch.Tensor) -> torch.Tensor:
        """Return ψ(x); complex (batch, height, width), or of three dimensions → the same."""
        return image - channels_to_image(self._features(self._extended(image)))

    @property
    def stack(self) -> nn.Sequential:
        """The network r of the residual."""
        return self.residual

    def energy_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return (w/2)‖r‖²."""
        return 0.5 * self.weight * features.square().sum(dim=tuple(range(1, features.ndim)))


class ConvEnergy(ConvolutionalEnergy):
    r"""E(x) = |w · φ(x) + v|, φ a stack of 3×3 convolutions (DEEPEN, section III-B).

    ∇E is Lipschitz only for a smooth activation and a smooth top; with ``relu`` or ``absolute`` it jumps, and a
    majorizer exists between the jumps only. Arguments out of range, and images of another precision than the weights or
    another size than a flattened head has, are a :class:`DeepenError`.

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
    border
        As that of :class:`QuadraticEnergy`; with a flattened head E does depend on the place.
    dimensions
        As that of :class:`QuadraticEnergy`; the image size of a flattened head has so many numbers.
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
        border: str = "zeros",
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        require_choice("border", border, BORDERS)
        require_choice("head", head, HEADS)
        require_choice("top", top, TOPS)
        require_positive("top_width", top_width)
        require(
            (image_size is not None) == (head == "flattened"),
            f"image_size is {image_size!r}; allowed: [height, width] with head: flattened, null with head: pooled",
        )
        self.image_size = None if image_size is None else tuple(image_size)
        require(
            self.image_size is None or len(self.image_size) == dimensions,
            f"image_size is {image_size!r}; allowed with dimensions = {dimensions}: as many numbers",
        )
        self.top = top
        self.top_width = top_width
        self.border = border
        self.dimensions = dimensions
        layers = convolutional_stack(
            hidden_channels, num_layers, activation, out_channels=hidden_channels, dimensions=dimensions
        )
        self.features = layers.append(ACTIVATIONS[activation]())
        self.head: nn.Module
        if self.image_size is None:
            self.head = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(hidden_channels, 1, kernel_size=1)
        else:
            self.head = nn.Linear(hidden_channels * math.prod(self.image_size), 1)
        self.to(memory_format=MEMORY_FORMATS[dimensions])

    @property
    def stack(self) -> nn.Sequential:
        """The convolutions φ."""
        return self.features

    def energy_of_features(self, features: torch.Tensor) -> torch.Tensor:
        """Return |w · φ + v|, or its smooth form."""
        if self.image_size is None:
            scalar = self.head(features).flatten(1).sum(dim=1)
        else:
            size = tuple(features.shape[2:])
            require(
                size == self.image_size,
                f"image has size {size}; allowed with this flattened head: {self.image_size} "
                "(head: pooled takes any size)",
            )
            scalar = self.head(features.flatten(1)).squeeze(1)
        return scalar.abs() if self.top == "absolute" else torch.sqrt(scalar**2 + self.top_width**2)


class ReducedPrecision:
    """An energy whose convolutions run in 16 bits; the rest, and what goes in and comes out, stay as they are.

    Faster where the hardware has such convolutions: GPUs with tensor cores, CPUs with AVX512-BF16 or AMX. On others it
    is slower. E and ∇E have about three digits: enough for a Langevin chain (projects/speed has what it costs in
    quality), too few for MAP, which compares costs.

    The energy has to be one of convolutions, a :class:`DeepenError` otherwise, in single precision: double precision
    stays as it is. ``dtype`` is ``torch.bfloat16`` or ``torch.float16``.
    """

    def __init__(self, energy: DifferentiableEnergy, dtype: torch.dtype = torch.bfloat16) -> None:
        if not isinstance(energy, ConvolutionalEnergy):
            raise DeepenError(f"energy is {energy!r}; allowed in reduced precision: ConvEnergy or QuadraticEnergy")
        self.energy = energy
        self.dtype = dtype

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, complex (batch, height, width)."""
        with torch.autocast(image.device.type, self.dtype):
            return self.energy.value_and_grad(image)
