"""Priors of all noise levels: a residual U-Net (DRUNet) conditioned on the level, and its energies (ALPS)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from direct_deepen.errors import require, require_choice, require_count, require_positive, require_weight
from direct_deepen.priors.convolutional_energy import images_at_once, value_and_grad_in_parts
from direct_deepen.priors.energy import Energy
from direct_deepen.priors.networks import (
    BORDERS,
    channels_to_image,
    image_to_channels,
    margin_of,
    with_margin,
    without_margin,
)

PRECONDITIONINGS = ("variance_exploding", "edm")
_EMBEDDING_CHANNELS = 64
_MARGIN = 16
"""Pixels that a periodic image goes on for; a multiple of the coarsest of up to five scales keeps the grid of these
where it is. Networks of many scales see farther: what lies beyond is missing."""


class DiffusionDenoiser(nn.Module):
    r"""D(x, σ), the mean of images whose noisy version is x, by a network F conditioned on σ.

    .. math:: D(x, \sigma) = c_{skip}(\sigma) x + c_{out}(\sigma) F(c_{in}(\sigma) x, \log \sigma)

    ``variance_exploding``: c_skip = 1, c_out = σ, c_in = 1, so that −F is the score times σ (Song et al. 2021).
    ``edm``: c_skip = s²/(σ² + s²), c_out = σs/√(σ² + s²), c_in = 1/√(σ² + s²), s the standard deviation of the images
    (Karras et al. 2022): input and target of F have unit variance at every level. Images of any size are padded by
    reflection to a multiple of the coarsest scale, and cropped again. Arguments out of range, and images of another
    precision than the weights, are a :class:`DeepenError`.

    DRUNet: Zhang et al., Plug-and-play image restoration with deep denoiser prior, 2021.

    Parameters
    ----------
    channels
        Widths of the scales from fine to coarse; DRUNet has 64, 128, 256, 512.
    num_blocks
        Residual blocks of every scale on the way down, and as many on the way up; DRUNet has 4.
    preconditioning
        ``variance_exploding`` or ``edm``.
    image_std
        s, per real component, in scaled intensities; used by ``edm`` only.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (64, 128, 256, 512),
        num_blocks: int = 4,
        preconditioning: str = "variance_exploding",
        image_std: float = 0.3,
    ) -> None:
        super().__init__()
        require_choice("preconditioning", preconditioning, PRECONDITIONINGS)
        require_positive("image_std", image_std)
        self.preconditioning = preconditioning
        self.image_std = image_std
        self.network = ConditionalUNet(channels=channels, num_blocks=num_blocks)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return D(x, σ) of complex (batch, height, width), σ > 0 a number or one for every image."""
        level = torch.as_tensor(noise_std, dtype=image.real.dtype, device=image.device).expand(len(image))
        skip, out, into = (factor[:, None, None] for factor in self._factors(level))
        channels = self.network(image_to_channels(into * image, self), level.log())
        return skip * image + out * channels_to_image(channels)

    def at(self, noise_std: float) -> "DenoisedResidual":
        """Return x − D(x, σ) of one level in the place of a gradient."""
        return DenoisedResidual(self, noise_std)

    def _factors(self, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.preconditioning == "variance_exploding":
            one = torch.ones_like(level)
            return one, level, one
        variance = level**2 + self.image_std**2
        return self.image_std**2 / variance, level * self.image_std / variance.sqrt(), 1 / variance.sqrt()


class DenoisedResidual:
    """x − D(x, σ) in the place of ∇E_σ, and ½‖x − D(x, σ)‖² in that of E_σ.

    The rule of ALPS goes to denoised means, d = x − ∇E_σ(x), and needs no more. But x − D is the gradient of the value
    only as far as the Jacobian of D can be left out (Reehorst and Schniter, IEEE TCI 5, 2019): neither a step of
    Langevin, whose limit is a density, nor one that costs decide on may be taken with it.
    """

    def __init__(self, denoiser: DiffusionDenoiser, noise_std: float) -> None:
        self.denoiser = denoiser
        self.noise_std = noise_std

    @torch.no_grad()
    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return half the square of the residual, real (batch,), and the residual, complex (batch, height, width)."""
        parts = [part - self.denoiser(part, self.noise_std) for part in image.split(images_at_once(image))]
        residual = torch.cat(parts)
        return 0.5 * torch.view_as_real(residual).square().sum(dim=(1, 2, 3)), residual


