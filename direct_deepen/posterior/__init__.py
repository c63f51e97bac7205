"""What is read off samples: moments, intervals, convergence, calibration, and the file that holds them."""

from direct_deepen.posterior.diagnostics import Diagnostics
from direct_deepen.posterior.posterior import Posterior

__all__ = ["Diagnostics", "Posterior"]
