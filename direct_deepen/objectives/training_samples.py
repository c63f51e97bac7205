"""Drawing x⁻: one posterior sample for every image of a training batch."""

from dataclasses import dataclass

import torch

from direct_deepen.inference.langevin import langevin
from direct_deepen.inference.mm_map import mm_map
from direct_deepen.objectives.persistent_chains import PersistentChains, mask_digest
from direct_deepen.parts import SharedSettings, setting
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.sense import sense
from direct_deepen.priors.energy import Energy

_FIRST_CURVATURE = 0.3
"""L that MAP starts from: that of trained energies. Estimating it would cost more than the steps."""

_SPREAD_STEPS = 60
"""Of the chains from noise whose spread is watched."""


@dataclass
class ChainSettings:
    """The Langevin chains of training.

    Attributes
    ----------
    start
        ``persistent``: chains go on from where the same slice with the same mask was left; from SENSE the first time.
        Chains that begin anew every time and stop short of their target teach the energy the transient: it rises on
        the samples without end. ``sense``: the SENSE solution plus noise of standard deviation ε. ``noise``: zero-mean
        Gaussian noise, the paper's.
    num_steps
        Langevin steps of a chain in an update; from noise they take 60 or more.
    map_steps
        Steps of MAP before them. A posterior with little data has slow directions: chains of few steps never come to
        minima that MAP finds, so that nothing would raise the energy there.
    step_size
        τ; null adapts it to the curvature during the first half of the chain and then freezes it.
    max_stored
        Images kept for the persistent chains; the one unused for longest goes first.
    """

    start: str = setting("persistent", choices=("persistent", "sense", "noise"))
    num_steps: int = setting(15, least=1)
    map_steps: int = setting(8, least=0)
    step_size: float | None = setting(None, above=0)
    max_stored: int = setting(2048, least=1)


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
    shared: SharedSettings,
    chains: ChainSettings,
    stored: PersistentChains,
    generator: torch.Generator,
) -> TrainingSamples:
    """Draw one sample of the posterior of every image.

    Parameters
    ----------
    problem
        The batch.
    energy
        The energy being trained; no graph is built.
    shared
        ε, and what chains start from.
    chains
        Start and steps.
    stored
        Memory of the persistent chains, read and updated.
    generator
        Source of randomness.
    """
    images = _starting_images(problem, shared, chains, stored, generator)
    if chains.map_steps > 0:
        images = mm_map(
            problem.A,
            problem.masked_kspace,
            energy,
            init=images,
            max_iterations=chains.map_steps,
            curvature=_FIRST_CURVATURE,
        ).image
    samples = langevin(
        problem.A,
        problem.masked_kspace,
        energy,
        noise_std=shared.noise_std,
        num_steps=chains.num_steps,
        init=images,
        step_size=chains.step_size,
        generator=generator,
    )
    assert samples.curvature is not None
    assert samples.step_size is not None
    image = samples.images[0]
    if chains.start == "persistent":
        for name, mask, state in zip(problem.names, problem.A.sampling_mask, image, strict=True):
            stored.put(name, mask_digest(mask), state)
    return TrainingSamples(image, samples.curvature[0], samples.step_size[0])


def chain_spread(problem: Problem, energy: Energy, *, shared: SharedSettings, generator: torch.Generator) -> float:
    """Return the standard deviation, per real component and in ε, between two chains started from noise."""
    samples = langevin(
        problem.A,
        problem.masked_kspace,
        energy,
        noise_std=shared.noise_std,
        num_steps=_SPREAD_STEPS,
        num_samples=2,
        init_std=shared.noise_start_std,
        generator=generator,
    )
    difference = torch.view_as_real(samples.images[0] - samples.images[1])
    # Two independent states differ by √2 standard deviations.
    return float(difference.square().mean().div(2).sqrt()) / shared.noise_std


def _starting_images(
    problem: Problem,
    shared: SharedSettings,
    chains: ChainSettings,
    stored: PersistentChains,
    generator: torch.Generator,
) -> torch.Tensor:
    # Drawn for all images, so that what a chain draws does not depend on what the others have stored.
    noise = complex_normal_like(problem.A.sensitivity_map[:, 0], generator=generator)
    if chains.start == "noise":
        return shared.noise_start_std * noise
    known: list[torch.Tensor | None] = [None] * len(problem.names)
    if chains.start == "persistent":
        masks = problem.A.sampling_mask
        known = [stored.get(name, mask_digest(mask)) for name, mask in zip(problem.names, masks, strict=True)]
    missing = torch.tensor([state is None for state in known])
    images = torch.empty_like(noise)
    if bool(missing.any()):
        part = problem.select(missing.nonzero().flatten().to(images.device))
        solution = sense(part.A, part.masked_kspace, regularization=shared.sense_regularization, tolerance=1e-3)
        images[missing] = solution + shared.noise_std * noise[missing]
    for i, state in enumerate(known):
        if state is not None:
            images[i] = state.to(images)
    return images
