"""DIRECT's commands: their seed, all cores for them, bars below their log, and one line about bad input."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random  # noqa: TID251 - a generator of its own

import torch
from direct.environment import Args
from direct.utils import communication
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from direct_deepen.errors import DeepenError
from direct_deepen.priors.cpu.allocator import keep_freed_pages
from direct_deepen.progress import progress_bar, show_metrics

_SHOWN = {"train/energy_true": "energy", "train/energy_sample": "energy of samples", "train/rollbacks": "rollbacks"}
"""What is logged of an iteration, and what it is called behind the bar."""


@contextmanager
def all_cores(device: str) -> Iterator[None]:
    """Give the solvers their cores back: DIRECT's command line sets one thread, which suits its transforms only.

    The allocator keeps freed memory from then on, see :func:`~direct_deepen.priors.cpu.allocator.keep_freed_pages`.
    """
    before = torch.get_num_threads()
    if str(device).startswith("cpu"):
        keep_freed_pages()
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // communication.get_world_size()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turn a :class:`DeepenError`, also one that DIRECT wrapped, into one logged line and ``SystemExit(2)``.

    DIRECT writes its logs when an iteration fails, and its printer fails in turn (division by zero) if that was the
    first: so any exception is searched for the one that began it.
    """
    try:
        yield
    except Exception as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, DeepenError):
            found = found.__cause__ or found.__context__
        if found is None:
            raise
        # A process that loads data hands over the text of the traceback as the message; its end is the message.
        message = str(found).rpartition(f"{DeepenError.__name__}: ")[2].strip()
        logger = logging.getLogger("direct_deepen")
        if logger.hasHandlers():
            logger.error(message)
        else:
            print(f"direct-deepen: error: {message}", file=sys.stderr)
        raise SystemExit(2) from error


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


def command_seed() -> int | None:
    """Return ``--seed`` of the ``direct`` command that runs in this process, or spawned it; None where none does."""
    # Spawned processes have the arguments of the one that spawned them.
    name, *options = [*sys.argv[1:], ""]
    if name not in ("train", "predict"):
        return None
    return int(Args(add_help=False).parse_known_args(options[:-1])[0].seed)


def torch_seed(seed: int) -> int:
    """Return what DIRECT's ``set_all_seeds(seed)`` seeds torch with."""
    return Random(seed).randint(1, 2**32)


def process_seed() -> int:
    """Return what torch is seeded with in this process; in one of several, what it is in the one that spawned them.

    DIRECT does not seed those that it spawns for GPUs.
    """
    seed = command_seed()
    return torch.initial_seed() if communication.get_world_size() == 1 or seed is None else torch_seed(seed)


def reported_seed(process_seed: int) -> int:
    """Return the seed that a file is to report: that of the command, if this is where ``process_seed`` is from."""
    seed = command_seed()
    return seed if seed is not None and torch_seed(seed) == process_seed else process_seed
