"""Langevin sampling of the posterior."""

import logging
from dataclasses import dataclass
from math import isclose
from typing import Any

import torch
from tqdm import tqdm

from direct_deepen.errors import DivergenceError, require, require_choice, require_positive
from direct_deepen.inference.cost import SMALLEST_CURVATURE, image_norm, largest_curvature
from direct_deepen.inference.langevin_kernel import Target, first_state, next_state
from direct_deepen.inference.metric import DataMetric, Metric
from direct_deepen.inference.options import grouped, refuse_unknown
from direct_deepen.inference.samples import Samples, chain_groups
from direct_deepen.parts import setting
from direct_deepen.physics.noise import ChainGenerators, complex_normal_like
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.precision import without_autocast
from direct_deepen.physics.sense import require_finite_data, sense, within_mask
from direct_deepen.priors.energy import DifferentiableEnergy, prior_noise_std, require_energy
from direct_deepen.progress import progress_bar, show_metrics

_logger = logging.getLogger(__name__)

_FINITE_CHECK_INTERVAL = 20
_SHOWN_CHAINS = 5
_INEXACT, _EXACT = 1e-3, 1e-9
"""Relative residuals of the preconditioner: its error biases the chain by about as much."""

_WEIGHT_OVER_CURVATURE = 1.5
"""μ over the root mean square of the eigenvalues of the Hessian of E: with it the adapting step is about one."""


