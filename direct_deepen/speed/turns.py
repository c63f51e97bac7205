"""Times of several contenders, taken in turns."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from direct_deepen.progress import Track

Times = dict[str, list[float]]
"""Seconds of every turn by contender."""


def times_in_turns(contenders: Mapping[str, Callable[[], object]], repetitions: int, *, track: Track) -> Times:
    """Run all contenders once to warm up, then one after another ``repetitions`` times, and return their seconds."""
    for contender in contenders.values():
        contender()
    _finish()
    times: Times = {name: [] for name in contenders}
    for _ in track(range(repetitions), name=", ".join(contenders), unit="turn", total=repetitions):
        for name, contender in contenders.items():
            begin = time.perf_counter()
            contender()
            _finish()
            times[name].append(time.perf_counter() - begin)
    return times


def _finish() -> None:
    """Wait for GPUs, which compute while Python goes on."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def medians(times: Times) -> dict[str, float]:
    """Return the median of every contender."""
    return {name: statistics.median(seconds) for name, seconds in times.items()}