class NoiseConditionalEnergy(nn.Module):
    r"""E_σ(x) = ½‖x − ψ(x, σ)‖², ψ a network conditioned on the noise level (ALPS).

    Once x − ∇E_σ(x) = E[image | x] is learned, E_σ/σ² is −log of the density of images with noise σ, up to a constant.
    ψ is a :class:`DiffusionDenoiser` with ``edm`` preconditioning. Arguments out of range are a :class:`DeepenError`.

    Parameters
    ----------
    channels
        Widths of the scales from fine to coarse.
    num_blocks
        Residual blocks of every scale on the way down, and as many on the way up.
    image_std
        Standard deviation of the images, per real component, in scaled intensities.
    noise_factor
        c > 0: for data of noise ε the prior is that of images with noise cε.
    smallest_noise_std
        σ₀ ≥ 0, the least noise level that training has shown: for data of less noise the prior stays that.
    border
        What the network sees beyond the image: ``zeros``, or ``periodic``, the image again for 16 pixels on all sides,
        which are 1.44 times the pixels at 160×160.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (32, 64, 128),
        num_blocks: int = 2,
        image_std: float = 0.3,
        noise_factor: float = 2**0.5,
        smallest_noise_std: float = 0.0,
        border: str = "zeros",
    ) -> None:
        super().__init__()
        require_positive("noise_factor", noise_factor)
        require_weight("smallest_noise_std", smallest_noise_std)
        require_choice("border", border, BORDERS)
        self.border = border
        self.noise_factor = noise_factor
        self.smallest_noise_std = smallest_noise_std
        self.denoiser = DiffusionDenoiser(
            channels=channels, num_blocks=num_blocks, preconditioning="edm", image_std=image_std
        )

    def forward(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return E_σ(x), real (batch,), of complex (batch, height, width); σ a number or one for every image."""
        margin = margin_of(self.border, _MARGIN)
        denoised = without_margin(self.denoiser(with_margin(image, margin), noise_std), margin)
        return 0.5 * torch.view_as_real(image - denoised).square().sum(dim=(1, 2, 3))

    def at(self, noise_std: float) -> Energy:
        """Return the energy E_σ of one level."""
        return _EnergyAtLevel(self, noise_std, 1.0)

    def at_noise(self, noise_std: float) -> Energy:
        r"""Return the energy of the posterior ∝ exp(−2C/ε²), ``noise_std`` = ε: (ε²/2σ²)E_σ at σ = max(cε, σ₀).

        Of images with noise σ the logarithm of the prior is −E_σ/σ², and :math:`2E/\varepsilon^2 = E_\sigma/\sigma^2`.
        """
        level = max(self.noise_factor * noise_std, self.smallest_noise_std)
        result = _EnergyAtLevel(self, level, noise_std**2 / (2 * level**2))
        result.prior_noise_std = noise_std
        return result


def energy_gradient(
    energy: Callable[[torch.Tensor, torch.Tensor | float], torch.Tensor],
    image: torch.Tensor,
    noise_std: torch.Tensor | float,
) -> torch.Tensor:
    """Return ∇E_σ(x), complex (batch, height, width), with a graph to the weights: for training."""
    with torch.enable_grad():
        variable = image.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(variable, noise_std).sum(), variable, create_graph=True)
    return gradient


class _EnergyAtLevel(Energy):
    """wE_σ of one level σ, ``noise_std``, and with one ``weight`` w."""

    def __init__(self, energy: NoiseConditionalEnergy, noise_std: float, weight: float) -> None:
        super().__init__()
        self.energy = energy
        self.noise_std = noise_std
        self.weight = weight

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return wE_σ(x), real (batch,), differentiable."""
        return self.weight * self.energy(image, self.noise_std)

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return wE_σ(x), real (batch,), and its gradient, complex (batch, height, width), of a few images at once."""
        return value_and_grad_in_parts(self, image)


class ConditionalUNet(nn.Module):
    """DRUNet without biases in its convolutions, and with a learned shift of every residual block for the noise level.

    ``channels`` and ``num_blocks`` are those of :class:`DiffusionDenoiser`.
    """

    def __init__(self, *, channels: Sequence[int], num_blocks: int) -> None:
        super().__init__()
        require(
            len(channels) >= 1 and all(width >= 1 for width in channels),
            f"channels is {list(channels)!r}; allowed: one or more integers >= 1",
        )
        require_count("num_blocks", num_blocks)
        self.embedding = NoiseLevelEmbedding()
        self.head = nn.Conv2d(2, channels[0], 3, padding=1, bias=False)
        self.down = nn.ModuleList(_Stage(width, num_blocks) for width in channels[:-1])
        scales = list(pairwise(channels))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2, bias=False) for fine, coarse in scales)
        self.body = _Stage(channels[-1], num_blocks)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False) for fine, coarse in scales)
        self.up = nn.ModuleList(_Stage(width, num_blocks) for width in channels[:-1])
        self.tail = nn.Conv2d(channels[0], 2, 3, padding=1, bias=False)

    def forward(self, image: torch.Tensor, log_level: torch.Tensor) -> torch.Tensor:
        """Return F; (batch, 2, height, width) and log σ (batch,) → (batch, 2, height, width)."""
        height, width = image.shape[-2:]
        multiple = 2 ** len(self.shrink)
        padding = (0, -width % multiple, 0, -height % multiple)
        if any(padding):
            image = functional.pad(image, padding, mode="reflect")
        embedding = self.embedding(log_level)
        features = [self.head(image)]
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            features.append(shrink(stage(features[-1], embedding)))
        result = self.body(features[-1], embedding)
        for scale in reversed(range(len(self.up))):
            result = self.up[scale](self.grow[scale](result + features[scale + 1]), embedding)
        return self.tail(result + features[0])[..., :height, :width]


class NoiseLevelEmbedding(nn.Module):
    """Sines and cosines of log σ at frequencies from 1/4 to 16, through two layers."""

    def __init__(self) -> None:
        super().__init__()
        frequencies = torch.logspace(-2, 4, _EMBEDDING_CHANNELS // 2, base=2.0)
        self.register_buffer("frequencies", frequencies, persistent=False)
        width = _EMBEDDING_CHANNELS
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, log_level: torch.Tensor) -> torch.Tensor:
        """Return the embedding; (batch,) → (batch, channels)."""
        assert isinstance(self.frequencies, torch.Tensor)
        phases = log_level[:, None] * self.frequencies.to(log_level) * (math.pi / 2)
        return self.layers(torch.cat([phases.sin(), phases.cos()], dim=1))


class _Stage(nn.Module):
    """Residual blocks of one scale."""

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_ResidualBlock(channels) for _ in range(num_blocks))

    def forward(self, features: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            features = block(features, embedding)
        return features


class _ResidualBlock(nn.Module):
    """x + conv(act(conv(x) + shift)): smooth, as distilling an energy needs second derivatives."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shift = nn.Linear(_EMBEDDING_CHANNELS, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        hidden = self.first(features) + self.shift(embedding)[:, :, None, None]
        return features + self.second(functional.silu(hidden))
