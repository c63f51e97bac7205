"""Objectives: what training minimises. Knows nothing of DIRECT."""

from direct_deepen.objectives.contrastive import contrastive_loss, energy_unit
from direct_deepen.objectives.diffusion import diffusion_loss, distillation_loss, draw_noise_levels
from direct_deepen.objectives.reconstruction import denoising_loss, lipschitz_quotient, log_barrier, mean_squared_error
from direct_deepen.objectives.score_matching import denoising_score_matching_loss

__all__ = [
    "contrastive_loss",
    "denoising_loss",
    "denoising_score_matching_loss",
    "diffusion_loss",
    "distillation_loss",
    "draw_noise_levels",
    "energy_unit",
    "lipschitz_quotient",
    "log_barrier",
    "mean_squared_error",
]
