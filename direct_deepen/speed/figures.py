"""The figures of ``direct-deepen speed``: ratios, the bounds they are held to, and what they are made of."""

import logging
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from direct_deepen.progress import Track, progress_bar
from direct_deepen.speed import steps
from direct_deepen.speed.memory import peak_memory_mb
from direct_deepen.speed.setting import Setting, workload
from direct_deepen.speed.turns import Times, medians, times_in_turns

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
"""What the figures are not to exceed, at the default setting on two cores."""

_EVALUATIONS = 4
"""In a turn: the first after another contender pays for memory that the system took back meanwhile."""
_MEMORY_RUNS = 3
_UPDATE_STEPS = 30
_DEEPINV_STEPS = 5
_UNROLLED_SIZE = 128
_THROUGHPUT_STEPS, _SAMPLES = 100, 100


@dataclass
class Figures:
    """What was measured.

    Attributes
    ----------
    ratios
        Figures by the keys of :data:`BOUNDS`.
    seconds
        Seconds of every turn by contender.
    memory_mb
        Peaks of memory.
    notes
        What could not be measured, and why.
    """

    ratios: dict[str, float] = field(default_factory=dict)
    seconds: Times = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_times(self, times: Times) -> dict[str, float]:
        """Take times in and return their medians."""
        self.seconds |= times
        return medians(times)

    def as_dictionary(self, setting: Setting) -> dict[str, Any]:
        """Return ratios at the top, with what they are made of, the machine and the versions below them."""
        return {
            **self.ratios,
            "bounds": BOUNDS,
            "setting": asdict(setting),
            "seconds": self.seconds,
            "memory_mb": self.memory_mb,
            "notes": self.notes,
            "machine": _machine(),
            "versions": _versions(),
        }


def measure_steps(figures: Figures, setting: Setting, *, track: Track = progress_bar) -> None:
    """Measure ∇E and the Langevin step against the floor, a first version and deepinv."""
    work = workload(setting)
    evaluations: dict[str, Callable[[], object]] = {
        "floor": steps.floor(work),
        "gradient": steps.gradient(work),
        "naive_step": steps.naive_step(work),
        "gradient_bfloat16": steps.reduced_gradient(work),
    }
    contenders: dict[str, Callable[[], object]] = {
        name: partial(_several, evaluation) for name, evaluation in evaluations.items()
    }
    contenders["chain"] = steps.chain(work)
    if steps.has_deepinv():
        contenders["deepinv_chain"] = steps.deepinv_chain(work, steps.plain_energy(work), _DEEPINV_STEPS)
        contenders["deepinv_chain_own_layers"] = steps.deepinv_chain(work, steps.own_energy(work), _DEEPINV_STEPS)
    else:
        figures.notes.append("langevin_step_over_deepinv_ula: deepinv is not installed (the extra `peers`)")
    times = figures.add_times(times_in_turns(contenders, setting.repetitions, track=track))
    times |= {name: times[name] / _EVALUATIONS for name in evaluations}
    step = times["chain"] / steps.CHAIN_STEPS
    figures.ratios["gradient_over_floor"] = times["gradient"] / times["floor"]
    figures.ratios["gradient_bfloat16_over_floor"] = times["gradient_bfloat16"] / times["floor"]
    figures.ratios["langevin_step_over_floor"] = step / times["floor"]
    figures.ratios["langevin_step_over_naive"] = step / times["naive_step"]
    for name in [name for name in times if name.startswith("deepinv_chain")]:
        key = name.replace("deepinv_chain", "langevin_step_over_deepinv_ula")
        figures.ratios[key] = step / (times[name] / _DEEPINV_STEPS)


def measure_memory(
    figures: Figures, setting: Setting, configuration: Path, baseline: Path, *, track: Track = progress_bar
) -> None:
    """Measure peaks of memory, each in a process of its own."""
    small = replace(setting, size=min(setting.size, _UNROLLED_SIZE))
    train = partial(peak_memory_mb, "training", setting, configuration=configuration)
    runs: list[tuple[str, Callable[[], float]]] = [
        # Where the heap has room varies from process to process by more than the bound allows.
        *[("training_10_steps", partial(train, num_steps=10))] * _MEMORY_RUNS,
        *[("training_200_steps", partial(train, num_steps=200))] * _MEMORY_RUNS,
        ("baseline", partial(peak_memory_mb, "baseline", setting, configuration=baseline)),
        ("severed_30_steps", partial(peak_memory_mb, "severed", small)),
        ("unrolled_30_steps", partial(peak_memory_mb, "unrolled", small)),
        ("map", partial(peak_memory_mb, "map", setting, num_steps=5)),
        ("sampling", partial(peak_memory_mb, "sampling", setting, num_steps=5)),
    ]
    peaks: dict[str, list[float]] = {}
    for name, run in track(runs, name="memory", unit="process", total=len(runs)):
        peaks.setdefault(name, []).append(run())
    found = {name: statistics.median(values) for name, values in peaks.items()}
    figures.memory_mb |= found
    figures.ratios |= {
        "memory_200_over_10_steps": found["training_200_steps"] / found["training_10_steps"],
        "memory_severed_over_unrolled": found["severed_30_steps"] / found["unrolled_30_steps"],
        "memory_over_varnet": found["training_200_steps"] / found["baseline"],
        "map_memory_mb": found["map"],
        "sampling_memory_mb": found["sampling"],
    }


