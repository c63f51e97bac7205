"""The priors, as ``model_name: deepen.priors.<Class>`` names them."""

# ruff: noqa: F401 - what is imported is what DIRECT looks up.
from direct_deepen.engines.models import (
    ConvEnergy,
    Denoiser,
    DiffusionDenoiser,
    External,
    ImageNetwork,
    NoiseConditionalEnergy,
    QuadraticEnergy,
)
