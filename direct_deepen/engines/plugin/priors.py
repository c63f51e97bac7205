"""The priors, as ``model_name: deepen.priors.<Class>`` names them."""

from direct_deepen.engines.models import (
    ConvEnergy,
    Denoiser,
    DiffusionDenoiser,
    External,
    ImageNetwork,
    NoiseConditionalEnergy,
    QuadraticEnergy,
)

__all__ = [
    "ConvEnergy",
    "Denoiser",
    "DiffusionDenoiser",
    "External",
    "ImageNetwork",
    "NoiseConditionalEnergy",
    "QuadraticEnergy",
]
