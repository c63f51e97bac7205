"""Posterior samples on disk, so that a run of hours that is cut short goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import torch

from direct_deepen.engines.calibration_file import SamplingSettings
from direct_deepen.engines.checkpoints import LOADING_ERRORS, digest_of, write_tensors
from direct_deepen.engines.problem import Problem
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.inference.diagnostics import diagnose
from direct_deepen.posterior import Posterior
from direct_deepen.priors.energy import Energy


def fingerprint(problem: Problem, energy: Energy, settings: DeepenSettings, *, seed: int) -> str:
    """Return the SHA-256 of all that samples depend on: data, operator, weights, settings, seed."""
    data = {
        "data.masked_kspace": problem.masked_kspace,
        "data.sensitivity_map": problem.A.sensitivity_map,
        "data.sampling_mask": problem.A.sampling_mask,
    }
    told = f"{SamplingSettings.of(settings)} {seed} {problem.names}"
    return digest_of(energy.state_dict() | data | {told: torch.zeros(0)})


def kept_posterior(path: Path, key: str, sample: Callable[[], Posterior]) -> Posterior:
    """Return the posterior that a file keeps under a key; where there is none, what ``sample`` returns, and keep it."""
    try:
        content = torch.load(path, weights_only=True)
        if content["key"] == key:
            chains = content["images"].unflatten(0, (content["num_chains"], -1))
            return Posterior(images=content["images"], diagnostics=diagnose(chains.abs()))
    except LOADING_ERRORS:
        pass
    posterior = sample()
    images = posterior.images.cpu()
    write_tensors(path, {"key": key, "images": images, "num_chains": posterior.diagnostics.num_chains})
    return Posterior(images=images, diagnostics=posterior.diagnostics)
