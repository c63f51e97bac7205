"""Objectives: what the weights of a prior are trained for. Knows nothing of DIRECT."""

from direct_deepen.objectives.contrastive import contrastive_loss, energy_unit
from direct_deepen.objectives.score_matching import denoising_score_matching_loss

__all__ = ["contrastive_loss", "denoising_score_matching_loss", "energy_unit"]
