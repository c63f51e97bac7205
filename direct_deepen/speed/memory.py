"""Peak memory of one thing, in a process of its own: ``python -m direct_deepen.speed.memory KIND SETTING …``."""

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
from direct_deepen.inference import langevin, mm_map
from direct_deepen.objectives import contrastive_loss
from direct_deepen.physics.noise import complex_normal_like
from direct_deepen.speed.setting import Setting, workload
from direct_deepen.speed.steps import NOISE_STD, STEP_SIZE, chain

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_UPDATES = 2


def peak_memory_mb(kind: str, setting: Setting, *, configuration: Path | None = None, num_steps: int = 30) -> float:
    """Return the growth of the peak of resident memory, in MB, since model and data lie ready; in a new process.

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
    arguments = [kind, json.dumps(asdict(setting)), str(configuration or ""), str(num_steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.run(
        [sys.executable, "-m", __name__, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    lines = process.stdout.strip().splitlines()
    if process.returncode != 0 or not lines:
        raise DeepenError(f"memory of {kind}: {(process.stderr.strip().splitlines() or ['no result'])[-1]}")
    return float(lines[-1])


def _status_mb(key: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(key))
    return float(line.split()[1]) / 1024


def _growth_mb(run: Callable[[], object]) -> float:
    gc.collect()
    before = _status_mb("VmRSS")
    _RESET.write_text("5")  # the peak begins anew at what is resident
    for _ in range(_UPDATES):
        run()
    return _status_mb("VmHWM") - before


def _of_direct(kind: str, setting: Setting, configuration: Path, num_steps: int) -> float:
    # Imported here: the other kinds do without DIRECT.
    from direct_deepen.engines.prior_engine import all_cores
    from direct_deepen.speed.direct_runs import energy_changes, training_update, write_configuration, write_volume

    with tempfile.TemporaryDirectory() as scratch, all_cores("cpu"):
        folder = Path(scratch)
        write_volume(folder, setting, slices=1)
        changes = energy_changes(setting, num_steps) if kind == "training" else {}
        used = write_configuration(configuration, folder / "used.yaml", setting, changes)
        return _growth_mb(training_update(used, folder, setting.batch))


def _update(setting: Setting, num_steps: int, *, severed: bool) -> float:
    work = workload(setting)
    optimizer = torch.optim.Adam(work.energy.parameters())
    generator = torch.Generator().manual_seed(0)
    data = work.A.adjoint(work.masked_kspace)

    def severed_samples() -> torch.Tensor:
        run = langevin(
            work.A, work.masked_kspace, work.energy, noise_std=NOISE_STD, step_size=STEP_SIZE, num_steps=num_steps,
            init=work.image, generator=generator,
        )  # fmt: skip
        return run.images[0]

    def unrolled_samples() -> torch.Tensor:
        x = work.image.clone().requires_grad_()
        for _ in range(num_steps):
            (prior_gradient,) = torch.autograd.grad(work.energy(x).sum(), x, create_graph=True)
            noise = complex_normal_like(x, generator=generator)
            x = x - STEP_SIZE * (work.A.normal(x) - data + prior_gradient) + NOISE_STD * STEP_SIZE**0.5 * noise
        return x

    def update() -> None:
        samples = severed_samples() if severed else unrolled_samples()
        contrastive_loss(work.energy(work.image), work.energy(samples)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return _growth_mb(update)


def _main(kind: str, setting: Setting, configuration: str, num_steps: int) -> float:
    if kind in ("training", "baseline"):
        return _of_direct(kind, setting, Path(configuration), num_steps)
    if kind in ("severed", "unrolled"):
        return _update(setting, num_steps, severed=kind == "severed")
    work = workload(setting)
    if kind == "map":
        return _growth_mb(lambda: mm_map(work.A, work.masked_kspace, work.energy, max_iterations=num_steps))
    require(kind == "sampling", f"kind is {kind!r}; allowed: training, baseline, severed, unrolled, map, sampling")
    return _growth_mb(chain(work, num_steps))


if __name__ == "__main__":
    print(_main(sys.argv[1], Setting(**json.loads(sys.argv[2])), sys.argv[3], int(sys.argv[4])))
