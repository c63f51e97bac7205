"""Maximum a posteriori reconstruction: majorize-minimize with conjugate gradients, with a quasi-Newton memory."""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from direct_deepen.errors import DivergenceError
from direct_deepen.inference.cost import (
    ROUNDINGS,
    SMALLEST_CURVATURE,
    CostTerms,
    change_by,
    cost_terms,
    image_norm,
    inner_product,
    largest_curvature,
)
from direct_deepen.inference.curvature_pairs import CurvaturePairs, inverse_curvature
from direct_deepen.inference.options import grouped, refuse_unknown
from direct_deepen.parts import setting
from direct_deepen.physics.conjugate_gradient import conjugate_gradient, not_finite
from direct_deepen.physics.operator import LinearOperator, SupportsSelection
from direct_deepen.physics.per_image import per_image
from direct_deepen.physics.precision import without_autocast
from direct_deepen.physics.sense import require_finite_data, sense, within_mask
from direct_deepen.priors.energy import DifferentiableEnergy, require_energy
from direct_deepen.progress import METRICS_INTERVAL, progress_bar, show_metrics

_SUFFICIENT_DECREASE = 1e-4
"""Share of the decrease promised by the gradient that a quasi-Newton step has to bring (Armijo)."""

_PATIENCE = 5
_DECAY = 0.95
_RAISE = 2.0

_LESSONS = 2
"""Steps refused in a row from which the memory learns, before it is emptied."""

START_TOLERANCE = 1e-2
"""Relative residual of the SENSE solution that MAP starts at: the energy changes it by far more."""

_LARGEST_CURVATURE = 1e8
"""Steps of size 1/L below the precision of single-precision images: raising L further changes nothing."""

_ROUNDING = 1e-6
"""Relative error to allow when changes in single precision are compared, or gradients with zero."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapResult:
    """A MAP reconstruction and how it was reached."""

    image: torch.Tensor
    """Complex (batch, height, width)."""
    cost_history: torch.Tensor
    """C after every step tried, float64 (iterations + 1, batch): C at the end, and before it what the steps brought
    more. It never rises; it stays flat where a step was refused, and once an image is done."""
    gradient_evaluations: int
    """Evaluations of ∇E summed over the batch, those for the estimate of L and for refused steps included."""
    converged: torch.Tensor
    """Boolean (batch,): the stopping rule was met, or no step could lower C any further. Not where an image ended with
    a gradient that is not small, and C fell by less than the rounding of C: then nobody knows."""
    curvature: torch.Tensor
    """L of the next majorizer that would be tried, real (batch,)."""
    gradient_norm: torch.Tensor
    """‖∇C‖ at the returned image, real (batch,)."""

    @property
    def iterations(self) -> int:
        """Number of steps tried for the image that took the most."""
        return self.cost_history.shape[0] - 1


@dataclass(frozen=True)
class Stopping:
    """When an image is done."""

    tolerance: float = setting(1e-6, above=0, infinite=True)
    """An image is done when |C(x_{n+1}) − C(x_n)| ≤ tolerance · (C(x_0) − C(x_{n+1}) + ½‖Ax_{n+1} − b‖²), and the next
    holds too. The paper has C(x_n) on the right, which a constant in E changes, and which may be negative."""
    gradient_tolerance: float = setting(1e-3, above=0, infinite=True)
    """‖∇C(x_{n+1})‖ ≤ gradient_tolerance · ‖∇C(x_0)‖: a single short step is not yet a minimum. At a kink this may
    never hold: five steps in a row within ``tolerance`` will do."""
    max_iterations: int = setting(500, least=1)
    """Limit on the steps tried; each costs one evaluation of E and ∇E."""
    accuracy: float | None = setting(None, above=0)
    """An image is done, too, when its last five steps together moved it by no more than this, root mean square over the
    components: the minimum is then about as far away, where it was measured (projects/speed)."""


@dataclass(frozen=True)
class MapStep:
    """How a step of :func:`mm_map` is computed."""

    curvature: float | None = setting(None, above=0)
    """First L; estimated by default."""
    memory: int = setting(5, least=0)
    """Steps remembered, each with two images; 0 is the paper's plain majorize-minimize."""
    cg_tolerance: float = setting(0.3, above=0)
    """Relative residual of the inner conjugate gradients: what they leave, the memory learns from the steps."""
    cg_iterations: int = setting(20, least=1)
    """Limit of the inner conjugate gradients."""


