"""Training of DEEPEN: score matching first, then maximum likelihood against samples of the posterior."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from direct_deepen.inference.langevin import Chains, LangevinStep, langevin
from direct_deepen.inference.samples import Samples
from direct_deepen.objectives.base import Loss, Objective, Update, objectives
from direct_deepen.objectives.score_matching import denoising_score_matching_loss
from direct_deepen.objectives.training_samples import (
    PersistentChains,
    PersistentChainSettings,
    draw_training_samples,
)
from direct_deepen.parts import setting
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.priors.energy import Energy

_logger = logging.getLogger(__name__)

_SPREAD_INTERVAL, _SPREAD_STEPS = 50, 60
"""Updates between two looks at the spread of chains from noise, and their steps."""

_LEAST_SPREAD = 0.25
"""In ε. A chain of unit step has at least ε, whatever the energy, and half of that with averaged noise; less needs a
curvature that shrinks the step."""

_FEWEST_VISITS = 3
"""Of a slice, in the contrastive phase: a chain that is taken up twice has three times the steps."""


def contrastive_loss(true_energy: torch.Tensor, sample_energy: torch.Tensor, *, penalty: float = 0.0) -> torch.Tensor:
    r"""Severed maximum-likelihood loss (DEEPEN, equations 10 and 13), a scalar.

    .. math:: \frac{1}{N} \sum_i E(x_i^+ + n_i) - E(x_i^-)
              \; + \; \frac{\alpha}{N E_0} \sum_i E(x_i^+ + n_i)^2 + E(x_i^-)^2

    with x⁺ the fully sampled images plus data noise and x⁻ samples of the posterior of the same data, drawn without a
    graph: the gradient through the chain vanishes for exact samples (equation 9), and ½‖Ax − b‖² has no gradient with
    respect to the weights. The energies are real (batch,), with a graph to the weights.

    The penalty, α/E₀ ≥ 0, keeps the energies near zero, where a constant added to E would let them drift. E₀ is a unit
    of energy, :func:`energy_unit`, with which α means the same at every image size.
    """
    gap = true_energy.mean() - sample_energy.mean()
    return gap + penalty * (true_energy.square().mean() + sample_energy.square().mean())


def energy_unit(num_pixels: int, noise_std: float) -> float:
    """Return E₀ = Pε²/2, the energy of data noise in P pixels.

    Noise of standard deviation cε per real component has squared norm 2Pc²ε²; at the curvature 1/(2c²) that the
    temperature asks for, its energy is half of that times the curvature, whatever c.
    """
    return 0.5 * num_pixels * noise_std**2


def chain_metrics(true: float, sample: float, samples: Samples) -> dict[str, float]:
    """Return what is logged of an update: mean energies of true images and of samples, and how the chains stepped."""
    assert samples.curvature is not None
    assert samples.step_size is not None
    return {
        "train/energy_true": true,
        "train/energy_sample": sample,
        "train/energy_gap": true - sample,
        "train/curvature": float(samples.curvature.max()),
        "train/step_size": float(samples.step_size.mean()),
    }


def seen_curvature(metrics: Mapping[str, float]) -> float:
    """Return the largest curvature along the chains, zero for fixed steps, which observe none."""
    found = metrics["train/curvature"]
    return 0.0 if math.isnan(found) else found


@objectives("contrastive")
@dataclass
class Contrastive(Objective):
    """Denoising score matching (warm start), then :func:`contrastive_loss` against samples of Langevin chains."""

    needs = ("value_and_grad",)
    warm_start_iterations: int = setting(1000, least=0)
    """Iterations of denoising score matching before the contrastive ones."""
    warm_start_noise_std: float = setting(0.1, above=0)
    """Largest noise level of score matching, per real component, in scaled intensities."""
    warm_start_energy_weight: float = setting(0.3, least=0)
    """λ of the term that takes the energy of noise-free images to zero during score matching. Without it MAP leaves the
    images for spurious minima of lower energy."""
    data_noise_factor: float = setting(2**0.5, above=0)
    """c: true images get noise of standard deviation c·ε per real component; √2 is a variance of 2ε². Samples of unit
    steps carry noise of at least ε, which no energy explains below c = 1; those of the adapting step, and of averaged
    noise, less, at larger curvatures."""
    energy_penalty: float = setting(0.01, least=0)
    """α of α·mean(E⁺² + E⁻²)/E₀, which holds images at the bottom during contrastive training; E₀ = Pε²/2 is the energy
    of data noise in P pixels. Training is stable without it, but MAP finds stripes of lower energy."""
    chains: PersistentChainSettings = field(default_factory=PersistentChainSettings)
    """The chains that draw x⁻."""

    def __post_init__(self) -> None:
        self.stored_chains = PersistentChains(self.chains.max_stored)
        self._largest_relative_gap = 0.0

    @property
    def data_noise_std(self) -> float:
        """Return cε: samples are of true images with their noise."""
        return self.data_noise_factor * self.shared.noise_std

    def phase_start(self, iteration: int) -> int:
        """Return where score matching, or the contrastive phase, begins.

        Adam's moments of one are those of another loss, with gradients of another size.
        """
        return self.warm_start_iterations if iteration >= self.warm_start_iterations else 0

    def warnings(self, *, num_slices: int, batch_size: int, num_iterations: int) -> list[str]:
        """Say so where chains cannot persist."""
        updates = num_iterations - self.warm_start_iterations
        # Each process keeps the chains of the slices that it comes upon.
        visits = updates * batch_size / max(1, num_slices)
        enough = num_slices <= self.chains.max_stored and visits >= _FEWEST_VISITS
        if updates <= 0 or self.chains.start != "persistent" or enough:
            return []
        return [
            f"Persistent chains: {num_slices} slices, each of which comes {visits:.2g} times in a process, and places "
            f"for {self.chains.max_stored} chains. Most chains will begin at SENSE; train on fewer slices, or longer, "
            "and raise model.objective.chains.max_stored above the number of slices."
        ]

    def loss(self, update: Update) -> Loss:
        """Return the loss of score matching, or the contrastive one."""
        if update.iteration >= self.warm_start_iterations:
            return self._contrastive(update)
        loss = denoising_score_matching_loss(
            update.model,
            update.reference,
            max_noise_std=self.warm_start_noise_std,
            # κ at which the energy has the temperature of the contrastive phase.
            scale=1 / (2 * self.data_noise_factor**2),
            energy_weight=self.warm_start_energy_weight,
            generator=update.generator,
        )
        return Loss(loss, "score_matching_loss")

    def _contrastive(self, update: Update) -> Loss:
        samples = draw_training_samples(
            update.problem,
            cast("Energy", update.prior),
            shared=self.shared,
            chains=self.chains,
            stored=self.stored_chains,
            generator=update.generator,
        )
        noise = complex_normal_like(update.reference, generator=update.generator)
        true_images = update.reference + self.data_noise_std * noise
        # One call of the (possibly wrapped) model, so that parallel training reduces gradients once.
        energies = update.model(torch.cat([true_images, samples.images[0]]))
        true_energy, sample_energy = energies.chunk(2)
        unit = energy_unit(update.reference[0].numel(), self.shared.noise_std)
        loss = contrastive_loss(true_energy, sample_energy, penalty=self.energy_penalty / unit)
        gap = float((true_energy - sample_energy).detach().mean())
        true, sample = float(true_energy.detach().mean()), float(sample_energy.detach().mean())
        # DIRECT writes medians over its logging interval; the running maximum shows what a median hides.
        self._largest_relative_gap = max(self._largest_relative_gap, abs(true - sample) / max(true, sample, 1.0))
        metrics = chain_metrics(true, sample, samples)
        metrics["train/largest_relative_gap"] = self._largest_relative_gap
        if (update.iteration - self.warm_start_iterations) % _SPREAD_INTERVAL == 0:
            metrics["train/chain_spread"] = self._spread(update)
        return Loss(loss, "contrastive_loss", metrics, abs(gap) / unit, seen_curvature(metrics))

    def _spread(self, update: Update) -> float:
        """Return how far two chains from noise are apart, per real component and in ε; warn when they fall together."""
        problem = update.problem.select(torch.tensor([0]))
        first, second = langevin(
            problem.A,
            problem.masked_kspace,
            cast("Energy", update.prior),
            noise_std=self.shared.noise_std,
            init_std=self.shared.noise_start_std,
            chains=Chains(2, _SPREAD_STEPS),
            step=LangevinStep(averaged_noise=self.chains.averaged_noise),
            generator=update.generator,
        ).images
        # Two independent states differ by √2 standard deviations.
        spread = float(torch.view_as_real(first - second).square().mean().div(2).sqrt()) / self.shared.noise_std
        if spread < _LEAST_SPREAD:
            _logger.warning(
                "Iteration %i: chains of the same data are %.2g ε apart; below %.2g ε the posterior collapses.",
                update.iteration, spread, _LEAST_SPREAD,
            )  # fmt: skip
        return spread

    def roll_back(self) -> None:
        """Begin all chains anew: the weights they come from are gone."""
        self.stored_chains.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the chains."""
        return {"chains": self.stored_chains.state_dict(), "largest_relative_gap": self._largest_relative_gap}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the chains."""
        self.stored_chains.load_state_dict(state["chains"])
        self._largest_relative_gap = float(state["largest_relative_gap"])
        _logger.info("Read %i persistent chains.", len(self.stored_chains))
