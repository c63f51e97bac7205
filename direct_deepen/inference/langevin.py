"""Langevin sampling of the posterior."""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from direct_deepen.errors import DivergenceError, require, require_choice, require_positive
from direct_deepen.inference.cost import inner_product
from direct_deepen.inference.curvature import difference_quotient, image_norm
from direct_deepen.inference.metric import DataMetric, Metric
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.physics.operator import LinearOperator, norm_squared, normal_over_chains
from direct_deepen.physics.sense import require_finite_data, sense
from direct_deepen.priors.energy import DifferentiableEnergy
from direct_deepen.progress import progress_bar, show_figures

STARTS = ("noise", "sense")

_SAFETY = 1.6
"""Share of the largest stable step, 2/curvature, that the adapting step uses, times one half."""

_FINITE_CHECK_INTERVAL = 20
_SHOWN_CHAINS = 5
_ACCEPTANCE_TARGET = 0.574
_INEXACT, _EXACT = 1e-3, 1e-9
"""Relative residuals of the preconditioner: its error biases the chain by about as much."""
_ADAPTATION_DECAY = 0.6


@dataclass(frozen=True)
class Samples:
    """Samples of a posterior, ordered chain by chain, and the history of the chains.

    Attributes
    ----------
    images
        Complex (chains·keep, batch, height, width).
    chain
        Integers (chains·keep,): the chain a sample comes from.
    step
        Integers (chains·keep,): the step, from 1, that a sample is the result of.
    step_size
        The τ of every kept step, real (chains, batch).
    cost_trace
        C after every step, float64 (num_steps, chains, batch).
    norm_trace
        ‖x‖ after every step, real (num_steps, chains, batch).
    curvature
        Largest difference quotient of ∇E seen during burn-in, real (chains, batch); not a number for fixed steps.
    acceptance
        Share of proposals accepted after burn-in, real (chains, batch); one without Metropolis adjustment.
    noise_std
        ε: the target is ∝ exp(−2C/ε²).
    burn_in
        Steps before the first that could be kept.
    gradient_evaluations
        Evaluations of ∇E, summed over chains and batch.
    """

    images: torch.Tensor
    chain: torch.Tensor
    step: torch.Tensor
    step_size: torch.Tensor
    cost_trace: torch.Tensor
    norm_trace: torch.Tensor
    curvature: torch.Tensor
    acceptance: torch.Tensor
    noise_std: float
    burn_in: int
    gradient_evaluations: int

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return self.step_size.shape[0]

    @property
    def keep(self) -> int:
        """Number of samples kept of every chain."""
        return self.images.shape[0] // self.num_chains

    def by_chain(self) -> torch.Tensor:
        """Return the images as (chain, keep, batch, height, width)."""
        return self.images.unflatten(0, (self.num_chains, self.keep))


