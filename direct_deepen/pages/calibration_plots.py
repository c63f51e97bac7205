"""The figure of a calibration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from direct_deepen.evaluation.calibration_study import (
    AFTER,
    BEFORE,
    CLEAN,
    DATA_NOISE,
    EVERYWHERE,
    OBJECT,
    SAMPLE,
    Assessment,
    mean_over,
    select,
)
from direct_deepen.pages.drawing import blank_figure, write_figure
from direct_deepen.posterior.calibration import LEVELS, REMOVED

_NAMES = {CLEAN: "reference", DATA_NOISE: "reference + data noise", SAMPLE: "own sample"}
_COLOURS = {CLEAN: "tab:blue", DATA_NOISE: "tab:orange", SAMPLE: "0.78"}
_KINDS = ((SAMPLE, BEFORE), (CLEAN, BEFORE), (CLEAN, AFTER), (DATA_NOISE, BEFORE), (DATA_NOISE, AFTER))
_IDEAL: dict[str, Any] = {"color": "0.6", "linewidth": 1, "linestyle": ":"}


def plot_calibration(assessments: Sequence[Assessment], path: Path) -> None:
    """Draw what a calibration found, means over slices.

    Coverage against the nominal level, inside the object and on all pixels; error against standard deviation in bins,
    and the sparsification curves, both inside the object against the reference as it is.
    """
    figure = blank_figure(8.4, 7.6)
    (inside, everywhere), (reliability, sparse) = figure.subplots(2, 2).tolist()
    _calibration_curves(inside, assessments, OBJECT)
    inside.set_title("Coverage inside the object", fontsize=10)
    _calibration_curves(everywhere, assessments, EVERYWHERE)
    everywhere.set_title("Coverage on all pixels", fontsize=10)
    _reliability(reliability, assessments)
    _sparsification_curves(sparse, assessments)
    for axes in (inside, everywhere, reliability, sparse):
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False)
    write_figure(figure, path)


def _style(reference: str, stage: str) -> dict[str, Any]:
    """Return line and label of a curve; wide where others may lie upon it, dashed where there is another one after."""
    own = reference == SAMPLE
    return {
        "color": _COLOURS[reference],
        "linestyle": "--" if stage == BEFORE and not own else "-",
        "linewidth": 4.0 if own else 1.5,
        "label": f"{_NAMES[reference]}, {stage}",
    }


def _calibration_curves(axes: Axes, assessments: Sequence[Assessment], pixels: str) -> None:
    axes.plot([0, 100], [0, 100], label="ideal", **_IDEAL)
    for reference, stage in _KINDS:
        curve = mean_over(select(assessments, stage, reference, pixels), lambda item: item.curve)
        axes.plot([100 * level for level in LEVELS], 100 * curve, **_style(reference, stage))
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axes.set_xlabel("nominal level of the interval (%)", fontsize=9)
    axes.set_ylabel("pixels inside the interval (%)", fontsize=9)


def _reliability(axes: Axes, assessments: Sequence[Assessment]) -> None:
    drawn = []
    for reference, stage in _KINDS[:3]:
        chosen = select(assessments, stage, reference, OBJECT)
        spread = mean_over(chosen, lambda item: item.binned_spread).sqrt()
        error = mean_over(chosen, lambda item: item.binned_error).sqrt()
        drawn += [*spread.tolist(), *error.tolist()]
        axes.plot(spread, error, marker="o", markersize=3, **_style(reference, stage))
    limits = (0.9 * min(drawn), 1.05 * max(drawn))
    axes.plot(limits, limits, label="ideal", **_IDEAL)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_title("Error against standard deviation, inside the object", fontsize=10)
    axes.set_xlabel("standard deviation, in 10 bins (scaled intensity)", fontsize=9)
    axes.set_ylabel("root mean square error", fontsize=9)


def _sparsification_curves(axes: Axes, assessments: Sequence[Assessment]) -> None:
    removed = [100 * share for share in REMOVED]
    axes.axhline(1.0, label="random order", **_IDEAL)
    for reference in (SAMPLE, CLEAN):
        curve = mean_over(select(assessments, BEFORE, reference, OBJECT), lambda item: item.sparsification.by_std)
        axes.plot(removed, curve, **_style(reference, AFTER) | {"label": f"{_NAMES[reference]}, by standard deviation"})
    oracle = mean_over(select(assessments, BEFORE, CLEAN, OBJECT), lambda item: item.sparsification.oracle)
    axes.plot(removed, oracle, **_style(CLEAN, BEFORE) | {"label": "reference, by the error itself (oracle)"})
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.set_title("Sparsification, inside the object", fontsize=10)
    axes.set_xlabel("pixels removed, most uncertain first (%)", fontsize=9)
    axes.set_ylabel("mean absolute error, relative to all pixels", fontsize=9)
