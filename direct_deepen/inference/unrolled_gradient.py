"""A fixed number of gradient steps on the cost, with a graph to whatever they depend on (ELDER)."""

import torch

from direct_deepen.errors import require_count, require_positive
from direct_deepen.physics.operator import LinearOperator
from direct_deepen.physics.sense import require_finite_data, sense
from direct_deepen.priors.energy import Energy
from direct_deepen.progress import progress_bar


def unrolled_gradient(
    A: LinearOperator,
    masked_kspace: torch.Tensor,
    energy: Energy,
    *,
    step_size: torch.Tensor | float,
    num_steps: int = 30,
    init: torch.Tensor | None = None,
    progress: bool = False,
) -> torch.Tensor:
    r"""Take K gradient steps on C(x) = ½‖Ax − b‖² + E(x) (ELDER as compared with in DEEPEN, section IV).

    .. math:: x_{k+1} = x_k - \alpha \, (A^H (A x_k - b) + \nabla E(x_k))

    With gradients enabled the result has a graph through all steps, to the weights of E and to α, and memory grows with
    K; under ``torch.no_grad`` it has none.

    Parameters
    ----------
    A, masked_kspace, init, progress
        As for :func:`~direct_deepen.mm_map`, with ‖A‖ ≤ 1.
    energy
        E, differentiable twice.
    step_size
        α > 0; a scalar tensor to have a gradient to it.
    num_steps
        K ≥ 1.

    Returns
    -------
    x_K, complex (batch, height, width).

    Raises
    ------
    DeepenError
        If an argument is out of range or the data are not finite.
    """
    value = float(torch.as_tensor(step_size).detach())
    require_positive("step_size", value)
    require_count("num_steps", num_steps)
    require_finite_data(masked_kspace)
    x = sense(A, masked_kspace) if init is None else init
    adjoint = A.adjoint(masked_kspace)
    with_graph = torch.is_grad_enabled()
    for _ in progress_bar(range(num_steps), name="gradient steps", unit="step", shown=progress):
        if with_graph:
            x = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        else:
            _, gradient = energy.value_and_grad(x)
        x = x - step_size * (A.normal(x) - adjoint + gradient)
    return x
