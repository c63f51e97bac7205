"""Reconstructions beside each other with their errors, and a posterior beside the error it predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure

from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.evaluation.pictures import Picture
from direct_deepen.pages.drawing import MOST_UNCERTAIN, blank_figure, brightness_limit, draw_image, write_figure

ERROR_GAIN = 10
TITLES = {
    "zero_filled": "zero-filled",
    "sense": "SENSE",
    "l1_wavelet": "L1-wavelet",
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


def plot_comparison(pictures: Sequence[Picture], path: Path) -> Figure:
    """Draw, for every slice, reference and methods, a zoom, and the errors, ten times brighter; return the figure."""
    require(len(pictures) > 0, "nothing to plot: no slice")
    rows = []
    for picture in pictures:
        reference, peak, zoom = picture.reference, float(picture.reference.max()), _zoom(picture.reference)
        shown = [reference, *picture.images.values()]
        errors = [Tile(note=f"error ×{ERROR_GAIN}")]
        for image in picture.images.values():
            score = quality(image, reference)
            error = ERROR_GAIN * (image - reference).abs()
            errors.append(Tile(error, peak, note=f"{score.psnr:.1f} dB, {score.ssim:.3f}"))
        rows += [[Tile(image, peak) for image in shown], [Tile(image[zoom], peak) for image in shown], errors]
    return write_figure(_draw(rows, ["reference", *map(_title, pictures[0].images)]), path)


def plot_posterior(pictures: Sequence[Picture], path: Path) -> Figure:
    """Draw, for every slice and posterior, reference, MAP, mean, and on one scale its error and standard deviation.

    Returns the figure.
    """
    rows = []
    for picture in pictures:
        reference, peak = picture.reference, float(picture.reference.max())
        for name, std in picture.std.items():
            mean = picture.images[f"{name}_mmse"]
            error = (mean - reference).abs()
            limit = brightness_limit([error, std], MOST_UNCERTAIN)
            images = [Tile(image, peak) for image in (reference, picture.images[f"{name}_map"], mean)]
            rows.append([*images, Tile(error, limit, "inferno"), Tile(std, limit, "inferno")])
    require(len(rows) > 0, "nothing to plot: no posterior")
    figure = _draw(rows, ["reference", "MAP", "posterior mean", "|error| of the mean", "standard deviation"])
    for axes in figure.axes[len(rows[0]) - 1 :: len(rows[0])]:
        bar = figure.colorbar(axes.images[0], ax=axes, fraction=0.046)
        bar.set_label("scaled intensity", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    return write_figure(figure, path)


def plot_uncertainty(pictures: Sequence[Picture], path: Path, *, methods: Sequence[str] = ()) -> Figure:
    """Draw, for every slice and every method with a posterior, its mean, the error and the standard deviation.

    Errors and deviations are all on one scale, so that overconfident pixels stand out. ``methods`` chooses the columns;
    those without a posterior have images and errors only. Returns the figure.
    """
    shown = [picture for picture in pictures if picture.std]
    require(len(shown) > 0, "nothing to plot: no posterior")
    methods = methods or list(shown[0].std)
    rows = []
    for picture in shown:
        reference, peak, std = picture.reference, float(picture.reference.max()), picture.std
        images = [picture.images[name] for name in methods]
        errors = [(image - reference).abs() for image in images]
        limit = brightness_limit([*errors, *std.values()], MOST_UNCERTAIN)
        means = [Tile(image, peak, note=f"{quality(image, reference).psnr:.1f} dB") for image in images]
        rows.append([Tile(reference, peak), *means])
        rows.append([Tile(note="|error|"), *(Tile(error, limit, "inferno") for error in errors)])
        deviations = [Tile(std[name], limit, "inferno") if name in std else Tile() for name in methods]
        rows.append([Tile(note="standard\ndeviation"), *deviations])
    return write_figure(_draw(rows, ["reference", *map(_title, methods)]), path)


class Tile(NamedTuple):
    """A place of a grid: a real image (row, column), brightest at ``limit``, with a note below, or the note alone."""

    image: torch.Tensor | None = None
    limit: float = 1.0
    colours: str = "gray"
    note: str = ""


def _draw(rows: Sequence[Sequence[Tile]], titles: Sequence[str]) -> Figure:
    """Return a figure with rows of tiles; ``titles`` head the columns."""
    figure = blank_figure(1.9 * len(titles), 2.0 * len(rows))
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    for axes, tile in zip(grid.flat, (tile for row in rows for tile in row), strict=True):
        if tile.image is None:
            axes.set_axis_off()
            axes.text(0.5, 0.5, tile.note, ha="center", va="center", transform=axes.transAxes)
        else:
            draw_image(axes, tile.image.numpy(), tile.limit, tile.colours)
            axes.set_xlabel(tile.note, fontsize=8)
    return figure


def _title(method: str) -> str:
    return TITLES.get(method, method.replace("_", " "))


def _zoom(reference: torch.Tensor) -> tuple[slice, slice]:
    """Return the window, a third of the image wide, in which the reference changes most from pixel to pixel."""
    edges = torch.diff(reference, dim=0)[:, :-1].abs() + torch.diff(reference, dim=1)[:-1].abs()
    height, width = (max(1, size // ZOOM) for size in reference.shape)
    sums = torch.nn.functional.avg_pool2d(edges[None], (height, width), stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return slice(top, top + height), slice(left, left + width)
