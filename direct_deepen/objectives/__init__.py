"""Objectives: what training minimises. Knows nothing of DIRECT."""

from direct_deepen.objectives.base import Loss, Objective, Update, objectives
from direct_deepen.objectives.contrastive import Contrastive, contrastive_loss, energy_unit
from direct_deepen.objectives.contrastive_over_levels import ContrastiveOverLevels
from direct_deepen.objectives.diffusion import (
    Diffusion,
    Distillation,
    diffusion_loss,
    distillation_loss,
    draw_noise_levels,
)
from direct_deepen.objectives.reconstruction import (
    Denoising,
    MonotoneReconstruction,
    Reconstruction,
    denoising_loss,
    lipschitz_quotient,
    log_barrier,
    mean_squared_error,
)
from direct_deepen.objectives.score_matching import ScoreMatching, denoising_score_matching_loss

__all__ = [
    "Contrastive",
    "ContrastiveOverLevels",
    "Denoising",
    "Diffusion",
    "Distillation",
    "Loss",
    "MonotoneReconstruction",
    "Objective",
    "Reconstruction",
    "ScoreMatching",
    "Update",
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
    "objectives",
]
