"""Figures of a calibration."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {CLEAN: "tab:blue", DATA_NOISE: "tab:orange", SAMPLE: "0.78"}
_WIDE = 4.0
"""Of the curves that others are to be compared with, and may lie upon."""


def plot_calibration(assessments: Sequence[Assessment], path: Path) -> None:
    """Draw what a calibration found, means over slices.

    Coverage against the nominal level, inside the object and on all pixels; error against standard deviation in bins,
    and the sparsification curves, both inside the object against the reference as it is.
    """
    figure = blank_figure(8.4, 7.6)
    (inside, everywhere), (reliability, sparse) = figure.subplots(2, 2).tolist()
    for axis, pixels, title in (
        (inside, OBJECT, "Coverage inside the object"),
        (everywhere, EVERYWHERE, "Coverage on all pixels"),
    ):
        _calibration_curves(axis, assessments, pixels)
        axis.set_title(title, fontsize=10)
    _reliability(reliability, assessments)
    _sparsification_curves(sparse, assessments)
    for axis in (inside, everywhere, reliability, sparse):
        axis.tick_params(labelsize=8)
        axis.grid(color="0.92", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    write_figure(figure, path)


def _calibration_curves(axis: "Axes", assessments: Sequence[Assessment], pixels: str) -> None:
    levels = [100 * level for level in LEVELS]
    axis.plot([0, 100], [0, 100], color="0.6", linewidth=1, linestyle=":", label="exact")
    for reference, stage, line, label in (
        (SAMPLE, BEFORE, "-", "own sample, before"),
        (CLEAN, BEFORE, "--", "reference, before"),
        (CLEAN, AFTER, "-", "reference, after"),
        (DATA_NOISE, BEFORE, "--", "reference + data noise, before"),
        (DATA_NOISE, AFTER, "-", "reference + data noise, after"),
    ):
        curve = mean_over(select(assessments, stage, reference, pixels), lambda item: item.curve)
        width = _WIDE if reference == SAMPLE else 1.5
        axis.plot(levels, 100 * curve, color=_COLOURS[reference], linestyle=line, linewidth=width, label=label)
    axis.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axis.set_xlabel("nominal level of the interval (%)", fontsize=9)
    axis.set_ylabel("pixels inside the interval (%)", fontsize=9)


def _reliability(axis: "Axes", assessments: Sequence[Assessment]) -> None:
    drawn = []
    for reference, stage, line, label in (
        (SAMPLE, BEFORE, "-", "own sample, before"),
        (CLEAN, BEFORE, "--", "reference, before"),
        (CLEAN, AFTER, "-", "reference, after"),
    ):
        chosen = select(assessments, stage, reference, OBJECT)
        spread = mean_over(chosen, lambda item: item.binned_spread).sqrt()
        error = mean_over(chosen, lambda item: item.binned_error).sqrt()
        drawn += [*spread.tolist(), *error.tolist()]
        width = _WIDE if reference == SAMPLE else 1.5
        axis.plot(
            spread, error, color=_COLOURS[reference], linestyle=line, linewidth=width, marker="o", markersize=3,
            label=label,
        )  # fmt: skip
    limits = (0.9 * min(drawn), 1.05 * max(drawn))
    axis.plot(limits, limits, color="0.6", linewidth=1, linestyle=":", label="exact")
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    axis.set_title("Error by standard deviation, inside the object", fontsize=10)
    axis.set_xlabel("standard deviation, in 10 bins (scaled intensity)", fontsize=9)
    axis.set_ylabel("root mean square error", fontsize=9)


def _sparsification_curves(axis: "Axes", assessments: Sequence[Assessment]) -> None:
    removed = [100 * share for share in REMOVED]
    clean = select(assessments, BEFORE, CLEAN, OBJECT)
    own = select(assessments, BEFORE, SAMPLE, OBJECT)
    axis.axhline(1.0, color="0.6", linewidth=1, linestyle=":", label="at random")
    for chosen, colour, name in (
        (own, _COLOURS[SAMPLE], "own sample"),
        (clean, _COLOURS[CLEAN], "reference"),
    ):
        curve = mean_over(chosen, lambda item: item.sparsification.by_std)
        width = _WIDE if chosen is own else 1.5
        axis.plot(removed, curve, color=colour, linewidth=width, label=f"{name}, by standard deviation")
    axis.plot(
        removed, mean_over(clean, lambda item: item.sparsification.oracle), color=_COLOURS[CLEAN], linestyle="--",
        label="reference, by the error itself",
    )  # fmt: skip
    axis.set(xlim=(0, 100), ylim=(0, None))
    axis.set_title("Sparsification, inside the object", fontsize=10)
    axis.set_xlabel("pixels left out, the most uncertain first (%)", fontsize=9)
    axis.set_ylabel("mean absolute error, over that of all", fontsize=9)
