"""Forward models: the SENSE operator, its solvers, noise and intensity scale. Knows nothing of DIRECT."""

from direct_deepen.physics.conjugate_gradient import conjugate_gradient
from direct_deepen.physics.noise import complex_normal
from direct_deepen.physics.noise_level import estimated_noise_std
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.prewhitening import noise_covariance, prewhitened
from direct_deepen.physics.scale import intensity_scale
from direct_deepen.physics.sense import sense
from direct_deepen.physics.sense_operator import SenseOperator, align_phase, coil_gain, normalize_sensitivity_map

__all__ = [
    "LinearOperator",
    "SenseOperator",
    "align_phase",
    "coil_gain",
    "complex_normal",
    "conjugate_gradient",
    "estimated_noise_std",
    "intensity_scale",
    "noise_covariance",
    "normalize_sensitivity_map",
    "prewhitened",
    "sense",
]