@without_autocast
@torch.no_grad()
def mm_map(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: DifferentiableEnergy,
    *,
    init: torch.Tensor | None = None,
    stopping: Stopping | None = None,
    step: MapStep | None = None,
    progress: bool = False,
    **keywords: Any,
) -> MapResult:
    r"""Minimise C(x) = ½‖Ax − b‖² + E(x), monotonically (DEEPEN, equations 14 and 15).

    E is replaced by the quadratic E(x_n) + Re⟨∇E(x_n), x − x_n⟩ + (L/2)‖x − x_n‖², which majorizes it when L bounds the
    curvature, and the sum is minimised by conjugate gradients:

    .. math:: x_{n+1} = (A^H A + L I)^{-1} (A^H b + L x_n - \nabla E(x_n))
                      = x_n - (A^H A + L I)^{-1} \nabla C(x_n)

    The second form is the one computed. It is the first with conjugate gradients started at x_n; solved to any accuracy
    it lowers the majorizer, so an inexact solution costs speed but never the descent. L starts from the curvature of E
    in a random direction at the first iterate. A step is taken if E stays below its majorizer there and C does not
    rise; otherwise L is doubled and the step redone. After a step that was taken L falls by a twentieth, so that it
    follows the local curvature.

    That is slow where the cost is flat, so the steps after the first are those of limited-memory BFGS with
    (AᴴA + LI)⁻¹ as its initial matrix: the last ``memory`` steps and the changes of ∇C that they made correct
    the majorizer. Such a step is taken if C falls by a share of what the gradient promises (Armijo). A step that is
    refused tells of a curvature that was not known: the memory takes it in, and another is tried from the same place.
    After two such lessons in a row, or where the curvature is not positive, the memory is emptied, and the next step is
    one of plain majorize-minimize again.

    Parameters
    ----------
    A
        Forward model with ‖A‖ of order one.
    masked_kspace
        b, complex (batch, coil, height, width), divided by the intensity scale that the energy expects.
    energy
        Anything with ``value_and_grad``.
    init
        Start, complex (batch, height, width); SENSE with λ = 0.01, roughly solved, by default.
    progress
        Show a progress bar, if standard error is a terminal: E, C, the step 1/L, and the number of images left.
    **keywords
        Fields of ``stopping`` and ``step`` instead of these groups, as in earlier versions; to be removed.

    Notes
    -----
    A constant added to E changes nothing but the rounding of E, and E may be negative. Where that rounding would decide
    whether C falls, ∇C at both ends of the step does.

    Guaranteed for every energy, up to the rounding of C: C never rises from one iterate to the next. For energies with
    Lipschitz ∇E the iterates approach a stationary point (Lemma 2.1). For ``relu`` or ``absolute`` energies ∇E jumps;
    the iteration then ends where no step lowers C, which may be a kink rather than a stationary point. With an operator
    that can be cut to a part of its batch, images that are done cost nothing more.

    Raises
    ------
    DeepenError
        If an argument is out of range or the data are not finite.
    DivergenceError
        If C or ∇C at the start is not finite, or becomes so.
    """
    stopping = grouped("stopping", Stopping, stopping, keywords)
    step = grouped("step", MapStep, step, keywords)
    refuse_unknown("mm_map", keywords)
    require_energy(energy)
    require_finite_data(masked_kspace)
    masked_kspace = within_mask(A, masked_kspace)
    x = sense(A, masked_kspace, tolerance=START_TOLERANCE) if init is None else init.clone()
    solver = _Solver(A, masked_kspace, energy, stopping, step)
    state, gradient_evaluations = solver.first_state(x)
    flat_slope = state.flat_slope
    working = torch.arange(len(x), device=x.device)
    terms, curvature, done = state.terms[working], state.curvature.clone(), state.done.clone()
    decrease = state.decrease.clone()
    decreases = [decrease.clone()]

    bar = progress_bar(range(stopping.max_iterations), name="MAP", unit="step", shown=progress)
    for number in bar:
        try:
            state = solver.next_state(state)
        except DivergenceError as error:
            where = working[error.images].tolist()
            norms = image_norm(terms.gradient)[where].tolist()
            raise DivergenceError(
                f"mm_map: images {where} of the batch, of gradient norms {norms} and image norms "
                f"{image_norm(terms.image)[where].tolist()}, at step {number + 1}: {error}",
                where,
            ) from error
        gradient_evaluations += len(working)
        terms.write(working, state.terms)
        curvature[working], done[working], decrease[working] = state.curvature, state.done, state.decrease
        decreases.append(decrease.clone())
        if bool(done.all()):
            break
        if number % METRICS_INTERVAL == 0:
            show_metrics(bar, energy=terms.energy, cost=terms.cost, step=1 / curvature, left=(~done).sum())
        if isinstance(solver.A, SupportsSelection) and bool(state.done.any()):
            left = ~state.done
            working, state = working[left], state[left]
            solver = replace(solver, A=solver.A.select(left), masked_kspace=solver.masked_kspace[left])
    return MapResult(
        image=terms.image,
        cost_history=terms.cost + (decrease - torch.stack(decreases)),
        gradient_evaluations=gradient_evaluations,
        converged=done & ~_unknown(terms, decrease, flat_slope, done),
        curvature=curvature,
        gradient_norm=image_norm(terms.gradient),
    )


