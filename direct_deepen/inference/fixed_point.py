"""Fixed-point iteration of a batch, with a stopping rule for every image."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from direct_deepen.errors import DivergenceError, require
from direct_deepen.inference.curvature import image_norm
from direct_deepen.progress import METRICS_INTERVAL, progress_bar, show_metrics


@dataclass(frozen=True)
class FixedPointResult:
    """Where an iteration ended.

    Attributes
    ----------
    image
        Complex (batch, height, width).
    converged
        Boolean (batch,): the relative change fell to the tolerance.
    iterations
        Iterations until every image had converged, or the limit.
    relative_change
        ‖x_{n+1} − x_n‖/‖x_n‖ of the last iteration, real (batch,).
    """

    image: torch.Tensor
    converged: torch.Tensor
    iterations: int
    relative_change: torch.Tensor


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

    Parameters
    ----------
    step
        The map, complex (batch, height, width) → the same, each image on its own.
    image
        Start; it is not changed.
    tolerance
        Relative change, above zero.
    max_iterations
        Limit, at least one.
    progress
        Show a progress bar, if standard error is a terminal: the relative change.
    name
        Name of the iteration in the progress bar and in errors.

    Raises
    ------
    DeepenError
        If an argument is out of range.
    DivergenceError
        If an image leaves the finite numbers.
    """
    require(tolerance > 0, f"tolerance is {tolerance!r}; allowed: > 0")
    require(max_iterations >= 1, f"max_iterations is {max_iterations!r}; allowed: >= 1")
    x = image.clone()
    converged = torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
    change = torch.full_like(image_norm(x), float("inf"))
    iterations = 0
    with progress_bar(name=name, unit="step", total=max_iterations, shown=progress) as bar:
        while iterations < max_iterations and not bool(converged.all()):
            following = step(x)
            size = image_norm(x)
            moved = image_norm(following - x)
            if not bool(torch.isfinite(moved).all()):
                raise DivergenceError(
                    f"{name}: image norms {size.tolist()} became {image_norm(following).tolist()} at iteration "
                    f"{iterations + 1}; allowed: finite values (a smaller step may help)"
                )
            change = torch.where(converged, change, moved / size.clamp_min(torch.finfo(size.dtype).tiny))
            if iterations % METRICS_INTERVAL == 0:
                show_metrics(bar, change=change)
            x = torch.where(converged[:, None, None], x, following)
            converged = converged | (moved <= tolerance * size)
            iterations += 1
            bar.update()
    return FixedPointResult(x, converged, iterations, change)
