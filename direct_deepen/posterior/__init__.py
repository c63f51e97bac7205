"""The posterior from samples: moments, intervals, regions, convergence, calibration, and its file."""

from direct_deepen.posterior.diagnostics import Diagnostics
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.posterior.region import Region

__all__ = ["Diagnostics", "Posterior", "Region"]
