"""What an energy is: a non-negative function of an image, with its gradient."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
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

        Works under ``torch.no_grad`` and ``torch.inference_mode``, keeps dtype and device, and builds no graph for the
        parameters: memory is that of one pass of activations.

        Parameters
        ----------
        image
            Complex (batch, height, width), of the precision of the weights. It is not changed.

        Returns
        -------
        E, real (batch,), and ∇E, complex (batch, height, width).

        Raises
        ------
        DeepenError
            If the image is not a complex (batch, height, width) tensor of the precision of the weights.
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

    Parameters
    ----------
    terms
        Pairs of a weight ≥ 0 and an energy.

    Raises
    ------
    DeepenError
        If there are no terms, or a weight is negative or not finite.
    """

    def __init__(self, terms: Sequence[tuple[float, DifferentiableEnergy]]) -> None:
        require(len(terms) > 0, "terms is empty; allowed: one or more (weight, energy) pairs")
        for weight, _ in terms:
            require_weight("weight", weight)
        self.terms = tuple(terms)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return E of every image, real (batch,), with a graph through those terms that are functions themselves."""
        values = [energy(image) if callable(energy) else energy.value_and_grad(image)[0] for _, energy in self.terms]
        return torch.stack([weight * value for (weight, _), value in zip(self.terms, values, strict=True)]).sum(dim=0)

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, complex (batch, height, width)."""
        values, gradients = [], []
        for weight, energy in self.terms:
            value, gradient = energy.value_and_grad(image)
            values.append(weight * value)
            gradients.append(weight * gradient)
        return torch.stack(values).sum(dim=0), torch.stack(gradients).sum(dim=0)
