"""Progress bars: on standard error, only on a terminal, and gone when they are done."""

from collections.abc import Iterable

import torch
from tqdm import tqdm

METRICS_INTERVAL = 20
"""Steps of a solver from one reading of its metrics to the next: reading them off a GPU makes it wait."""


def progress_bar[Item](
    items: Iterable[Item] | None = None, *, name: str, unit: str, shown: bool = True, **counts: int | None
) -> "tqdm[Item]":
    """Return a bar with the time left, over items or over ``total`` units that are counted by its ``update``.

    ``initial`` units were there before. Nothing is written where ``shown`` is false, or standard error is no terminal.
    """
    disable = None if shown else True
    return tqdm(items, desc=name, unit=unit, disable=disable, leave=False, dynamic_ncols=True, **counts)


def show_metrics(bar: tqdm, **metrics: torch.Tensor | float) -> None:
    """Put metrics, means where there are several, behind a bar; where nothing is shown nothing is read off a device."""
    if not bar.disable:
        means = {name: float(torch.as_tensor(value).double().mean()) for name, value in metrics.items()}
        bar.set_postfix({name: f"{mean:.4g}" for name, mean in means.items()})
