"""Priors: energies, denoisers and their networks. Knows nothing of DIRECT."""

from direct_deepen.priors.averaged import Averaged
from direct_deepen.priors.convolutional_energy import ConvEnergy, QuadraticEnergy, ReducedPrecision
from direct_deepen.priors.diffusion_network import (
    DenoisedResidual,
    DiffusionDenoiser,
    NoiseConditionalEnergy,
    energy_gradient,
)
from direct_deepen.priors.energy import (
    DifferentiableEnergy,
    Energy,
    NoiseDependentEnergy,
    SumEnergy,
    at_noise,
    depends_on_noise,
)
from direct_deepen.priors.networks import Denoiser, ImageNetwork

__all__ = [
    "Averaged",
    "ConvEnergy",
    "DenoisedResidual",
    "Denoiser",
    "DifferentiableEnergy",
    "DiffusionDenoiser",
    "Energy",
    "ImageNetwork",
    "NoiseConditionalEnergy",
    "NoiseDependentEnergy",
    "QuadraticEnergy",
    "ReducedPrecision",
    "SumEnergy",
    "at_noise",
    "depends_on_noise",
    "energy_gradient",
]
