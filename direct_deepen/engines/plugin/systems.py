"""The systems that DEEPEN is compared with, as ``model_name: deepen.systems.<Class>`` names them.

Each is a prior of this package, built from a whole model section; objective and inference are its engine's. Two come
with one number that is learned with the prior, as their inference is trained too.
"""

from collections.abc import Sequence
from typing import Any

import torch

from direct_deepen import priors
from direct_deepen.engines.plugin.energies import DirectModel
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.priors.learned_scalar import PositiveScalar


class MuSE(DirectModel, priors.QuadraticEnergy):
    """The quadratic energy of MuSE."""

    def __init__(self, hidden_channels: int, num_layers: int, activation: str, **engine_settings: Any) -> None:
        with exit_on_bad_input():
            super().__init__(hidden_channels=hidden_channels, num_layers=num_layers, activation=activation)


class PnPISTA(DirectModel, priors.Denoiser):
    """The denoiser of PnP-ISTA."""

    def __init__(self, hidden_channels: int, num_layers: int, activation: str, **engine_settings: Any) -> None:
        with exit_on_bad_input():
            super().__init__(hidden_channels=hidden_channels, num_layers=num_layers, activation=activation)


class ELDER(DirectModel, priors.QuadraticEnergy):
    """The quadratic energy of ELDER, with the step α of its gradient iteration."""

    def __init__(
        self, hidden_channels: int, num_layers: int, activation: str, step_size: float, **engine_settings: Any
    ) -> None:
        with exit_on_bad_input():
            super().__init__(hidden_channels=hidden_channels, num_layers=num_layers, activation=activation)
            self.step_size = PositiveScalar(step_size, "model.step_size")


class MoL(DirectModel, priors.ImageNetwork):
    """The network H of MoL, with the weight λ of the data."""

    def __init__(
        self, hidden_channels: int, num_layers: int, activation: str, data_weight: float, **engine_settings: Any
    ) -> None:
        with exit_on_bad_input():
            super().__init__(hidden_channels=hidden_channels, num_layers=num_layers, activation=activation)
            self.data_weight = PositiveScalar(data_weight, "model.data_weight")


class DPS(DirectModel):
    """The network of a diffusion, with the average of its weights."""

    def __init__(
        self,
        channels: Sequence[int],
        num_blocks: int,
        preconditioning: str,
        image_std: float,
        average_decay: float,
        **engine_settings: Any,
    ) -> None:
        super().__init__()
        with exit_on_bad_input():
            network = priors.DiffusionDenoiser(
                channels=channels, num_blocks=num_blocks, preconditioning=preconditioning, image_std=image_std
            )
            self.averaged = priors.Averaged(network, average_decay)

    def forward(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return D(x, σ)."""
        return self.averaged(image, noise_std)


class ALPS(DirectModel):
    """The energies of all noise levels, with the average of their weights."""

    def __init__(
        self,
        channels: Sequence[int],
        num_blocks: int,
        image_std: float,
        average_decay: float,
        **engine_settings: Any,
    ) -> None:
        super().__init__()
        with exit_on_bad_input():
            energy = priors.NoiseConditionalEnergy(channels=channels, num_blocks=num_blocks, image_std=image_std)
            self.averaged = priors.Averaged(energy, average_decay)

    def forward(self, image: torch.Tensor, noise_std: torch.Tensor | float) -> torch.Tensor:
        """Return ∇E_σ(x), with a graph to the weights."""
        energy = self.averaged.current
        assert isinstance(energy, priors.NoiseConditionalEnergy)
        return energy.gradient(image, noise_std)