def _unknown(terms: CostTerms, decrease: torch.Tensor, flat_slope: torch.Tensor, done: torch.Tensor) -> torch.Tensor:
    """Return which images ended on a slope with a decrease within the rounding of C, and tell of them."""
    rounding = ROUNDINGS * torch.finfo(terms.image.dtype).eps * (terms.cost.abs() + terms.energy.abs())
    unknown = done & (image_norm(terms.gradient) > flat_slope) & (decrease <= rounding)
    if bool(unknown.any()):
        _logger.warning(
            "mm_map: images %s of the batch: the cost, %s, fell by less than its rounding; allowed: energies without a "
            "large constant, or double precision.",
            unknown.nonzero().flatten().tolist(),
            terms.cost[unknown].tolist(),
        )
    return unknown


@dataclass(frozen=True)
class _State:
    """Where the images of a batch are, and what is known of C there."""

    terms: CostTerms
    curvature: torch.Tensor
    pairs: CurvaturePairs
    decrease: torch.Tensor
    """C(x_0) − C(x), float64 (batch,), the sum of what the steps brought."""
    flat_slope: torch.Tensor
    """Norm of ∇C that is small enough."""
    short_steps: torch.Tensor
    """How many of the last steps in a row were short enough."""
    refusals: torch.Tensor
    """How many of the last steps in a row were refused."""
    moves: torch.Tensor
    """Lengths of the last steps that were taken, float64 (batch, 5); infinite where there were not so many."""
    done: torch.Tensor

    def __getitem__(self, index: torch.Tensor) -> "_State":
        return _State(*(tensors[index] for tensors in vars(self).values()))


