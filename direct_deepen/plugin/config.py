"""Configuration of the models, as DIRECT looks it up: the network's keys here, the engine's in its settings."""

from dataclasses import dataclass

from direct.config.defaults import ModelConfig

from direct_deepen.engines.settings import DeepenSettings


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
