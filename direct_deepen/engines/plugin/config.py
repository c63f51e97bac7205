"""What the model sections may hold, in the one file DIRECT looks their dataclasses up in."""

# ruff: noqa: F401 - what is imported is what DIRECT looks up.
from direct_deepen.engines.models import (
    ConvEnergyConfig,
    DenoiserConfig,
    DiffusionDenoiserConfig,
    ExternalConfig,
    ImageNetworkConfig,
    NoiseConditionalEnergyConfig,
    QuadraticEnergyConfig,
)