@dataclass(frozen=True)
class _Solver:
    """The steps of :func:`mm_map` for one problem."""

    A: LinearOperator
    masked_kspace: torch.Tensor
    energy: DifferentiableEnergy
    stopping: Stopping
    step: MapStep

    def first_state(self, image: torch.Tensor) -> tuple[_State, int]:
        """Return the state at the start, and how many gradients it took."""
        batch = len(image)
        terms = cost_terms(self.A, self.masked_kspace, self.energy, image)
        norms = image_norm(terms.gradient)
        if bad := not_finite(terms.cost + norms):
            raise DivergenceError(
                f"mm_map: images {bad} of the batch have cost {terms.cost[bad].tolist()}, gradient norm "
                f"{norms[bad].tolist()}, image norm {image_norm(image)[bad].tolist()} at the start; allowed: finite "
                "values",
                bad,
            )
        if self.step.curvature is None:
            estimate = largest_curvature(self.energy, image, num_iterations=1, gradient=terms.prior_gradient)
            curvature = estimate.double().clamp_min(SMALLEST_CURVATURE)
            evaluations = 2 * batch
        else:
            curvature = torch.full((batch,), self.step.curvature, dtype=torch.float64, device=image.device)
            evaluations = batch
        # At a minimum the slope of the start is rounding error, which no later slope could be small against.
        slope = self.stopping.gradient_tolerance * norms
        flat_slope = torch.maximum(slope, _ROUNDING * image_norm(self.A.adjoint(self.masked_kspace)))
        none = torch.zeros(batch, dtype=torch.int64, device=image.device)
        pairs = CurvaturePairs.empty(self.step.memory, image)
        moves = torch.full((batch, _PATIENCE), torch.inf, dtype=torch.float64, device=image.device)
        return _State(terms, curvature, pairs, none.double(), flat_slope, none, none, moves, none.bool()), evaluations

    def next_state(self, state: _State) -> _State:
        """Try a step; where it is refused, and where an image is done, the image stays what it is."""
        candidate, change, accepted = self._try_step(state)
        accepted &= ~state.done
        refused = ~accepted & ~state.done
        decrease = torch.where(accepted, state.decrease - change, state.decrease)
        # Both are free of a constant in E; the second alone says what is little where a start is a minimum.
        size = decrease + (candidate.cost - candidate.energy)
        short = accepted & (-change <= self.stopping.tolerance * size)
        short_steps = torch.where(accepted, torch.where(short, state.short_steps + 1, 0), state.short_steps)
        slope = image_norm(candidate.gradient)
        flat = slope <= state.flat_slope
        terms = candidate.where(accepted, state.terms)
        refusals = torch.where(refused, state.refusals + 1, 0)
        # Of a step that was refused too: it went too far along a curvature that the memory did not know.
        step, change_of_gradient = candidate.image - state.terms.image, candidate.gradient - state.terms.gradient
        weight = torch.where(state.done, 0.0, inverse_curvature(step, change_of_gradient))
        forget = refused & ((refusals > min(_LESSONS, self.step.memory)) | (weight == 0))
        pairs = state.pairs.updated(step, change_of_gradient, torch.where(forget, 0.0, weight), forget)
        # Where a lesson is to be had, the memory is to blame and not L.
        factor = torch.where(accepted, _DECAY, torch.where(forget, _RAISE, 1.0))
        curvature = (state.curvature * factor).clamp_min(SMALLEST_CURVATURE)
        given_up = curvature > _LARGEST_CURVATURE
        lost = refused & given_up & ~torch.isfinite(candidate.cost + slope)
        if bool(lost.any()):
            raise DivergenceError(
                f"the shortest step leads to cost {candidate.cost[lost].tolist()} and gradient norm "
                f"{slope[lost].tolist()}; allowed: finite values",
                lost.nonzero().flatten().tolist(),
            )
        length = image_norm(step).double()[:, None]
        moves = torch.where(accepted[:, None], torch.cat([state.moves[:, 1:], length], dim=1), state.moves)
        still = accepted & (moves.sum(dim=1) < self._nearness(step))
        done = state.done | still | (short & (flat | (short_steps >= _PATIENCE))) | given_up
        return _State(terms, curvature, pairs, decrease, state.flat_slope, short_steps, refusals, moves, done)

    def _nearness(self, image: torch.Tensor) -> float:
        """Return the norm of an image that the accuracy is; zero without one."""
        components = torch.view_as_real(image[0]).numel() if image.is_complex() else image[0].numel()
        return (self.stopping.accuracy or 0.0) * components**0.5

    def _try_step(self, state: _State) -> tuple[CostTerms, torch.Tensor, torch.Tensor]:
        """Take the quasi-Newton step at the state.

        Return the terms of where it leads, the change of C, and whether the step may be taken.
        """
        here = state.terms
        weight = per_image(state.curvature.to(here.image.real.dtype), here.image)

        def minimise_majorizer(gradient: torch.Tensor) -> torch.Tensor:
            return conjugate_gradient(
                lambda d: self.A.normal(d) + weight * d,
                gradient,
                tolerance=self.step.cg_tolerance,
                max_iterations=self.step.cg_iterations,
            )

        move = state.pairs.direction(here.gradient, minimise_majorizer)
        there = cost_terms(self.A, self.masked_kspace, self.energy, here.image + move)
        promised, length = inner_product(here.gradient, move), inner_product(move, move)
        slope, slope_there = (inner_product(terms.prior_gradient, move) for terms in (here, there))
        dtype, size = move.dtype, torch.maximum(here.energy.abs(), there.energy.abs())
        energy_change = change_by(there.energy - here.energy, 0.5 * (slope + slope_there), size, dtype)
        slopes = 0.5 * (promised + inner_product(there.gradient, move))
        change = change_by(there.cost - here.cost, slopes, here.cost.abs() + size, dtype)
        majorized = energy_change <= slope + 0.5 * state.curvature * length + _ROUNDING * (slope.abs() + change.abs())
        # NaN compares false: a step into NaN is refused like any other bad one.
        accepted = (change <= 0) & torch.isfinite(change) & torch.isfinite(image_norm(there.gradient))
        sufficient = change <= _SUFFICIENT_DECREASE * promised
        return there, change, accepted & torch.where(state.pairs.filled(), sufficient, majorized)
