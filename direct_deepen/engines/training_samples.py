"""Drawing x⁻: one posterior sample for every image of a training batch, from a mixture of starts."""

from dataclasses import dataclass

import torch

from direct_deepen.engines.persistent_chains import PersistentChains, mask_digest
from direct_deepen.engines.settings import ChainSettings
from direct_deepen.inference.langevin import Samples, langevin
from direct_deepen.inference.mm_map import mm_map
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.sense import sense
from direct_deepen.priors.energy import Energy

_FIRST_CURVATURE = 0.3
"""L that MAP starts from: that of trained energies. Estimating it would cost more than the steps."""


@dataclass(frozen=True)
class TrainingSamples:
    """Samples of a batch and what is logged of their chains.

    Attributes
    ----------
    image
        x⁻, complex (batch, height, width), without a graph.
    curvature
        Largest difference quotient of ∇E seen, real (batch,); not a number for fixed steps.
    step_size
        Frozen τ, real (batch,).
    """

    image: torch.Tensor
    curvature: torch.Tensor
    step_size: torch.Tensor


def draw_training_samples(
    problem: Problem,
    energy: Energy,
    *,
    noise_std: float,
    noise_start_std: float,
    sense_regularization: float,
    chains: ChainSettings,
    stored: PersistentChains,
    generator: torch.Generator,
) -> TrainingSamples:
    """Draw one sample of the posterior of every image, each from a kind of start chosen at random.

    Parameters
    ----------
    problem
        The batch.
    energy
        The energy being trained; no graph is built.
    noise_std
        ε.
    noise_start_std
        Standard deviation of noise starts.
    sense_regularization
        λ of SENSE starts.
    chains
        Kinds of start, their shares and steps.
    stored
        Memory of the persistent chains, read and updated.
    generator
        Source of randomness.
    """
    starts = chains.starts()
    shares = torch.tensor([start.fraction for start in starts.values()])
    batch = problem.masked_kspace.shape[0]
    kinds = torch.multinomial(shares.to(generator.device), batch, replacement=True, generator=generator).cpu()
    image = torch.empty_like(problem.A.sensitivity_map[:, 0])
    curvature = torch.empty(batch, dtype=torch.float64, device=image.device)
    step_size = torch.empty_like(curvature)
    for kind, (name, start) in enumerate(starts.items()):
        index = (kinds == kind).nonzero().flatten().to(image.device)
        if len(index) == 0:
            continue
        part = problem.select(index)
        images = _starting_images(name, part, noise_std, noise_start_std, sense_regularization, stored, generator)
        if start.map_steps > 0:
            images = mm_map(
                part.A,
                part.masked_kspace,
                energy,
                init=images,
                max_iterations=start.map_steps,
                curvature=_FIRST_CURVATURE,
            ).image
        samples = langevin(
            part.A,
            part.masked_kspace,
            energy,
            noise_std=noise_std,
            num_steps=start.num_steps,
            init=images,
            step_size=chains.step_size,
            generator=generator,
        )
        if name == "persistent":
            _store(part, samples, stored)
        image[index] = samples.images[0]
        assert samples.curvature is not None
        assert samples.step_size is not None
        curvature[index] = samples.curvature[0]
        step_size[index] = samples.step_size[0]
    return TrainingSamples(image, curvature, step_size)


def chain_spread(
    problem: Problem,
    energy: Energy,
    *,
    noise_std: float,
    noise_start_std: float,
    num_steps: int,
    generator: torch.Generator,
) -> float:
    """Return the standard deviation, per real component and in ε, between two chains started from noise."""
    samples = langevin(
        problem.A,
        problem.masked_kspace,
        energy,
        noise_std=noise_std,
        num_steps=num_steps,
        num_samples=2,
        init_std=noise_start_std,
        generator=generator,
    )
    difference = torch.view_as_real(samples.images[0] - samples.images[1])
    # Two independent states differ by √2 standard deviations.
    return float(difference.square().mean().div(2).sqrt()) / noise_std


def _starting_images(
    kind: str,
    problem: Problem,
    noise_std: float,
    noise_start_std: float,
    sense_regularization: float,
    stored: PersistentChains,
    generator: torch.Generator,
) -> torch.Tensor:
    # Drawn for all images, so that what a chain draws does not depend on what the others have stored.
    noise = complex_normal_like(problem.A.sensitivity_map[:, 0], generator=generator)
    if kind == "noise":
        return noise_start_std * noise
    known = [None] * len(problem.names) if kind == "sense" else _stored_states(problem, stored)
    missing = torch.tensor([state is None for state in known])
    images = torch.empty_like(noise)
    if bool(missing.any()):
        part = problem.select(missing.nonzero().flatten().to(images.device))
        solution = sense(part.A, part.masked_kspace, regularization=sense_regularization, tolerance=1e-3)
        images[missing] = solution + noise_std * noise[missing]
    for i, state in enumerate(known):
        if state is not None:
            images[i] = state.to(images)
    return images


def _stored_states(problem: Problem, stored: PersistentChains) -> list[torch.Tensor | None]:
    masks = problem.A.sampling_mask
    return [stored.get(name, mask_digest(mask)) for name, mask in zip(problem.names, masks, strict=True)]


def _store(problem: Problem, samples: Samples, stored: PersistentChains) -> None:
    for i, name in enumerate(problem.names):
        stored.put(name, mask_digest(problem.A.sampling_mask[i]), samples.images[0, i])
