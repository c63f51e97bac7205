"""Maximum a posteriori reconstruction: majorize-minimize with conjugate gradients, with a quasi-Newton memory."""

from dataclasses import dataclass, fields

import torch

from direct_deepen.errors import DivergenceError, require
from direct_deepen.inference.cost import CostTerms, cost_terms, inner_product
from direct_deepen.inference.curvature import image_norm, largest_curvature
from direct_deepen.inference.curvature_pairs import CurvaturePairs
from direct_deepen.physics.conjugate_gradient import conjugate_gradient
from direct_deepen.physics.operator import BatchedOperator, LinearOperator
from direct_deepen.physics.sense import require_finite_data, sense
from direct_deepen.priors.energy import DifferentiableEnergy
from direct_deepen.progress import FIGURES_INTERVAL, progress_bar, show_figures

_SMALLEST_CURVATURE = 1e-4
"""Relative to ‖A‖ ≤ 1: below it the majorizer of an energy without curvature would be singular where A is."""

_SUFFICIENT_DECREASE = 1e-4
"""Share of the decrease promised by the gradient that a quasi-Newton step has to bring (Armijo)."""

_POWER_ITERATIONS = 5
_PATIENCE = 5
_DECAY = 0.9
_RAISE = 2.0

_LARGEST_CURVATURE = 1e8
"""Steps of size 1/L below the precision of single-precision images: raising L further changes nothing."""

_ROUNDING = 1e-6
"""Relative error to allow when single-precision energies are compared with their majorizer, or gradients with zero."""


@dataclass(frozen=True)
class MapResult:
    """A MAP reconstruction and how it was reached.

    Attributes
    ----------
    image
        Complex (batch, height, width).
    cost_history
        C after every step tried, float64 (iterations + 1, batch). It never rises; it stays flat where a step was
        refused, and once an image is done.
    gradient_evaluations
        Evaluations of ∇E summed over the batch, those for the estimate of L and for refused steps included.
    converged
        Boolean (batch,): the stopping rule was met, or no step could lower C any further.
    curvature
        L of the next majorizer that would be tried, real (batch,).
    gradient_norm
        ‖∇C‖ at the returned image, real (batch,).
    """

    image: torch.Tensor
    cost_history: torch.Tensor
    gradient_evaluations: int
    converged: torch.Tensor
    curvature: torch.Tensor
    gradient_norm: torch.Tensor

    @property
    def iterations(self) -> int:
        """Number of steps tried for the image that took the most."""
        return self.cost_history.shape[0] - 1


