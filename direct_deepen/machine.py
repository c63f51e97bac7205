"""The cores and the memory of this process, on Linux and macOS."""

import os
import resource
import sys
from collections.abc import Iterable

_share: list[int] = []
"""The cores of :func:`use_cores`, where the system does not know them."""


def available_cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    # macOS binds no process to cores.
    return _share or list(range(getattr(os, "process_cpu_count", os.cpu_count)() or 1))


def use_cores(cores: Iterable[int]) -> None:
    """Bind this process to some of its cores; on systems that cannot, only :func:`available_cores` follows."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    else:
        _share[:] = sorted(cores)


def peak_memory_mb() -> float:
    """Return the most memory that was ever resident in this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # getrusage(2): kilobytes on Linux, bytes on macOS.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
