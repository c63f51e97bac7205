"""The figure of a calibration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes

from direct_deepen.evaluation.calibration_study import (
    AFTER,
    BEFORE,
    BLOCKS,
    CLEAN,
    DATA_NOISE,
    EVERYWHERE,
    OBJECT,
    SAMPLE,
    Assessment,
    Rings,
    mean_over,
    ratios_by_ring,
    select,
)
from direct_deepen.pages.drawing import blank_figure, write_figure
from direct_deepen.posterior.calibration import LEVELS, REMOVED

_NAMES = {CLEAN: "reference", DATA_NOISE: "reference + data noise", SAMPLE: "own sample"}
_COLOURS = {CLEAN: "tab:blue", DATA_NOISE: "tab:orange", SAMPLE: "0.78"}
_KINDS = ((SAMPLE, BEFORE), (CLEAN, BEFORE), (CLEAN, AFTER), (DATA_NOISE, BEFORE), (DATA_NOISE, AFTER))
_LOOK: dict[Any, Any] = {
    "axes.titlesize": 10, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.grid": True,
    "grid.color": "0.92", "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.fontsize": 7, "legend.frameon": False,
}  # fmt: skip
_IDEAL: dict[str, Any] = {"color": "0.6", "linewidth": 1, "linestyle": ":"}


def plot_calibration(assessments: Sequence[Assessment], rings: Sequence[Rings], path: Path) -> None:
    """Draw what a calibration found, means over slices.

    Coverage against the nominal level, inside the object and on all pixels; coverage of 90 % intervals of means of
    blocks, and power of the error over that of samples by ring of k-space; error against standard deviation in bins,
    and the sparsification curves. The last four are inside the object, against the reference as it is.
    """
    with rc_context(_LOOK):
        figure = blank_figure(12.6, 7.6)
        (inside, blocks, reliability), (everywhere, by_ring, sparse) = figure.subplots(2, 3).tolist()
        _calibration_curves(inside, assessments, OBJECT, "Coverage inside the object")
        _calibration_curves(everywhere, assessments, EVERYWHERE, "Coverage on all pixels")
        _by_block(blocks, assessments)
        _by_ring(by_ring, rings)
        _reliability(reliability, assessments)
        _sparsification_curves(sparse, assessments)
        for axes in (inside, everywhere, blocks, by_ring, reliability, sparse):
            axes.legend()
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


def _calibration_curves(axes: Axes, assessments: Sequence[Assessment], pixels: str, title: str) -> None:
    axes.plot([0, 100], [0, 100], label="ideal", **_IDEAL)
    for reference, stage in _KINDS:
        curve = mean_over(select(assessments, stage, reference, pixels), lambda item: item.curve)
        axes.plot([100 * level for level in LEVELS], 100 * curve, **_style(reference, stage))
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", title=title)
    axes.set(xlabel="nominal level of the interval (%)", ylabel="pixels inside the interval (%)")


def _by_block(axes: Axes, assessments: Sequence[Assessment]) -> None:
    axes.axhline(90, label="ideal", **_IDEAL)
    level = LEVELS.index(0.9)
    for reference, stage in _KINDS[:3]:
        found = {name: select(assessments, stage, reference, name) for name in (OBJECT, *BLOCKS)}
        shares = {BLOCKS.get(name, 1): items for name, items in found.items() if items}
        covered = [100 * float(mean_over(items, lambda item: item.curve)[level]) for items in shares.values()]
        axes.plot(list(shares), covered, marker="o", markersize=3, **_style(reference, stage))
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, *BLOCKS.values()], labels=["pixel", *BLOCKS])
    axes.set(ylim=(0, 100), title="90 % intervals of means of blocks, inside the object")
    axes.set(xlabel="block", ylabel="blocks inside the interval (%)")


def _by_ring(axes: Axes, rings: Sequence[Rings]) -> None:
    axes.axhline(1.0, label="ideal", **_IDEAL)
    for stage in (BEFORE, AFTER):
        bounds, ratios = ratios_by_ring(rings, stage)
        axes.plot(ratios, marker="o", markersize=3, **_style(CLEAN, stage))
        axes.set_xticks(range(len(bounds)), labels=[f"{bound:.3g}" for bound in bounds])
    axes.set_yscale("log")
    axes.set(title="Power of the error over that of samples, by ring")
    axes.set(xlabel="outer radius, cycles over the field of view", ylabel="ratio; 1 is right")


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
    axes.set(xlim=limits, ylim=limits, aspect="equal", title="Error against standard deviation, inside the object")
    axes.set(xlabel="standard deviation, in 10 bins (scaled intensity)", ylabel="root mean square error")


def _sparsification_curves(axes: Axes, assessments: Sequence[Assessment]) -> None:
    removed = [100 * share for share in REMOVED]
    axes.axhline(1.0, label="random order", **_IDEAL)
    for reference in (SAMPLE, CLEAN):
        curve = mean_over(select(assessments, BEFORE, reference, OBJECT), lambda item: item.sparsification.by_std)
        axes.plot(removed, curve, **_style(reference, AFTER) | {"label": f"{_NAMES[reference]}, by standard deviation"})
    oracle = mean_over(select(assessments, BEFORE, CLEAN, OBJECT), lambda item: item.sparsification.oracle)
    axes.plot(removed, oracle, **_style(CLEAN, BEFORE) | {"label": "reference, by the error itself (oracle)"})
    axes.set(xlim=(0, 100), ylim=(0, None), title="Sparsification, inside the object")
    axes.set(xlabel="pixels removed, most uncertain first (%)", ylabel="mean absolute error, relative to all pixels")
