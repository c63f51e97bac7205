"""Inference: MAP, Langevin sampling and their diagnostics. Knows nothing of DIRECT."""

from direct_deepen.inference.diagnostics import Diagnostics
from direct_deepen.inference.langevin import Samples, langevin
from direct_deepen.inference.mm_map import MapResult, mm_map

__all__ = ["Diagnostics", "MapResult", "Samples", "langevin", "mm_map"]
