"""Figures: reconstructions beside each other with their errors, and a posterior beside the error it predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from direct_deepen.calibration import LEVELS, REMOVED
from direct_deepen.calibration_study import (
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
from direct_deepen.errors import DeepenError, require
from direct_deepen.metrics import quality
from direct_deepen.scoring import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ERROR_GAIN = 10
TITLES = {
    "zero_filled": "zero-filled",
    "sense": "SENSE",
    "l1_wavelet": "L1-wavelet",
    "total_variation": "total variation",
    "varnet": "VarNet",
    "vsharp": "vSHARP",
    "deepen": "DEEPEN",
    "deepen_map": "DEEPEN MAP",
    "deepen_mmse": "DEEPEN MMSE",
    "muse": "MuSE",
    "pnp_ista": "PnP-ISTA",
    "mol": "MoL",
    "elder": "ELDER",
    "dps": "DPS",
    "alps": "ALPS",
}
_COLOURS = {CLEAN: "tab:blue", DATA_NOISE: "tab:orange", SAMPLE: "0.78"}
_WIDE = 4.0
"""Of the curves that others are to be compared with, and may lie upon."""
ZOOM = 3
"""Rows and columns of a zoom are this much less than those of the image."""


def plot_comparison(pictures: Sequence[Picture], path: Path) -> None:
    """Draw, for every slice, reference and methods, a zoom, and the errors, ten times brighter."""
    require(len(pictures) > 0, "nothing to plot: no slice")
    methods = list(pictures[0].images)
    figure, axes = _grid(3 * len(pictures), 1 + len(methods))
    for row, picture in enumerate(pictures):
        peak = float(picture.reference.max())
        top, middle, bottom = axes[3 * row : 3 * row + 3]
        zoom = _zoom(picture.reference)
        _show(top[0], picture.reference, peak, "reference" if row == 0 else "")
        _show(middle[0], picture.reference[zoom], peak, "")
        bottom[0].set_axis_off()
        bottom[0].text(0.5, 0.5, f"error ×{ERROR_GAIN}", ha="center", va="center", transform=bottom[0].transAxes)
        for column, method in enumerate(methods, start=1):
            image = picture.images[method]
            _show(top[column], image, peak, TITLES.get(method, method.replace("_", " ")) if row == 0 else "")
            _show(middle[column], image[zoom], peak, "")
            _show(bottom[column], ERROR_GAIN * (image - picture.reference).abs(), peak, "")
            score = quality(image, picture.reference)
            bottom[column].set_xlabel(f"{score.psnr:.1f} dB, {score.ssim:.3f}", fontsize=8)
    _save(figure, path)


def plot_posterior(pictures: Sequence[Picture], path: Path) -> None:
    """Draw, for every slice and posterior, reference, MAP, MMSE, and on one scale its error and standard deviation."""
    shown = [(picture, name, std) for picture in pictures for name, std in picture.std.items()]
    require(len(shown) > 0, "nothing to plot: no posterior")
    figure, axes = _grid(len(shown), 5)
    for row, (picture, name, std) in enumerate(shown):
        peak = float(picture.reference.max())
        mmse = picture.images[f"{name}_mmse"]
        error = (mmse - picture.reference).abs()
        limit = float(torch.quantile(torch.cat([error.flatten(), std.flatten()]), 0.995))
        columns = [
            (picture.reference, peak, "reference", "gray"),
            (picture.images[f"{name}_map"], peak, "MAP", "gray"),
            (mmse, peak, "posterior mean", "gray"),
            (error, limit, "|error| of the mean", "inferno"),
            (std, limit, "standard deviation", "inferno"),
        ]
        for axis, (image, high, title, colours) in zip(axes[row], columns, strict=True):
            _show(axis, image, high, title if row == 0 else "", colours)
        bar = figure.colorbar(axes[row][-1].images[0], ax=axes[row][-1], fraction=0.046)
        bar.ax.tick_params(labelsize=7)
    _save(figure, path)


def plot_calibration(assessments: Sequence[Assessment], path: Path) -> None:
    """Draw what a calibration found, means over slices.

    Coverage against the nominal level, inside the object and on all pixels; error against standard deviation in bins,
    and the sparsification curves, both inside the object against the reference as it is.
    """
    figure = _figure(8.4, 7.6)
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
    _save(figure, path)


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


def _zoom(reference: torch.Tensor) -> tuple[slice, slice]:
    """Return the window, a third of the image wide, in which the reference changes most from pixel to pixel."""
    edges = torch.diff(reference, dim=0)[:, :-1].abs() + torch.diff(reference, dim=1)[:-1].abs()
    height, width = (max(1, size // ZOOM) for size in reference.shape)
    sums = torch.nn.functional.avg_pool2d(edges[None], (height, width), stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return slice(top, top + height), slice(left, left + width)


def _grid(rows: int, columns: int) -> tuple["Figure", list[list["Axes"]]]:
    figure = _figure(1.9 * columns, 2.0 * rows)
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise DeepenError("figures need matplotlib: pip install 'direct-deepen[demo]'") from error
    # A Figure of its own, without pyplot: no display, no global state.
    return Figure(figsize=(width, height), layout="constrained")


def _show(axis: "Axes", image: torch.Tensor, peak: float, title: str, colours: str = "gray") -> None:
    axis.imshow(image.abs().numpy(), cmap=colours, vmin=0.0, vmax=peak, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title, fontsize=9)


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, dpi=150)
