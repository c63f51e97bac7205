"""Posterior samples on disk, so that a run of hours that is cut short goes on where it was."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from direct_deepen.engines.checkpoints import LOADING_ERRORS, digest_of, write_tensors
from direct_deepen.engines.settings import DeepenSettings
from direct_deepen.physics.problem import Problem
from direct_deepen.posterior.diagnostics import diagnose
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.priors.energy import Energy

_AFTERWARDS = ("estimator", "max_images", "quantiles", "save_samples")
"""Settings of the inference that say what is done with samples, or how many images are in memory at once."""


def fingerprint(problem: Problem, energy: Energy, settings: DeepenSettings, *, seed: int) -> str:
    """Return the SHA-256 of all that samples depend on: data, operator, energy, settings, seed.

    Of the settings these are all of the inference, MAP's among them as chains start there, that are not known to leave
    samples as they are; coil maps are part of the operator.
    """
    data = {
        "data.masked_kspace": problem.masked_kspace,
        "data.sensitivity_map": problem.A.sensitivity_map,
        "data.sampling_mask": problem.A.sampling_mask,
    }
    told = f"{_sampling(settings)} {_form(energy)} {seed} {problem.names}"
    return digest_of(energy.state_dict() | data | {told: torch.zeros(0)})


def _sampling(settings: DeepenSettings) -> dict[str, Any]:
    values = asdict(settings)
    inference = {name: value for name, value in values["inference"].items() if name not in _AFTERWARDS}
    return {name: values[name] for name in ("noise_std", "noise_start_std", "sense_regularization")} | inference


def _form(energy: Energy) -> str:
    """Return what an energy is besides its weights: layers, activations, and numbers that are not learned."""
    numbers = {name: value for name, value in vars(energy).items() if not name.startswith("_")}
    return f"{energy} {sorted(numbers.items())}"


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