@torch.no_grad()
def langevin(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: DifferentiableEnergy,
    *,
    noise_std: float,
    generator: torch.Generator,
    num_steps: int = 100,
    num_samples: int = 1,
    keep: int = 1,
    init: str | torch.Tensor = "noise",
    init_std: float = 0.1,
    step_size: float | None = None,
    burn_in: int | None = None,
    metropolis: bool = False,
    preconditioner: float | None = None,
    max_images: int = 32,
    progress: bool = False,
) -> Samples:
    r"""Sample the posterior ∝ exp(−2C(x)/ε²), C(x) = ½‖Ax − b‖² + E(x) (DEEPEN, equations 11 and 16).

    .. math:: x \leftarrow x - \tau\,(A^H(Ax - b) + \nabla E(x)) + \varepsilon\sqrt{\tau}\,z, \qquad z \sim N(0, I)

    with z of unit standard deviation in each of the real and imaginary part; τ = 1 is the paper's equation 16. The
    target is met in the limit of small steps: where C has curvature h the stationary variance per real component is
    ε²/(h(2 − τh)) instead of ε²/2h. ``metropolis`` removes that bias.

    Where nothing is sampled C is flat, so that steps that suit the data are small there. With a ``preconditioner`` μ
    the step is that of the same diffusion in another metric,

    .. math:: x \leftarrow x - \tau P \nabla C(x) + \varepsilon\sqrt{\tau}\,P^{1/2} z, \qquad P = (A^H A + \mu I)^{-1},

    with the same target for τ → 0, and the bias of the step in the eigenvalues of PH for a cost of Hessian H. Its noise
    is drawn exactly, as P(Aᴴz₁ + √μ z₂), by the conjugate gradients that the step takes anyway.

    Parameters
    ----------
    A
        Forward model.
    masked_kspace
        b, complex (batch, coil, height, width), divided by the intensity scale that the energy expects.
    energy
        Anything with ``value_and_grad``.
    noise_std
        ε > 0, per real component; √2 times the measurement noise η.
    generator
        Source of randomness.
    num_steps
        Steps of every chain, at least one.
    num_samples
        Number of chains S, at least one.
    keep
        States kept of every chain: equally spaced after burn-in, the last one among them. Convergence diagnostics need
        four or more.
    init
        ``noise``: zero-mean Gaussian noise, the paper's start. ``sense``: the SENSE solution plus noise of standard
        deviation ε. Or images, complex (batch, height, width) or (S, batch, height, width), used as they are.
    init_std
        Standard deviation of the noise start, per real component. The default is the largest noise level that score
        matching shows to the energies of this package: wide against any posterior, and not where an energy has never
        been shaped. From ten times as much, 100 steps do not arrive (projects/quality).
    step_size
        τ > 0, fixed. By default it adapts to the curvature during burn-in, τ = min(1, 1.6/(‖A‖² + 2L)) with L the
        largest ‖∇E(x_k) − ∇E(x_{k−1})‖/‖x_k − x_{k−1}‖ so far of that chain, and is then frozen: an adapting step is
        no Markov chain. With a preconditioner the eigenvalues of PH take the place of ‖A‖² + 2L.
    burn_in
        Steps that are never kept; half of them by default, none for ``keep`` = ``num_steps``.
    metropolis
        Accept or refuse every step so that the target is exact (MALA); the adapting step then aims at an acceptance of
        0.574. Costs of images have to be accurate to much less than ε²: prefer double precision.
    preconditioner
        μ > 0, of the size of the curvature of E (0.3 for the energies of this package); None for P = I, the paper's.
    max_images
        Images given to the network at once; chains run in groups of that size.
    progress
        Show a progress bar, if standard error is a terminal.

    Returns
    -------
    :class:`Samples`.

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
    2012, for the noise of the preconditioner.
    """
    require_positive("noise_std", noise_std)
    require_positive("init_std", init_std)
    require(num_steps >= 1, f"num_steps is {num_steps!r}; allowed: >= 1")
    require(num_samples >= 1, f"num_samples is {num_samples!r}; allowed: >= 1")
    require(1 <= keep <= num_steps, f"keep is {keep!r}; allowed: 1 to num_steps = {num_steps}")
    require(max_images >= 1, f"max_images is {max_images!r}; allowed: >= 1")
    if step_size is not None:
        require_positive("step_size", step_size)
    if preconditioner is not None:
        require_positive("preconditioner", preconditioner)
    burn_in = min(num_steps // 2, num_steps - keep) if burn_in is None else burn_in
    require(
        0 <= burn_in <= num_steps - keep, f"burn_in is {burn_in!r}; allowed: 0 to num_steps - keep = {num_steps - keep}"
    )
    require_finite_data(masked_kspace)

    # A refused step would otherwise depend on how exactly the proposal was solved for.
    accuracy = _EXACT if metropolis else _INEXACT
    metric = Metric() if preconditioner is None else DataMetric(A, masked_kspace, preconditioner, accuracy)
    target = _Target(A, masked_kspace, energy, noise_std, metric)
    starts = _starts(target, init, init_std, num_samples, generator)
    kept_steps = torch.linspace(num_steps, burn_in, keep + 1, dtype=torch.float64)[:-1].round().long().flip(0)
    schedule = _Schedule(num_steps, burn_in, set(kept_steps.tolist()), step_size, metropolis)
    group = max(1, max_images // starts.shape[1])
    bar = progress_bar(total=num_steps * num_samples, name="Langevin", unit="step", shown=progress)
    runs = [
        _run(target, chains, schedule, generator, bar, first_chain)
        for first_chain, chains in zip(range(0, num_samples, group), starts.split(group), strict=True)
    ]
    bar.close()
    return Samples(
        images=torch.cat([run.images for run in runs]).flatten(0, 1),
        chain=torch.arange(num_samples).repeat_interleave(keep),
        step=kept_steps.repeat(num_samples),
        step_size=torch.cat([run.step_size for run in runs]),
        cost_trace=torch.cat([run.cost_trace for run in runs], dim=1),
        norm_trace=torch.cat([run.norm_trace for run in runs], dim=1),
        curvature=torch.cat([run.curvature for run in runs]),
        acceptance=torch.cat([run.acceptance for run in runs]),
        noise_std=noise_std,
        burn_in=burn_in,
        gradient_evaluations=sum(run.gradient_evaluations for run in runs),
    )


@dataclass(frozen=True)
class _Schedule:
    num_steps: int
    burn_in: int
    kept_steps: set[int]
    step_size: float | None
    metropolis: bool


@dataclass(frozen=True)
class _Run:
    images: torch.Tensor
    step_size: torch.Tensor
    cost_trace: torch.Tensor
    norm_trace: torch.Tensor
    curvature: torch.Tensor
    acceptance: torch.Tensor
    gradient_evaluations: int


@dataclass
class _Point:
    """Chains (chain, batch, height, width) and what is known of E and C there."""

    image: torch.Tensor
    energy: torch.Tensor
    cost: torch.Tensor
    prior_gradient: torch.Tensor
    gradient: torch.Tensor


class _Target:
    """The density ∝ exp(−2C/ε²), evaluated for several chains at once."""

    def __init__(
        self,
        A: LinearOperator,
        masked_kspace: torch.Tensor,
        energy: DifferentiableEnergy,
        noise_std: float,
        metric: Metric,
    ) -> None:
        self.metric = metric
        self.A = A
        self.masked_kspace = masked_kspace
        self.energy = energy
        self.noise_std = noise_std
        self.adjoint_data = A.adjoint(masked_kspace)
        self.norm_squared = norm_squared(A, self.adjoint_data)
        self.data_energy = 0.5 * masked_kspace.abs().square().flatten(1).sum(dim=1, dtype=torch.float64)

    def __call__(self, image: torch.Tensor) -> _Point:
        # One AᴴA serves gradient and cost: ½‖Ax − b‖² = ½Re⟨x, AᴴAx − 2Aᴴb⟩ + ½‖b‖².
        normal = normal_over_chains(self.A, image)
        value, prior_gradient = self.energy.value_and_grad(image.flatten(0, 1))
        prior_gradient = prior_gradient.unflatten(0, image.shape[:2])
        value = value.double().unflatten(0, image.shape[:2])
        # Not in place on the first result, which may be the image itself (A = I).
        gradient = normal - self.adjoint_data
        data_cost = 0.5 * inner_product(image, gradient - self.adjoint_data) + self.data_energy
        gradient += prior_gradient
        return _Point(image, value, data_cost + value, prior_gradient, gradient)

    def slope(self, point: _Point) -> torch.Tensor:
        """Return ⟨g, Pg⟩ of the gradient g of C, float64 (chain, batch)."""
        return inner_product(point.gradient, self.metric.solve(point.gradient))


def _starts(
    target: _Target, init: str | torch.Tensor, init_std: float, num_samples: int, generator: torch.Generator
) -> torch.Tensor:
    image = target.adjoint_data
    shape = (num_samples, *image.shape)
    if isinstance(init, torch.Tensor):
        require(
            tuple(init.shape) in (shape, shape[1:]),
            f"init has shape {tuple(init.shape)}; allowed: {shape[1:]} or {shape}",
        )
        return init.to(image).expand(shape)
    require_choice("init", init, STARTS)
    noise = complex_normal_like(image.expand(shape), generator=generator)
    if init == "noise":
        return init_std * noise
    return sense(target.A, target.masked_kspace) + target.noise_std * noise


def _run(
    target: _Target,
    start: torch.Tensor,
    schedule: _Schedule,
    generator: torch.Generator,
    bar: tqdm,
    first_chain: int,
) -> _Run:
    """Run a group of chains, (chain, batch, height, width), the first of which is number ``first_chain``."""
    point = target(start)
    evaluations = 1
    adapting = schedule.step_size is None
    if schedule.step_size is not None:
        curvature = torch.full_like(point.cost, float("nan"))
        step_size = torch.full_like(point.cost, schedule.step_size)
    else:
        # The first step needs a curvature too: that between the start and a point one noise away.
        nudge = target.noise_std * complex_normal_like(start, generator=generator)
        _, nudged = target.energy.value_and_grad((start + nudge).flatten(0, 1))
        evaluations += 1
        curvature = _observed_curvature(nudge, nudged.unflatten(0, start.shape[:2]) - point.prior_gradient)
        step_size = _stable_step(target, curvature)
    slope = target.slope(point) if schedule.metropolis else None
    log_metropolis_scale = torch.zeros_like(step_size)
    accepted_sum = torch.zeros_like(step_size)
    # Made before the steps: what is made between them, and stays, would keep the memory of temporaries in pieces.
    costs, norms, kept = _trace(point.cost, schedule), _trace(image_norm(start), schedule), []

    for step in range(1, schedule.num_steps + 1):
        proposal = target(_propose(target, point, step_size, generator))
        evaluations += 1
        if slope is not None:
            proposed_slope = target.slope(proposal)
            probability = _acceptance_probability(target, point, proposal, step_size, slope - proposed_slope)
            uniform = torch.rand(probability.shape, generator=generator, device=generator.device, dtype=torch.float64)
            accepted = uniform.to(probability.device) < probability
            slope = torch.where(accepted, proposed_slope, slope)
        else:
            probability = torch.ones_like(step_size)
            accepted = torch.ones_like(step_size, dtype=torch.bool)
        if adapting and step <= schedule.burn_in:
            quotient = _observed_curvature(proposal.image - point.image, proposal.prior_gradient - point.prior_gradient)
            curvature = torch.maximum(curvature, quotient)
            if schedule.metropolis:
                log_metropolis_scale += (probability - _ACCEPTANCE_TARGET) * step**-_ADAPTATION_DECAY
            step_size = _stable_step(target, curvature) * log_metropolis_scale.exp()
        if step > schedule.burn_in:
            accepted_sum += accepted
        point = _merge(accepted, proposal, point) if schedule.metropolis else proposal
        costs[step - 1] = point.cost
        norms[step - 1] = image_norm(point.image)
        if step % _FINITE_CHECK_INTERVAL == 0 or step == schedule.num_steps:
            _require_finite(norms[step - 1], step, step_size, first_chain)
            show_figures(bar, energy=point.energy, cost=point.cost, step=step_size)
        if step in schedule.kept_steps:
            kept.append(point.image)
        bar.update(start.shape[0])
    return _Run(
        images=torch.stack(kept, dim=1),
        step_size=step_size,
        cost_trace=costs,
        norm_trace=norms,
        curvature=curvature,
        acceptance=accepted_sum / (schedule.num_steps - schedule.burn_in),
        gradient_evaluations=evaluations * start.shape[0] * start.shape[1],
    )


def _trace(values: torch.Tensor, schedule: _Schedule) -> torch.Tensor:
    """Return room for such values of every step."""
    return values.new_empty(schedule.num_steps, *values.shape)


def _observed_curvature(move: torch.Tensor, gradient_change: torch.Tensor) -> torch.Tensor:
    """Difference quotient; 0 where it is not finite: Metropolis refuses such a point, and an unadjusted chain stops."""
    return difference_quotient(move, gradient_change).double().nan_to_num(0.0, posinf=0.0)


def _stable_step(target: _Target, curvature: torch.Tensor) -> torch.Tensor:
    return (_SAFETY / target.metric.largest_eigenvalue(target.norm_squared, 2 * curvature)).clamp(max=1.0)


def _propose(target: _Target, point: _Point, step_size: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    step = step_size.to(point.image.real.dtype)[..., None, None]
    noise = target.metric.noise(point.image, generator)
    move = noise.mul_(target.noise_std * step.sqrt()).sub_(step * point.gradient)
    return target.metric.solve(move).add_(point.image)


def _acceptance_probability(
    target: _Target, here: _Point, there: _Point, step_size: torch.Tensor, slope_change: torch.Tensor
) -> torch.Tensor:
    """min(1, π(there) q(here|there) / (π(here) q(there|here))) with q the Gaussian proposal of :func:`_propose`.

    −2ε²τ log q(there|here) = ‖d + τPg‖² in the norm of P⁻¹ = ⟨d, P⁻¹d⟩ + 2τ⟨d, g⟩ + τ²⟨g, Pg⟩ with d the move; the
    first term is that of the way back too. ``slope_change`` is ⟨g, Pg⟩ here minus there.
    """
    move = there.image - here.image
    slopes = inner_product(move, here.gradient + there.gradient)
    proposals = slopes + 0.5 * step_size * slope_change
    logarithm = (2 * (here.cost - there.cost) + proposals) / target.noise_std**2
    return logarithm.clamp(max=0.0).exp().nan_to_num(0.0)


def _merge(accepted: torch.Tensor, new: _Point, old: _Point) -> _Point:
    image = accepted[..., None, None]
    return _Point(
        torch.where(image, new.image, old.image),
        torch.where(accepted, new.energy, old.energy),
        torch.where(accepted, new.cost, old.cost),
        torch.where(image, new.prior_gradient, old.prior_gradient),
        torch.where(image, new.gradient, old.gradient),
    )


def _require_finite(norms: torch.Tensor, step: int, step_size: torch.Tensor, first_chain: int) -> None:
    bad = ~torch.isfinite(norms)
    if bool(bad.any()):
        where, shown = [[first_chain + chain, image] for chain, image in bad.nonzero().tolist()], slice(_SHOWN_CHAINS)
        raise DivergenceError(
            f"langevin: {len(where)} of {bad.numel()} chains diverged; [chain, image] {where[shown]} have norms "
            f"{norms[bad][shown].tolist()} at step {step}, step sizes {step_size[bad][shown].tolist()}; "
            "allowed: finite values (try a smaller step_size)"
        )
