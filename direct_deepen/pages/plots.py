"""Reconstructions beside each other with their errors, and a posterior beside the error it predicts."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure

from direct_deepen.errors import require
from direct_deepen.evaluation.metrics import quality
from direct_deepen.pages.drawing import Tile, draw_tiles, write_figure

if TYPE_CHECKING:
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
MOST_UNCERTAIN = 0.995
"""The quantile of errors and standard deviations that is shown as the brightest."""
ZOOM = 3
"""Rows and columns of a zoom are this much less than those of the image."""


def plot_comparison(pictures: Sequence["Picture"], path: Path) -> Figure:
    """Draw, for every slice, reference and methods, a zoom, and the errors, ten times brighter; return the figure."""
    require(len(pictures) > 0, "nothing to plot: no slice")
    rows = []
    for picture in pictures:
        reference, peak, zoom = picture.reference, float(picture.reference.max()), _zoom(picture.reference)
        shown = [reference, *picture.images.values()]
        rows.append([_tile(image, peak) for image in shown])
        rows.append([_tile(image[zoom], peak) for image in shown])
        errors = [Tile(note=f"error ×{ERROR_GAIN}")]
        for image in picture.images.values():
            score = quality(image, reference)
            note = f"{score.psnr:.1f} dB, {score.ssim:.3f}"
            errors.append(_tile(ERROR_GAIN * (image - reference).abs(), peak, note=note))
        rows.append(errors)
    return _written(draw_tiles(rows, ["reference", *map(_title, pictures[0].images)]), path)


def plot_posterior(pictures: Sequence["Picture"], path: Path) -> Figure:
    """Draw, for every slice and posterior, reference, MAP, mean, and on one scale its error and standard deviation.

    Returns the figure.
    """
    shown = [(picture, name, std) for picture in pictures for name, std in picture.std.items()]
    require(len(shown) > 0, "nothing to plot: no posterior")
    rows = []
    for picture, name, std in shown:
        mean = picture.images[f"{name}_mmse"]
        error = (mean - picture.reference).abs()
        peak, limit = float(picture.reference.max()), _limit([error, std])
        images = (picture.reference, picture.images[f"{name}_map"], mean)
        rows.append(
            [*(_tile(image, peak) for image in images), *(_tile(map_, limit, "inferno") for map_ in (error, std))]
        )
    figure = draw_tiles(rows, ["reference", "MAP", "posterior mean", "|error| of the mean", "standard deviation"])
    for axes in figure.axes[len(rows[0]) - 1 :: len(rows[0])]:
        bar = figure.colorbar(axes.images[0], ax=axes, fraction=0.046)
        bar.set_label("scaled intensity", fontsize=7)
        bar.ax.tick_params(labelsize=7)
    return _written(figure, path)


def plot_uncertainty(pictures: Sequence["Picture"], path: Path, *, methods: Sequence[str] = ()) -> Figure:
    """Draw, for every slice and every method with a posterior, its mean, the error and the standard deviation.

    Errors and deviations are all on one scale, so that overconfident pixels stand out. ``methods`` chooses the columns;
    those without a posterior have images and errors only. Returns the figure.
    """
    shown = [picture for picture in pictures if picture.std]
    require(len(shown) > 0, "nothing to plot: no posterior")
    methods = methods or list(shown[0].std)
    rows = []
    for picture in shown:
        reference, peak = picture.reference, float(picture.reference.max())
        images = [picture.images[name] for name in methods]
        errors = [(image - reference).abs() for image in images]
        limit = _limit([*errors, *picture.std.values()])
        scores = [f"{quality(image, reference).psnr:.1f} dB" for image in images]
        means = [_tile(image, peak, note=score) for image, score in zip(images, scores, strict=True)]
        deviations = [_tile(picture.std[name], limit, "inferno") if name in picture.std else Tile() for name in methods]
        rows.append([_tile(reference, peak), *means])
        rows.append([Tile(note="|error|"), *(_tile(error, limit, "inferno") for error in errors)])
        rows.append([Tile(note="standard\ndeviation"), *deviations])
    return _written(draw_tiles(rows, ["reference", *map(_title, methods)]), path)


def _title(method: str) -> str:
    return TITLES.get(method, method.replace("_", " "))


def _tile(image: torch.Tensor, limit: float, colours: str = "gray", note: str = "") -> Tile:
    return Tile(image.numpy(), limit, colours, note)


def _limit(uncertainty: Iterable[torch.Tensor]) -> float:
    return float(torch.quantile(torch.cat([image.flatten() for image in uncertainty]), MOST_UNCERTAIN))


def _written(figure: Figure, path: Path) -> Figure:
    write_figure(figure, path)
    return figure


def _zoom(reference: torch.Tensor) -> tuple[slice, slice]:
    """Return the window, a third of the image wide, in which the reference changes most from pixel to pixel."""
    edges = torch.diff(reference, dim=0)[:, :-1].abs() + torch.diff(reference, dim=1)[:-1].abs()
    height, width = (max(1, size // ZOOM) for size in reference.shape)
    sums = torch.nn.functional.avg_pool2d(edges[None], (height, width), stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return slice(top, top + height), slice(left, left + width)
