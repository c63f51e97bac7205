"""What an objective is: the loss of an update of the weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from direct_deepen.inference.base import Inference
from direct_deepen.parts import Part, Registry, setting
from direct_deepen.physics.problem import Problem


@dataclass
class GuardSettings:
    """What the guard takes for trouble, besides NaN, infinity and chains that diverge."""

    max_gap: float = setting(20.0, above=0, infinite=True)
    """Limit of |E⁺ − E⁻| in units of E₀, the energy of data noise."""
    max_curvature: float = setting(4.0, above=0, infinite=True)
    """Limit of the difference quotients of ∇E along the chains."""
    interval: int = setting(10, least=1)
    """Good updates between two remembered states."""
    max_rollbacks: int = setting(10, least=0)
    """Rollbacks before training ends with an error; 0 ends it at the first trouble."""


@dataclass
class BestSettings:
    """Which checkpoint is the best by validation, and when training ends for want of a better one."""

    metric: str = ""
    """One of ``validation.metrics``, averaged over the validation sets: the checkpoint of its best value is kept as
    ``model_best.pt``. Empty keeps none."""
    lower_is_better: bool = False
    """Whether the least value is the best, as of ``fastmri_nmse``."""
    patience: int = setting(0, least=0)
    """Validations without a better value before training ends; 0 trains to the end."""


@dataclass(frozen=True)
class Update:
    """What an update of the weights has to go by."""

    model: nn.Module
    """What is called for a loss with a graph: the prior, or its wrapper for parallel training."""
    prior: nn.Module
    inference: Inference
    reference: torch.Tensor
    """Fully sampled images in scaled intensities, complex (batch, height, width)."""
    problem: Problem
    """Undersampled data of the same images."""
    iteration: int
    generator: torch.Generator
    """Source of all randomness of the iteration."""
    load_denoiser: Callable[[Path, Path], nn.Module]
    """Reads the network of a trained diffusion from its checkpoint and its configuration."""


@dataclass(frozen=True)
class Loss:
    """The loss of an update, and what the guard and the log are to know."""

    value: torch.Tensor
    """Scalar with a graph to the weights."""
    name: str
    """What it is logged as; DIRECT shows names with ``loss`` in them."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Numbers to be logged."""
    gap: float = 0.0
    """|E⁺ − E⁻| in units of E₀; zero where there are no samples."""
    curvature: float = 0.0
    """Largest difference quotient of ∇E along the chains; zero where none was seen."""


@dataclass
class Objective(Part, ABC):
    """Base of the objectives that ``model.objective.name`` chooses; a subclass is a dataclass of its settings."""

    random_phase: float = setting(0.0, least=0, most=1)
    """Share of the training slices that get a smooth phase drawn at random, for priors that are to serve with coil maps
    of any phase. DIRECT's maps leave images real; a prior trained on these alone takes a phase for an error."""
    guard: GuardSettings = field(default_factory=GuardSettings)
    """When training goes back to an earlier state with half the learning rate."""
    best: BestSettings = field(default_factory=BestSettings)
    """The checkpoint that is best by validation, and early stopping."""

    @abstractmethod
    def loss(self, update: Update) -> Loss:
        """Return the loss of an update; a :class:`DivergenceError` is trouble for the guard."""

    @property
    def data_noise_std(self) -> float:
        """Standard deviation, per real component, of the noise that samples of the trained prior carry by design."""
        return 0.0

    def phase_start(self, iteration: int) -> int:
        """Return where the phase of an iteration began: optimizer and warm-up of the learning rate begin anew there."""
        return 0

    def warnings(self, *, num_slices: int, batch_size: int, num_iterations: int) -> list[str]:
        """Return what is to be said before training begins."""
        return []

    def roll_back(self) -> None:
        """Forget what belongs to weights that training went back from."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs: tensors, numbers and text by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the state that :meth:`state_dict` returned."""


objectives: Registry[Objective] = Registry("objective")
"""``@objectives(name)`` registers a class."""
