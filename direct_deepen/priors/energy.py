"""What an energy is: a non-negative function of an image, with its gradient."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from direct_deepen.errors import require, require_weight


@runtime_checkable
class DifferentiableEnergy(Protocol):
    """What solvers and samplers ask of a prior; a user's analytic energy needs no more."""

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, complex (batch, height, width), of every image, without a graph."""


class Energy(nn.Module, ABC):
    r"""Base of trainable energies: a module whose ``forward`` is E.

    The gradient of a real function of a complex image x is the complex image

    .. math:: \nabla E = \frac{\partial E}{\partial \mathrm{Re}\,x} + i\,\frac{\partial E}{\partial \mathrm{Im}\,x},

    so that E(x + d) = E(x) + Re⟨∇E(x), d⟩ + O(‖d‖²).
    """

    @abstractmethod
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x) ≥ 0 of every image; complex (batch, height, width) → real (batch,), differentiable."""

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x), detached.

        Works under ``torch.no_grad`` and ``torch.inference_mode``, keeps dtype, device and the image itself, and builds
        no graph for the parameters: memory is that of one pass of activations. Complex (batch, height, width) of the
        precision of the weights, a :class:`DeepenError` for another → real (batch,) and complex (batch, height, width).
        """
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        with torch.inference_mode(False), torch.enable_grad():
            # A copy, as tensors made in inference mode cannot be part of a graph.
            variable = image.detach().clone().requires_grad_()
            value = torch.func.functional_call(self, frozen, (variable,))
            (gradient,) = torch.autograd.grad(value.sum(), variable)
        return value.detach(), gradient


class SumEnergy:
    """Weighted sum of energies, E(x) = Σ w_i E_i(x), itself an energy.

    ``terms`` are one or more pairs of a finite weight ≥ 0 and an energy; a :class:`DeepenError` for others.
    """

    def __init__(self, terms: Sequence[tuple[float, DifferentiableEnergy]]) -> None:
        require(len(terms) > 0, "terms is empty; allowed: one or more (weight, energy) pairs")
        for weight, _ in terms:
            require_weight("weight", weight)
        self.terms = tuple(terms)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return E of every image, real (batch,), with a graph through those terms that are functions themselves."""
        return self._weighted(
            energy(image) if callable(energy) else energy.value_and_grad(image)[0] for _, energy in self.terms
        )

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, complex (batch, height, width)."""
        values, gradients = zip(*(energy.value_and_grad(image) for _, energy in self.terms), strict=True)
        return self._weighted(values), self._weighted(gradients)

    def _weighted(self, values: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.stack([weight * value for (weight, _), value in zip(self.terms, values, strict=True)]).sum(dim=0)