@torch.no_grad()
def mm_map(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: DifferentiableEnergy,
    *,
    init: torch.Tensor | None = None,
    tolerance: float = 1e-6,
    gradient_tolerance: float = 1e-3,
    max_iterations: int = 500,
    curvature: float | None = None,
    memory: int = 5,
    cg_tolerance: float = 1e-3,
    cg_iterations: int = 20,
    progress: bool = False,
) -> MapResult:
    r"""Minimise C(x) = ½‖Ax − b‖² + E(x), monotonically (DEEPEN, equations 14 and 15).

    E is replaced by the quadratic E(x_n) + Re⟨∇E(x_n), x − x_n⟩ + (L/2)‖x − x_n‖², which majorizes it when L bounds the
    curvature, and the sum is minimised by conjugate gradients:

    .. math:: x_{n+1} = (A^H A + L I)^{-1} (A^H b + L x_n - \nabla E(x_n))
                      = x_n - (A^H A + L I)^{-1} \nabla C(x_n)

    The second form is the one computed. It is the first with conjugate gradients started at x_n; solved to any accuracy
    it lowers the majorizer, so an inexact solution costs speed but never the descent. L starts from a power iteration
    at the first iterate. A step is taken if E stays below its majorizer there and C does not rise; otherwise L is
    doubled and the step redone. After a step that was taken L falls by a tenth, so that it follows the local curvature.

    That is slow where the cost is flat, so the steps after the first are those of limited-memory BFGS with
    (AᴴA + LI)⁻¹ as its initial matrix: what the last ``memory`` steps tell of ∇C corrects the majorizer. Such a step is
    taken if C falls by a share of what the gradient promises (Armijo); otherwise the memory is emptied, and the next
    step is one of plain majorize-minimize again.

    Parameters
    ----------
    A
        Forward model with ‖A‖ of order one.
    masked_kspace
        b, complex (batch, coil, height, width), divided by the intensity scale that the energy expects.
    energy
        Anything with ``value_and_grad``.
    init
        Start, complex (batch, height, width); SENSE with λ = 0.01 by default.
    tolerance
        An image is done when |C(x_{n+1}) − C(x_n)| ≤ tolerance · C(x_n), the paper's rule, and the next holds too.
    gradient_tolerance
        ‖∇C(x_{n+1})‖ ≤ gradient_tolerance · ‖∇C(x_0)‖: a single short step is not yet a minimum. At a kink this may
        never hold: five steps in a row within ``tolerance`` will do.
    max_iterations
        Limit on the steps tried, at least one; each costs one evaluation of E and ∇E.
    curvature
        First L; estimated by default.
    memory
        Steps remembered, each with two images; 0 is the paper's plain majorize-minimize.
    cg_tolerance, cg_iterations
        Relative residual and limit of the inner conjugate gradients.
    progress
        Show a progress bar, if standard error is a terminal: E, C, the step 1/L, and the number of images left.

    Returns
    -------
    :class:`MapResult`. With an operator that can be cut to a part of its batch, images that are done cost nothing more.

    Notes
    -----
    Guaranteed for every energy: C never rises from one iterate to the next. For energies with Lipschitz ∇E the iterates
    approach a stationary point (Lemma 2.1). For ``relu`` or ``absolute`` energies ∇E jumps; the iteration then ends
    where no step lowers C, which may be a kink rather than a stationary point.

    Raises
    ------
    DeepenError
        If an argument is out of range or the data are not finite.
    DivergenceError
        If C or ∇C at the start is not finite, or becomes so.
    """
    require(tolerance > 0, f"tolerance is {tolerance!r}; allowed: > 0")
    require(gradient_tolerance > 0, f"gradient_tolerance is {gradient_tolerance!r}; allowed: > 0")
    require(max_iterations >= 1, f"max_iterations is {max_iterations!r}; allowed: >= 1")
    require(curvature is None or curvature > 0, f"curvature is {curvature!r}; allowed: > 0, or None to estimate it")
    require(memory >= 0, f"memory is {memory!r}; allowed: >= 0")
    require(cg_tolerance > 0, f"cg_tolerance is {cg_tolerance!r}; allowed: > 0")
    require(cg_iterations >= 1, f"cg_iterations is {cg_iterations!r}; allowed: >= 1")
    require_finite_data(masked_kspace)
    x = sense(A, masked_kspace) if init is None else init.clone()

    if curvature is None:
        L = largest_curvature(energy, x, num_iterations=_POWER_ITERATIONS).double().clamp_min(_SMALLEST_CURVATURE)
        gradient_evaluations = x.shape[0] * (_POWER_ITERATIONS + 1)
    else:
        L = torch.full(x.shape[:1], curvature, dtype=torch.float64, device=x.device)
        gradient_evaluations = 0

    state = _State(image=x, curvature=L, terms=cost_terms(A, masked_kspace, energy, x))
    gradient_evaluations += x.shape[0]
    _require_finite(state)
    pairs = CurvaturePairs.empty(memory, x)
    # A start that is a minimum already has no slope to compare with but that of rounding.
    flat_slope = torch.maximum(
        gradient_tolerance * image_norm(state.terms.gradient), _ROUNDING * image_norm(A.adjoint(masked_kspace))
    )
    in_a_row = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    final = state.copy()
    history = [state.terms.cost]
    converged = torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
    working = torch.arange(x.shape[0], device=x.device)
    divisible = isinstance(A, BatchedOperator)

    bar = progress_bar(range(max_iterations), name="MAP", unit="step", shown=progress)
    for step in bar:
        candidate, accepted = _try_step(A, masked_kspace, energy, state, pairs, cg_tolerance, cg_iterations)
        gradient_evaluations += len(working)
        done = converged[working]
        accepted &= ~done
        small = accepted & (state.terms.cost - candidate.terms.cost <= tolerance * state.terms.cost)
        in_a_row = torch.where(accepted, torch.where(small, in_a_row + 1, 0), in_a_row)
        flat = image_norm(candidate.terms.gradient) <= flat_slope
        before, plain = state, ~pairs.filled()
        state = state.updated(accepted, ~accepted & ~done & plain, candidate)
        pairs = pairs.updated(
            state.image - before.image,
            state.terms.gradient - before.terms.gradient,
            accepted,
            forget=~accepted & ~done,
        )
        stuck = state.curvature > _LARGEST_CURVATURE
        converged[working] |= (small & (flat | (in_a_row >= _PATIENCE))) | stuck
        final.write(working, state)
        history.append(final.terms.cost.clone())
        if bool(converged.all()):
            break
        if step % FIGURES_INTERVAL == 0:
            show_figures(
                bar, energy=final.terms.energy, cost=final.terms.cost, step=1 / final.curvature, left=(~converged).sum()
            )
        remaining = ~converged[working]
        if divisible and not bool(remaining.all()):
            working = working[remaining]
            state = state.select(remaining)
            pairs = pairs.select(remaining)
            in_a_row, flat_slope = in_a_row[remaining], flat_slope[remaining]
            masked_kspace = masked_kspace[remaining]
            A = A.select(remaining)  # type: ignore[attr-defined]
    return MapResult(
        image=final.image,
        cost_history=torch.stack(history),
        gradient_evaluations=gradient_evaluations,
        converged=converged,
        curvature=final.curvature,
        gradient_norm=image_norm(final.terms.gradient),
    )


