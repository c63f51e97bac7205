"""Priors: energies, denoisers and their networks. Knows nothing of DIRECT."""

from direct_deepen.priors.conv_energy import ConvEnergy
from direct_deepen.priors.denoiser import Denoiser, ImageNetwork
from direct_deepen.priors.energy import DifferentiableEnergy, Energy, SumEnergy
from direct_deepen.priors.quadratic_energy import QuadraticEnergy

__all__ = ["ConvEnergy", "Denoiser", "DifferentiableEnergy", "Energy", "ImageNetwork", "QuadraticEnergy", "SumEnergy"]
