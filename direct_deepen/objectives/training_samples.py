"""Drawing x⁻: one posterior sample for every image of a training batch, by chains that remember where they were."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from direct_deepen.errors import require
from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.inference.metric import DataMetric
from direct_deepen.inference.mm_map import MapStep, Stopping, mm_map
from direct_deepen.inference.samples import Samples
from direct_deepen.parts import SharedSettings, setting
from direct_deepen.physics.noise import ChainGenerators, complex_normal_like
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.sense import sense
from direct_deepen.priors.energy import Energy

_FIRST_CURVATURE = 0.3
"""L that MAP starts from: that of trained energies. Estimating it would cost more than the steps."""
_INEXACT = 1e-2
"""Relative residual of what solves for the noise that MAP's image gets."""


@dataclass
class ChainSettings:
    """The Langevin chains of training."""

    start: str = setting("sense", choices=("sense", "noise"))
    """``sense``: the SENSE solution plus noise of standard deviation ε. ``noise``: zero-mean Gaussian noise, the
    paper's."""
    num_steps: int = setting(15, least=1)
    """Langevin steps of a chain in an update; from noise they take 60 or more."""
    map_steps: int = setting(8, least=0)
    """Steps of MAP before them. A posterior with little data has slow directions: chains of few steps never come to
    minima that MAP finds, so that nothing would raise the energy there."""
    map_noise_curvature: float | None = setting(None, above=0)
    """μ: what MAP has found gets noise of covariance (ε²/2)(AᴴA + μI)⁻¹, which a posterior has whose prior has
    curvature μ, before the steps; null for none. MAP has no noise, and chains that stop short of theirs have too
    little: then the energy learns that noise costs nothing, and chains become slower still."""
    step_size: float | None = setting(None, above=0)
    """τ; null adapts it to the curvature during the first half of the chain and then freezes it."""
    averaged_noise: bool = False
    """Whether the noise of a step is the mean of two draws (:class:`~direct_deepen.LangevinStep`). Otherwise samples
    have 2/(2 − τh) times the variance of the posterior where C has curvature h, which the energy makes up for."""

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        require(
            self.map_noise_curvature is None or self.map_steps > 0,
            f"{path}.map_noise_curvature is {self.map_noise_curvature!r}; allowed with {path}.map_steps: 0: null",
        )


@dataclass
class PersistentChainSettings(ChainSettings):
    """Chains that may go on where they were left."""

    start: str = setting("persistent", choices=("persistent", "sense", "noise"))
    """``persistent``: chains go on from where the same slice with the same mask was left; from SENSE the first time.
    Chains that begin anew every time and stop short of their target teach the energy the transient: it rises on the
    samples without end. ``sense``: the SENSE solution plus noise of standard deviation ε. ``noise``: zero-mean Gaussian
    noise, the paper's."""
    max_stored: int = setting(2048, least=1)
    """Images kept for the persistent chains; the one unused for longest goes first."""


def mask_digest(sampling_mask: torch.Tensor) -> str:
    """Return a digest of a sampling mask, equal for equal masks whatever their dtype and device."""
    bits = (sampling_mask != 0).to("cpu", torch.uint8).contiguous()
    return hashlib.sha256(repr(tuple(bits.shape)).encode() + bits.numpy().tobytes()).hexdigest()[:16]


class PersistentChains:
    """States of ``max_stored`` chains by file and slice, with the mask they belong to."""

    def __init__(self, max_stored: int) -> None:
        self.max_stored = max_stored
        self._states: OrderedDict[tuple[str, int], tuple[str, torch.Tensor]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, name: tuple[str, int], digest: str) -> torch.Tensor | None:
        """Return the state of a slice, or None where there is none for this mask."""
        entry = self._states.get(name)
        if entry is None or entry[0] != digest:
            return None
        self._states.move_to_end(name)
        return entry[1]

    def put(self, name: tuple[str, int], digest: str, image: torch.Tensor) -> None:
        """Keep a copy, on the CPU, of the state of a slice; the one unused for longest goes."""
        self._states[name] = (digest, image.detach().to("cpu", copy=True))
        self._states.move_to_end(name)
        while len(self._states) > self.max_stored:
            self._states.popitem(last=False)

    def clear(self) -> None:
        """Forget all states."""
        self._states.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return all states, in the order of their last use."""
        return {
            "names": [[name, number] for name, number in self._states],
            "digests": [digest for digest, _ in self._states.values()],
            "images": [image for _, image in self._states.values()],
        }

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Replace all states by those of :meth:`state_dict`."""
        self.clear()
        entries = zip(content["names"], content["digests"], content["images"], strict=True)
        for (name, number), digest, image in entries:
            self.put((name, number), digest, image)


def draw_training_samples(
    problem: Problem,
    energy: Energy,
    *,
    shared: SharedSettings,
    chains: ChainSettings,
    stored: PersistentChains | None = None,
    generator: torch.Generator,
) -> Samples:
    """Draw one sample of the posterior of every image, without a graph.

    Where persistent chains were left is ``stored``; others need no store.
    """
    images = _starting_images(problem, shared, chains, stored, generator)
    if chains.map_steps > 0:
        images = mm_map(
            problem.A,
            problem.masked_kspace,
            energy,
            init=images,
            stopping=Stopping(max_iterations=chains.map_steps),
            step=MapStep(_FIRST_CURVATURE),
        ).image
        if chains.map_noise_curvature is not None:
            images = images + _noise_of_posterior(problem, shared.noise_std, chains.map_noise_curvature, generator)
    samples = langevin(
        problem.A,
        problem.masked_kspace,
        energy,
        noise_std=shared.noise_std,
        init=images,
        chains=Chains(num_steps=chains.num_steps),
        step=LangevinStep(chains.step_size, averaged_noise=chains.averaged_noise),
        generator=generator,
    )
    if stored is not None and chains.start == "persistent":
        for name, mask, state in zip(problem.names, problem.A.sampling_mask, samples.images[0], strict=True):
            stored.put(name, mask_digest(mask), state)
    return samples


def _noise_of_posterior(
    problem: Problem, noise_std: float, curvature: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw noise of covariance (ε²/2)(AᴴA + μI)⁻¹ per real component, complex (batch, height, width)."""
    metric = DataMetric(problem.A, problem.masked_kspace, curvature, _INEXACT)
    image = torch.empty_like(problem.masked_kspace[:, 0])[None]
    generators = ChainGenerators.from_one(generator, 1, len(problem.names))
    return 0.5**0.5 * noise_std * metric.solve(metric.noise(image, generators))[0]


def _starting_images(
    problem: Problem,
    shared: SharedSettings,
    chains: ChainSettings,
    stored: PersistentChains | None,
    generator: torch.Generator,
) -> torch.Tensor:
    # Drawn for all images, so that what a chain draws does not depend on what the others have stored.
    noise = complex_normal_like(problem.masked_kspace[:, 0], generator=generator)
    if chains.start == "noise":
        return shared.noise_start_std * noise
    known: list[torch.Tensor | None] = [None] * len(problem.names)
    if stored is not None and chains.start == "persistent":
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
