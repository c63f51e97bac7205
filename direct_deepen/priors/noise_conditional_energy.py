"""Energies of many noise levels in one network, as distilled by ALPS."""

from collections.abc import Sequence

import torch
from torch import nn

from direct_deepen.priors.diffusion_network import DiffusionDenoiser
from direct_deepen.priors.energy import Energy


class NoiseConditionalEnergy(nn.Module):
    r"""E_σ(x) = ½‖x − ψ(x, σ)‖², ψ a network conditioned on the noise level (ALPS).

    Once x − ∇E_σ(x) = E[image | x] is learned, E_σ/σ² is −log of the density of images with noise σ, up to a constant.
    ψ, with its arguments and errors, is a :class:`DiffusionDenoiser` with ``edm`` preconditioning.
    """

    def __init__(self, *, channels: Sequence[int] = (32, 64, 128), num_blocks: int = 2, image_std: float = 0.3) -> None:
        super().__init__()
        self.denoiser = DiffusionDenoiser(
            channels=channels, num_blocks=num_blocks, preconditioning="edm", image_std=image_std
        )

    def forward(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return E_σ(x), real (batch,), of complex (batch, height, width); σ a number or one for every image."""
        residual = image - self.denoiser(image, noise_std)
        return 0.5 * torch.view_as_real(residual).square().sum(dim=(1, 2, 3))

    def gradient(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return ∇E_σ(x), complex (batch, height, width), with a graph to the weights: for training."""
        with torch.enable_grad():
            variable = image.detach().requires_grad_()
            value = self(variable, noise_std).sum()
            (gradient,) = torch.autograd.grad(value, variable, create_graph=True)
        return gradient

    def at(self, noise_std: float) -> Energy:
        """Return the energy E_σ of one level."""
        return _EnergyAtLevel(self, noise_std)


class _EnergyAtLevel(Energy):
    def __init__(self, energy: NoiseConditionalEnergy, noise_std: float) -> None:
        super().__init__()
        self.energy = energy
        self.noise_std = noise_std

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.energy(image, self.noise_std)
        return value
