"""DEEPEN, deep end-to-end posterior energy: MRI reconstruction that comes with its uncertainty, inside DIRECT."""

from direct_deepen.errors import DeepenError, DivergenceError
from direct_deepen.inference import Chains, LangevinStep, MapResult, MapStep, Samples, Stopping, langevin, mm_map
from direct_deepen.physics import (
    LinearOperator,
    SenseOperator,
    align_phase,
    intensity_scale,
    noise_covariance,
    normalize_sensitivity_map,
    prewhitened,
    sense,
)
from direct_deepen.posterior.misfit import Misfit, misfit
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.posterior.region import Region
from direct_deepen.priors import ConvEnergy, DifferentiableEnergy, Energy, QuadraticEnergy, SumEnergy, at_noise
from direct_deepen.priors.pretrained import available_pretrained, load_pretrained, pretrained_provenance
from direct_deepen.scans.reconstruction import reconstruct_kspace
from direct_deepen.version import VERSION

__version__ = VERSION

__all__ = [
    "Chains",
    "ConvEnergy",
    "DeepenError",
    "DifferentiableEnergy",
    "DivergenceError",
    "Energy",
    "LangevinStep",
    "LinearOperator",
    "MapResult",
    "MapStep",
    "Misfit",
    "Posterior",
    "QuadraticEnergy",
    "Region",
    "Samples",
    "SenseOperator",
    "Stopping",
    "SumEnergy",
    "align_phase",
    "at_noise",
    "available_pretrained",
    "intensity_scale",
    "langevin",
    "load_pretrained",
    "misfit",
    "mm_map",
    "noise_covariance",
    "normalize_sensitivity_map",
    "pretrained_provenance",
    "prewhitened",
    "reconstruct_kspace",
    "sense",
]
