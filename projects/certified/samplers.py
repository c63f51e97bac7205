"""The samplers that are judged, by the name of their row: from a problem to independent samples of every signal."""

from collections.abc import Callable
from functools import partial

import torch

from direct_deepen import Chains, LangevinStep, langevin, mm_map
from direct_deepen.inference import (
    Samples,
    annealed_langevin,
    diffusion_posterior_sampling,
    power_schedule,
    preconditioned_annealed_langevin,
    variance_exploding_schedule,
)
from projects.certified import peer
from projects.certified.problem import NOISE_STD, Density, Problem

Sampler = Callable[[Problem, int, torch.Generator], Samples]
"""(problem, number of samples, generator) ↦ samples, each the last state of a chain of its own."""

EPSILON = 2**0.5 * NOISE_STD
AT_ONCE = 10**6
"""All chains run at once: images are small."""

LEVELS = (1.0, 0.02)
"""Ends of the noise levels of ALPS: from above the prior to well below the noise."""

GUIDANCE = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Candidates for the length ζ of DPS's guidance."""


def chains(
    problem: Problem,
    samples: int,
    generator: torch.Generator,
    *,
    steps: int,
    start: str | torch.Tensor = "map",
    step_size: float | None = None,
    preconditioner: float | None = None,
    metropolis: bool = False,
    averaged_noise: bool = False,
) -> Samples:
    """Run Langevin chains: from MAP, as `model.inference.langevin` does, from noise, or from images."""
    A, energy = problem.operator, problem.energy
    return langevin(
        A,
        problem.data,
        energy,
        noise_std=EPSILON,
        init=mm_map(A, problem.data, energy).image if isinstance(start, str) and start == "map" else start,
        chains=Chains(samples, steps, max_images=AT_ONCE),
        step=LangevinStep(step_size, metropolis, preconditioner, averaged_noise),
        generator=generator,
    )


def annealed(
    problem: Problem,
    samples: int,
    generator: torch.Generator,
    *,
    levels: int = 10,
    inner_steps: int = 5,
    rule: str = "conditional",
) -> Samples:
    """Run ALPS by its authors' rule, ``conditional``, or by preconditioned steps, ``langevin`` or ``metropolis``."""
    sampler = annealed_langevin
    if rule != "conditional":
        sampler = partial(preconditioned_annealed_langevin, metropolis=rule == "metropolis")
    return sampler(
        problem.operator,
        problem.data,
        lambda level: Density(problem.prior, level**2, level),
        noise_std=NOISE_STD,
        noise_levels=power_schedule(*LEVELS, levels),
        inner_steps=inner_steps,
        num_samples=samples,
        generator=generator,
        max_images=AT_ONCE,
    )


def guided_diffusion(
    problem: Problem, samples: int, generator: torch.Generator, *, steps: int, guidance: float
) -> Samples:
    """Run DPS with the exact denoiser."""
    return diffusion_posterior_sampling(
        problem.operator,
        problem.data,
        lambda image, level: image + level**2 * problem.prior.score(image, level),
        noise_levels=variance_exploding_schedule(steps, 25.0),
        guidance=guidance,
        num_samples=samples,
        generator=generator,
        max_images=AT_ONCE,
    )


LANGEVIN = {
    "langevin, τ = 1, 100 steps": {"steps": 100, "step_size": 1.0},
    "langevin, default (τ adapts), 100 steps": {"steps": 100},
    "langevin, averaged noise, 100 steps": {"steps": 100, "averaged_noise": True},
    "langevin, μ = 0.3, 100 steps": {"steps": 100, "preconditioner": 0.3},
    "langevin, μ = 0.3, averaged noise, 100 steps": {"steps": 100, "preconditioner": 0.3, "averaged_noise": True},
    "langevin, μ = 0.3, Metropolis, 100 steps": {"steps": 100, "preconditioner": 0.3, "metropolis": True},
    "langevin, default (τ adapts), 500 steps": {"steps": 500},
    "langevin, averaged noise, 500 steps": {"steps": 500, "averaged_noise": True},
    "langevin, Metropolis, 500 steps": {"steps": 500, "metropolis": True},
    "langevin, Metropolis, 500 steps from noise": {"steps": 500, "metropolis": True, "start": "noise"},
    "langevin, τ = 0.1, 1000 steps": {"steps": 1000, "step_size": 0.1},
}

ANNEALED = {
    "ALPS, authors' rule, 10 levels": {},
    "ALPS, authors' rule, 50 levels": {"levels": 50},
    "ALPS, Langevin steps, 10 levels": {"rule": "langevin"},
    "ALPS, Langevin steps, 50 levels": {"rule": "langevin", "levels": 50},
    "ALPS, Metropolis, 50 levels": {"rule": "metropolis", "levels": 50},
}

DIFFUSION_STEPS = (100, 500)

PEERS = {
    "deepinv SK-ROCK, documented step, 10 steps of 10": {"steps": 10, "step": 1.0},
    "deepinv SK-ROCK, documented step, 100 steps of 10": {"steps": 100, "step": 1.0},
    "deepinv SK-ROCK, 0.8 of the longest step, 10 steps of 10": {"steps": 10, "step": 0.8 * peer.longest_step()},
}


def samplers(guidance: dict[int, float]) -> dict[str, Sampler]:
    """Return all samplers; ``guidance`` is ζ of DPS by its number of steps. deepinv's are there where it is."""
    found: dict[str, Sampler] = {name: partial(chains, **options) for name, options in LANGEVIN.items()}
    found |= {name: partial(annealed, **options) for name, options in ANNEALED.items()}
    for steps, value in guidance.items():
        found[f"DPS, ζ = {value:g}, {steps} steps"] = partial(guided_diffusion, steps=steps, guidance=value)
    if peer.is_installed():
        found |= {name: partial(peer.sk_rock, **options) for name, options in PEERS.items()}
    return found
