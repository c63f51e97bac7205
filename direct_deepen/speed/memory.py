"""Peak memory of one thing, in a process of its own: ``python -m direct_deepen.speed.memory KIND SETTING … RESULT``."""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from direct_deepen.errors import DeepenError, require
from direct_deepen.inference import mm_map
from direct_deepen.speed.setting import Setting, workload
from direct_deepen.speed.steps import chain
from direct_deepen.speed.updates import severed_update, unrolled_update

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_UPDATES = 2


def peak_memory_mb(kind: str, setting: Setting, *, configuration: Path | None = None, num_steps: int = 30) -> float:
    """Return the growth of the peak of memory, in MB, since model and data lie ready; in a new process.

    On a CPU it is the memory of the process that is resident, on a GPU what PyTorch's allocator has given away.

    Parameters
    ----------
    kind
        ``training``: updates of ``direct train`` with a configuration of DEEPEN and chains of ``num_steps`` steps;
        ``baseline``: the same with a configuration of another model; ``severed`` and ``unrolled``: an update
        without and with a graph through the chain; ``map``: the solver; ``sampling``: a chain.
    setting
        Sizes.
    configuration
        Of ``training`` and ``baseline``.
    num_steps
        Steps of the chains.

    Raises
    ------
    DeepenError
        Where the system does not tell peaks of memory (it has to be Linux), or the process fails.
    """
    require(_RESET.exists(), "memory is measured on Linux only: /proc/self/clear_refs is missing")
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result"
        arguments = [kind, json.dumps(asdict(setting)), str(configuration or ""), str(num_steps), str(result)]
        process = subprocess.run(
            [sys.executable, "-m", __name__, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        if not result.exists():
            raise DeepenError(f"memory of {kind}: {(process.stderr.strip().splitlines() or ['no result'])[-1]}")
        return float(result.read_text())


def _status_mb(key: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key))
    return float(line.split()[1]) / 1024


def _growth_mb(run: Callable[[], object], device: str) -> float:
    gc.collect()
    if device != "cpu":
        before = torch.cuda.memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(_UPDATES):
            run()
        return torch.cuda.max_memory_allocated(device) / 2**20 - before
    before = _status_mb("VmRSS")
    _RESET.write_text("5")  # the peak begins anew at what is resident
    for _ in range(_UPDATES):
        run()
    return _status_mb("VmHWM") - before


def _of_direct(kind: str, setting: Setting, configuration: Path, num_steps: int) -> float:
    # Imported here: the other kinds do without DIRECT.
    from direct_deepen.engines.base import all_cores
    from direct_deepen.speed.direct_runs import energy_changes, training_update, write_configuration, write_volume

    with tempfile.TemporaryDirectory() as scratch, all_cores(setting.device):
        folder = Path(scratch)
        write_volume(folder, setting, slices=1)
        changes = energy_changes(setting, num_steps) if kind == "training" else {}
        used = write_configuration(configuration, folder / "used.yaml", setting, changes)
        return _growth_mb(training_update(used, folder, setting), setting.device)


def _main(kind: str, setting: Setting, configuration: str, num_steps: int) -> float:
    if kind in ("training", "baseline"):
        return _of_direct(kind, setting, Path(configuration), num_steps)
    work = workload(setting)
    if kind == "severed":
        return _growth_mb(severed_update(work, num_steps), setting.device)
    if kind == "unrolled":
        return _growth_mb(unrolled_update(work, num_steps), setting.device)
    if kind == "map":
        return _growth_mb(
            lambda: mm_map(work.A, work.masked_kspace, work.energy, max_iterations=num_steps), setting.device
        )
    require(kind == "sampling", f"kind is {kind!r}; allowed: training, baseline, severed, unrolled, map, sampling")
    return _growth_mb(chain(work, num_steps), setting.device)


if __name__ == "__main__":
    _kind, _setting, _configuration, _num_steps, _result = sys.argv[1:]
    _grown = _main(_kind, Setting(**json.loads(_setting)), _configuration, int(_num_steps))
    Path(_result).write_text(str(_grown))
