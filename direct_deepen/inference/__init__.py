"""Inference: MAP, sampling with diagnostics, and the iterations of other methods. Knows nothing of DIRECT."""

from direct_deepen.inference.annealed_langevin import (
    annealed_langevin,
    mask_shaped_noise,
    preconditioned_annealed_langevin,
)
from direct_deepen.inference.base import Estimate, Estimator, Inference, Sampler, inferences
from direct_deepen.inference.diffusion_sampling import diffusion_posterior_sampling
from direct_deepen.inference.estimators import Equilibrium, Map, ProximalIteration, UnrolledGradient
from direct_deepen.inference.iterations import FixedPointResult, equilibrium, proximal_iteration, unrolled_gradient
from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.inference.mm_map import MapResult, MapStep, Stopping, mm_map
from direct_deepen.inference.noise_levels import power_schedule, variance_exploding_schedule
from direct_deepen.inference.samplers import AnnealedLangevin, DiffusionSampling, FastLangevin, Langevin
from direct_deepen.inference.samples import Samples

__all__ = [
    "AnnealedLangevin",
    "Chains",
    "DiffusionSampling",
    "Equilibrium",
    "Estimate",
    "Estimator",
    "FastLangevin",
    "FixedPointResult",
    "Inference",
    "Langevin",
    "LangevinStep",
    "Map",
    "MapResult",
    "MapStep",
    "ProximalIteration",
    "Sampler",
    "Samples",
    "Stopping",
    "UnrolledGradient",
    "annealed_langevin",
    "diffusion_posterior_sampling",
    "equilibrium",
    "inferences",
    "langevin",
    "mask_shaped_noise",
    "mm_map",
    "power_schedule",
    "preconditioned_annealed_langevin",
    "proximal_iteration",
    "unrolled_gradient",
    "variance_exploding_schedule",
]
