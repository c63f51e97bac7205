"""Deep equilibrium reconstruction with monotone operators (MoL), with the implicit gradient of its fixed point."""

from collections.abc import Callable

import torch

from direct_deepen.errors import require_positive
from direct_deepen.inference.fixed_point import FixedPointResult, iterate_to_fixed_point
from direct_deepen.physics.conjugate_gradient import conjugate_gradient
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.sense import require_finite_data, sense

_CG_ITERATIONS = 20


@torch.no_grad()
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
    progress: bool = False,
) -> FixedPointResult:
    r"""Solve λAᴴ(Ax − b) + x − H(x) = 0 (MoL; Pramanik, Zimmerman and Jacob 2023).

    .. math:: x_{n+1} = (I + \alpha\lambda A^H A)^{-1} ((1 - \alpha) x_n + \alpha H(x_n) + \alpha\lambda A^H b)

    by forward-backward splitting. What it converges to does not depend on α. The paper asks for α < 2m/(2 − m)², which
    suffices when I − H is m-monotone and (2 − m)-Lipschitz. Where the Lipschitz constant of H itself is at most 1 − m,
    as the barrier of training takes care of, every α ≤ 1 contracts distances by 1 − αm: α = 1 is the fastest.

    Parameters
    ----------
    A, masked_kspace, init, progress
        As for :func:`~direct_deepen.mm_map`.
    denoiser
        H, complex (batch, height, width) → the same.
    damping
        α, above zero; 1 by default.
    data_weight
        λ, above zero.
    tolerance, max_iterations
        Stopping rule, :func:`~direct_deepen.inference.fixed_point.iterate_to_fixed_point`.

    Raises
    ------
    DeepenError
        If an argument is out of range or the data are not finite.
    DivergenceError
        If an image leaves the finite numbers.

    References
    ----------
    Pramanik, Zimmerman and Jacob, Memory-efficient model-based deep learning with convergence and robustness
    guarantees, IEEE Transactions on Computational Imaging 9, 2023.
    """
    require_finite_data(masked_kspace)
    start = sense(A, masked_kspace) if init is None else init
    weight = float(torch.as_tensor(data_weight).detach())
    return _splitting(
        A, weight * A.adjoint(masked_kspace), denoiser, damping, weight, start, tolerance, max_iterations, progress
    )


def differentiable_equilibrium(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    denoiser: Callable[[torch.Tensor], torch.Tensor],
    *,
    data_weight: torch.Tensor,
    damping: float = 1.0,
    init: torch.Tensor | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 200,
) -> torch.Tensor:
    r"""Return the image of :func:`equilibrium` with a graph to the weights of H and to λ.

    With G(x) = λAᴴ(Ax − b) + x − H(x) = 0 at the image and g the gradient of a loss there, the implicit function
    theorem gives the gradient −wᴴ ∂G/∂θ, where

    .. math:: (\lambda A^H A + I - J_H^H) \, w = g,

    which is the equation of the image with J_Hᴴ in the place of H and g in that of λAᴴb: it is solved by the same
    iteration, to the same tolerance. Memory does not grow with the number of iterations.

    Parameters
    ----------
    A, masked_kspace, denoiser, damping, data_weight, init, tolerance, max_iterations
        As for :func:`equilibrium`; H a differentiable function, λ a scalar tensor.

    Returns
    -------
    Complex (batch, height, width).
    """
    image = equilibrium(
        A,
        masked_kspace,
        denoiser,
        damping=damping,
        data_weight=data_weight,
        init=init,
        tolerance=tolerance,
        max_iterations=max_iterations,
    ).image
    if not torch.is_grad_enabled():
        return image
    weight = float(data_weight.detach())
    residual = A.normal(image) - A.adjoint(masked_kspace)
    variable = image.requires_grad_()
    denoised = denoiser(variable)
    # The value of the image, with the graph of −G at the image held fixed.
    attached = (
        image.detach() + (denoised - denoised.detach()) - (data_weight - data_weight.detach()) * residual.detach()
    )

    def adjoint_jacobian(direction: torch.Tensor) -> torch.Tensor:
        (product,) = torch.autograd.grad(denoised, variable, direction, retain_graph=True)
        return product

    def solve_adjoint(gradient: torch.Tensor) -> torch.Tensor:
        return _splitting(
            A, gradient, adjoint_jacobian, damping, weight, gradient, tolerance, max_iterations, progress=False
        ).image

    attached.register_hook(solve_adjoint)
    return attached


def _splitting(
    A: LinearOperator,
    source: torch.Tensor,
    operator: Callable[[torch.Tensor], torch.Tensor],
    damping: float,
    data_weight: float,
    start: torch.Tensor,
    tolerance: float,
    max_iterations: int,
    progress: bool,
) -> FixedPointResult:
    """Solve (λAᴴA + I)x − H(x) = source."""
    require_positive("damping", damping)
    require_positive("data_weight", data_weight)

    def step(x: torch.Tensor) -> torch.Tensor:
        right_hand_side = (1 - damping) * x + damping * (operator(x) + source)
        return conjugate_gradient(
            lambda d: d + damping * data_weight * A.normal(d),
            right_hand_side,
            initial=x,
            # The error of a step must be small against the change that ends the iteration.
            tolerance=0.1 * damping * tolerance,
            max_iterations=_CG_ITERATIONS,
        )

    return iterate_to_fixed_point(
        step, start, tolerance=damping * tolerance, max_iterations=max_iterations, progress=progress, name="equilibrium"
    )