@dataclass(frozen=True)
class Chains:
    """How many chains run, how long, and which states are kept."""

    num_samples: int = setting(1, least=1)
    """Number of chains S."""
    num_steps: int = setting(100, least=1)
    """Steps of every chain."""
    keep: int = 1
    """States kept of every chain: equally spaced after burn-in, the last one among them. Convergence diagnostics need
    ten or more."""
    burn_in: int | None = None
    """Steps that are never kept; half of them by default, none for ``keep`` = ``num_steps``."""
    max_images: int = setting(32, least=1)
    """Images given to the network at once; chains run in groups of that size."""
    antithetic: bool = False
    """Whether every second chain has the noise of the one before, negated: errors of their mean cancel, all of them
    where C is quadratic, and each is the chain that it is by itself (Frigessi, Gåsemyr and Rue, Annals of Statistics
    28, 2000). Of deviations two such chains say as much as one."""

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        most, keep, burn_in = self.num_steps - self.keep, self.keep, self.burn_in
        require(keep >= 1 and most >= 0, f"{path}.keep is {keep!r}; allowed: 1 to num_steps = {self.num_steps}")
        require(
            burn_in is None or 0 <= burn_in <= most,
            f"{path}.burn_in is {burn_in!r}; allowed: 0 to num_steps - keep = {most}",
        )

    @property
    def steps_of_burn_in(self) -> int:
        """Steps that are never kept: ``burn_in``, or its default."""
        return min(self.num_steps // 2, self.num_steps - self.keep) if self.burn_in is None else self.burn_in

    @property
    def kept_steps(self) -> torch.Tensor:
        """The steps, from 1, whose states are kept, integers (keep,)."""
        steps = torch.linspace(self.num_steps, self.steps_of_burn_in, self.keep + 1, dtype=torch.float64)
        return steps[:-1].round().long().flip(0)


@dataclass(frozen=True)
class LangevinStep:
    """How a chain steps."""

    step_size: float | None = setting(None, above=0)
    """τ, fixed. By default it adapts to the curvature during burn-in, τ = min(1, 1.6/(‖A‖² + 2L)) with L the
    largest ‖∇E(x_k) − ∇E(x_{k−1})‖/‖x_k − x_{k−1}‖ so far of that chain, and is then frozen: an adapting step is
    no Markov chain. With a preconditioner the eigenvalues of PH take the place of ‖A‖² + 2L."""
    metropolis: bool = False
    """Accept or refuse every step so that the target is exact (MALA); the adapting step then aims at an acceptance of
    0.574. Energies have to be accurate to much less than ε²: in single precision a network of E ≈ 1 is, for ε = 0.01
    (measured error of the logarithm 0.003), a constant of 100 is not."""
    preconditioner: float | int | str | None = setting(None, above=0, choices=("curvature",))
    """μ, of the size of the curvature of E, or ``curvature`` to find it where the chains start: 0.3 for the energies of
    phantoms, 0.003 for those of heads, as it goes with ε². None for P = I, the paper's. Where μ is much larger, chains
    are slow in what is not sampled."""
    averaged_noise: bool = False
    """Whether z is the mean of what is drawn for this step and the one before (Leimkuhler and Matthews, 2013): then a
    quadratic C has no bias of the step, and others one of second order in τ. It takes one more image a chain. Not with
    ``metropolis``."""
    momentum: float = setting(0.0, least=0, below=1)
    """c, the share of its momentum that a step keeps, with ``averaged_noise``: chains cross flat directions in the
    square root of the steps, and with 0.6 and a preconditioner a posterior takes some twenty."""

    def check(self, path: str) -> None:
        """Check what limits do not say."""
        require(
            not (self.metropolis and self.averaged_noise),
            f"{path}.averaged_noise is True; allowed with {path}.metropolis: False, as such a step depends on the one "
            "before",
        )
        require(
            self.averaged_noise or self.momentum == 0,
            f"{path}.momentum is {self.momentum!r}; allowed with {path}.averaged_noise: False: 0",
        )

    @property
    def kept_momentum(self) -> float | None:
        """``momentum`` of chains that have one; None for those whose steps have noise of their own."""
        return self.momentum if self.averaged_noise else None


@without_autocast
@torch.no_grad()
def langevin(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: DifferentiableEnergy,
    *,
    noise_std: float,
    generator: torch.Generator,
    init: str | torch.Tensor = "noise",
    init_std: float = 0.1,
    chains: Chains | None = None,
    step: LangevinStep | None = None,
    progress: bool = False,
    **keywords: Any,
) -> Samples:
    r"""Sample the posterior ∝ exp(−2C(x)/ε²), C(x) = ½‖Ax − b‖² + E(x) (DEEPEN, equations 11 and 16).

    .. math:: x \leftarrow x - \tau\,(A^H(Ax - b) + \nabla E(x)) + \varepsilon\sqrt{\tau}\,z, \qquad z \sim N(0, I)

    with z of unit standard deviation in each of the real and imaginary part; τ = 1 is the paper's equation 16. The
    target is met in the limit of small steps: where C has curvature h the stationary variance per real component is
    ε²/(h(2 − τh)) instead of ε²/2h. ``metropolis`` removes that bias. So does ``averaged_noise`` where C is
    quadratic: half of the noise of a step is in x already, and with a = 1 − τh the variance V = a²V + (1 + a)ε²τ/2
    is ε²/2h.

    Where nothing is sampled C is flat, so that steps that suit the data are small there. With a ``preconditioner`` μ
    the step is that of the same diffusion in another metric,

    .. math:: x \leftarrow x - \tau P \nabla C(x) + \varepsilon\sqrt{\tau}\,P^{1/2} z, \qquad P = (A^H A + \mu I)^{-1},

    with the same target for τ → 0, and the bias of the step in the eigenvalues of PH for a cost of Hessian H. Its noise
    is drawn exactly, as P(Aᴴz₁ + √μ z₂), by the conjugate gradients that the step takes anyway.

    Averaged noise is the limit of high friction of chains with a momentum p, of stationary covariance (ε²/2)P⁻¹. With
    the ``momentum`` c that friction leaves of it, and δ = √(2τ), a step is one of the splitting BAOAB (Leimkuhler and
    Matthews, 2013):

    .. math:: p \leftarrow p - \delta \nabla C(x), \quad p' = c p + \varepsilon \sqrt{(1 - c^2) / 2}\, P^{-1/2} z, \quad
              x \leftarrow x + \tfrac{\delta}{2} P (p + p'), \quad p \leftarrow p'

    It costs what a step without momentum costs, has τ < 2/λ of the largest eigenvalue λ of PH as its limit too, and the
    exact variance where C is quadratic. In directions of small λ a chain forgets in √λ of the steps.

    Parameters
    ----------
    A, masked_kspace, energy, progress
        As for :func:`~direct_deepen.mm_map`, with any ‖A‖.
    noise_std
        ε > 0, per real component; √2 times the measurement noise η.
    generator
        Source of all random numbers: one number is drawn from it, which with those of chain and image seeds a generator
        for every image of every chain. So neither ``max_images`` nor how many chains and images there are changes one.
    init
        ``noise``: zero-mean Gaussian noise, the paper's start. ``sense``: the SENSE solution plus noise of standard
        deviation ε. Or images, complex (batch, ...) or (S, batch, ...), used as they are.
    init_std
        Standard deviation of the noise start, per real component. The default is the largest noise level that score
        matching shows to the energies of this package: wide against any posterior, and not where an energy has never
        been shaped. From ten times as much, 100 steps do not arrive (projects/quality).
    **keywords
        Fields of ``chains`` and ``step`` instead of these groups, as in earlier versions; to be removed.

    Notes
    -----
    A difference quotient is a typical curvature, not a bound: the frozen step may be too large for a rare region.
    Chains that leave the finite numbers stop with an error, never with a wrong sample.

    Raises
    ------
    DeepenError
        If an argument is out of range or the data are not finite.
    DivergenceError
        If a chain becomes NaN or infinite; the message has the step, the norms and the step sizes.

    References
    ----------
    Roberts and Tweedie, Exponential convergence of Langevin distributions and their discrete approximations, 1996.
    Orieux, Féron and Giovannelli, Sampling high-dimensional Gaussian distributions for general linear inverse problems,
    2012, for the noise of the preconditioner. Leimkuhler and Matthews, Rational construction of stochastic numerical
    methods for molecular sampling, AMRX 2013, for momentum, and the limit of high friction, for the averaged noise.
    """
    require_positive("noise_std", noise_std)
    require_positive("init_std", init_std)
    chains = grouped("chains", Chains, chains, keywords)
    step = grouped("step", LangevinStep, step, keywords)
    refuse_unknown("langevin", keywords)
    require_energy(energy)
    require_finite_data(masked_kspace)
    known = prior_noise_std(energy)
    if known is not None and not isclose(known, noise_std):
        _logger.warning(
            "noise_std is %g, but the prior of this energy is that of %g: for data of other noise pass "
            "at_noise(energy, %g), to mm_map too.", noise_std, known, noise_std,
        )  # fmt: skip
    masked_kspace = within_mask(A, masked_kspace)

    # A refused step would otherwise depend on how exactly the proposal was solved for.
    accuracy = _EXACT if step.metropolis else _INEXACT
    generators = ChainGenerators.from_one(
        generator, chains.num_samples, len(masked_kspace), antithetic=chains.antithetic
    )
    spread = noise_std if isinstance(init, str) and init == "sense" else init_std
    starts = _starts(A, masked_kspace, init, spread, chains.num_samples, generators)
    metric = Metric()
    if step.preconditioner is not None:
        metric = DataMetric(A, masked_kspace, _metric_weight(step.preconditioner, energy, starts[0]), accuracy)
    target = Target(A, masked_kspace, energy, noise_std, metric, step.kept_momentum)
    steps = chains.num_steps * chains.num_samples
    with progress_bar(name="Langevin", unit="step", total=steps, shown=progress) as bar:
        runs = [
            _run(target, starts[group], chains, step, generators[group], bar, group.start)
            for group in chain_groups(chains.num_samples, len(masked_kspace), chains.max_images)
        ]
    images, histories = zip(*runs, strict=True)
    return Samples(
        images=torch.cat(images).flatten(0, 1),
        # One at the start, another for the first step size if none is given, and two of an image for its curvature.
        gradient_evaluations=(chains.num_steps + (2 if step.step_size is None else 1)) * starts.shape[:2].numel()
        + (2 * len(masked_kspace) if isinstance(step.preconditioner, str) else 0),
        chain=torch.arange(chains.num_samples).repeat_interleave(chains.keep),
        step=chains.kept_steps.repeat(chains.num_samples),
        noise_std=noise_std,
        burn_in=chains.steps_of_burn_in,
        **{name: torch.cat([history[name] for history in histories], dim=-2) for name in histories[0]},
    )


def _starts(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    init: str | torch.Tensor,
    spread: float,
    num_samples: int,
    generator: ChainGenerators,
) -> torch.Tensor:
    image = A.adjoint(masked_kspace)
    shape = (num_samples, *image.shape)
    if isinstance(init, torch.Tensor):
        require(
            tuple(init.shape) in (shape, shape[1:]),
            f"init has shape {tuple(init.shape)}; allowed: {shape[1:]} or {shape}",
        )
        return init.to(image).expand(shape)
    require_choice("init", init, ("noise", "sense"))
    noise = spread * complex_normal_like(image.expand(shape), generator=generator)
    return noise if init == "noise" else sense(A, masked_kspace) + noise


def _metric_weight(
    preconditioner: float | str, energy: DifferentiableEnergy, start: torch.Tensor
) -> float | torch.Tensor:
    """Return μ: what it is, or real (batch,) from the curvature of E."""
    if not isinstance(preconditioner, str):
        return preconditioner
    curvature = largest_curvature(energy, start, num_iterations=1)
    return (_WEIGHT_OVER_CURVATURE * curvature).clamp_min(SMALLEST_CURVATURE)


def _run(
    target: Target,
    start: torch.Tensor,
    chains: Chains,
    options: LangevinStep,
    generator: ChainGenerators,
    bar: tqdm,
    first_chain: int,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Run a group of chains, (chain, batch, ...), the first of which is number ``first_chain``.

    Return the images kept (chain, keep, batch, ...), and what else :class:`Samples` says of the chains, by
    name, (..., chain, batch).
    """
    state = first_state(target, start, options.step_size, metropolis=options.metropolis, generator=generator)
    burn_in, kept_steps = chains.steps_of_burn_in, set(chains.kept_steps.tolist())
    accepted_sum = torch.zeros_like(state.step_size)
    # Allocated before the steps: allocated between their temporaries they would fragment memory.
    costs = state.terms.cost.new_empty(chains.num_steps, *start.shape[:2])
    norms = torch.empty_like(costs, dtype=start.real.dtype)
    kept = []

    for step in range(1, chains.num_steps + 1):
        adapting = options.step_size is None and step <= burn_in
        state, accepted = next_state(target, state, generator, adapting_step=step if adapting else None)
        if step > burn_in:
            accepted_sum += accepted
        costs[step - 1] = state.terms.cost
        norms[step - 1] = image_norm(state.terms.image, leading=2)
        if step % _FINITE_CHECK_INTERVAL == 0 or step == chains.num_steps:
            _require_finite(norms[step - 1], step, state.step_size, first_chain)
            show_metrics(bar, energy=state.terms.energy, cost=state.terms.cost, step=state.step_size)
        if step in kept_steps:
            kept.append(state.terms.image)
        bar.update(len(start))
    return torch.stack(kept, dim=1), {
        "step_size": state.step_size,
        "cost_trace": costs,
        "norm_trace": norms,
        "curvature": state.curvature,
        "acceptance": accepted_sum / (chains.num_steps - burn_in),
    }


def _require_finite(norms: torch.Tensor, step: int, step_size: torch.Tensor, first_chain: int) -> None:
    bad = ~torch.isfinite(norms)
    if bool(bad.any()):
        where, shown = [[first_chain + chain, image] for chain, image in bad.nonzero().tolist()], slice(_SHOWN_CHAINS)
        raise DivergenceError(
            f"langevin: {len(where)} of {bad.numel()} chains diverged; [chain, image] {where[shown]} have norms "
            f"{norms[bad][shown].tolist()} at step {step}, step sizes {step_size[bad][shown].tolist()}; "
            "allowed: finite values (try a smaller step_size)"
        )
