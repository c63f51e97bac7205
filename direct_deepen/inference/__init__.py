"""Inference: MAP, sampling with diagnostics, and the iterations of other methods. Knows nothing of DIRECT."""

from direct_deepen.inference.annealed_langevin import (
    annealed_langevin,
    annealed_map,
    preconditioned_annealed_langevin,
)
from direct_deepen.inference.base import Estimate, Estimator, Inference, Sampler, inferences
from direct_deepen.inference.conditional_noise import mask_shaped_noise
from direct_deepen.inference.diffusion_sampling import diffusion_posterior_sampling
from direct_deepen.inference.equilibrium import differentiable_equilibrium, equilibrium
from direct_deepen.inference.estimators import Equilibrium, Map, ProximalIteration, UnrolledGradient
from direct_deepen.inference.fixed_point import FixedPointResult
from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.inference.mm_map import MapResult, MapStep, Stopping, mm_map
from direct_deepen.inference.noise_levels import power_schedule, variance_exploding_schedule
from direct_deepen.inference.proximal_iteration import proximal_iteration
from direct_deepen.inference.samplers import AnnealedLangevin, DiffusionSampling, Langevin
from direct_deepen.inference.samples import Samples
from direct_deepen.inference.unrolled_gradient import unrolled_gradient

__all__ = [
    "AnnealedLangevin",
    "Chains",
    "DiffusionSampling",
    "Equilibrium",
    "Estimate",
    "Estimator",
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
    "annealed_map",
    "differentiable_equilibrium",
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
