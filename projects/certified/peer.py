"""SK-ROCK of deepinv, with the same posterior; `pip install deepinv`, or the extra `peers`."""

from importlib.util import find_spec
from typing import Any

import torch

from direct_deepen import mm_map
from direct_deepen.inference import Samples
from projects.certified.problem import NOISE_STD, Problem

STAGES = 10
"""Gradients of a step, deepinv's default."""

DAMPING = 0.05
"""η of the method, deepinv's default; no noise level."""


def is_installed() -> bool:
    """Return whether deepinv is there."""
    return find_spec("deepinv") is not None


def sk_rock(problem: Problem, samples: int, generator: torch.Generator, *, steps: int, step: float) -> Samples:
    """Run chains of SK-ROCK from MAP, with a ``step`` in units of one over the largest curvature.

    Vargas, Pereyra and Zygalakis, Accelerating proximal Markov chain Monte Carlo by using an explicit stabilised
    method, arXiv 1908.08845.
    """
    import deepinv

    # The largest curvature of −log posterior: 1/η² where a frequency is measured, and that of the prior.
    stiffest = NOISE_STD**-2 + problem.prior.largest_curvature
    sampler = deepinv.sampling.sampling_builder(
        "SKRock",
        data_fidelity=deepinv.optim.L2(sigma=NOISE_STD),
        prior=_prior(deepinv, problem),
        params_algo={
            "step_size": step / stiffest,
            "alpha": 1.0,
            "inner_iter": STAGES,
            "eta": DAMPING,
            "sigma": 0.0,
        },
        max_iter=steps,
        burnin_ratio=0.0,
        thinning=1,
        history_size=1,
    )
    count = samples * len(problem.truth)
    start = mm_map(problem.operator, problem.data, problem.energy).image
    repeated = [tensor.repeat(samples, 1, 1, 1) for tensor in (_channels(start), problem.mask.double())]
    kspace = _channels(problem.data).repeat(samples, 1, 1, 1, 1)
    physics = deepinv.physics.MultiCoilMRI(mask=repeated[1], coil_maps=torch.ones_like(problem.data[:1]))
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.random.fork_rng(devices=[]):  # deepinv seeds the global generator
        sampler.sample(kspace, physics, x_init=repeated[0], seed=seed)
    images = _complex(sampler.get_chain()[-1]["x"].detach()).unflatten(0, (samples, -1))
    return Samples.independent(images, count * steps * STAGES)


def longest_step(stages: int = STAGES) -> float:
    """Return the length of the interval of stability, (s − ½)²(2 − 4η/3) − 3/2: the step times the curvature."""
    return (stages - 0.5) ** 2 * (2 - 4 * DAMPING / 3) - 1.5


def _prior(deepinv: Any, problem: Problem) -> Any:
    """Return a prior of deepinv with the exact score."""

    class ExactPrior(deepinv.optim.ScorePrior):
        def grad(self, x: torch.Tensor, *args: Any, **keywords: Any) -> torch.Tensor:
            return _channels(-problem.prior.score(_complex(x)))

    return ExactPrior(denoiser=None)


def _channels(values: torch.Tensor) -> torch.Tensor:
    """Complex (batch, ...) → real (batch, 2, ...)."""
    return torch.stack([values.real, values.imag], dim=1)


def _complex(channels: torch.Tensor) -> torch.Tensor:
    return torch.complex(channels[:, 0], channels[:, 1])
