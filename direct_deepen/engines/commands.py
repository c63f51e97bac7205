"""DIRECT's commands: their seed, all cores for them, bars below their log, and one line about bad input."""

import argparse
import inspect
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random  # noqa: TID251 - a generator of its own
from typing import Any

import torch
from direct.environment import Args
from direct.utils import communication
from omegaconf import OmegaConf
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from direct_deepen.data.fastmri_file import WITHOUT_POSTERIOR_FILES, volume_files
from direct_deepen.errors import DeepenError
from direct_deepen.machine import available_cores
from direct_deepen.priors.cpu.allocator import keep_freed_pages
from direct_deepen.progress import progress_bar, show_metrics

_COMMANDS = {("direct.train", "setup_train"): "train", ("direct.inference", "setup_inference_save_to_h5"): "predict"}
"""Module and name of the functions that are ``direct train`` and ``direct predict``, in spawned processes too."""

_INTERRUPTED = 130
"""The exit code that shells know Ctrl-C by."""

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
        torch.set_num_threads(max(1, len(available_cores()) // communication.get_world_size()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def command_arguments() -> Mapping[str, Any] | None:
    """Return what DIRECT's command that calls was given; None in a notebook, a test or another program."""
    return _calling()[1]


def within_command() -> bool:
    """Return whether a command of DIRECT calls, and not a notebook, a test or another program."""
    return calling_command() is not None


def calling_command() -> str | None:
    """Return the command of DIRECT that calls, ``train`` or ``predict``; None where none does."""
    return _calling()[0]


def _calling() -> tuple[str | None, Mapping[str, Any] | None]:
    frame = inspect.currentframe()
    while frame is not None:
        if name := _COMMANDS.get((str(frame.f_globals.get("__name__")), frame.f_code.co_name)):
            return name, frame.f_locals
        frame = frame.f_back
    return None, None


def leave_out_results(cfg: Any) -> None:
    """Before a command of DIRECT reads its folders: leave out posterior files, and tell in one line of what is none.

    DIRECT takes every ``.h5`` of a folder for a volume, unless it is given their names.
    """
    arguments = command_arguments() or {}
    for key, root in (("training", "training_root"), ("validation", "validation_root"), ("inference", "data_root")):
        section: Any = cfg.get(key) or {}
        folder = Path(arguments.get(root) or "")
        datasets: list[Any] = [section.get("dataset")] if key == "inference" else section.get("datasets")
        for dataset in (datasets or []) if arguments.get(root) and folder.is_dir() else []:
            given = (
                arguments.get("filenames_filter") or dataset.get("filenames_filter") or dataset.get("filenames_lists")
            )
            if dataset.get("name") != "FastMRI" or given:
                continue
            if len(volume_files(folder)) < len(list(folder.glob("*.h5"))):
                pattern = WITHOUT_POSTERIOR_FILES + (dataset.get("regex_filter") or "")
                OmegaConf.update(dataset, "regex_filter", pattern, force_add=True)


@contextmanager
def bad_input_told() -> Iterator[None]:
    """Where DIRECT calls: end a command of it on bad input, and raise :class:`DeepenError` elsewhere."""
    if within_command():
        with exit_on_bad_input():
            yield
        return
    try:
        yield
    except Exception as error:
        found = _bad_input_behind(error)
        if found is None or (found is error and _message(found) == str(error)):
            raise
        raise type(found)(_message(found)) from error


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turn a :class:`DeepenError`, also one that DIRECT wrapped, into one logged line and ``SystemExit(2)``."""
    try:
        yield
    except Exception as error:
        found = _bad_input_behind(error)
        if found is None:
            raise
        logger = logging.getLogger("direct_deepen")
        if logger.hasHandlers():
            logger.error(_message(found))
        else:
            print(f"direct-deepen: error: {_message(found)}", file=sys.stderr)
        raise SystemExit(2) from error


def _bad_input_behind(error: BaseException) -> DeepenError | None:
    """Return what began an exception, if that was bad input.

    DIRECT writes its logs when an iteration fails, and its printer fails in turn (division by zero) if that was the
    first: so any exception is searched.
    """
    found: BaseException | None = error
    while found is not None and not isinstance(found, DeepenError):
        found = found.__cause__ or found.__context__
    return found


def _message(error: DeepenError) -> str:
    """Return the line: a process that loads data hands over the text of the traceback, the end of which it is."""
    return str(error).rpartition(f"{DeepenError.__name__}: ")[2].strip()


def end_command_on_interrupt() -> None:
    """Let Ctrl-C end a command of DIRECT at once with one line and exit code 130; elsewhere leave it as it is.

    What is on disk then is whole, and is gone on from.
    """
    if not within_command():
        return
    process = os.getpid()

    def end(*_: object) -> None:
        # Of the processes that load data PyTorch expects this one, and says nothing of it.
        if os.getpid() != process:
            raise KeyboardInterrupt
        # Not through a log or a stream, which may be what was interrupted.
        os.write(2, b"\ndirect-deepen: interrupted; what was finished is on disk\n")
        raise SystemExit(_INTERRUPTED)

    signal.signal(signal.SIGINT, end)


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
    """Return ``--seed`` of the ``direct`` command that is this process, or spawned it; None where none is."""
    # Spawned processes have the arguments of the one that spawned them.
    program, name, *options = [*sys.argv, "", ""]
    is_direct = Path(program).stem == "direct" or Path(program).parts[-3:] == ("direct", "cli", "cli.py")
    if not is_direct or name not in ("train", "predict"):
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--seed", type=int, default=Args(add_help=False).get_default("seed"))
    try:
        return int(parser.parse_known_args(options)[0].seed)
    except argparse.ArgumentError:
        # DIRECT would not have begun.
        return None


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
