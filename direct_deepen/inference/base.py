"""What an inference is: an image, or samples, from a problem and a prior."""

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn

from direct_deepen.errors import DeepenError, require
from direct_deepen.inference.samples import Samples
from direct_deepen.parts import Part, Registry, setting
from direct_deepen.physics.noise_level import estimated_noise_std
from direct_deepen.physics.problem import Problem
from direct_deepen.physics.sense import sense


class Inference(Part, ABC):
    """Base of the inferences that ``model.inference.name`` chooses; a subclass is a dataclass of its settings."""

    learns: ClassVar[tuple[str, ...]] = ()
    """Settings that are the first values of positive numbers which are trained with the prior."""
    noise_level = "given"
    """``given``, or ``estimated`` from the data: a setting of those that can do with either."""
    noise_by_ring = False
    """Whether that is only where to begin, and the noise of every ring of k-space is found: a setting of some."""

    @property
    def posterior_noise_std(self) -> float:
        """ε of the posterior, √2 times the noise of the data per real component."""
        return self.shared.noise_std

    def noise_std_of(self, problem: Problem) -> torch.Tensor:
        """Return ε of the posterior of every image, given or estimated, real (batch,)."""
        if problem.noise_std is not None:
            return problem.noise_std
        if self.noise_level == "estimated":
            return 2**0.5 * estimated_noise_std(problem.masked_kspace, problem.A.sampling_mask)
        return torch.full_like(problem.scale, self.posterior_noise_std)

    def with_noise(self, problem: Problem, prior: nn.Module) -> tuple[Problem, dict[str, torch.Tensor]]:
        """Return the problem with data weighted for the noise that this inference finds, and what to write of it.

        Arrays have the batch first. Here the problem is as it was, and there are none.
        """
        return problem, {}

    def sense(self, problem: Problem, *, tolerance: float = 1e-6) -> torch.Tensor:
        """Return the SENSE solution of the configuration, complex (batch, height, width)."""
        return sense(
            problem.A,
            problem.masked_kspace,
            regularization=self.shared.sense_regularization,
            tolerance=tolerance,
        )


inferences: Registry[Inference] = Registry("inference")
"""``@inferences(name)`` registers a class."""


@dataclass(frozen=True)
class Estimate:
    """Images of a batch and what the posterior file is to hold beside them."""

    image: torch.Tensor
    """Complex (batch, height, width), in scaled intensities."""
    arrays: dict[str, torch.Tensor] = field(default_factory=dict)
    """Numbers by name, each with the batch first."""
    name: str = "image"
    """What the file calls the image."""


class Estimator(Inference):
    """An inference with one image as its answer."""

    @abstractmethod
    def solve(self, problem: Problem, prior: nn.Module) -> Estimate:
        """Return the images of a batch; called without a graph."""

    def differentiable(self, problem: Problem, prior: nn.Module) -> torch.Tensor:
        """Return the images of a batch with a graph to the weights; a :class:`DeepenError` if there is none."""
        raise DeepenError(f"model.inference.name: {type(self).__name__} has no gradient to train through")


@dataclass
class Sampler(Inference):
    """An inference whose answer is a set of posterior samples; their mean is the reconstruction."""

    num_samples: int = setting(16, least=1)
    """Samples of an image that are independent: chains, where there are chains."""
    max_images: int = setting(32, least=1)
    """Images given to the network at once."""
    quantiles: list[float] = field(default_factory=lambda: [0.05, 0.25, 0.5, 0.75, 0.95])
    """Probabilities of the quantiles that are written, of u in phase with the mean; increasing, none for none."""
    save_samples: bool = False
    """Whether samples are written themselves: 8 bytes a pixel and sample, held in memory until the volume is done."""

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        ends = [0.0, *self.quantiles, 1.0]
        require(
            all(lower < upper for lower, upper in pairwise(ends)),
            f"{path}.quantiles is {list(self.quantiles)!r}; allowed: increasing, between 0 and 1",
        )

    def prepare(self, problem: Problem, prior: nn.Module) -> Estimate | None:
        """Return images of a batch that sampling may start from, and that are written too; None for none."""
        return None

    @abstractmethod
    def sample(
        self, problem: Problem, prior: nn.Module, generator: torch.Generator, start: torch.Tensor | None = None
    ) -> Samples:
        """Return samples of one image, a batch of one; ``start``, (1, height, width), is that of :meth:`prepare`."""

    def sampling(self) -> dict[str, Any]:
        """Return what samples depend on: the class, and the settings but those of what is done with samples."""
        afterwards = ("max_images", "quantiles", "save_samples")
        own = {name: value for name, value in asdict(self).items() if name not in afterwards}
        return {"sampler": type(self).__name__} | asdict(self.shared) | own


def attach_learned(prior: nn.Module, inference: Inference, path: str) -> None:
    """Give a prior the numbers that its inference learns, as their logarithms."""
    for name in inference.learns:
        value = getattr(inference, name)
        require(0 < value < math.inf, f"{path}.{name} is {value!r}; allowed: finite and > 0")
        logarithm = nn.Parameter(torch.tensor(math.log(value)))
        prior.register_module(name, nn.ParameterDict({"logarithm": logarithm}))


def learned(prior: nn.Module, name: str) -> torch.Tensor:
    """Return a number that :func:`attach_learned` gave to a prior, wrapped or not: a scalar with a graph."""
    holder = getattr(prior, "module", prior).get_submodule(name)
    assert isinstance(holder, nn.ParameterDict)
    logarithm: torch.Tensor = holder["logarithm"]
    return logarithm.exp()