@dataclass
class _State:
    """The iterates of a batch, with what is known about C there."""

    image: torch.Tensor
    curvature: torch.Tensor
    terms: CostTerms

    def _tensors(self) -> list[torch.Tensor]:
        return [self.image, self.curvature, *(getattr(self.terms, field.name) for field in fields(self.terms))]

    @classmethod
    def _from_tensors(cls, tensors: list[torch.Tensor]) -> "_State":
        return cls(tensors[0], tensors[1], CostTerms(*tensors[2:]))

    def copy(self) -> "_State":
        return self._from_tensors([tensor.clone() for tensor in self._tensors()])

    def select(self, index: torch.Tensor) -> "_State":
        return self._from_tensors([tensor[index] for tensor in self._tensors()])

    def updated(self, accepted: torch.Tensor, refused: torch.Tensor, candidate: "_State") -> "_State":
        """Return the candidate with a lower L where accepted, else this state, with a higher L where it was refused."""
        merged = [
            torch.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(candidate._tensors(), self._tensors(), strict=True)
        ]
        factor = torch.where(accepted, _DECAY, torch.where(refused, _RAISE, 1.0))
        merged[1] = (self.curvature * factor).clamp_min(_SMALLEST_CURVATURE)
        return self._from_tensors(merged)

    def write(self, index: torch.Tensor, part: "_State") -> None:
        """Overwrite the images ``index`` by those of ``part``."""
        for mine, new in zip(self._tensors(), part._tensors(), strict=True):
            mine[index] = new


def _try_step(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: DifferentiableEnergy,
    state: _State,
    pairs: CurvaturePairs,
    cg_tolerance: float,
    cg_iterations: int,
) -> tuple[_State, torch.Tensor]:
    """Take the quasi-Newton step at the state; return where it leads, and whether it may be taken."""
    weight = state.curvature.to(state.image.real.dtype)[:, None, None]

    def minimise_majorizer(gradient: torch.Tensor) -> torch.Tensor:
        return conjugate_gradient(
            lambda d: A.normal(d) + weight * d, gradient, tolerance=cg_tolerance, max_iterations=cg_iterations
        )

    step = pairs.direction(state.terms.gradient, minimise_majorizer)
    image = state.image + step
    terms = cost_terms(A, masked_kspace, energy, image)
    majorizer = (
        state.terms.energy
        + inner_product(state.terms.prior_gradient, step)
        + 0.5 * state.curvature * inner_product(step, step)
    )
    rounding = _ROUNDING * (state.terms.cost + state.terms.energy)
    majorized = terms.energy <= majorizer + rounding
    sufficient = state.terms.cost + _SUFFICIENT_DECREASE * inner_product(state.terms.gradient, step)
    # NaN compares false: a step into NaN is refused like any other bad one.
    accepted = (terms.cost <= state.terms.cost) & torch.where(pairs.filled(), terms.cost <= sufficient, majorized)
    return _State(image, state.curvature, terms), accepted


def _require_finite(state: _State) -> None:
    norms = image_norm(state.terms.gradient)
    if not bool((torch.isfinite(state.terms.cost) & torch.isfinite(norms)).all()):
        raise DivergenceError(
            f"mm_map: cost {state.terms.cost.tolist()}, gradient norm {norms.tolist()}, image norm "
            f"{image_norm(state.image).tolist()} at the start; allowed: finite values"
        )
