"""DEEPEN, deep end-to-end posterior energy: MRI reconstruction that comes with its uncertainty, inside DIRECT."""

from direct_deepen.errors import DeepenError, DivergenceError
from direct_deepen.inference import MapResult, Samples, langevin, mm_map
from direct_deepen.physics import (
    LinearOperator,
    SenseOperator,
    align_phase,
    intensity_scale,
    normalize_sensitivity_map,
    sense,
)
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.priors import ConvEnergy, DifferentiableEnergy, Energy, QuadraticEnergy, SumEnergy
from direct_deepen.priors.pretrained import available_pretrained, load_pretrained, pretrained_provenance

__version__ = "0.2.0.dev0"

__all__ = [
    "ConvEnergy",
    "DeepenError",
    "DifferentiableEnergy",
    "DivergenceError",
    "Energy",
    "LinearOperator",
    "MapResult",
    "Posterior",
    "QuadraticEnergy",
    "Samples",
    "SenseOperator",
    "SumEnergy",
    "align_phase",
    "available_pretrained",
    "intensity_scale",
    "langevin",
    "load_pretrained",
    "mm_map",
    "normalize_sensitivity_map",
    "pretrained_provenance",
    "sense",
]
