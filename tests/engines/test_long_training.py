"""A long training keeps its memory and its open files: neither grows with the number of updates."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import recorded
import tiny_direct


def resources():
    """Resident bytes and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))


def growth(values):
    """The slope of a line through values times their number, and its standard error from blocks of a tenth.

    Neighbours are alike, as an allocator keeps what it has: single values would make the error too small.
    """
    blocks = np.array([block.mean() for block in np.array_split(np.asarray(values, dtype=float), 10)])
    (slope, _), covariance = np.polyfit(np.arange(10), blocks, 1, cov=True)
    return 10 * slope, 10 * np.sqrt(covariance[0, 0])


@pytest.mark.parametrize("iterations", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_memory_and_open_files_of_a_training_are_flat(tmp_path, volumes, iterations):
    config = tiny_direct.persistent(tiny_direct.configuration(iterations=iterations, warm_start=3))
    config = tiny_direct.changed(
        tiny_direct.recorded(config),
        {"logging.log_interval": 20, "training.checkpointer.checkpoint_steps": iterations // 10},
    )
    # What is measured is not to grow by the measuring.
    found, count = np.zeros((iterations, 2), dtype=np.int64), iter(range(iterations))

    def note(_):
        gc.collect(0)
        found[next(count)] = resources()

    with recorded.listening(recorded.BEFORE_UPDATE, note):
        tiny_direct.direct_train(tmp_path, config, volumes)
    assert next(count, None) is None
    # Once everything has been done: chains of every slice, states of the guard, checkpoints.
    memory, files = found[iterations // 4 :].T
    slope, error = growth(memory)
    # Pages are 4 kB: less than 50 of them in all is no growth. DIRECT's log took 1.3 kB an update, 2e6 in all.
    assert slope - 3 * error < 2e5, (slope, error)
    assert files[-1] <= files[0]
    assert max(files) - min(files) <= 2
