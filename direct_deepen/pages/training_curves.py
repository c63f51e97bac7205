"""What DIRECT logged of a training: curves of the losses, of what the guard watches, and of validation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from direct_deepen.errors import require
from direct_deepen.pages.figure import blank_figure

LOG = "metrics.json"
_VALIDATION = "val/"
_SMALL_FIGURE = (5.2, 2.6)


@dataclass(frozen=True)
class Curve:
    """One figure over iterations.

    Attributes
    ----------
    iterations, values
        Where it was logged, and what.
    """

    iterations: tuple[int, ...]
    values: tuple[float, ...]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return the curves of a folder of ``direct train`` by the names that DIRECT logs them under.

    DIRECT repeats the last value of everything in every line: of validation, which is rare, only the lines that bring
    something new count.

    Raises
    ------
    DeepenError
        If the log cannot be read.
    """
    points: dict[str, dict[int, float]] = {}
    text = (folder / LOG).read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
            iteration = int(row["iteration"])
        except (ValueError, TypeError, KeyError) as error:
            # A training that was killed may leave half a line, which is the last of its run.
            require(not line.endswith("}"), f"{folder / LOG}: line {number} is no line of DIRECT's log: {error}")
            continue
        for name, value in row.items():
            found = points.setdefault(name, {})
            known = list(found.values())[-1:] == [value]
            if isinstance(value, int | float) and not (name.startswith(_VALIDATION) and known):
                found[iteration] = float(value)
    return {
        name: Curve(tuple(found), tuple(found.values()))
        for name, found in points.items()
        if name != "iteration" and found
    }


def plot_curves(curves: Mapping[str, Curve]) -> bytes:
    """Return a PNG of one figure of several runs, by their names."""
    figure = blank_figure(*_SMALL_FIGURE)
    axes = figure.subplots()
    for run, curve in curves.items():
        marker = "o" if _is_sparse(curve) else ""
        axes.plot(curve.iterations, curve.values, label=run, linewidth=1.2, marker=marker, markersize=4)
    axes.set_xlabel("iteration", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(fontsize=7)
    file = BytesIO()
    figure.savefig(file, dpi=130, format="png")
    return file.getvalue()


def _is_sparse(curve: Curve) -> bool:
    return len(curve.values) <= 20


TITLES = {
    "loss": "loss",
    "val/{}/fastmri_psnr_metric": "PSNR on {} (dB)",
    "val/{}/fastmri_ssim_metric": "SSIM on {}",
    "train/energy_gap": "energy gap E⁺ − E⁻",
    "train/largest_relative_gap": "largest relative gap so far",
    "train/curvature": "curvature along the chains",
    "train/step_size": "Langevin step τ",
    "train/chain_spread": "spread of chains of the same data (ε)",
    "train/rollbacks": "rollbacks of the guard",
    "lr": "learning rate",
}
"""What is shown, in this order, with its title; ``{}`` is the name of a validation set."""


def shown_curves(runs: Mapping[str, Mapping[str, Curve]]) -> list[tuple[str, dict[str, Curve]]]:
    """Return title and curves by run of every figure of :data:`TITLES` that any run has."""
    names = dict.fromkeys(name for curves in runs.values() for name in curves)
    result = []
    for pattern, title in TITLES.items():
        for name, dataset in _matching(pattern, list(names)):
            found = {run: curves[name] for run, curves in runs.items() if name in curves}
            result.append((title.format(dataset), found))
    return result


def _matching(pattern: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names of a pattern, each with what stands for ``{}``."""
    before, hole, after = pattern.partition("{}")
    if not hole:
        return [(pattern, "")] if pattern in names else []
    return [
        (name, name[len(before) : len(name) - len(after)])
        for name in names
        if name.startswith(before) and name.endswith(after)
    ]
