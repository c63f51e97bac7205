"""Configuration of the models, as DIRECT looks it up: the network's keys here, the engine's in its settings."""

from dataclasses import dataclass

from direct.config.defaults import ModelConfig

from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.engines.system_settings import ELDERSettings, MoLSettings, MuSESettings, PnPISTASettings


@dataclass
class QuadraticEnergyConfig(DeepenSettings, ModelConfig):
    """Keys of :class:`direct_deepen.QuadraticEnergy` and of the engine."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "elu"
    weight: float = 0.25


@dataclass
class ConvEnergyConfig(DeepenSettings, ModelConfig):
    """Keys of :class:`direct_deepen.ConvEnergy` and of the engine."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "relu"
    head: str = "pooled"
    image_size: tuple[int, int] | None = None
    top: str = "absolute"
    top_width: float = 1.0


@dataclass
class MuSEConfig(MuSESettings, ModelConfig):
    """Keys of MuSE: the energy, and those of its engine."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "elu"


@dataclass
class PnPISTAConfig(PnPISTASettings, ModelConfig):
    """Keys of PnPISTA: the denoiser, and those of its engine."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "relu"


@dataclass
class ELDERConfig(ELDERSettings, ModelConfig):
    """Keys of ELDER: the energy, the first step α, and those of its engine."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "elu"
    step_size: float = 1.0


@dataclass
class MoLConfig(MoLSettings, ModelConfig):
    """Keys of MoL: the network, the first weight λ of the data, and those of its engine."""

    hidden_channels: int = 64
    num_layers: int = 5
    activation: str = "relu"
    data_weight: float = 10.0
