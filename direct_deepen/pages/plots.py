"""Figures: reconstructions beside each other with their errors, and a posterior beside the error it predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.pages.drawing import blank_figure, draw_image, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from direct_deepen.evaluation.pictures import Picture

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
ZOOM = 3
"""Rows and columns of a zoom are this much less than those of the image."""


def plot_comparison(pictures: Sequence["Picture"], path: Path) -> None:
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
    write_figure(figure, path)


def plot_posterior(pictures: Sequence["Picture"], path: Path) -> None:
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
        bar.set_label("intensity, as in the file", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    write_figure(figure, path)


def plot_uncertainty(pictures: Sequence["Picture"], path: Path, *, methods: Sequence[str] = ()) -> None:
    """Draw, for every slice and every method with a posterior, its mean, the error and the standard deviation.

    Errors and deviations are all on one scale, so that overconfident pixels stand out. ``methods``
    chooses the columns; those without a posterior have images and errors only.
    """
    shown = [picture for picture in pictures if picture.std]
    require(len(shown) > 0, "nothing to plot: no posterior")
    methods = methods or list(shown[0].std)
    figure, axes = _grid(3 * len(shown), 1 + len(methods))
    for row, picture in enumerate(shown):
        top, middle, bottom = axes[3 * row : 3 * row + 3]
        peak = float(picture.reference.max())
        errors = {name: (picture.images[name] - picture.reference).abs() for name in methods}
        limit = float(torch.quantile(torch.stack([*errors.values(), *picture.std.values()]).flatten(), 0.995))
        _show(top[0], picture.reference, peak, "reference" if row == 0 else "")
        for axis, text in ((middle[0], "|error|"), (bottom[0], "standard\ndeviation")):
            axis.set_axis_off()
            axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)
        for column, name in enumerate(methods, start=1):
            title = TITLES.get(name, name.replace("_", " ")) if row == 0 else ""
            _show(top[column], picture.images[name], peak, title)
            _show(middle[column], errors[name], limit, "", "inferno")
            if name in picture.std:
                _show(bottom[column], picture.std[name], limit, "", "inferno")
            else:
                bottom[column].set_axis_off()
            top[column].set_xlabel(f"{quality(picture.images[name], picture.reference).psnr:.1f} dB", fontsize=8)
    write_figure(figure, path)


def _zoom(reference: torch.Tensor) -> tuple[slice, slice]:
    """Return the window, a third of the image wide, in which the reference changes most from pixel to pixel."""
    edges = torch.diff(reference, dim=0)[:, :-1].abs() + torch.diff(reference, dim=1)[:-1].abs()
    height, width = (max(1, size // ZOOM) for size in reference.shape)
    sums = torch.nn.functional.avg_pool2d(edges[None], (height, width), stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return slice(top, top + height), slice(left, left + width)


def _grid(rows: int, columns: int) -> tuple["Figure", list[list["Axes"]]]:
    figure = blank_figure(1.9 * columns, 2.0 * rows)
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _show(axis: "Axes", image: torch.Tensor, peak: float, title: str, colours: str = "gray") -> None:
    draw_image(axis, image.abs().numpy(), peak, colours)
    if title:
        axis.set_title(title, fontsize=9)
