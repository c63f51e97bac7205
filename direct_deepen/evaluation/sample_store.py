"""Posterior samples on disk, so that a run of hours that is cut short goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from direct_deepen.engines.checkpoints import LOADING_ERRORS, digest_of, write_tensors
from direct_deepen.inference import Sampler
from direct_deepen.physics.problem import Problem
from direct_deepen.posterior.posterior import Posterior


def fingerprint(problem: Problem, prior: nn.Module, inference: Sampler, *, seed: int) -> str:
    """Return the SHA-256 of all that samples depend on: data, operator with its coil maps, prior, settings, seed."""
    data = {
        "data.masked_kspace": problem.masked_kspace,
        "data.sensitivity_map": problem.A.sensitivity_map,
        "data.sampling_mask": problem.A.sampling_mask,
    }
    # What a prior is besides its weights: layers, activations, and numbers that are not learned.
    numbers = sorted((name, value) for name, value in vars(prior).items() if not name.startswith("_"))
    rest = f"{inference.sampling()} {prior} {numbers} {seed} {problem.names}"
    return digest_of(prior.state_dict() | data | {rest: torch.zeros(0)})


def kept_posterior(path: Path, key: str, sample: Callable[[], Posterior]) -> Posterior:
    """Return the posterior that a file keeps under a key; where there is none, what ``sample`` returns, and keep it."""
    try:
        content = torch.load(path, weights_only=True)
        if content["key"] == key:
            chains = content["images"].unflatten(0, (content["num_chains"], -1))
            return Posterior.from_chains(chains)
    except LOADING_ERRORS:
        pass
    posterior = sample()
    images = posterior.images.cpu()
    write_tensors(path, {"key": key, "images": images, "num_chains": posterior.diagnostics.num_chains})
    return Posterior(images=images, diagnostics=posterior.diagnostics)
