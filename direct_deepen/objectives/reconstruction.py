"""Objectives that compare reconstructions with the fully sampled image, and a network with what it must stay below."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from direct_deepen.errors import DeepenError
from direct_deepen.inference.base import Estimator, learned
from direct_deepen.objectives.base import Loss, Objective, Update, objectives
from direct_deepen.parts import setting
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.per_image import per_image

_LINEAR_BELOW = 1e-2
"""Distance from the barrier under which its logarithm goes on as a straight line, so that it stays finite."""


def mean_squared_error(image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return ‖x − x_ref‖²/P, averaged over the batch; complex (batch, height, width), P pixels (ELDER, MoL)."""
    return torch.view_as_real(image - reference).square().sum(dim=-1).mean()


def denoising_loss(
    denoiser: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    noise_std: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the :func:`mean_squared_error` of D(x + z), z of standard deviation ``noise_std`` per real component.

    That is PnP-ISTA's. D, the denoiser, takes noise-free images x, complex (batch, height, width), to the same.
    """
    noise = complex_normal_like(image, generator=generator)
    return mean_squared_error(denoiser(image + noise_std * noise), image)


def lipschitz_quotient(
    function: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    num_iterations: int = 5,
    generator: torch.Generator,
) -> torch.Tensor:
    r"""Return ‖H(x + d) − H(x)‖/‖d‖ of every image, with a graph to the weights of H.

    d, of norm ‖x‖/100, is pushed towards the largest quotient by power iteration on J_HᴴJ_H first: a lower bound of the
    local Lipschitz constant, real (batch,) (MoL; difference quotients as in Bungert et al. 2021). H is differentiable,
    complex (batch, height, width) → the same. An iteration costs one evaluation and one vector-Jacobian product.
    """
    x = image.detach()
    direction = complex_normal_like(x, generator=generator)
    length = 1e-2 * _norm(x).clamp_min(torch.finfo(x.real.dtype).tiny)
    for _ in range(num_iterations):
        with torch.enable_grad():
            variable = x.clone().requires_grad_()
            output = function(variable)
        step = direction * (length / _norm(direction))
        change = (function(x + step) - output).detach()
        (direction,) = torch.autograd.grad(output, variable, change)
    step = direction * (length / _norm(direction).clamp_min(torch.finfo(x.real.dtype).tiny))
    return (_norm(function(x + step) - function(x)) / length).flatten()


def log_barrier(quotient: torch.Tensor, monotonicity: float) -> torch.Tensor:
    """Return −log(1 − m − L), averaged over the batch: it keeps the Lipschitz quotient L below 1 − m (MoL).

    Close to the barrier and beyond it the logarithm goes on as its tangent: a step across it finds the way back.
    """
    distance = 1 - monotonicity - quotient
    inside = distance.clamp_min(_LINEAR_BELOW)
    return (-inside.log() + (inside - distance) / _LINEAR_BELOW).mean()


def _norm(images: torch.Tensor) -> torch.Tensor:
    return per_image(torch.linalg.vector_norm(images.flatten(1), dim=1), images)


@objectives("denoising")
@dataclass
class Denoising(Objective):
    """Denoising at one noise level (PnP-ISTA): :func:`denoising_loss`."""

    noise_std: float = setting(0.01, above=0)
    """The noise level, per real component, in scaled intensities."""

    def loss(self, update: Update) -> Loss:
        """Compare D(x + z) with x."""
        loss = denoising_loss(update.model, update.reference, noise_std=self.noise_std, generator=update.generator)
        return Loss(loss, "denoising_loss")


@objectives("reconstruction")
@dataclass
class Reconstruction(Objective):
    """Mean squared error of what the inference reconstructs, with a gradient through it (ELDER)."""

    def loss(self, update: Update) -> Loss:
        """Compare the reconstruction with the reference."""
        image = _reconstructed(update)
        return Loss(mean_squared_error(image, update.reference), "reconstruction_loss", _learned(update))


@objectives("monotone_reconstruction")
@dataclass
class MonotoneReconstruction(Objective):
    """Mean squared error of the reconstruction, behind the barrier that keeps the network monotone (MoL)."""

    monotonicity: float = setting(0.1, above=0, below=1)
    """m, 0 < m < 1: the Lipschitz constant of the network is kept below 1 − m."""
    barrier_weight: float = setting(1e-4, above=0)
    """β of −β log(1 − m − L), L the local Lipschitz constant of the network."""
    barrier_iterations: int = setting(5, least=1)
    """Power iterations for L in every update."""

    def loss(self, update: Update) -> Loss:
        """Compare the reconstruction with the reference, and add the barrier."""
        image = _reconstructed(update)
        quotient = lipschitz_quotient(
            update.model, image, num_iterations=self.barrier_iterations, generator=update.generator
        )
        barrier = log_barrier(quotient, self.monotonicity)
        loss = mean_squared_error(image, update.reference) + self.barrier_weight * barrier
        metrics = _learned(update) | {"train/lipschitz": float(quotient.detach().max())}
        return Loss(loss, "reconstruction_loss", metrics)


def _reconstructed(update: Update) -> torch.Tensor:
    """Return what the inference reconstructs, complex (batch, height, width), with a graph."""
    if not isinstance(update.inference, Estimator):
        raise DeepenError(
            f"model.inference.name: {type(update.inference).__name__} has no gradient to train through; allowed with "
            "this objective: unrolled_gradient, equilibrium"
        )
    return update.inference.differentiable(update.problem, update.model)


def _learned(update: Update) -> dict[str, float]:
    names = update.inference.learns
    return {f"train/learned_{name}": float(learned(update.prior, name).detach()) for name in names}
