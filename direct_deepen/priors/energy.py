"""What an energy is: a real function of an image, with its gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeGuard, cast, runtime_checkable

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from direct_deepen.errors import DeepenError, require, require_positive, require_weight
from direct_deepen.physics.per_image import per_image


@runtime_checkable
class DifferentiableEnergy(Protocol):
    """What solvers and samplers ask of a prior; a user's analytic energy needs no more."""

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, complex (batch, ...), of every image, without a graph."""


class NoiseDependentEnergy(Protocol):
    """A prior with an energy for every noise of the data."""

    def at_noise(self, noise_std: float) -> DifferentiableEnergy:
        """Return the energy of the posterior ∝ exp(−2C/ε²) of data with ``noise_std`` = ε."""


def depends_on_noise(prior: object) -> TypeGuard[NoiseDependentEnergy]:
    """Return whether a prior has an energy for every noise; of its own, or of what it passes questions on to."""
    return hasattr(prior, "at_noise")


def as_function(energy: DifferentiableEnergy) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return E as a function with a graph to the image: the energy itself if it is one, else by ``value_and_grad``.

    Then ∇E has a graph as well, whose product with the Hessian is a difference of gradients; there is none beyond.
    """
    if callable(energy):
        return energy

    def value(image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = _Value.apply(image, energy)
        return result

    return value


class _Value(torch.autograd.Function):
    """E, with ∇E as its gradient."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, energy: DifferentiableEnergy) -> torch.Tensor:
        ctx.save_for_backward(image)
        ctx.energy = energy
        return energy.value_and_grad(image.detach())[0]

    @staticmethod
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor, None]:
        (image,) = ctx.saved_tensors
        return per_image(factor, image) * _Gradient.apply(image, ctx.energy), None


class _Gradient(torch.autograd.Function):
    """∇E, with its product with the Hessian, which is symmetric, by central differences."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, energy: DifferentiableEnergy) -> torch.Tensor:
        ctx.save_for_backward(image)
        ctx.energy = energy
        return energy.value_and_grad(image.detach())[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: torch.Tensor) -> tuple[torch.Tensor, None]:
        (image,) = ctx.saved_tensors
        size, length = (per_image(part.flatten(1).norm(dim=1), part) for part in (image, direction))
        # The cube root of the precision balances rounding and the third derivative.
        small = torch.finfo(image.dtype).eps ** (1 / 3) * torch.where(size > 0, size, 1.0)
        step = torch.where(length > 0, small / length.clamp_min(torch.finfo(length.dtype).tiny), 0.0)
        (_, ahead), (_, behind) = (ctx.energy.value_and_grad(image + sign * step * direction) for sign in (1, -1))
        return torch.where(step > 0, (ahead - behind) / (2 * step), 0.0), None


class Energy(nn.Module, ABC):
    r"""Base of trainable energies: a module whose ``forward`` is E.

    The gradient of a real function of a complex image x is the complex image

    .. math:: \nabla E = \frac{\partial E}{\partial \mathrm{Re}\,x} + i\,\frac{\partial E}{\partial \mathrm{Im}\,x},

    so that E(x + d) = E(x) + Re⟨∇E(x), d⟩ + O(‖d‖²).
    """

    prior_noise_std: float | None = None
    """ε₀ of the training, for which exp(−2E/ε₀²) is the prior; None where that is not known."""

    @abstractmethod
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return E(x) of every image; complex (batch, ...) → real (batch,), differentiable."""

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E(x) and ∇E(x), detached.

        Works under ``torch.no_grad`` and ``torch.inference_mode``, keeps dtype, device and the image itself, and builds
        no graph for the parameters: memory is that of one pass of activations. Complex (batch, ...) of the
        precision of the weights, a :class:`DeepenError` for another → real (batch,) and complex (batch, ...).
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
        self.prior_noise_std: float | None = None

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return E of every image, real (batch,), with a graph: that of :func:`as_function` of every term."""
        return self._weighted(as_function(energy)(image) for _, energy in self.terms)

    def value_and_grad(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (batch,), and ∇E, complex (batch, ...)."""
        values, gradients = zip(*(energy.value_and_grad(image) for _, energy in self.terms), strict=True)
        return self._weighted(values), self._weighted(gradients)

    def _weighted(self, values: Iterable[torch.Tensor]) -> torch.Tensor:
        return torch.stack([weight * value for (weight, _), value in zip(self.terms, values, strict=True)]).sum(dim=0)


def at_noise(
    energy: DifferentiableEnergy | NoiseDependentEnergy, noise_std: float, *, trained_noise_std: float | None = None
) -> SumEnergy:
    r"""Return the energy of the same prior for data of another noise: (ε/ε₀)²E, to be used with ``noise_std`` = ε.

    Training makes :math:`\exp(-2E/\varepsilon_0^2)` the prior, and the posterior of data with noise ε is
    :math:`\exp(-2C/\varepsilon^2)`. The prior in it stays what it was if the cost is

    .. math:: C(x) = \tfrac12\|Ax - b\|^2 + (\varepsilon/\varepsilon_0)^2 E(x).

    ``noise_std`` is ε, √2 times the measurement noise per real component, in scaled intensities. ``trained_noise_std``
    is ε₀, by default that of the energy: those of :func:`~direct_deepen.load_pretrained`, of ``load_trained``, and
    those returned here know theirs. A prior that has an energy for every noise returns that of ε; it has no ε₀.
    """
    require_positive("noise_std", noise_std)
    if depends_on_noise(energy):
        result = SumEnergy([(1.0, energy.at_noise(noise_std))])
        result.prior_noise_std = noise_std
        return result
    known = trained_noise_std if trained_noise_std is not None else prior_noise_std(energy)
    if known is None:
        raise DeepenError("trained_noise_std is None, and this energy does not say its own; allowed: a number > 0")
    require_positive("trained_noise_std", known)
    result = SumEnergy([((noise_std / known) ** 2, cast("DifferentiableEnergy", energy))])
    result.prior_noise_std = noise_std
    return result


def require_energy(energy: object) -> None:
    """Raise :class:`DeepenError` unless an energy has a value and a gradient: one of a prior of all noise levels."""
    hint = " (at_noise(prior, noise_std) for data of that noise)" if depends_on_noise(energy) else ""
    require(
        hasattr(energy, "value_and_grad"),
        f"energy is a {type(energy).__name__}; allowed: what has value_and_grad{hint}",
    )


def prior_noise_std(energy: object) -> float | None:
    """Return the ε for which exp(−2E/ε²) is the prior, if the energy says so."""
    known = getattr(energy, "prior_noise_std", None)
    return known if isinstance(known, float) else None
