"""The iterations of other methods: plug-and-play (PnP-ISTA), deep equilibrium (MoL) and unrolled gradients (ELDER)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from direct_deepen.errors import DivergenceError, require, require_count, require_positive
from direct_deepen.inference.cost import image_norm
from direct_deepen.physics.conjugate_gradient import conjugate_gradient, not_finite
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.per_image import per_image
from direct_deepen.physics.precision import without_autocast
from direct_deepen.physics.sense import require_finite_data, sense
from direct_deepen.priors.energy import DifferentiableEnergy, as_function
from direct_deepen.progress import METRICS_INTERVAL, progress_bar, show_metrics

_CG_ITERATIONS = 20


@dataclass(frozen=True)
class FixedPointResult:
    """Where an iteration ended."""

    image: torch.Tensor
    """Complex (batch, height, width)."""
    converged: torch.Tensor
    """Boolean (batch,): the relative change fell to the tolerance."""
    iterations: int
    """Iterations until every image had converged, or the limit."""
    relative_change: torch.Tensor
    """‖x_{n+1} − x_n‖/‖x_n‖ of the last iteration, real (batch,)."""


@torch.no_grad()
def iterate_to_fixed_point(
    step: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    progress: bool = False,
    name: str = "fixed point",
) -> FixedPointResult:
    """Repeat x ← step(x) until ‖x_{n+1} − x_n‖ ≤ tolerance · ‖x_n‖ for every image.

    An image that has converged is not changed any more, so that its result does not depend on the rest of the batch.
    One that leaves the finite numbers is a :class:`DivergenceError`.

    ``step`` takes and returns complex (batch, height, width), each image on its own; ``name`` is what progress bar and
    errors call the iteration.
    """
    require(tolerance > 0, f"tolerance is {tolerance!r}; allowed: > 0")
    require_count("max_iterations", max_iterations)
    x = image.clone()
    converged = torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
    change = torch.full_like(image_norm(x), float("inf"))
    iterations = 0
    with progress_bar(name=name, unit="step", total=max_iterations, shown=progress) as bar:
        while iterations < max_iterations and not bool(converged.all()):
            following = step(x)
            size = image_norm(x)
            moved = image_norm(following - x)
            if bad := not_finite(moved):
                raise DivergenceError(
                    f"{name}: images {bad} of the batch had norms {size[bad].tolist()}, which became "
                    f"{image_norm(following)[bad].tolist()} at iteration {iterations + 1}; allowed: finite values (a "
                    "smaller step may help)",
                    bad,
                )
            change = torch.where(converged, change, moved / size.clamp_min(torch.finfo(size.dtype).tiny))
            if iterations % METRICS_INTERVAL == 0:
                show_metrics(bar, change=change)
            x = torch.where(per_image(converged, x), x, following)
            converged = converged | (moved <= tolerance * size)
            iterations += 1
            bar.update()
    return FixedPointResult(x, converged, iterations, change)


@without_autocast
def proximal_iteration(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    denoiser: Callable[[torch.Tensor], torch.Tensor],
    *,
    step_size: float,
    init: torch.Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    progress: bool = False,
) -> FixedPointResult:
    r"""Iterate PnP-ISTA (DEEPEN, section IV).

    .. math:: q_n = x_n - s A^H (A x_n - b), \qquad x_{n+1} = D(q_n)

    With D the proximal map of a function g it is proximal gradient descent on ½‖Ax − b‖² + g/s. A denoiser that is no
    contraction need not converge; ``converged`` of the :class:`FixedPointResult` tells.

    Parameters
    ----------
    A, masked_kspace, init, progress
        As for :func:`~direct_deepen.mm_map`, with ‖A‖ ≤ 1, and so are the errors.
    denoiser
        D, complex (batch, height, width) → the same.
    step_size
        s = α/η² of the paper, 0 < s < 2.
    tolerance, max_iterations
        Stopping rule, :func:`iterate_to_fixed_point`.
    """
    require(0 < step_size < 2, f"step_size is {step_size!r}; allowed: > 0 and < 2, for ‖A‖ ≤ 1")
    require_finite_data(masked_kspace)
    start = sense(A, masked_kspace) if init is None else init
    adjoint = A.adjoint(masked_kspace)
    return iterate_to_fixed_point(
        lambda x: denoiser(x - step_size * (A.normal(x) - adjoint)),
        start,
        tolerance=tolerance,
        max_iterations=max_iterations,
        progress=progress,
        name="PnP-ISTA",
    )


@without_autocast
def equilibrium(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    denoiser: Callable[[torch.Tensor], torch.Tensor],
    *,
    data_weight: torch.Tensor | float,
    damping: float = 1.0,
    init: torch.Tensor | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
    differentiable: bool = False,
    progress: bool = False,
) -> FixedPointResult:
    r"""Solve λAᴴ(Ax − b) + x − H(x) = 0 (MoL).

    .. math:: x_{n+1} = (I + \alpha\lambda A^H A)^{-1} ((1 - \alpha) x_n + \alpha H(x_n) + \alpha\lambda A^H b)

    by forward-backward splitting. What it converges to does not depend on α. The paper asks for α < 2m/(2 − m)², which
    suffices when I − H is m-monotone and (2 − m)-Lipschitz. Where the Lipschitz constant of H itself is at most 1 − m,
    as the barrier of training takes care of, every α ≤ 1 contracts distances by 1 − αm: α = 1 is the fastest.

    If ``differentiable`` the image has a graph to the weights of H and to λ, but under ``torch.no_grad``. With
    G(x) = λAᴴ(Ax − b) + x − H(x) = 0 at the image and g the gradient of a loss there, the implicit function theorem
    gives the gradient −wᴴ ∂G/∂θ, where

    .. math:: (\lambda A^H A + I - J_H^H) \, w = g,

    which is the equation of the image with J_Hᴴ in the place of H and g in that of λAᴴb: it is solved by the same
    iteration, to the same tolerance. Memory does not grow with the number of iterations.

    Parameters
    ----------
    A, masked_kspace, init, progress
        As for :func:`~direct_deepen.mm_map`, and so are the errors.
    denoiser
        H, complex (batch, height, width) → the same.
    damping, data_weight
        α and λ, above zero; λ a scalar tensor to have a gradient to it.
    tolerance, max_iterations
        Stopping rule, :func:`iterate_to_fixed_point`.

    References
    ----------
    Pramanik, Zimmerman and Jacob, Memory-efficient model-based deep learning with convergence and robustness
    guarantees, IEEE Transactions on Computational Imaging 9, 2023.
    """
    trained_weight = torch.as_tensor(data_weight)
    weight = float(trained_weight.detach())
    require_positive("damping", damping)
    require_positive("data_weight", weight)
    require_finite_data(masked_kspace)

    def solve(
        source: torch.Tensor, operator: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, progress: bool
    ) -> FixedPointResult:
        """Solve (λAᴴA + I)x − H(x) = source."""
        return iterate_to_fixed_point(
            lambda x: conjugate_gradient(
                lambda d: d + damping * weight * A.normal(d),
                (1 - damping) * x + damping * (operator(x) + source),
                initial=x,
                # The error of a step must be small against the change that ends the iteration.
                tolerance=0.1 * damping * tolerance,
                max_iterations=_CG_ITERATIONS,
            ),
            start,
            tolerance=damping * tolerance,
            max_iterations=max_iterations,
            progress=progress,
            name="equilibrium",
        )

    with torch.no_grad():
        adjoint = A.adjoint(masked_kspace)
        start = sense(A, masked_kspace) if init is None else init
        result = solve(weight * adjoint, denoiser, start, progress)
    if not (differentiable and torch.is_grad_enabled()):
        return result
    residual = (A.normal(result.image) - adjoint).detach()
    variable = result.image.requires_grad_()
    denoised = denoiser(variable)

    def transposed_jacobian(direction: torch.Tensor) -> torch.Tensor:
        (product,) = torch.autograd.grad(denoised, variable, direction, retain_graph=True)
        return product

    # The value of the image, with the graph of −G at the image held fixed.
    image = variable.detach() + (denoised - denoised.detach()) - (trained_weight - trained_weight.detach()) * residual
    image.register_hook(lambda gradient: solve(gradient, transposed_jacobian, gradient, progress=False).image)
    return replace(result, image=image)


@without_autocast
def unrolled_gradient(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: DifferentiableEnergy,
    *,
    step_size: torch.Tensor | float,
    num_steps: int = 30,
    init: torch.Tensor | None = None,
    progress: bool = False,
) -> torch.Tensor:
    r"""Return x_K after K gradient steps on C(x) = ½‖Ax − b‖² + E(x) (ELDER as in DEEPEN, section IV).

    .. math:: x_{k+1} = x_k - \alpha \, (A^H (A x_k - b) + \nabla E(x_k))

    With gradients enabled the result has a graph through all steps, to the weights of E and to α, and memory grows with
    K; under ``torch.no_grad`` it has none.

    Parameters
    ----------
    A, masked_kspace, init, progress
        As for :func:`~direct_deepen.mm_map`, with ‖A‖ ≤ 1, and so are the errors.
    energy
        E, differentiable twice. One without ``__call__`` has a Hessian by differences of ∇E.
    step_size
        α > 0; a scalar tensor to have a gradient to it.
    num_steps
        K ≥ 1.
    """
    require_positive("step_size", float(torch.as_tensor(step_size).detach()))
    require_count("num_steps", num_steps)
    require_finite_data(masked_kspace)
    x = sense(A, masked_kspace) if init is None else init
    adjoint = A.adjoint(masked_kspace)
    with_graph = torch.is_grad_enabled()
    for _ in progress_bar(range(num_steps), name="gradient steps", unit="step", shown=progress):
        if with_graph:
            x = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(as_function(energy)(x).sum(), x, create_graph=True)
        else:
            _, gradient = energy.value_and_grad(x)
        x = x - step_size * (A.normal(x) - adjoint + gradient)
    return x
