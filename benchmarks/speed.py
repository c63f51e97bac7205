"""How fast the inner loops are, and how much memory they take: ``python -m benchmarks.speed --json FILE``."""

import argparse
import importlib.metadata
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import direct_runs, steps
from benchmarks.memory import peak_memory_mb
from benchmarks.setting import Setting, workload
from direct_deepen.errors import DeepenError
from direct_deepen.files import write_text
from direct_deepen.machine import available_cores
from direct_deepen.priors.cpu.allocator import keep_freed_pages
from direct_deepen.progress import progress_bar

_DESCRIPTION = """\
Measure speed and memory as ratios: the gradient of the energy and the Langevin step over the convolutions alone, over
a first version and over deepinv (if installed); training memory over the number of steps, over backpropagation through
the chain and over DIRECT's VarNet; DIRECT's update and prediction over the solvers they run. Times are medians of
turns in one process, so that a machine that grows slower for a while does so for both sides; memory is the growth of
the peak in a fresh process each. Takes some minutes; leave the machine alone. The part `throughput`, for GPUs, is
measured where it is asked for: images a second in training by 100 steps, and seconds for 100 samples of 100 steps of
one slice. On fewer cores: taskset -c 0 python -m benchmarks.speed."""

_EPILOG = """\
examples:
  python -m benchmarks.speed --json speed.json
  python -m benchmarks.speed --json quick.json --parts steps --size 128 --repetitions 3
  python -m benchmarks.speed --json gpu.json --parts steps memory direct throughput --batch 4 --device cuda"""

BOUNDS = {
    "gradient_over_floor": 1.10,
    "langevin_step_over_floor": 1.30,
    "langevin_step_over_deepinv_ula": 0.65,
    "langevin_step_over_naive": 0.65,
    "memory_200_over_10_steps": 1.05,
    "memory_severed_over_unrolled": 0.10,
    "memory_over_varnet": 0.15,
    "update_over_steps": 1.10,
    "predict_over_solver": 1.15,
    "map_memory_mb": 2000.0,
    "sampling_memory_mb": 2000.0,
}
"""What the ratios are not to exceed, at the default setting on two cores."""

_EVALUATIONS = 4
"""In a turn: the first after another contender pays for memory that the system took back meanwhile."""
_MEMORY_RUNS = 3
"""Where the heap has room varies from process to process by more than the bound allows."""
_UPDATE_STEPS = 30
_DEEPINV_STEPS = 5
_UNROLLED_SIZE = 128
_THROUGHPUT_STEPS, _SAMPLES = 100, 100


