"""Time of a training update against image size, steps, coils and batch: results/scaling.csv and scaling.png.

python -m projects.speed.scaling --output projects/speed/results
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.setting import Setting, workload
from benchmarks.speed import times_in_turns
from benchmarks.steps import floor, severed_update
from direct_deepen.evaluation.tables import write_csv
from direct_deepen.pages.drawing import blank_figure

STEPS = 20
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
AXES = {
    "size": (64, 96, 128, 192, 256, 320),
    "steps": (5, 10, 20, 50, 100, 200),
    "coils": (1, 4, 8, 12, 16, 32),
    "batch": (1, 2, 4, 8),
}
LABELS = {
    "size": "height and width (pixels)",
    "steps": "Langevin steps",
    "coils": "coils",
    "batch": "images of a batch",
}


def measure(setting: Setting) -> list[dict[str, float | str]]:
    """Return a row for every value on every axis: seconds of an update, and of its convolutions alone."""
    rows: list[dict[str, float | str]] = []
    for axis, values in AXES.items():
        for value in values:
            steps = value if axis == "steps" else STEPS
            here = setting if axis == "steps" else replace(setting, **{axis: value})
            work = workload(here)
            contenders = {"update": severed_update(work, steps), "floor": floor(work)}
            times = times_in_turns(contenders, setting.repetitions)
            update, convolutions = (statistics.median(times[name]) for name in ("update", "floor"))
            # A chain of K steps evaluates K + 1 gradients; the loss costs about as much as four more.
            rows.append({"axis": axis, "value": value, "seconds": update, "floor_seconds": (steps + 5) * convolutions})
            print(
                f"{axis:6} {value:4}  {update:8.3f} s, {update / ((steps + 5) * convolutions):.2f} of its convolutions"
            )
    return rows


def plot(rows: list[dict[str, float | str]], path: Path) -> None:
    """Draw a panel for every axis, all with the same seconds."""
    seconds = [float(row[key]) for row in rows for key in ("seconds", "floor_seconds")]
    figure = blank_figure(10, 7)
    for number, axis in enumerate(AXES, start=1):
        panel = figure.add_subplot(2, 2, number)
        part = [row for row in rows if row["axis"] == axis]
        values = [float(row["value"]) for row in part]
        panel.loglog(values, [float(row["seconds"]) for row in part], "o-", label="update")
        panel.loglog(values, [float(row["floor_seconds"]) for row in part], "k--", label="its convolutions alone")
        panel.set_xlabel(LABELS[axis])
        panel.set_ylabel("seconds an update")
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        panel.set_ylim(0.7 * min(seconds), 1.4 * max(seconds))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.axes[2].legend(loc="lower left")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, write the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("projects/speed/results"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = measure(Setting(size=arguments.size, channels=arguments.channels, repetitions=arguments.repetitions))
    write_csv(arguments.output / "scaling.csv", rows)
    plot(rows, arguments.output / "scaling.png")


if __name__ == "__main__":
    main()
