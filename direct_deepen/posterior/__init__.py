"""The posterior from samples: moments, intervals, convergence, calibration, and its file."""

from direct_deepen.posterior.diagnostics import Diagnostics
from direct_deepen.posterior.posterior import Posterior

__all__ = ["Diagnostics", "Posterior"]