@dataclass
class Measurements:
    """What was measured.

    Attributes
    ----------
    ratios
        By the keys of :data:`BOUNDS`, and some that have no bound.
    seconds
        Seconds of every turn by contender.
    memory_mb
        Peaks of memory.
    notes
        What could not be measured, and why.
    """

    ratios: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take_turns(self, contenders: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
        """Keep all times of contenders, and return their medians."""
        times = times_in_turns(contenders, repetitions)
        self.seconds |= times
        return {name: statistics.median(seconds) for name, seconds in times.items()}


def times_in_turns(contenders: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Run all contenders once to warm up, then one after another ``repetitions`` times, and return their seconds."""
    for contender in contenders.values():
        contender()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in progress_bar(range(repetitions), name=", ".join(contenders), unit="turn", total=repetitions):
        for name, contender in contenders.items():
            begin = _now()
            contender()
            times[name].append(_now() - begin)
    return times


def _now() -> float:
    """Seconds on a clock, once GPUs, which compute while Python goes on, have finished."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


# ---- The parts


def measure_steps(found: Measurements, setting: Setting) -> None:
    """Measure ∇E and the Langevin step against the floor, a first version and deepinv."""
    work = workload(setting)
    evaluations: dict[str, Callable[[], object]] = {
        "floor": steps.floor(work),
        "gradient": steps.gradient(work),
        "naive_step": steps.naive_step(work),
    }
    try:
        evaluations["gradient_bfloat16"] = steps.reduced_gradient(work)
    except DeepenError as error:
        found.notes.append(f"gradient_bfloat16_over_floor: {error}")
    contenders: dict[str, Callable[[], object]] = {
        name: partial(_several, evaluation) for name, evaluation in evaluations.items()
    }
    contenders["chain"] = steps.chain(work)
    if find_spec("deepinv"):
        contenders["deepinv_chain"] = steps.deepinv_chain(work, steps.plain_energy(work), _DEEPINV_STEPS)
        contenders["deepinv_chain_own_layers"] = steps.deepinv_chain(work, steps.own_energy(work), _DEEPINV_STEPS)
    else:
        found.notes.append("langevin_step_over_deepinv_ula: deepinv is not installed (the extra `peers`)")
    times = found.take_turns(contenders, setting.repetitions)
    times |= {name: times[name] / _EVALUATIONS for name in evaluations}
    step = times["chain"] / steps.CHAIN_STEPS
    for name in ("gradient", "gradient_bfloat16"):
        if name in times:
            found.ratios[f"{name}_over_floor"] = times[name] / times["floor"]
    found.ratios["langevin_step_over_floor"] = step / times["floor"]
    found.ratios["langevin_step_over_naive"] = step / times["naive_step"]
    for name in [name for name in times if name.startswith("deepinv_chain")]:
        key = name.replace("deepinv_chain", "langevin_step_over_deepinv_ula")
        found.ratios[key] = step / (times[name] / _DEEPINV_STEPS)


def _several(evaluation: Callable[[], object]) -> None:
    for _ in range(_EVALUATIONS):
        evaluation()


def measure_memory(found: Measurements, setting: Setting, configuration: Path, baseline: Path) -> None:
    """Measure peaks of memory, each in a process of its own."""
    small = replace(setting, size=min(setting.size, _UNROLLED_SIZE))
    with tempfile.TemporaryDirectory() as scratch:
        training = partial(direct_runs.training_update, folder=Path(scratch), setting=setting)
        runs: list[tuple[str, Callable[[], Callable[[], object]]]] = [
            *[("training_10_steps", partial(training, configuration, num_steps=10))] * _MEMORY_RUNS,
            *[("training_200_steps", partial(training, configuration, num_steps=200))] * _MEMORY_RUNS,
            ("baseline", partial(training, baseline)),
            ("severed_30_steps", partial(_on_workload, steps.severed_update, small, 30)),
            ("unrolled_30_steps", partial(_on_workload, steps.unrolled_update, small, 30)),
            ("map", partial(_on_workload, steps.solver, setting, 5)),
            ("sampling", partial(_on_workload, steps.chain, setting, 5)),
        ]
        peaks: dict[str, list[float]] = {}
        for name, prepare in progress_bar(runs, name="memory", unit="process", total=len(runs)):
            peaks.setdefault(name, []).append(peak_memory_mb(prepare, setting.device))
    peak = {name: statistics.median(values) for name, values in peaks.items()}
    found.memory_mb |= peak
    found.ratios |= {
        "memory_200_over_10_steps": peak["training_200_steps"] / peak["training_10_steps"],
        "memory_severed_over_unrolled": peak["severed_30_steps"] / peak["unrolled_30_steps"],
        "memory_over_varnet": peak["training_200_steps"] / peak["baseline"],
        "map_memory_mb": peak["map"],
        "sampling_memory_mb": peak["sampling"],
    }


def _on_workload(contender: Callable[..., Callable[[], object]], setting: Setting, num_steps: int) -> Any:
    return contender(workload(setting), num_steps)


def measure_direct(found: Measurements, setting: Setting, configuration: Path) -> None:
    """Measure DIRECT's training update and prediction against the solvers that they run."""
    work, turns = workload(setting), max(1, setting.repetitions // 3)
    with _scratch() as folder:
        contenders = {
            "update": direct_runs.training_update(configuration, folder, setting, _UPDATE_STEPS),
            "update_chain": steps.chain(work, _UPDATE_STEPS),
            "update_gradient": steps.gradient(work),
        }
        times = found.take_turns(contenders, turns)
        found.ratios["update_over_steps"] = times["update"] / (times["update_chain"] + 3 * times["update_gradient"])
        predict, solve = direct_runs.prediction(configuration, folder, setting)
        times = found.take_turns({"predict": predict, "solver": solve}, turns)
        found.ratios["predict_over_solver"] = times["predict"] / times["solver"]


def measure_throughput(found: Measurements, setting: Setting, configuration: Path) -> None:
    """Measure how many images a second training takes, and how long samples of one slice take; meant for a GPU."""
    work = workload(replace(setting, batch=1))
    with _scratch() as folder:
        contenders = {
            "update_100_steps": direct_runs.training_update(configuration, folder, setting, _THROUGHPUT_STEPS),
            "samples_100_of_100_steps": steps.chain(work, _THROUGHPUT_STEPS, num_samples=_SAMPLES),
        }
        times = found.take_turns(contenders, setting.repetitions)
    found.ratios["training_images_per_second"] = setting.batch / times["update_100_steps"]
    found.ratios["samples_100_of_100_steps_seconds"] = times["samples_100_of_100_steps"]


@contextmanager
def _scratch() -> Iterator[Path]:
    """Give DIRECT a folder for a while, in which it logs nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        logging.disable(before)


# ---- What is written


def table(found: Measurements) -> str:
    """Return ratios and bounds as a table of Markdown."""
    rows = ["| figure | measured | bound | |", "|---|---|---|---|"]
    for name, value in found.ratios.items():
        bound = BOUNDS.get(name, float("inf"))
        held = "holds" if value <= bound else f"missed by {100 * (value / bound - 1):.0f} %"
        rows.append(f"| `{name}` | {value:.3g} | " + (f"≤ {bound:.4g} | {held} |" if name in BOUNDS else "| |"))
    return "\n".join([*rows, *(f"\n{note}" for note in found.notes)])


def _machine() -> dict[str, Any]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    processor = next(names, platform.processor())
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"processor": processor, "threads": torch.get_num_threads(), "system": platform.platform(), "gpus": gpus}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("direct-deepen", "direct-recon", "torch", "numpy", "deepinv"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the file and print the table.

    Raises
    ------
    DeepenError
        If a size is out of range, or a configuration is missing.
    """
    parts = ("steps", "memory", "direct", "throughput")
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where to write all that is measured")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts[:3], help="what to measure")
    for size in fields(Setting):
        parser.add_argument(f"--{size.name}", type=type(size.default), default=size.default)
    parser.add_argument(
        "--pages",
        choices=("kept", "returned"),
        default="kept",
        help="freed memory: kept, as `direct train` and `direct predict` do, or returned, as by default",
    )
    parser.add_argument("--configuration", type=Path, default=Path("configs/deepen_2d4x.yaml"), help="of DEEPEN")
    parser.add_argument("--baseline", type=Path, default=Path("configs/varnet_2d4x.yaml"), help="of VarNet")
    args = parser.parse_args(arguments)
    torch.set_num_threads(len(available_cores()))
    if args.pages == "kept":
        keep_freed_pages()
    setting = Setting(**{size.name: getattr(args, size.name) for size in fields(Setting)})
    found = Measurements()
    if "steps" in args.parts:
        measure_steps(found, setting)
    if "memory" in args.parts:
        measure_memory(found, setting, args.configuration, args.baseline)
    if "direct" in args.parts:
        measure_direct(found, setting, args.configuration)
    if "throughput" in args.parts:
        measure_throughput(found, setting, args.configuration)
    written: dict[str, Any] = found.ratios | {"bounds": BOUNDS, "setting": asdict(setting), "seconds": found.seconds}
    written |= {"memory_mb": found.memory_mb, "notes": found.notes, "machine": _machine(), "versions": _versions()}
    write_text(args.json, json.dumps(written, indent=2) + "\n")
    print(table(found))
    print(f"wrote {args.json}")


if __name__ == "__main__":
    try:
        main()
    except DeepenError as error:
        sys.exit(f"benchmarks.speed: error: {error}")
