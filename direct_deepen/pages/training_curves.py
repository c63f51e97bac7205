"""What DIRECT logged of a training: curves of the losses, of what the guard watches, and of validation."""

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

from direct_deepen.errors import require
from direct_deepen.files import read_text
from direct_deepen.pages.drawing import blank_figure, figure_file

LOG = "metrics.json"

TITLES = {
    "loss": "loss",
    "val/(.+)/fastmri_psnr_metric": "PSNR (volume maximum) on {} (dB)",
    "val/(.+)/fastmri_ssim_metric": "SSIM on {}",
    "train/energy_gap": "energy gap E⁺ − E⁻",
    "train/largest_relative_gap": "largest relative gap so far",
    "train/curvature": "curvature along the chains",
    "train/step_size": "Langevin step τ",
    "train/chain_spread": "spread of chains of the same data (ε)",
    "train/rollbacks": "rollbacks of the guard",
    "lr": "learning rate",
}
"""What is shown, in this order: a pattern of DIRECT's names, and the title; ``{}`` is the name of a validation set."""

type Curve = dict[int, float]
"""Values by iteration."""


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return the curves of a folder of ``direct train`` by the names that DIRECT logs them under.

    DIRECT repeats the last value of everything in every line: of validation, which is rare, only the lines that bring
    something new count.
    """
    curves: dict[str, Curve] = {}
    for number, line in enumerate(read_text(folder / LOG).splitlines(), start=1):
        try:
            row = json.loads(line)
            iteration = int(row.pop("iteration"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # A training that was killed may leave half a line, which is the last of its run.
            require(not line.endswith("}"), f"{folder / LOG}: line {number} is no line of DIRECT's log: {error}")
            continue
        for name, value in row.items():
            known = next(reversed(curves.get(name, {}).values()), None)
            if isinstance(value, int | float) and not (name.startswith("val/") and value == known):
                curves.setdefault(name, {})[iteration] = float(value)
    return curves


def shown_curves(runs: Mapping[str, Mapping[str, Curve]]) -> list[tuple[str, dict[str, Curve]]]:
    """Return title and curves by run for all of :data:`TITLES` that any run has."""
    names = dict.fromkeys(name for curves in runs.values() for name in curves)
    return [
        (title.format(*match.groups()), {run: curves[name] for run, curves in runs.items() if name in curves})
        for pattern, title in TITLES.items()
        for name in names
        if (match := re.fullmatch(pattern, name))
    ]


def curves_table(runs: Mapping[str, Mapping[str, Curve]]) -> str:
    """Return all curves as the text of a CSV file: a row for every iteration of a run, under DIRECT's names."""
    names = dict.fromkeys(name for curves in runs.values() for name in curves)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "iteration", *names])
    for run, curves in runs.items():
        for iteration in sorted({iteration for curve in curves.values() for iteration in curve}):
            writer.writerow([run, iteration, *(curves.get(name, {}).get(iteration, "") for name in names)])
    return text.getvalue()


def plot_curves(curves: Mapping[str, Curve]) -> bytes:
    """Return a PNG file of one curve of several runs, by their names."""
    figure = blank_figure(5.2, 2.6)
    axes = figure.subplots()
    for run, curve in curves.items():
        marker = "o" if len(curve) <= 20 else ""
        axes.plot(list(curve), list(curve.values()), label=run, linewidth=1.2, marker=marker, markersize=4)
    axes.set_xlabel("iteration", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=7)
    return figure_file(figure)
