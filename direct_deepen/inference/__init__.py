"""Inference: MAP, sampling with diagnostics, and the iterations of other methods. Knows nothing of DIRECT."""

from direct_deepen.inference.diagnostics import Diagnostics
from direct_deepen.inference.equilibrium import differentiable_equilibrium, equilibrium
from direct_deepen.inference.fixed_point import FixedPointResult
from direct_deepen.inference.langevin import Samples, langevin
from direct_deepen.inference.mm_map import MapResult, mm_map
from direct_deepen.inference.proximal_iteration import proximal_iteration
from direct_deepen.inference.unrolled_gradient import unrolled_gradient

__all__ = [
    "Diagnostics",
    "FixedPointResult",
    "MapResult",
    "Samples",
    "differentiable_equilibrium",
    "equilibrium",
    "langevin",
    "mm_map",
    "proximal_iteration",
    "unrolled_gradient",
]
