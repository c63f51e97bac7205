"""The energies by the ``model_name`` that they had before 0.2: ``deepen.energies.<Class>``."""

from direct_deepen.engines.models import ConvEnergy, QuadraticEnergy

__all__ = ["ConvEnergy", "QuadraticEnergy"]
