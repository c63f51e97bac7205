"""From a problem, a prior and an inference to images in the units of the batch, and what the posterior file holds."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from direct_deepen.inference import Estimator, Inference, Sampler, Samples
from direct_deepen.physics.problem import Problem
from direct_deepen.posterior import Posterior
from direct_deepen.posterior.misfit import ENERGY, NOISE, misfit
from direct_deepen.priors.energy import DifferentiableEnergy, SumEnergy, at_noise, depends_on_noise


@dataclass(frozen=True)
class Reconstruction:
    """Reconstruction of a batch in the units of the batch."""

    image: torch.Tensor
    """What the configuration asks for, complex (batch, height, width)."""
    arrays: dict[str, torch.Tensor]
    """Datasets of the posterior file, each with the batch first."""


@torch.no_grad()
def reconstruct(
    problem: Problem,
    prior: nn.Module,
    inference: Inference,
    *,
    seed: int,
    correction: Callable[[Posterior], Posterior] | None = None,
) -> Reconstruction:
    """Reconstruct a batch: the image of an estimator, or the mean of a sampler's samples and what they say besides.

    Where no coil sees anything the data say nothing, and what a prior alone would put there is left out: zero, as in
    the coil-combined image of full data.

    Every image has a generator of its own, seeded by ``seed``, the name of its file and its slice: the result depends
    neither on its batch nor on its folder. ``correction`` is what a calibration makes of posteriors.
    """
    problem, of_noise = inference.with_noise(problem, prior)
    if isinstance(inference, Sampler):
        found = _posterior_mean(problem, prior, inference, seed, correction)
        return replace(found, arrays=found.arrays | of_noise)
    assert isinstance(inference, Estimator)
    begin = time.perf_counter()
    estimate = inference.solve(problem, prior)
    image = problem.to_data_units(_seen(problem, estimate.image))
    seconds = (time.perf_counter() - begin) / len(problem.names)
    arrays = {estimate.name: image, "scale": problem.scale, **estimate.arrays, **of_noise}
    if estimate.name == "image":
        arrays["seconds"] = torch.full_like(problem.scale, seconds)
    return Reconstruction(image, arrays)


@torch.no_grad()
def misfit_arrays(
    problem: Problem, prior: nn.Module, inference: Inference, image: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the figures of :func:`~direct_deepen.misfit` of images in the units of the batch, by name.

    Of a prior that depends on the noise the energy per pixel is left out, as it means something else at every level;
    its share of that of noise, ``unlike_training``, is comparable. Whether there is more noise than was said, or less,
    is left out where it is found by ring of k-space, in what is left of the data itself.
    """
    scaled, levels = image / problem.scale[:, None, None], inference.noise_std_of(problem)
    sense_image = inference.sense(problem)
    left_out = ((ENERGY,) if depends_on_noise(prior) else ()) + (NOISE if inference.noise_by_ring else ())
    parts = []
    for i, level in enumerate(levels.tolist()):
        one, part = problem.select(torch.tensor([i])), slice(i, i + 1)
        energy = _energy_of(prior, level, inference.shared.noise_std)
        parts.append(misfit(one.A, one.masked_kspace, scaled[part], sense_image[part], levels[part], energy).arrays())
    return {name: torch.cat([found[name] for found in parts]) for name in parts[0] if name not in left_out}


def _energy_of(prior: nn.Module, noise_std: float, trained_noise_std: float) -> DifferentiableEnergy | None:
    """Return the energy of a prior, if it has one, which knows the ε₀ that it is of."""
    if depends_on_noise(prior):
        return at_noise(prior, noise_std)
    if not isinstance(prior, DifferentiableEnergy):
        return None
    energy = SumEnergy([(1.0, prior)])
    energy.prior_noise_std = trained_noise_std
    return energy


def sample_posterior(problem: Problem, prior: nn.Module, inference: Sampler, *, seed: int) -> Posterior:
    """Return the posterior of one image, as :func:`reconstruct` samples it, in scaled intensities."""
    return Posterior.from_samples(_sample(problem, prior, inference, seed))


def _sample(
    problem: Problem, prior: nn.Module, inference: Sampler, seed: int, start: torch.Tensor | None = None
) -> Samples:
    samples = inference.sample(problem, prior, image_generator(seed, problem), start)
    return replace(samples, images=_seen(problem, samples.images))


def _seen(problem: Problem, images: torch.Tensor) -> torch.Tensor:
    """Return images (..., batch, height, width) with zero where Σ|S|² is."""
    return images * (problem.A.power > 0)


def _posterior_mean(
    problem: Problem,
    prior: nn.Module,
    inference: Sampler,
    seed: int,
    correction: Callable[[Posterior], Posterior] | None,
) -> Reconstruction:
    arrays, start = {"scale": problem.scale}, inference.prepare(problem, prior)
    if start is not None:
        arrays |= {start.name: problem.to_data_units(_seen(problem, start.image)), **start.arrays}
    columns = []
    for i in range(len(problem.names)):
        part = problem.select(torch.tensor([i]))
        begin = time.perf_counter()
        image = None if start is None else start.image[i : i + 1]
        samples = _sample(part, prior, inference, seed, image)
        posterior = Posterior.from_samples(samples)
        if correction is not None:
            posterior = correction(posterior)
        columns.append(_arrays(part, posterior, samples, inference, time.perf_counter() - begin))
    arrays |= {name: torch.cat([column[name] for column in columns]) for name in columns[0]}
    return Reconstruction(arrays["mean"], arrays)


def _arrays(
    problem: Problem, posterior: Posterior, samples: Samples, inference: Sampler, seconds: float
) -> dict[str, torch.Tensor]:
    """Return what a posterior in scaled intensities has for the file of one image: moments, samples, diagnostics."""
    diagnostics = posterior.diagnostics
    arrays = {
        "mean": problem.to_data_units(posterior.mean),
        "std": problem.to_data_units(posterior.std),
        "std_complex": problem.to_data_units(posterior.std_complex),
        "posterior_seconds": torch.tensor([seconds]),
        "posterior_gradient_evaluations": torch.tensor([float(samples.gradient_evaluations)]),
        "split_r_hat": diagnostics.split_r_hat,
        "effective_sample_size": diagnostics.effective_sample_size,
        "step_size": None if samples.step_size is None else samples.step_size.mean(dim=0),
        "curvature": None if samples.curvature is None else samples.curvature.amax(dim=0),
    }
    # The batch goes first, as in all arrays of a file.
    if inference.quantiles:
        arrays["quantiles"] = problem.to_data_units(posterior.quantiles(inference.quantiles)).movedim(1, 0)
    if inference.save_samples:
        arrays["samples"] = problem.to_data_units(posterior.images).movedim(1, 0)
    return {name: array for name, array in arrays.items() if array is not None}


def image_generator(seed: int, problem: Problem) -> torch.Generator:
    """Return the generator of a problem's one image, seeded by ``seed``, the name of its file and its slice."""
    return named_generator(seed, problem.names[0], problem.masked_kspace.device)


def named_generator(seed: int, name: tuple[str, int], device: torch.device | str) -> torch.Generator:
    """Return a generator seeded by ``seed``, the last part of a path, and a number."""
    text = f"{seed}/{name[0].rsplit('/', 1)[-1]}/{name[1]}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    return torch.Generator(device).manual_seed(number)