def measure_direct(figures: Figures, setting: Setting, configuration: Path, *, track: Track = progress_bar) -> None:
    """Measure DIRECT's training update and prediction against the solvers that they run."""
    from direct_deepen.engines.base import all_cores
    from direct_deepen.speed import direct_runs

    work = workload(setting)
    with tempfile.TemporaryDirectory() as scratch, all_cores(setting.device), _quiet():
        folder = Path(scratch)
        direct_runs.write_volume(folder, setting, direct_runs.PREDICTED_SLICES)
        changes = direct_runs.energy_changes(setting, _UPDATE_STEPS)
        used = direct_runs.write_configuration(configuration, folder / "train.yaml", setting, changes)
        turns = max(1, setting.repetitions // 3)
        times = figures.add_times(
            times_in_turns(
                {
                    "update": direct_runs.training_update(used, folder, setting),
                    "update_chain": steps.chain(work, _UPDATE_STEPS),
                    "update_gradient": steps.gradient(work),
                },
                turns,
                track=track,
            )
        )
        figures.ratios["update_over_steps"] = times["update"] / (times["update_chain"] + 3 * times["update_gradient"])
        few_steps = {"model.inference.max_iterations": direct_runs.MAP_ITERATIONS, "model.inference.tolerance": 1e-30}
        used = direct_runs.write_configuration(configuration, folder / "predict.yaml", setting, changes | few_steps)
        prediction = direct_runs.Prediction(used, folder, setting.device)
        times = figures.add_times(
            times_in_turns({"predict": prediction.direct, "solver": prediction.solver}, turns, track=track)
        )
        figures.ratios["predict_over_solver"] = times["predict"] / times["solver"]


def measure_throughput(figures: Figures, setting: Setting, configuration: Path, *, track: Track = progress_bar) -> None:
    """Measure how many images a second training takes, and how long samples of one slice take; meant for a GPU."""
    from direct_deepen.engines.base import all_cores
    from direct_deepen.speed import direct_runs

    work = workload(replace(setting, batch=1))
    with tempfile.TemporaryDirectory() as scratch, all_cores(setting.device), _quiet():
        folder = Path(scratch)
        direct_runs.write_volume(folder, setting, slices=1)
        changes = direct_runs.energy_changes(setting, _THROUGHPUT_STEPS)
        used = direct_runs.write_configuration(configuration, folder / "train.yaml", setting, changes)
        contenders = {
            "update_100_steps": direct_runs.training_update(used, folder, setting),
            "samples_100_of_100_steps": steps.chain(work, _THROUGHPUT_STEPS, num_samples=_SAMPLES),
        }
        times = figures.add_times(times_in_turns(contenders, setting.repetitions, track=track))
    figures.ratios["training_images_per_second"] = setting.batch / times["update_100_steps"]
    figures.ratios["samples_100_of_100_steps_seconds"] = times["samples_100_of_100_steps"]


def _several(evaluation: Callable[[], object]) -> None:
    for _ in range(_EVALUATIONS):
        evaluation()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what DIRECT logs of its runs to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def table(figures: Figures) -> str:
    """Return figures and bounds as a table of Markdown."""
    rows = ["| figure | measured | bound | |", "|---|---|---|---|"]
    for name, value in figures.ratios.items():
        bound = BOUNDS.get(name, float("inf"))
        held = "holds" if value <= bound else f"missed by {100 * (value / bound - 1):.0f} %"
        rows.append(f"| `{name}` | {value:.3g} | " + (f"≤ {bound:.4g} | {held} |" if name in BOUNDS else "| |"))
    return "\n".join([*rows, *(f"\n{note}" for note in figures.notes)])


def _machine() -> dict[str, Any]:
    name = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"processor": name, "threads": torch.get_num_threads(), "system": platform.platform(), "gpus": gpus}


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("direct-deepen", "direct-recon", "torch", "numpy", "deepinv"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
