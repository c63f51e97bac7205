"""Reconstruction of a batch as the configuration asks: MAP, and on request the posterior."""

import hashlib
import time
from dataclasses import dataclass

import torch

from direct_deepen.engines.settings import DeepenSettings, SampleSettings
from direct_deepen.inference.langevin import Samples, langevin
from direct_deepen.inference.mm_map import MapResult, mm_map
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.sense import sense
from direct_deepen.posterior.posterior import Posterior
from direct_deepen.posterior.posterior_file import FileAttributes
from direct_deepen.priors.energy import DifferentiableEnergy, SumEnergy
from direct_deepen.priors.reduced_precision import ReducedPrecision


@dataclass(frozen=True)
class Reconstruction:
    """Reconstruction of a batch in the units of the batch.

    Attributes
    ----------
    image
        What the configuration asks for, complex (batch, height, width).
    arrays
        What goes into the posterior file: images, maps and figures by name, each with the batch first.
    """

    image: torch.Tensor
    arrays: dict[str, torch.Tensor]


def reconstruct(
    problem: Problem,
    energy: DifferentiableEnergy,
    settings: DeepenSettings,
    *,
    seed: int,
    std_scale: float | None = None,
) -> Reconstruction:
    """Reconstruct a batch.

    Every image has a random generator of its own, seeded by ``seed``, the name of its file and its slice: the result
    depends neither on the batch it comes in nor on the folder it lies in. With ``std_scale`` the posterior is
    the one :meth:`~direct_deepen.Posterior.rescaled` by it.
    """
    inference = settings.inference
    begin = time.perf_counter()
    result = _map(problem, energy, settings)
    batch = len(problem.names)
    image = problem.to_data_units(result.image)
    arrays = {
        "map": image,
        "scale": problem.scale,
        "cost": result.cost_history[-1],
        "converged": result.converged,
        "map_gradient_evaluations": torch.full((batch,), result.gradient_evaluations / batch),
        "map_seconds": torch.full((batch,), (time.perf_counter() - begin) / batch),
    }
    if inference.estimator == "map":
        return Reconstruction(image, arrays)

    columns = [
        _posterior_arrays(problem.select(torch.tensor([i])), energy, settings, result.image[i : i + 1], seed, std_scale)
        for i in range(batch)
    ]
    arrays |= {name: torch.cat([column[name] for column in columns]) for name in columns[0]}
    return Reconstruction(arrays["mean"], arrays)


def sample_posterior(
    problem: Problem, energy: DifferentiableEnergy, settings: DeepenSettings, *, seed: int
) -> Posterior:
    """Return the posterior of one image, as :func:`reconstruct` samples it, in scaled intensities."""
    map_image = _map(problem, energy, settings).image
    return Posterior.from_samples(_samples(problem, energy, settings, map_image, seed))


def _map(problem: Problem, energy: DifferentiableEnergy, settings: DeepenSettings) -> MapResult:
    return mm_map(
        problem.A,
        problem.masked_kspace,
        SumEnergy([(settings.inference.prior_weight, energy)]),
        init=sense(problem.A, problem.masked_kspace, regularization=settings.sense_regularization),
        tolerance=settings.inference.tolerance,
        max_iterations=settings.inference.max_iterations,
        progress=True,
    )


def _samples(
    problem: Problem, energy: DifferentiableEnergy, settings: DeepenSettings, map_image: torch.Tensor, seed: int
) -> Samples:
    """Sample the posterior of one image."""
    inference = settings.inference
    if inference.convolutions == "bfloat16":
        energy = ReducedPrecision(energy)
    return langevin(
        problem.A,
        problem.masked_kspace,
        SumEnergy([(inference.prior_weight, energy)]),
        noise_std=settings.noise_std,
        num_steps=inference.num_steps,
        num_samples=inference.num_samples,
        keep=inference.keep,
        init=map_image if inference.start == "map" else inference.start,
        init_std=settings.noise_start_std,
        step_size=inference.step_size,
        preconditioner=inference.preconditioner,
        max_images=inference.max_images,
        generator=image_generator(seed, problem.names[0], problem.masked_kspace.device),
        progress=True,
    )


def _posterior_arrays(
    problem: Problem,
    energy: DifferentiableEnergy,
    settings: DeepenSettings,
    map_image: torch.Tensor,
    seed: int,
    std_scale: float | None,
) -> dict[str, torch.Tensor]:
    begin = time.perf_counter()
    samples = _samples(problem, energy, settings, map_image, seed)
    posterior = Posterior.from_samples(samples)
    if std_scale is not None:
        posterior = posterior.rescaled(std_scale)
    arrays = posterior_arrays(problem, posterior, settings.inference, seconds=time.perf_counter() - begin)
    assert samples.step_size is not None
    assert samples.curvature is not None
    return arrays | {
        "step_size": samples.step_size.mean(dim=0),
        "curvature": samples.curvature.amax(dim=0),
        "posterior_gradient_evaluations": torch.tensor([float(samples.gradient_evaluations)]),
    }


def posterior_arrays(
    problem: Problem, posterior: Posterior, settings: SampleSettings, *, seconds: float
) -> dict[str, torch.Tensor]:
    """Return what a posterior in scaled intensities has for the file of one image: moments, samples, diagnostics."""
    arrays = {
        "mean": problem.to_data_units(posterior.mean),
        "std": problem.to_data_units(posterior.std),
        "std_complex": problem.to_data_units(posterior.std_complex),
        "posterior_seconds": torch.tensor([seconds]),
    }
    if posterior.diagnostics.split_r_hat is not None:
        arrays["split_r_hat"] = posterior.diagnostics.split_r_hat
    if posterior.diagnostics.effective_sample_size is not None:
        arrays["effective_sample_size"] = posterior.diagnostics.effective_sample_size
    # The batch goes first, as in all arrays of a file.
    if settings.quantiles:
        arrays["quantiles"] = problem.to_data_units(posterior.quantiles(settings.quantiles)).movedim(1, 0)
    if settings.save_samples:
        arrays["samples"] = problem.to_data_units(posterior.images).movedim(1, 0)
    return arrays


def posterior_attributes(settings: SampleSettings) -> FileAttributes:
    """Return the attributes of a file with the arrays of :func:`posterior_arrays`."""
    quantiles = {"quantile_probabilities": list(settings.quantiles)} if settings.quantiles else {}
    return {"num_samples": settings.num_samples, **quantiles}


def image_generator(seed: int, name: tuple[str, int], device: torch.device) -> torch.Generator:
    """Return the generator of one image, seeded by ``seed``, the name of its file and its slice."""
    text = f"{seed}/{name[0].rsplit('/', 1)[-1]}/{name[1]}"
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    return torch.Generator(device).manual_seed(number)
