"""Progress bars: on standard error, only on a terminal, and gone when they are done."""

from collections.abc import Iterable
from typing import Protocol

import torch
from tqdm import tqdm

FIGURES_INTERVAL = 20
"""Steps of a solver from one reading of its figures to the next: reading them off a GPU makes it wait."""


class Track(Protocol):
    """Whatever yields items and shows how far it is: :func:`progress_bar`, or what tells another process."""

    def __call__[Item](self, items: Iterable[Item], *, name: str, unit: str, total: int) -> Iterable[Item]:
        """Yield the items."""
        ...


def progress_bar[Item](
    items: Iterable[Item] | None = None,
    *,
    name: str,
    unit: str,
    total: int | None = None,
    shown: bool = True,
    initial: int = 0,
) -> "tqdm[Item]":
    """Return a bar with the time left, over items or over ``total`` units that are counted by its ``update``.

    ``initial`` units were there before. Nothing is written where ``shown`` is false, or standard error is no terminal.
    """
    return tqdm(
        items,
        desc=name,
        unit=unit,
        total=total,
        disable=None if shown else True,
        leave=False,
        dynamic_ncols=True,
        initial=initial,
    )


def show_figures(bar: tqdm, **figures: torch.Tensor | float) -> None:
    """Put figures, means where there are several, behind a bar; where nothing is shown nothing is read off a device."""
    if not bar.disable:
        means = {name: float(torch.as_tensor(value).double().mean()) for name, value in figures.items()}
        bar.set_postfix({name: f"{mean:.4g}" for name, mean in means.items()})
