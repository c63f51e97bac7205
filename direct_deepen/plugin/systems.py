"""The systems that DEEPEN is compared with, as ``model_name: deepen.systems.<Class>`` names them.

Each is a prior of this package, built from a whole model section; objective and inference are its engine's. Two come
with one number that is learned with the prior, as their inference is trained too.
"""

from typing import Any

from direct_deepen import priors
from direct_deepen.engines.reporting import exit_on_bad_input
from direct_deepen.plugin.energies import DirectModel
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
