"""The energies by the ``model_name`` that they had before 0.2: ``deepen.energies.<Class>``."""

# ruff: noqa: F401 - what is imported is what DIRECT looks up.
from direct_deepen.engines.models import ConvEnergy, QuadraticEnergy
