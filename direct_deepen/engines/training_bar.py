"""The bar of ``direct train``: at which iteration it is, what loss and energies are, below DIRECT's log."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from direct.utils import communication
from tqdm import tqdm

from direct_deepen.engines.prediction_bar import log_above
from direct_deepen.progress import progress_bar, show_figures

_SHOWN = {"train/energy_true": "energy", "train/energy_sample": "energy of samples", "train/rollbacks": "rollbacks"}
"""Figures of an iteration, and what they are called behind the bar."""


class TrainingBar:
    """A bar over iterations, with the figures of the last one."""

    def __init__(self, bar: tqdm) -> None:
        self._bar = bar

    def advance(self, loss: float, logged: Mapping[str, float]) -> None:
        """Count an iteration: its loss, and what was logged of it by name."""
        show_figures(self._bar, loss=loss, **{label: logged[name] for name, label in _SHOWN.items() if name in logged})
        self._bar.update()


@contextmanager
def training_bar(start: int, total: int) -> Iterator[TrainingBar]:
    """Show a bar from iteration ``start`` to ``total``, in the first of several processes."""
    bar = progress_bar(
        name="train", unit="iteration", total=total, shown=communication.is_main_process(), initial=start
    )
    with bar, log_above(bar):
        yield TrainingBar(bar)
