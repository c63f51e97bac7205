"""Peaks of memory, each in a process of its own."""

import gc
import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from direct_deepen.errors import require
from direct_deepen.machine import available_cores

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_REPETITIONS = 2


def peak_memory_mb(prepare: Callable[[], Callable[[], object]], device: str) -> float:
    """Return by how many MB the peak of memory grows once model and data lie ready; in a new process.

    On a CPU it is the memory of the process that is resident, on a GPU what PyTorch's allocator has given away.

    Parameters
    ----------
    prepare
        Makes model and data ready and returns what is to run; it is sent to the process.
    device
        Where it runs.

    Raises
    ------
    DeepenError
        Where the system does not tell peaks of memory: it has to be Linux.
    """
    require(_RESET.exists(), f"memory is measured on Linux only: {_RESET} is missing")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_growth_mb, prepare, device).result()


def _growth_mb(prepare: Callable[[], Callable[[], object]], device: str) -> float:
    logging.disable(logging.WARNING)
    torch.set_num_threads(len(available_cores()))
    run = prepare()
    gc.collect()
    if device == "cpu":
        before = _status_mb("VmRSS")
        _RESET.write_text("5")  # the peak begins anew at what is resident
    else:
        before = torch.cuda.memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(_REPETITIONS):
        run()
    return (_status_mb("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated(device) / 2**20) - before


def _status_mb(key: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key))
    return float(line.split()[1]) / 1024
