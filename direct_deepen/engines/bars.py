"""The bars of DIRECT's commands: below its log, and above the bars of the solvers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from direct.utils import communication
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from direct_deepen.progress import progress_bar, show_metrics

_SHOWN = {"train/energy_true": "energy", "train/energy_sample": "energy of samples", "train/rollbacks": "rollbacks"}
"""What is logged of an iteration, and what it is called behind the bar."""


@contextmanager
def command_bar(name: str, unit: str, total: int | None, initial: int = 0) -> Iterator[tqdm]:
    """Show a bar in the first of several processes; what DIRECT logs meanwhile is written above it."""
    bar = progress_bar(name=name, unit=unit, total=total, shown=communication.is_main_process(), initial=initial)
    with bar, nullcontext() if bar.disable else logging_redirect_tqdm():
        yield bar


def advance_training(bar: tqdm, loss: float, logged: Mapping[str, float]) -> None:
    """Count an iteration: its loss, and what was logged of it by name."""
    show_metrics(bar, loss=loss, **{label: logged[name] for name, label in _SHOWN.items() if name in logged})
    bar.update()


@contextmanager
def batch_in_bar(bar: tqdm, volumes: Sequence[Path], names: Sequence[tuple[str, int]]) -> Iterator[None]:
    """Name a batch while it is reconstructed: file, and slice or first and last slice (DIRECT mixes no volumes)."""
    path, first, last = Path(names[0][0]), names[0][1] + 1, names[-1][1] + 1
    slices = f"slice {first}" if first == last else f"slices {first} to {last}"
    bar.set_postfix_str(f"volume {volumes.index(path) + 1} of {len(volumes)}: {path.stem}, {slices}")
    yield
    bar.update(len(names))
