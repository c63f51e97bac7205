"""The bar of ``direct predict``: which slice of which volume, above the bars of the solvers and below DIRECT's log."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from direct.utils import communication
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from direct_deepen.progress import progress_bar


class PredictionBar:
    """A bar over slices, which says at which it is."""

    def __init__(self, bar: tqdm, volumes: Sequence[Path]) -> None:
        self._bar = bar
        self._volumes = volumes

    @contextmanager
    def batch(self, names: Sequence[tuple[str, int]]) -> Iterator[None]:
        """Name a batch while it is reconstructed: file, and slice or first and last slice (DIRECT mixes no volumes)."""
        path, first, last = Path(names[0][0]), names[0][1] + 1, names[-1][1] + 1
        which = f"{self._volumes.index(path) + 1} of {len(self._volumes)}"
        slices = f"slice {first}" if first == last else f"slices {first} to {last}"
        self._bar.set_postfix_str(f"volume {which}: {path.stem}, {slices}")
        yield
        self._bar.update(len(names))


@contextmanager
def prediction_bar(slices: Mapping[Path, int]) -> Iterator[PredictionBar]:
    """Show a bar over the slices of volumes, numbers by path; what DIRECT logs meanwhile is written above it.

    Of several processes the first shows its share, the size of which is not known.
    """
    total = sum(slices.values()) if communication.get_world_size() == 1 else None
    bar = progress_bar(name="predict", unit="slice", total=total, shown=communication.is_main_process())
    with bar, log_above(bar):
        yield PredictionBar(bar, list(slices))


def log_above(bar: tqdm) -> AbstractContextManager[None]:
    """Return a context in which what is logged is written above a bar, if that is shown."""
    return nullcontext() if bar.disable else logging_redirect_tqdm()
