"""What the model sections may hold, in the one file DIRECT looks their dataclasses up in."""

from direct_deepen.engines.models import (
    ConvEnergyConfig,
    DenoiserConfig,
    DiffusionDenoiserConfig,
    ExternalConfig,
    ImageNetworkConfig,
    NoiseConditionalEnergyConfig,
    QuadraticEnergyConfig,
)

__all__ = [
    "ConvEnergyConfig",
    "DenoiserConfig",
    "DiffusionDenoiserConfig",
    "ExternalConfig",
    "ImageNetworkConfig",
    "NoiseConditionalEnergyConfig",
    "QuadraticEnergyConfig",
]
