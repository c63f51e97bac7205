"""One step of several Langevin chains: from a target and a state to the next state."""

from dataclasses import dataclass, replace

import torch

from direct_deepen.inference.cost import CostTerms, change_by, image_norm, inner_product
from direct_deepen.inference.metric import Metric
from direct_deepen.physics.noise import ChainGenerators, complex_normal_like
from direct_deepen.physics.operator import LinearOperator, norm_squared, over_chains
from direct_deepen.physics.per_image import per_image
from direct_deepen.priors.energy import DifferentiableEnergy

_SAFETY = 1.6
"""Share of the largest stable step, 2/curvature, that the adapting step uses, times one half."""

_ACCEPTANCE_TARGET = 0.574
_ADAPTATION_DECAY = 0.6


@dataclass
class Target:
    """The density ∝ exp(−2C/ε²) of chains (chain, batch, ...), and the dynamics of their steps."""

    A: LinearOperator
    masked_kspace: torch.Tensor
    energy: DifferentiableEnergy
    noise_std: float
    metric: Metric
    """P."""
    kept_momentum: float | None = None
    """c, the share of its momentum that a step keeps, 0 to below 1; None where every step has noise of its own."""

    def __post_init__(self) -> None:
        self.adjoint_data = self.A.adjoint(self.masked_kspace)
        self.norm_squared = norm_squared(self.A, self.adjoint_data)
        self.data_energy = 0.5 * self.masked_kspace.abs().square().flatten(1).sum(dim=1, dtype=torch.float64)

    def prior(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E, real (chain, batch), and ∇E."""
        value, gradient = self.energy.value_and_grad(image.flatten(0, 1))
        return value.unflatten(0, image.shape[:2]), gradient.unflatten(0, image.shape[:2])

    def __call__(self, image: torch.Tensor) -> CostTerms:
        """Return C and its terms."""
        # One AᴴA serves gradient and cost: ½‖Ax − b‖² = ½Re⟨x, AᴴAx − 2Aᴴb⟩ + ½‖b‖².
        normal = over_chains(self.A).normal(image)
        value, prior_gradient = self.prior(image)
        value = value.double()
        # Not in place on the first result, which may be the image itself (A = I).
        gradient = normal - self.adjoint_data
        data_cost = 0.5 * inner_product(image, gradient - self.adjoint_data, leading=2) + self.data_energy
        gradient += prior_gradient
        return CostTerms(image, data_cost + value, value, prior_gradient, gradient)

    def slope(self, terms: CostTerms) -> torch.Tensor:
        """Return ⟨g, Pg⟩ of the gradient g of C, float64 (chain, batch)."""
        return inner_product(terms.gradient, self.metric.solve(terms.gradient), leading=2)


@dataclass(frozen=True)
class ChainState:
    """Where chains are, with C there, and the step they take next; all but terms and noise float64 (chain, batch)."""

    terms: CostTerms
    step_size: torch.Tensor
    curvature: torch.Tensor
    """Largest difference quotient of ∇E so far; not a number where the step is given."""
    slope: torch.Tensor | None
    """⟨∇C, P∇C⟩, which the acceptance needs; None without Metropolis adjustment."""
    log_scale: torch.Tensor
    """Logarithm of the factor between the step of adapting Metropolis chains and the stable one."""
    momentum: torch.Tensor | None
    """Of the step to here, over ε/√2, complex (chain, batch, ...): of a chain that has arrived noise of covariance P⁻¹.
    None where every step has noise of its own."""


def first_state(
    target: Target,
    start: torch.Tensor,
    step_size: float | None,
    *,
    metropolis: bool,
    generator: ChainGenerators,
) -> ChainState:
    """Return the state of chains at their start; without a ``step_size`` that costs a second gradient."""
    terms = target(start)
    if step_size is None:
        # The first step needs a curvature too: that between the start and a point one noise away.
        nudge = target.noise_std * complex_normal_like(start, generator=generator)
        _, nudged = target.prior(start + nudge)
        curvature = difference_quotient(nudge, nudged - terms.prior_gradient)
        size = _stable_step(target, curvature)
    else:
        curvature = torch.full_like(terms.cost, float("nan"))
        size = torch.full_like(terms.cost, step_size)
    slope = target.slope(terms) if metropolis else None
    momentum = None
    if target.kept_momentum is not None:
        # The start has no part in its momentum: with so much of it the first step has as much noise as one of its own.
        variance = (3 + target.kept_momentum**2) / (1 + target.kept_momentum) ** 2
        momentum = variance**0.5 * target.metric.noise(start, generator)
    return ChainState(terms, size, curvature, slope, torch.zeros_like(size), momentum)


def next_state(
    target: Target, state: ChainState, generator: ChainGenerators, *, adapting_step: int | None
) -> tuple[ChainState, torch.Tensor]:
    """Take a step of every chain; return its state, and whether the proposal was accepted, boolean (chain, batch).

    ``adapting_step`` is the number of the step, from 1, while curvature and step size adapt; None once they are frozen.
    """
    here = state.terms
    proposal, momentum = _proposal(target, state, generator)
    there = target(proposal)
    if state.slope is None:
        probability = torch.ones_like(state.step_size)
        accepted = torch.ones_like(state.step_size, dtype=torch.bool)
        moved = replace(state, terms=there, momentum=momentum)
    else:
        slope = target.slope(there)
        logarithm = log_acceptance(here, there, state.step_size, state.slope - slope, target.noise_std)
        probability = logarithm.clamp(max=0.0).exp()
        accepted = generator.uniform().to(probability.device) < probability
        moved = replace(state, terms=there.where(accepted, here), slope=torch.where(accepted, slope, state.slope))
    if adapting_step is None:
        return moved, accepted
    quotient = difference_quotient(there.image - here.image, there.prior_gradient - here.prior_gradient)
    curvature = torch.maximum(state.curvature, quotient)
    log_scale = state.log_scale
    if state.slope is not None:
        log_scale = log_scale + (probability - _ACCEPTANCE_TARGET) * adapting_step**-_ADAPTATION_DECAY
    step_size = _stable_step(target, curvature) * log_scale.exp()
    return replace(moved, step_size=step_size, curvature=curvature, log_scale=log_scale), accepted


def difference_quotient(step: torch.Tensor, gradient_change: torch.Tensor) -> torch.Tensor:
    """‖∇E(x + d) − ∇E(x)‖/‖d‖ of every chain, a lower bound of the Lipschitz constant on the segment.

    Zero where d = 0, and where it is not finite: Metropolis refuses such a point, and an unadjusted chain stops.
    """
    length = image_norm(step, leading=2)
    tiny = torch.finfo(length.dtype).tiny
    quotient = torch.where(length > 0, image_norm(gradient_change, leading=2) / length.clamp_min(tiny), 0.0)
    return quotient.double().nan_to_num(0.0, posinf=0.0)


def _stable_step(target: Target, curvature: torch.Tensor) -> torch.Tensor:
    return (_SAFETY / target.metric.largest_eigenvalue(target.norm_squared, 2 * curvature)).clamp(max=1.0)


def _proposal(
    target: Target, state: ChainState, generator: ChainGenerators
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return where a step leads, and its momentum where there is one."""
    here = state.terms
    step = per_image(state.step_size.to(here.image.real.dtype), here.image)
    drawn = target.metric.noise(here.image, generator)
    noise_std, kept = target.noise_std, target.kept_momentum
    if state.momentum is None or kept is None:
        move = drawn.mul_(noise_std * step.sqrt()).sub_(step * here.gradient)
        return target.metric.solve(move).add_(here.image), None
    # p ← p − δ∇C, the half kick that ends the step before and the one that begins this; half a move by p, and by what
    # friction leaves of p with fresh noise. All in units of ε/√2, of which δ = √(2τ) makes a move of ε√τ.
    kicked = state.momentum - (2 * step.sqrt() / noise_std) * here.gradient
    momentum = kept * kicked + (1 - kept**2) ** 0.5 * drawn
    move = (0.5 * noise_std * step.sqrt()) * (kicked + momentum)
    return target.metric.solve(move).add_(here.image), momentum


def log_acceptance(
    here: CostTerms, there: CostTerms, step_size: torch.Tensor, slope_change: torch.Tensor, noise_std: float
) -> torch.Tensor:
    """Log of π(there) q(here|there) / (π(here) q(there|here)), float64, with q the Gaussian of :func:`_proposal`.

    −2ε²τ log q(there|here) = ‖d + τPg‖² in the norm of P⁻¹ = ⟨d, P⁻¹d⟩ + 2τ⟨d, g⟩ + τ²⟨g, Pg⟩ with d the move; the
    first term is that of the way back too. ``slope_change`` is ⟨g, Pg⟩ here minus there. Of 2C and ⟨d, g⟩ the parts of
    ½‖Ax − b‖² cancel, as twice the change of a quadratic function is ⟨d, ∇(here) + ∇(there)⟩: in single precision they
    would leave an error of some tenths. What is not finite is refused.
    """
    slopes = 0.5 * inner_product(there.image - here.image, here.prior_gradient + there.prior_gradient, leading=2)
    size = torch.maximum(here.energy.abs(), there.energy.abs())
    energy_change = change_by(there.energy - here.energy, slopes, size, here.image.dtype)
    logarithm = (2 * (slopes - energy_change) + 0.5 * step_size * slope_change) / noise_std**2
    return logarithm.nan_to_num(-torch.inf, posinf=-torch.inf)
